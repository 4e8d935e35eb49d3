"""`replay`: sends dead letters again, through a client made of the environment's settings."""

from __future__ import annotations

import argparse
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from ..claim import folder_of
from ..replays import Replay
from ..text import printable
from . import PROG

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from ..replays import ReplayResult

_DONE, _FAILED, _SOME_FAILED = 0, 1, 3
_SIGNALLED: Final = 128
_DESCRIPTION: Final = """\
Sends the messages of a file of dead letters again, with the ids and times they had, by the settings that
Client.from_env() reads. Those that fail again stay in the file. It may be interrupted and repeated. The exit status is
0 if nothing is left in the file, 3 if something failed again or could not be sent, 1 if it could not go on."""


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


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
        with _sigterm_as_interrupt():
            return _run(work)
    except (OSError, ValueError) as error:
        _say(f"error: {_text_of(error)}")
        return _FAILED


def _run(work: Replay) -> int:
    try:
        result = work.run()
    except KeyboardInterrupt as interrupt:
        _report(work.path, work.result)
        _say("interrupted")
        return _SIGNALLED + (signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT)
    _report(work.path, result)
    if result.error is not None:
        _say(f"error: {result.error}")
        return _FAILED
    return _DONE if result else _SOME_FAILED


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """End as by Ctrl-C, with a word on what was done."""

    def stop(*_: object) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _report(path: Path, result: ReplayResult) -> None:
    _say(f"found: {result.found}")
    _say(f"delivered: {_counts(result.delivered)}")
    if result.filtered:
        _say(f"dropped by before_send: {result.filtered}")
    _say(f"failed again: {_counts(result.failed)}")
    _say(f"not sent: {_counts(result.unsent)}")
    _say(f"left: {result.left}")
    if result.failed or result.unsent:
        _say(f"what failed again or was not sent is in {path}")
    if result.left:
        _say(f"what is left is in {folder_of(path)}; the next replay goes on with it")


def _counts(counts: Mapping[str, int]) -> str:
    each = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return f"{sum(counts.values())} ({each})" if each else "0"


def _text_of(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}{f': {error.filename}' if error.filename else ''}"
    return str(error)


def _say(line: str) -> None:
    print(printable(line, limit=1_000), file=sys.stdout, flush=True)  # noqa: T201 - a command speaks
