"""How far a long work is: its figures, its rate, and the time that is left."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

_WINDOW: Final = 15.0
"""Seconds over which the rate is taken: a pause shows soon, and a chunk that was slow makes it no other number."""
_LINE_SECONDS: Final = 5.0


class _Sample(NamedTuple):
    at: float
    done: int


class Progress:
    """What a command tells of its work, about once a second or oftener, in one thread; another may read it.

    Mutable: all fields, each replaced as a whole, by the thread that works.

    Args:
        title: What is done.
        total: How many there are; `None` if that is not known.
        start: How many were done before.
        unit: What is counted.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        *,
        start: int = 0,
        unit: str = "rows",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.title = title
        self.total = total
        self.unit = unit
        self.done = start
        self.refused = 0
        self.retries = 0
        self.waiting = ""
        self._clock = clock
        self._samples = deque([_Sample(clock(), start)])

    def update(
        self,
        *,
        done: int | None = None,
        refused: int | None = None,
        retries: int | None = None,
        waiting: str = "",
        total: int | None = None,
    ) -> None:
        """Say how far it is; every figure is that since the beginning, and what is not given stays.

        Args:
            done: How many are through, refused ones too.
            refused: How many of them were refused.
            retries: How many requests were made again.
            waiting: What it is waiting for; empty: for nothing.
            total: How many there are, if that became known.
        """
        self.waiting = waiting
        self.refused = self.refused if refused is None else refused
        self.retries = self.retries if retries is None else retries
        self.total = self.total if total is None else total
        if done is not None:
            self.done = done
        self._remember(_Sample(self._clock(), self.done))
        self._told()

    def _told(self) -> None:
        """For one that shows itself."""

    def _remember(self, sample: _Sample) -> None:
        # A twentieth of the window apart, so that they stay few however often it is told.
        if len(self._samples) < 2 or sample.at - self._samples[-1].at >= _WINDOW / 20:  # noqa: PLR2004 - the first
            samples = self._samples.copy()
            samples.append(sample)
            while len(samples) > 2 and sample.at - samples[1].at > _WINDOW:  # noqa: PLR2004 - two make a rate
                samples.popleft()
            self._samples = samples

    @property
    def rate(self) -> float:
        """How many a second, of late."""
        first = self._samples[0]
        seconds = self._clock() - first.at
        return max(self.done - first.done, 0) / seconds if seconds > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """How long it will take at this rate; `None` if nobody knows."""
        rate = self.rate
        if self.total is None or not rate:
            return None
        return max(self.total - self.done, 0) / rate

    @property
    def share(self) -> float | None:
        """What part of it is done; `None` if nobody knows."""
        return None if self.total is None else min(self.done / self.total, 1.0) if self.total else 1.0

    @property
    def left(self) -> str:
        """How long it will take, in words; empty if nobody knows."""
        seconds = self.seconds_left
        return "" if seconds is None or self.done == self.total else f"{clock_time(seconds)} left"

    @property
    def figures(self) -> list[str]:
        """The figures in words."""
        of = "" if self.total is None else f" of {self.total:,}"
        counts = [f"{self.refused:,} refused", f"{self.retries:,} retries"]
        return [f"{self.done:,}{of} {self.unit}", f"{_rounded(self.rate)}/s", *counts]


class PlainProgress(Progress):
    """Progress as a line every few seconds, and a last one if there were any.

    Args:
        title: As for `Progress`.
        total: As for `Progress`.
        start: As for `Progress`.
        unit: As for `Progress`.
        say: Prints a line.
        clock: As for `Progress`.
    """

    def __init__(
        self,
        title: str,
        total: int | None,
        *,
        say: Callable[[str], None],
        start: int = 0,
        unit: str = "rows",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(title, total, start=start, unit=unit, clock=clock)
        self._say = say
        self._said: float | None = None
        self._due = clock() + _LINE_SECONDS

    def _told(self) -> None:
        if self._clock() >= self._due:
            self._tell()

    def close(self) -> None:
        """Say where it ended, if something was said before."""
        if self._said is not None and self._said != self.done:
            self._tell()

    def _tell(self) -> None:
        self._said, self._due = self.done, self._clock() + _LINE_SECONDS
        share = "" if self.share is None else f" ({self.share:.0%})"
        first, *others = self.figures
        last = [self.left, self.waiting and f"waiting: {self.waiting}"]
        self._say(f"{self.title}: {', '.join([first + share, *others, *filter(None, last)])}")


def clock_time(seconds: float) -> str:
    """Seconds as a clock shows them."""
    minutes, rest = divmod(round(min(seconds, 359_999_999)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _rounded(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 or not rate else f"{rate:.1f}"  # noqa: PLR2004 - where a decimal says something
