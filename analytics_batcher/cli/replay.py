"""`replay`: sends dead letters again, through a client made of the environment's settings."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..claim import folder_of
from ..replays import Replay
from . import PROG
from .plain_lines import counts, say, sigterm_as_interrupt, status_of, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..replays import ReplayResult

_DONE, _FAILED, _SOME_FAILED = 0, 1, 3
_DESCRIPTION = """\
Sends the messages of a file of dead letters again, with the ids and times they had, by the settings that
Client.from_env() reads. Those that fail again stay in the file. It may be interrupted and repeated. The exit status is
0 if nothing is left in the file, 3 if something failed again or could not be sent, 1 if it could not go on."""


def main(arguments: Sequence[str]) -> int:
    """Replay a file.

    Args:
        arguments: What follows the command's name.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog=f"{PROG} replay", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("path", metavar="PATH", help="the file that a client had as dead_letters")
    parser.add_argument(
        "--timeout", type=float, default=60.0, metavar="SECONDS", help="the most for a batch, repeats included (60)"
    )
    given = parser.parse_args(arguments)
    try:
        work = Replay(given.path, timeout=given.timeout)
        with sigterm_as_interrupt():
            return _run(work)
    except (OSError, ValueError) as error:
        say(f"error: {text_of(error)}")
        return _FAILED


def _run(work: Replay) -> int:
    try:
        result = work.run()
    except KeyboardInterrupt as interrupt:
        _report(work.path, work.result)
        say("interrupted")
        return status_of(interrupt)
    _report(work.path, result)
    if result.error is not None:
        say(f"error: {result.error}")
        return _FAILED
    return _DONE if result else _SOME_FAILED


def _report(path: Path, result: ReplayResult) -> None:
    say(f"found: {result.found}")
    say(f"delivered: {counts(result.delivered)}")
    if result.filtered:
        say(f"dropped by before_send: {result.filtered}")
    say(f"failed again: {counts(result.failed)}")
    say(f"not sent: {counts(result.unsent)}")
    say(f"left: {result.left}")
    if result.failed or result.unsent:
        say(f"what failed again or was not sent is in {path}")
    if result.left:
        say(f"what is left is in {folder_of(path)}; the next replay goes on with it")
