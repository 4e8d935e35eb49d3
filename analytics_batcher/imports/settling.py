"""Waiting until everything that was put is settled, and reported."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from .problems import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..stats import Drop, Stats
    from .connecting import Connected

_TURN: Final = 0.25
_GRACE: Final = 3.0
"""Seconds that a stop leaves to what is in flight."""
_REPORT_SECONDS: Final = 10.0
_DENIED: Final = ("HTTP 401", "HTTP 403")
_DENIED_SECONDS: Final = 5.0
_QUIET: Final = 1.0
"""Seconds without progress from which on it is said what is waited for."""


class Fate(NamedTuple):
    """Why a message that had been accepted was dropped, and by whom."""

    reason: str
    detail: str
    destination: str


class Settling:
    """Waits for a client's messages, and hears which of them were dropped.

    Locking: `_changed` guards `_told`, `_unnamed` and `_fates`: the consumers write them, the import reads. `_stop_by`
    is set once, perhaps in a signal handler.

    Args:
        patience: Seconds without any progress after which to give up.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._changed = threading.Condition()
        self._told = 0
        self._unnamed = 0
        self._fates: dict[str, Fate] = {}
        self._stop_by: float | None = None
        self.id_field = "messageId"
        self.retries = 0

    def use(self, link: Connected) -> None:
        """Wait for the messages of this client, of which nobody else makes any."""
        self._client = link.client
        self.id_field = link.id_field

    def hear(self, drop: Drop) -> None:
        """The client's `on_drop`."""
        with self._changed:
            self._told += drop.count
            self._unnamed += drop.count - len(drop.messages)
            for message in drop.messages:
                own_id = message.get("messageId", message.get(self.id_field))
                self._fates[str(own_id)] = Fate(str(drop.reason), drop.detail, drop.destination)
            self._changed.notify_all()

    def stop(self) -> None:
        """Give what is in flight some seconds, and no more."""
        if self._stop_by is None:
            self._stop_by = time.monotonic() + _GRACE

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._stop_by is not None

    def settle(self, tell: Callable[[int, str], object]) -> dict[str, Fate]:
        """Wait until nothing is pending.

        Args:
            tell: Is told how many messages are pending, and what is waited for, a few times a second.

        Returns:
            Why messages were dropped since the last time, by their ids.

        Raises:
            Stopped: If nothing goes on, or it was asked to end.
        """
        last, quiet_since = None, time.monotonic()
        while True:
            self._client.flush(_TURN)
            stats, now = self._client.stats(), time.monotonic()
            self.retries = stats.retries
            if not stats.pending:
                return self._heard(stats)
            if stats.pending != last:
                last, quiet_since = stats.pending, now
            quiet = now - quiet_since
            tell(stats.pending, f"{stats.last_error or 'an answer'} ({quiet:.0f} s)" if quiet >= _QUIET else "")
            self._check_patience(stats, now, quiet)

    def _check_patience(self, stats: Stats, now: float, quiet: float) -> None:
        if self._stop_by is not None and now >= self._stop_by:
            raise Stopped("it was asked to end")
        error = stats.last_error or "there was no answer"
        denied = any(word in error for word in _DENIED)
        patience = min(self._patience, _DENIED_SECONDS) if denied else self._patience
        if quiet >= patience:
            raise Stopped(f"nothing went on for {quiet:.0f} s; the last error: {error}")

    def _heard(self, stats: Stats) -> dict[str, Fate]:
        """What the consumers tell of: they settle first, and tell then."""
        dropped = sum(stats.dropped.values())
        with self._changed:
            if not self._changed.wait_for(lambda: self._told >= dropped, _REPORT_SECONDS):
                raise Stopped("the client did not say in time what became of all rows")
            if self._unnamed:
                raise Stopped(f"the client did not say which {self._unnamed} rows were refused")
            fates, self._fates = self._fates, {}
        return fates
