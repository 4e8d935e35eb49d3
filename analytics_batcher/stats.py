"""What was counted: the books of one buffer, and the figures that a client shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .errors import DropReason


class Loss(NamedTuple):
    """Leased records to be given up.

    Attributes:
        reason: Why.
        detail: What exactly, without the messages' content.
        positions: Where they stand in the lease.
        status: The HTTP status, if that was the reason.
    """

    reason: DropReason
    detail: str
    positions: Sequence[int]
    status: int | None = None


class Ledger:
    """The books of one buffer, which says how it guards every field, so that they always balance.

    Attributes:
        full: What a message is dropped as for want of room.
        tracked: Calls, refused ones too.
        recovered: Messages taken over from others.
        handed_over: Messages that others have taken over.
        delivered: Messages that the vendor took.
        refused: Messages refused at the call, by reason. All reasons are there from the start: a count then changes
            without the dictionary growing under another thread that reads it.
        lost: Messages given up after they had been accepted, by reason; a buffer replaces it as a whole.
        evicted: Accepted messages that made room for newer ones.
        vanished: Accepted messages that the buffer could not give back.
        requests: Requests made.
        retries: Requests that repeated messages of an earlier one.
        batches: Requests by which at least one message was delivered.
        last_error: What went wrong last, or `None`.
    """

    __slots__ = (
        *("full", "tracked", "recovered", "handed_over", "delivered", "refused", "lost", "evicted", "vanished"),
        *("requests", "retries", "batches", "last_error"),
    )

    def __init__(self, full: DropReason = DropReason.QUEUE_FULL) -> None:
        self.full = full
        self.tracked = 0
        self.recovered = 0
        self.handed_over = 0
        self.delivered = 0
        self.refused = dict.fromkeys(DropReason, 0)
        self.lost = dict.fromkeys(DropReason, 0)
        self.evicted = 0
        self.vanished = 0
        self.requests = 0
        self.retries = 0
        self.batches = 0
        self.last_error: str | None = None

    def copy(self) -> Ledger:
        """The books as they are now; to be called under the lock."""
        other = Ledger.__new__(Ledger)
        other.full = self.full
        other.tracked, other.recovered, other.handed_over = self.tracked, self.recovered, self.handed_over
        other.delivered, other.evicted, other.vanished = self.delivered, self.evicted, self.vanished
        other.refused, other.lost = self.refused.copy(), self.lost.copy()
        other.requests, other.retries, other.batches = self.requests, self.retries, self.batches
        other.last_error = self.last_error
        return other

    def lost_with(self, losses: Sequence[Loss]) -> dict[DropReason, int]:
        """What `lost` becomes by more losses."""
        lost = self.lost.copy() if losses else self.lost
        for loss in losses:
            lost[loss.reason] += len(loss.positions)
        return lost

    @property
    def dropped(self) -> dict[DropReason, int]:
        """Messages given up, at the call or later, by reason."""
        dropped = {reason: self.refused[reason] + self.lost[reason] for reason in DropReason}
        dropped[self.full] += self.evicted
        dropped[DropReason.SPOOL_ERROR] += self.vanished
        return dropped

    def accepted_and_lost(self) -> int:
        """Messages that had been accepted and were then given up; `filtered` is no loss."""
        return sum(self.lost.values()) - self.lost[DropReason.FILTERED] + self.evicted + self.vanished


class Dropped(Mapping[str, int]):
    """Messages given up, by reason: shows only reasons that occurred, and answers 0 for the others.

    Args:
        counts: The counts by reason.
    """

    __slots__ = ("_counts",)

    def __init__(self, counts: Mapping[DropReason, int] | None = None) -> None:
        self._counts = {reason: count for reason, count in (counts or {}).items() if count}

    def __getitem__(self, reason: str) -> int:
        try:
            return self._counts.get(DropReason(reason), 0)
        except ValueError:
            raise KeyError(reason) from None

    def __contains__(self, reason: object) -> bool:
        return reason in self._counts

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{str(reason)!r}: {count}" for reason, count in self._counts.items()) + "}"

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self._counts.values())

    def since(self, earlier: Dropped) -> Dropped:
        """What came after `earlier` was counted."""
        return Dropped({DropReason(reason): count - earlier[reason] for reason, count in self.items()})

    def __add__(self, other: Dropped) -> Dropped:
        reasons = {**self._counts, **other._counts}
        return Dropped({reason: self[reason] + other[reason] for reason in reasons})


class _ByName(Mapping[str, "Stats"]):
    """The figures of each destination: as little to be changed as they are, and pickled, as no `mappingproxy` is."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Mapping[str, Stats]) -> None:
        self._parts = dict(parts)

    def __getitem__(self, name: str) -> Stats:
        return self._parts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __repr__(self) -> str:
        return repr(self._parts)


