"""What the commands share that need no extra: how they read their options."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from . import PROG

if TYPE_CHECKING:
    from collections.abc import Sequence


def parser_of(name: str, description: str, examples: Sequence[tuple[str, str]]) -> argparse.ArgumentParser:
    """A command's parser, with `--json` and `--debug`.

    Args:
        name: The command's.
        description: What it does, and what its exit status says.
        examples: Lines as they would be typed, after the command's name, each with what it does.
    """
    lines = [f"  # {what}\n  {PROG} {name} {line}".rstrip() for line, what in examples]
    parser = argparse.ArgumentParser(
        prog=f"{PROG} {name}",
        description=description,
        epilog="\n".join(["examples:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for machines")
    parser.add_argument("--debug", action="store_true", help="show where in the code an error arose")
    return parser
