"""When to try again: the schedule of waits, and what an answer's headers ask for."""

from __future__ import annotations

import _thread
import math
import time
from dataclasses import dataclass
from datetime import timezone
from random import SystemRandom
from typing import TYPE_CHECKING, Final, Protocol

from .settings import allowed, number

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

MAX_WAIT: Final = 300.0
"""The most seconds that a `Retry-After` is believed for."""

# Not `backoff.full_jitter`: it draws from the generator that the application may have seeded for its own ends. And this
# one needs no seed after a fork.
_chance: Final = SystemRandom()

_MEMORY_AGE: Final = 7_200.0
_DURABLE_AGE: Final = 259_200.0
# A reset above this is no duration but a moment in Unix seconds, as some vendors write it.
_MOMENT: Final = 1_000_000_000.0


@dataclass(frozen=True)
class Retry:
    """How a failed batch is tried again: exponential waits with full jitter, at the head of the line.

    Args:
        base: The first wait's bound in seconds; each further one doubles it.
        cap: The longest wait in seconds.
        jitter: `"full"` waits a random part of the bound, `"none"` the whole of it.
        max_age: The seconds after which a message that was not delivered is dropped as `expired`. `"auto"`: 7,200 for
            the memory buffer and 259,200 for a durable one. `None`: never.

    Raises:
        ValueError: If a setting is out of its range; it names the setting, the value and what is allowed.
    """

    base: float = 0.5
    cap: float = 60.0
    jitter: str = "full"
    max_age: float | str | None = "auto"

    def __post_init__(self) -> None:
        number("Retry.base", self.base, above=0)
        number("Retry.cap", self.cap, above=0)
        allowed("Retry.jitter", self.jitter, ("full", "none"))
        if isinstance(self.max_age, str):
            allowed("Retry.max_age", self.max_age, ("auto",))
        elif self.max_age is not None:
            number("Retry.max_age", self.max_age, above=0)

    def age(self, *, durable: bool) -> float:
        """The greatest age in seconds, infinite for `None`.

        Args:
            durable: Whether the buffer survives the process.
        """
        if self.max_age is None:
            return math.inf
        if isinstance(self.max_age, str):
            return _DURABLE_AGE if durable else _MEMORY_AGE
        return float(self.max_age)


class Schedule:
    """The waits between the attempts of one batch. Used by one thread at a time."""

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._waits: Generator[float | None, None, None] | None = None

    def reset(self) -> None:
        """Begin anew: the next failure is the first one."""
        self._waits = None

    def next(self) -> float:
        """The seconds to wait before the next attempt."""
        import backoff  # noqa: PLC0415 - 45 ms, loaded by the first client in its caller's thread

        if self._waits is None:
            self._waits = backoff.expo(base=2, factor=self._retry.base, max_value=self._retry.cap)
        bound = next(self._waits)
        while bound is None:  # the generators of backoff 2 begin with None, for their `send` protocol
            bound = next(self._waits)
        return _chance.uniform(0, bound) if self._retry.jitter == "full" else float(bound)


def asked_wait(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """The seconds that an answer asks us to wait, at most `MAX_WAIT`.

    `Retry-After` (RFC 9110: seconds or an HTTP date) comes before `RateLimit-Reset` and `X-RateLimit-Reset` (seconds,
    or a moment in Unix seconds).

    Args:
        headers: The answer's headers, names in lower case.
        now: Unix seconds; `None` reads the clock.

    Returns:
        The wait, or `None` if the answer asks for none that can be read, or for none at all.
    """
    moment = time.time() if now is None else now
    for name in ("retry-after", "ratelimit-reset", "x-ratelimit-reset"):
        text = headers.get(name)
        if text is None:
            continue
        wait = _seconds(text.strip(), moment)
        if wait is not None and wait > 0:
            return min(wait, MAX_WAIT)
    return None


def _seconds(text: str, now: float) -> float | None:
    try:
        value = float(text)
    except ValueError:
        from email.utils import parsedate_to_datetime  # noqa: PLC0415 - hardly any vendor sends a date

        try:
            moment = parsedate_to_datetime(text)
            # Of the three forms of an HTTP date, the one of asctime names no zone, and means UTC too.
            return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp() - now
        except (TypeError, ValueError, OverflowError, IndexError):
            return None
    if not math.isfinite(value):
        return None
    return value - now if value > _MOMENT else value


class Pacing(Protocol):
    """What a consumer asks before each request."""

    def reset(self) -> None:
        """In a forked child: begin anew."""

    def claim(self, now: float) -> float:
        """Claim the next request.

        Args:
            now: The monotonic clock.

        Returns:
            0 if it is yours; else the seconds after which to ask again.
        """


class Pace:
    """At most so many requests a second, evenly spaced, over all consumers of a client.

    Locking: `_free` is changed under `_lock`, in plain statements.

    Args:
        rate: Requests a second.
    """

    def __init__(self, rate: float) -> None:
        self._interval = 1.0 / rate
        self.reset()

    def reset(self) -> None:
        """In a forked child: begin anew."""
        self._lock = _thread.RLock()
        self._free = 0.0  # when the next request may go

    def claim(self, now: float) -> float:
        """Claim the next request.

        Returns:
            0 if it is yours; else the seconds after which to ask again.
        """
        interval = self._interval
        with self._lock:
            wait = self._free - now
            if wait <= 0.0:
                # Who comes a little late may make up for it, by one request at most: waits end late, never early.
                self._free = self._free + interval if -wait < interval else now + interval
        return max(wait, 0.0)
