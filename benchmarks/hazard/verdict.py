"""How a cell is read from what was seen: one criterion per row, the same for every library."""

from __future__ import annotations

import base64
import re
import signal
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .libraries import PERSON, TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .server import Request

TOKENS = (TOKEN, base64.b64encode(f"{TOKEN}:".encode()).decode())


@dataclass(frozen=True)
class Cell:
    """What one library made of one row."""

    text: str
    fine: bool | None
    """`None`: the row does not apply to the library."""

    def __str__(self) -> str:
        return f"{'·' if self.fine is None else '✓' if self.fine else '✗'} {self.text}"


@dataclass
class Seen:
    """All that is known of one case when it is over.

    `facts` is what its process said; `ended` whether it ended by itself within `limit` seconds.
    """

    ended: bool
    limit: float
    facts: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    elsewhere: list[Request] = field(default_factory=list)
    log: str = ""
    status: int = 0
    """Its exit status, negative for a signal."""
    end: float = 0.0
    """When it ended."""
    seconds: float = 0.0
    """How long it took in all."""

    @property
    def exit_seconds(self) -> float:
        """From the last thing that the process said to its end."""
        return self.end - self.facts.get("moment", self.end)

    def arrivals(self) -> Counter[int]:
        """How often each index arrived for good."""
        return Counter(index for request in self.requests if request.taken for index in request.indexes)

    def hung(self) -> str:
        """What it hangs in, or ends by, as a cell says it."""
        stage = self.facts.get("stage", "start")
        if not self.ended:
            return f"{stage} hangs"
        if self.status < 0:
            return f"dies of {signal.Signals(-self.status).name} in {stage}"
        last = (self.log.strip().splitlines() or [""])[-1].partition(":")[0]
        return f"{stage} fails with {last}" if self.status else ""

    def failed(self) -> str:
        """What went wrong apart from the row's own matter: it hangs, or a call raised."""
        raised = self.facts.get("raised")
        return self.hung() or (f"track() raises {raised}" if raised else "")


def cell(fine: bool, *parts: str) -> Cell:
    """A cell of those parts that say something."""
    return Cell(", ".join(part for part in parts if part), fine)


def tally(seen: Seen, indexes: Iterable[int]) -> tuple[str, bool]:
    """How many of the events arrived, and whether each did exactly once."""
    wanted, arrived = list(indexes), seen.arrivals()
    there = sum(arrived[index] > 0 for index in wanted)
    again = sum(arrived[index] > 1 for index in wanted)
    most = max((arrived[index] for index in wanted), default=0)
    times = "twice" if most == 2 else f"up to {most} times"
    text = f"{there:,} of {len(wanted):,}"
    if again:
        text += f", {again:,} of them {times}"
    return text, there == len(wanted) and not again


def arrive(indexes: Iterable[int]) -> Callable[[Seen], Cell]:
    """Each event arrives exactly once, no call raises, and the process ends."""
    wanted = list(indexes)

    def judge(seen: Seen) -> Cell:
        text, fine = tally(seen, wanted)
        return cell(fine and not seen.failed(), text, seen.failed())

    return judge


def returns(within: float) -> Callable[[Seen], Cell]:
    """A call returns in time."""

    def judge(seen: Seen) -> Cell:
        if not seen.ended:
            return cell(False, f"{seen.facts.get('stage')} hangs (> {seen.limit:.0f} s)")
        if "seconds" not in seen.facts:
            return cell(False, "did not come that far")
        seconds = seen.facts["seconds"]
        complained = seen.facts.get("complained")
        return cell(seconds <= within, f"{seconds:.1f} s", f"raises {complained}" if complained else "")

    return judge


def ends(within: float) -> Callable[[Seen], Cell]:
    """The process ends in time."""

    def judge(seen: Seen) -> Cell:
        if not seen.ended:
            where = "exit" if seen.facts.get("stage") == "exit" else seen.facts.get("stage")
            return cell(False, f"{where} hangs (> {seen.limit:.0f} s)")
        fine = seen.facts.get("stage") == "exit" and seen.exit_seconds <= within
        return cell(fine, f"{seen.exit_seconds:.1f} s")

    return judge


def accounted(count: int) -> Callable[[Seen], Cell]:
    """At exit, what is not delivered is said: its number stands in the log.

    The number may include the last batch: the process cannot know whether what was in flight arrived.
    """

    def judge(seen: Seen) -> Cell:
        text, once = tally(seen, range(count))
        arrived = seen.arrivals()
        missing = sum(not arrived[index] for index in range(count))
        flying = len(seen.requests[-1].events) if seen.requests else 0
        said = any(missing <= int(number) <= missing + flying for number in re.findall(r"\d+", seen.log))
        if seen.ended and once:
            return cell(True, text)
        told = "the rest counted in the log" if said else f"{missing:,} silently lost" if missing else ""
        return cell(seen.ended and said and sum(arrived.values()) == count - missing, text, told, seen.hung())

    return judge


def grows(most: float) -> Callable[[Seen], Cell]:
    """The process grows by a bounded number of megabytes."""

    def judge(seen: Seen) -> Cell:
        grown = seen.facts.get("grown")
        text = f"+{grown:,.0f} MB" if grown is not None else ""
        return cell(grown is not None and grown <= most and not seen.hung(), text, seen.hung())

    return judge


def leaks(requests: Iterable[Request]) -> list[str]:
    """What of ours stands in requests."""
    found = []
    every = list(requests)
    if any(request.holds(token) for request in every for token in TOKENS):
        found.append("token")
    if any(request.holds(PERSON) or request.holds(PERSON.replace("@", "%40")) for request in every):
        found.append("data")
    return found
