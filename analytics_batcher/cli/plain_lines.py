"""What commands share that do a long work, and say in plain lines what came of it."""

from __future__ import annotations

import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NoReturn

from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SIGNALLED: Final = 128


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """End as by Ctrl-C, with a word on what was done."""

    def stop(*_: object) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def status_of(interrupt: KeyboardInterrupt) -> int:
    """The exit status of a command that was interrupted."""
    return _SIGNALLED + (signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT)


def counts(each: Mapping[str, int]) -> str:
    """A sum, and what it is made of."""
    parts = ", ".join(f"{name} {count}" for name, count in sorted(each.items()))
    return f"{sum(each.values())} ({parts})" if parts else "0"


def text_of(error: Exception) -> str:
    """An error in a line."""
    if isinstance(error, OSError):
        return f"{error.strerror or type(error).__name__}{f': {error.filename}' if error.filename else ''}"
    return str(error)


def say(line: str) -> None:
    """Print a line."""
    print(printable(line, limit=1_000), file=sys.stdout, flush=True)  # noqa: T201 - a command speaks
