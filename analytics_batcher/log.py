"""Logging under `analytics_batcher`: silent unless the application listens, damped."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

logger: Final = logging.getLogger("analytics_batcher")
logger.addHandler(logging.NullHandler())

_INTERVAL: Final = 10.0


class Damper:
    """Lets one log line through per reason in ten seconds, and says how much it held back.

    Used by one thread at a time: the consumer's, or the one that shuts down.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def count(self, reason: str, count: int = 1, *, now: bool = False) -> int:
        """Add `count` to what is to be said for `reason`.

        Args:
            reason: What the line is about.
            count: How many messages it concerns; 0 asks for what was held back.
            now: Whether to speak even if it is too early.

        Returns:
            The count to say now; 0 for silence.
        """
        total = self._held.pop(reason, 0) + count
        moment = self._clock()
        if total and (now or moment >= self._next.get(reason, moment)):
            self._next[reason] = moment + _INTERVAL
            return total
        if total:
            self._held[reason] = total
        return 0

    def held(self) -> tuple[str, ...]:
        """The reasons for which something was held back."""
        return tuple(self._held)
