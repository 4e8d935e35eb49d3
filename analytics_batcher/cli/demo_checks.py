"""The demo's checks: what a run came to, and whether that is what was to come of it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .. import FlushResult, Stats
    from ..receiver import Request
    from .demo_vendors import Vendor
    from .demo_world import World

# The share of a limit of bytes that a full batch exceeds: a message that does not fit waits for the next one.
_FULL: Final = 0.76


@dataclass(frozen=True)
class Side:
    """What a run came to at one vendor.

    Attributes:
        vendor: The vendor.
        stats: The client's figures for it, after the flush.
        requests: What the receiver was sent for it.
        stored: Messages that the receiver stored, repeats included.
        unique: Messages that the receiver stored, repeats apart.
    """

    vendor: Vendor
    stats: Stats
    requests: tuple[Request, ...]
    stored: int
    unique: int

    @property
    def fullest(self) -> int:
        """Messages in the fullest request."""
        return max((len(request.messages) for request in self.requests), default=0)

    @property
    def largest(self) -> int:
        """Bytes of the largest body."""
        return max((request.size for request in self.requests), default=0)

    @property
    def objections(self) -> int:
        """Faults and warnings in all requests."""
        return sum(len(request.faults) + len(request.warnings) for request in self.requests)

    def failed(self) -> Counter[str]:
        """The requests that had no success to read, by what happened to them."""
        failed: Counter[str] = Counter()
        for request in self.requests:
            if request.status is None:
                failed["lost answers" if request.stored else "resets"] += 1
            elif request.status // 100 != 2:  # noqa: PLR2004 - the class of success
                failed[f"times {request.status}"] += 1
        return failed


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        url: Where the receiver listened.
        nanoseconds: How long each call took, the timer's own cost included.
        accepted: Calls that returned `True`.
        call_seconds: From the first call to the last one's return.
        flush_seconds: How long the flush took after that.
        flushed: What the flush returned.
        sides: What it came to at each vendor.
    """

    url: str
    nanoseconds: Sequence[int]
    accepted: int
    call_seconds: float
    flush_seconds: float
    flushed: FlushResult
    sides: tuple[Side, ...]


class Check(NamedTuple):
    """A claim, and whether it holds."""

    holds: bool
    claim: str


def check_calls(world: World, outcome: Outcome) -> list[Check]:
    """Check what concerns the calls and the flush.

    Args:
        world: The calls that were made.
        outcome: What came of them.
    """
    forms = [side.vendor.form for side in outcome.sides]
    formed = sum(any(form(call) is not None for form in forms) for calls in world for call in calls)
    others = sum(map(len, world)) - formed
    claim = f"all {formed:,} calls were accepted" + (f", the {others:,} without a form refused" if others else "")
    return [
        Check(outcome.accepted == formed, claim),
        Check(bool(outcome.flushed) and not outcome.flushed.timed_out, "flush() was true, and within its time"),
    ]


def check_side(side: Side, found: Comparison) -> list[Check]:
    """Check what concerns one vendor.

    Args:
        side: What came to it.
        found: How that compares with what was tracked.
    """
    stats, received, failed = side.stats, len(side.requests), side.failed().total()
    dropped = sum(stats.dropped.values())
    held = stats.delivered + dropped + stats.pending + stats.handed_over
    sums = f"{stats.delivered:,} delivered + {dropped:,} dropped + {stats.pending:,} pending"
    made_again = f"{received:,} requests received = {stats.batches:,} batches delivered + {failed:,} that failed"
    return [
        Check(stats.tracked + stats.recovered == held, f"conservation: {stats.tracked:,} tracked = {sums}"),
        Check(stats.tracked == found.calls, f"all {found.calls:,} calls were counted"),
        _drops(stats, found.unsupported),
        Check(not stats.pending, "nothing is pending"),
        Check(side.unique == stats.delivered, "the receiver stored as many as the client calls delivered"),
        Check(found.in_order, "what arrived is what was tracked, in each thread's order"),
        _repeats(side, found),
        Check(received == stats.requests == stats.batches + failed, f"{made_again} and were made again"),
        _filled(side, found),
        Check(not side.objections, "the receiver found no fault, and nothing to warn of, in any request"),
    ]


