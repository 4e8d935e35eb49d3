"""`drain`: delivers what dead processes have left in a spool, by the settings of the environment."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..spools import Drain, spool_status
from . import PROG
from .plain_lines import counts, say, sigterm_as_interrupt, status_of, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..spools import DrainResult

_DONE, _FAILED, _SOME_DROPPED = 0, 1, 3
_DESCRIPTION = """\
Delivers what processes that are gone have left in the file of a SqliteBuffer, oldest first, with unchanged ids, by the
settings that Client.from_env() reads. It may be interrupted and repeated. The exit status is 0 if all was delivered, 3
if nothing is left but something was dropped, 1 if something is left or it could not go on."""


def main(arguments: Sequence[str]) -> int:
    """Drain a file, or say what is in it.

    Args:
        arguments: What follows the command's name.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog=f"{PROG} drain", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("path", metavar="PATH", help="the file that clients had as SqliteBuffer(path)")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="the most to take (no limit)")
    parser.add_argument("--max-age", type=float, metavar="SECONDS", help="give up what is older (never)")
    parser.add_argument("--status", action="store_true", help="only say what waits, and take nothing")
    given = parser.parse_args(arguments)
    try:
        if given.status:
            return _status(given.path)
        with sigterm_as_interrupt():
            return _run(Drain(given.path, timeout=given.timeout, max_age=given.max_age))
    except (OSError, ValueError) as error:
        say(f"error: {text_of(error)}")
        return _FAILED


def _run(work: Drain) -> int:
    try:
        result = work.run()
    except KeyboardInterrupt as interrupt:
        _report(work.result)
        say("interrupted")
        return status_of(interrupt)
    _report(result)
    if result.left:
        return _FAILED
    return _DONE if result else _SOME_DROPPED


def _report(result: DrainResult) -> None:
    say(f"found: {result.found}")
    say(f"delivered: {result.delivered}")
    say(f"dropped: {counts(result.dropped)}")
    say(f"left: {result.left}")
    if result.left and result.error is not None:
        say(f"last error: {result.error}")


def _status(path: str) -> int:
    total = 0
    for one in spool_status(path):
        total += one.messages
        age = "unknown" if one.oldest_age is None else f"{one.oldest_age:.0f} s"
        say(f"{one.destination}: {one.messages} waiting, {one.owned} of processes that live, the oldest for {age}")
    say(f"waiting: {total}")
    return _DONE
