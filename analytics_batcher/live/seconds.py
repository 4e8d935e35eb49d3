"""What the charts show: figures of each of the last sixty seconds."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from .rows import Facts

KEPT: Final = 60


class Seconds:
    """Figures by the second. Its caller guards it.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # The number of the second; requests, messages, bytes of bodies, answers, milliseconds until them, repeats.
        self._kept: deque[list[float]] = deque(maxlen=KEPT + 1)

    def count(self, facts: Facts, repeats: int) -> None:
        """Count a request.

        Args:
            facts: The request's.
            repeats: How many of its messages had come before.
        """
        second = int(self._clock())
        if not self._kept or self._kept[-1][0] != second:
            self._kept.append([second, 0, 0, 0, 0, 0.0, 0])
        now = self._kept[-1]
        answered = 0 if facts.seconds is None else 1
        for at, value in enumerate((1, facts.messages, facts.size, answered, 1000 * (facts.seconds or 0), repeats), 1):
            now[at] += value

    def figures(self) -> dict[str, list[float]]:
        """The figures of the last whole seconds, oldest first, a list for each chart.

        `messages`, `bytes` (of bodies) and `repeats` in each second; `fill` (messages) and `answer` (milliseconds) of a
        request in it, on average.
        """
        ended = int(self._clock())
        by_second = {kept[0]: kept for kept in self._kept}
        columns = [by_second.get(second, [0] * 7) for second in range(ended - KEPT, ended)]
        return {
            "messages": [one[2] for one in columns],
            "fill": [_ratio(one[2], one[1]) for one in columns],
            "bytes": [one[3] for one in columns],
            "answer": [_ratio(one[5], one[4]) for one in columns],
            "repeats": [one[6] for one in columns],
        }

    def clear(self) -> None:
        """Forget them."""
        self._kept.clear()


def _ratio(sum_: float, count: float) -> float:
    return round(sum_ / count, 2) if count else 0