@dataclass(frozen=True)
class Stats:
    """A client's figures at one moment.

    At every quiet moment `tracked + recovered == delivered + sum(dropped.values()) + pending + handed_over`.

    Attributes:
        tracked: Calls, refused ones too, once per destination.
        recovered: Messages adopted from an earlier or dead process (durable buffers).
        handed_over: Messages that another process adopted from this one (durable buffers).
        delivered: Messages that the vendor took; with `RedisBuffer`, those that are in its stream.
        dropped: Messages given up, by reason; 0 for a reason that did not occur.
        pending: Messages that wait or are in flight.
        pending_bytes: Their size in memory, with each one's overhead: what `max_queue_bytes` bounds.
        requests: Requests made.
        retries: Requests that repeated messages of an earlier one.
        batches: Requests by which at least one message was delivered.
        last_error: What went wrong last, or `None`.
        oldest_pending_age: Seconds that the oldest pending message has waited, or `None`.
        consumer_alive: False only if a thread that is needed has died.
        destinations: The same figures for each destination by its name.
    """

    tracked: int = 0
    recovered: int = 0
    handed_over: int = 0
    delivered: int = 0
    dropped: Dropped = field(default_factory=Dropped)
    pending: int = 0
    pending_bytes: int = 0
    requests: int = 0
    retries: int = 0
    batches: int = 0
    last_error: str | None = None
    oldest_pending_age: float | None = None
    consumer_alive: bool = True
    destinations: Mapping[str, Stats] = field(default_factory=lambda: _ByName({}))


def total(parts: Mapping[str, Stats]) -> Stats:
    """The figures of a client, out of those of its destinations.

    Args:
        parts: The figures of each destination by its name.
    """
    each = tuple(parts.values())
    ages = [part.oldest_pending_age for part in each if part.oldest_pending_age is not None]
    errors = [part.last_error for part in each if part.last_error is not None]
    dropped = Dropped()
    for part in each:
        dropped += part.dropped
    return Stats(
        tracked=sum(part.tracked for part in each),
        recovered=sum(part.recovered for part in each),
        handed_over=sum(part.handed_over for part in each),
        delivered=sum(part.delivered for part in each),
        dropped=dropped,
        pending=sum(part.pending for part in each),
        pending_bytes=sum(part.pending_bytes for part in each),
        requests=sum(part.requests for part in each),
        retries=sum(part.retries for part in each),
        batches=sum(part.batches for part in each),
        last_error=errors[0] if errors else None,
        oldest_pending_age=max(ages, default=None),
        consumer_alive=all(part.consumer_alive for part in each),
        destinations=_ByName(parts),
    )


@dataclass(frozen=True)
class FlushResult:
    """What a flush or a shutdown came to. Truthy: nothing is pending, and nothing that had been accepted was lost.

    Attributes:
        delivered: Messages delivered since the previous flush.
        dropped: Messages dropped since then, by reason; 0 for a reason that did not occur.
        pending: Messages still waiting or in flight at the end.
        timed_out: Whether the deadline ended it.
        lost: Of the dropped, those that had been accepted (`filtered` is no loss).
    """

    delivered: int = 0
    dropped: Dropped = field(default_factory=Dropped)
    pending: int = 0
    timed_out: bool = False
    lost: int = 0

    def __bool__(self) -> bool:
        return not self.pending and not self.lost


def together(results: Sequence[FlushResult]) -> FlushResult:
    """The result of several destinations, out of those of each."""
    dropped = Dropped()
    for result in results:
        dropped += result.dropped
    return FlushResult(
        delivered=sum(result.delivered for result in results),
        dropped=dropped,
        pending=sum(result.pending for result in results),
        timed_out=any(result.timed_out for result in results),
        lost=sum(result.lost for result in results),
    )


@dataclass(frozen=True)
class Delivery:
    """One delivered batch, as `on_delivery` is told.

    Attributes:
        count: Messages delivered by this request.
        bytes: The size of its body.
        seconds: How long the request took.
        status: The HTTP status of the answer; 0 with `RedisBuffer`, where there is none.
        attempts: Requests that these messages took, this one included.
        destination: The destination's name.
    """

    count: int
    bytes: int
    seconds: float
    status: int
    attempts: int
    destination: str


@dataclass(frozen=True)
class Drop:
    """Messages that were dropped, as `on_drop` is told.

    Attributes:
        reason: Why.
        count: How many.
        detail: What exactly, without the messages' content.
        messages: The messages in neutral form, or native as given. Fewer than `count` where so many were dropped at
            once that keeping them would have broken the queue's bound.
        destination: The destination's name.
    """

    reason: DropReason
    count: int
    detail: str
    messages: tuple[Mapping[str, object], ...]
    destination: str
