"""The command line: finds the command's module, and loads no other."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple

from ..version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

PROG: Final = "python -m analytics_batcher"


class _Command(NamedTuple):
    """A command; `module` is the one here whose `main(arguments)` returns the exit status."""

    module: str
    summary: str


_COMMANDS: Final = {
    "demo": _Command("demo", "run the main job against a local receiver, and check what came of it"),
    "drain": _Command("drain", "deliver what dead processes have left in a SqliteBuffer's file"),
    "relay": _Command("relay", "deliver what producers have put into a stream of Redis, together with other relays"),
    "replay": _Command("replay", "send dead letters again"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        arguments: The command's name and what follows it; `None`: those of this process.

    Returns:
        The exit status: the command's own, or 2 without a command.

    Raises:
        SystemExit: For `--help`, `--version`, and with status 2 for an unknown command or option.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = _parser()
    if not given:
        parser.print_help(sys.stderr)
        return 2
    # What follows the name is the command's own to read, so that no other command need be loaded.
    name: str = parser.parse_args(given[:1]).command
    status: int = import_module(f".{_COMMANDS[name].module}", __name__).main(given[1:])
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROG, description="Batches analytics calls and delivers them.", allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=f"analytics-batcher {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, command in _COMMANDS.items():
        commands.add_parser(name, help=command.summary, add_help=False)
    return parser
