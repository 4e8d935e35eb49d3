"""Delivers what waits in the file of a durable buffer, without an application; and says what waits there."""

from __future__ import annotations

import errno
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .buffers.sqlite import SqliteBuffer
from .client import Client
from .retry import Retry
from .settings import number
from .stamp import unix_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .destinations import Destination

_TURN: Final = 1.0
_PATIENCE: Final = 120.0
"""Seconds without any progress after which a drain ends: the vendor is down, or refuses the requests themselves."""


@dataclass(frozen=True)
class DrainResult:
    """What a drain came to: `found == delivered + sum(dropped) + left`. Truthy: nothing is left or was dropped.

    Attributes:
        found: Messages that were taken over.
        delivered: Those that the vendors took.
        dropped: Those that were given up, by reason.
        left: Those that are still in the file.
        error: What went wrong last, or `None`.
    """

    found: int = 0
    delivered: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    left: int = 0
    error: str | None = None

    def __bool__(self) -> bool:
        return not self.left and not sum(self.dropped.values())


@dataclass(frozen=True)
class Waiting:
    """What waits for one destination in the file of a durable buffer.

    Attributes:
        destination: Its name.
        messages: How many.
        owned: How many of them are those of processes that live, and will be sent by these.
        oldest_age: Seconds since the oldest one was accepted, by the wall clock; `None` if that cannot be read.
    """

    destination: str
    messages: int
    owned: int
    oldest_age: float | None


class Drain:
    """One drain, whose result can be read although it was interrupted.

    Args:
        path: As for `drain`.
        destination: As for `drain`.
        timeout: As for `drain`.
        max_age: As for `drain`.
        options: As for `drain`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        destination: Destination | Sequence[Destination] | None = None,
        *,
        timeout: float | None = None,
        max_age: float | None = None,
        **options: Any,
    ) -> None:
        self.path = _existing(path)
        self._timeout = None if timeout is None else number("timeout", timeout, at_least=0)
        self._destination = destination
        retry = Retry(max_age=max_age)
        # Without a thread: Ctrl-C then interrupts what it waits for.
        self._options = {"retry": retry, **options, "buffer": SqliteBuffer(self.path), "background": False}
        self._client: Client | None = None

    @property
    def result(self) -> DrainResult:
        """What it came to so far."""
        if self._client is None:
            return DrainResult()
        stats = self._client.stats()
        return DrainResult(
            found=stats.recovered - stats.handed_over,
            delivered=stats.delivered,
            dropped=dict(stats.dropped),
            left=stats.pending,
            error=stats.last_error,
        )

    @property
    def retries(self) -> int:
        """The requests that repeated messages of an earlier one."""
        return 0 if self._client is None else self._client.stats().retries

    def run(self, hear: Callable[[], object] = lambda: None) -> DrainResult:
        """Deliver what dead processes have left, until nothing is left, or nothing goes on, or the time is over.

        Args:
            hear: Called about once a second; `result` then says how far it is.

        Raises:
            ValueError: As for `drain`.
        """
        if self._destination is None:
            self._client = Client.from_env(**self._options)
        else:
            self._client = Client(self._destination, **self._options)
        try:
            end = math.inf if self._timeout is None else time.monotonic() + self._timeout
            self._flush(self._client, end, hear)
        finally:
            self._client.shutdown(0)  # which keeps the rest
        return self.result

    @staticmethod
    def _flush(client: Client, end: float, hear: Callable[[], object]) -> None:
        left, deadline = client.stats().pending, time.monotonic() + _PATIENCE
        hear()
        while left and (now := time.monotonic()) < min(end, deadline):
            client.flush(min(end - now, _TURN))
            hear()
            pending = client.stats().pending
            if pending < left:
                left, deadline = pending, time.monotonic() + _PATIENCE


def drain(
    path: str | os.PathLike[str],
    destination: Destination | Sequence[Destination] | None = None,
    *,
    timeout: float | None = None,
    max_age: float | None = None,
    **options: Any,
) -> DrainResult:
    """Deliver what processes that are gone have left in the file of a `SqliteBuffer`; oldest first, ids unchanged.

    What processes that live have put there is theirs to send, and what the file holds for other destinations stays. It
    may be interrupted and repeated.

    Args:
        path: The file.
        destination: As for `Client`; `None`: that of the environment, as `Client.from_env` reads it.
        timeout: The most seconds to take; `None`: until nothing is left, or nothing went on for two minutes.
        max_age: Seconds after which a message is given up as `expired`; `None`: never.
        options: Options of the client, but for `buffer` and `background`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a setting is wrong, or the file is not a spool.
    """
    return Drain(path, destination, timeout=timeout, max_age=max_age, **options).run()


def spool_status(path: str | os.PathLike[str]) -> list[Waiting]:
    """Say what waits in the file of a `SqliteBuffer`, and take nothing.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read now.
        ValueError: If it is not a spool.
    """
    from .buffers.owners import Estate  # noqa: PLC0415 - of a system with file locks
    from .buffers.spool_disk import Trouble  # noqa: PLC0415 - it loads SQLite
    from .buffers.spool_file import SpoolFile  # noqa: PLC0415 - as above

    own = _existing(path)
    file = SpoolFile(str(own), synchronous="normal", max_bytes=2**62)
    try:
        found = file.overview()
    except Trouble as trouble:
        raise OSError(errno.EIO, str(trouble), str(own)) from None
    finally:
        file.close()
    dead: dict[str, bool] = {}
    for _, keeper, _, _ in found:
        if keeper not in dead:
            estate = Estate(file.path, keeper)
            dead[keeper] = estate.is_free
            estate.close(forget=False)
    now = time.time()
    waiting = []
    for name in sorted({destination for destination, _, _, _ in found}):
        own_ones = [(keeper, count, first) for destination, keeper, count, first in found if destination == name]
        moments = [unix_seconds(first) for _, _, first in own_ones if first]
        waiting.append(
            Waiting(
                name,
                sum(count for _, count, _ in own_ones),
                sum(count for keeper, count, _ in own_ones if not dead[keeper]),
                max(now - min(moments), 0.0) if moments else None,
            )
        )
    return waiting


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(SqliteBuffer(path).path).absolute()
    if not file.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    return file