def _drops(stats: Stats, unsupported: int) -> Check:
    claim = "nothing was dropped" + (f" but the {unsupported:,} that are unsupported" if unsupported else "")
    return Check(dict(stats.dropped) == ({"unsupported": unsupported} if unsupported else {}), claim)


def _repeats(side: Side, found: Comparison) -> Check:
    repeats = side.stored - side.unique
    # Only a lost answer makes a repeat: one more than these is a duplicate.
    due = sum(len(request.messages) for request in side.requests if request.stored and request.status is None)
    claim = f"{repeats:,} messages came again, as the same bytes" if due or repeats else "no message came twice"
    return Check(not found.altered and repeats == due, claim)


def _filled(side: Side, found: Comparison) -> Check:
    limits, most = side.vendor.limits, f"{side.fullest:,} messages, {side.largest:,} bytes"
    if found.unique < 2 * limits.messages and found.unique_bytes < 2 * limits.bytes:
        return Check(holds=True, claim=f"batches have up to {most}: there was too little to fill one")
    full = side.fullest == limits.messages or side.largest > _FULL * limits.bytes
    return Check(full, f"batches are filled: up to {most}")


# What arrived, beside what was tracked.


@dataclass
class Comparison:
    """How what arrived at one vendor compares with what was tracked.

    Attributes:
        calls: Calls that were made.
        unsupported: Those for which the vendor has no form.
        by_kind: Unique messages that arrived, by the kind of the call that they come from; none for an unknown one.
        in_order: Whether the first arrivals are the calls of each thread, each once, in their order.
        altered: Repeats that differ from what they repeat.
        unique: Messages that arrived, repeats apart.
        unique_bytes: Their bytes.
    """

    calls: int = 0
    unsupported: int = 0
    by_kind: Counter[str] = field(default_factory=Counter)
    in_order: bool = False
    altered: int = 0
    unique: int = 0
    unique_bytes: int = 0


def compare(world: World, side: Side) -> Comparison:
    """Compare what arrived at one vendor with what was tracked.

    Args:
        world: The calls that were made.
        side: What came to that vendor.
    """
    found = Comparison()
    expected, arrived = defaultdict(list), defaultdict(list)
    origins: dict[str, tuple[int, str]] = {}  # no two threads tell the same, as each speaks of accounts of its own
    for thread, calls in enumerate(world):
        for call in calls:
            found.calls += 1
            form = side.vendor.form(call)
            if form is None:
                found.unsupported += 1
                continue
            text = _canonical(form)
            origins[text] = thread, call.message()["type"]
            expected[thread].append(text)
    for written in _first_arrivals(side, found):
        text = _canonical(side.vendor.content(json.loads(written)))
        thread, kind = origins.get(text, (-1, ""))
        arrived[thread].append(text)
        found.by_kind[kind] += 1
        found.unique += 1
        found.unique_bytes += len(written.encode())
    found.in_order = arrived == expected
    return found


def _first_arrivals(side: Side, found: Comparison) -> Iterable[str]:
    """The stored messages as they were written, repeats apart; those that differ are counted."""
    key = side.vendor.wire("none").key
    texts: dict[tuple[str, str], str] = {}
    for request in side.requests:
        if request.stored:
            for message, text in zip(request.messages, _texts(request.body), strict=True):
                found.altered += texts.setdefault(key(message), text) != text
    return texts.values()


def _canonical(message: Mapping[str, object]) -> str:
    return json.dumps(message, sort_keys=True)


def _texts(body: bytes) -> Iterator[str]:
    """The messages of a batch as they were written: to parse them would hide a difference."""
    text, read = body.decode(), json.JSONDecoder().raw_decode
    place = text.index("[")
    while text[place] != "]":
        _, end = read(text, place + 1)
        yield text[place + 1 : end]
        place = end
