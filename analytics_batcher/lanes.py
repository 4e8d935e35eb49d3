"""Fan-out: one way for each destination, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from .destinations import name_of
from .errors import DropReason
from .message import wire_bytes
from .stamp import NATIVE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .batch import Limits
    from .destinations import Destination
    from .pipeline import Pipeline
    from .stats import FlushResult

_PLAIN_EXTRA = wire_bytes(b"", 0)


_NO_ROOM: Final = frozenset({DropReason.QUEUE_FULL, DropReason.SPOOL_FULL})
_WHY: Final = {DropReason.QUEUE_FULL: "no room in the queue", DropReason.CLOSED: "the client was shut down"}


class Lane:
    """What a call needs to know of one destination.

    Args:
        destination: The vendor.
        limits: Its limits, or lower ones.
        pipeline: The way there.

    Attributes:
        check: The destination's own check of a neutral message.
        limits: Its limits, or lower ones.
        message_bytes: The most bytes of a message, its id and time included.
        plain_bytes: The most bytes of a message whose id and time are still to be written.
        buffer: Where accepted messages go.
    """

    __slots__ = ("buffer", "check", "destination", "limits", "message_bytes", "pipeline", "plain_bytes")

    def __init__(self, destination: Destination, limits: Limits, pipeline: Pipeline) -> None:
        self.destination = destination
        self.pipeline = pipeline
        self.check = destination.check
        self.limits = limits
        self.message_bytes = limits.message_bytes
        self.plain_bytes = limits.message_bytes - _PLAIN_EXTRA
        self.buffer = pipeline.buffer

    def excess(self, body: bytes, flags: int) -> tuple[DropReason, str] | None:
        """Why a message is too large, if it is. What a native one still gets is known in the consumer only."""
        size = len(body) if flags & NATIVE else wire_bytes(body, flags)
        if size <= self.message_bytes:
            return None
        return DropReason.TOO_LARGE, f"{size} bytes; allowed are {self.message_bytes}"

    def why(self, reason: DropReason) -> str:
        """What is to be said of a message that the buffer did not take."""
        return _WHY.get(reason) or self.buffer.trouble


def put_when_room(lane: Lane, record: bytes, deadline: float, lanes: tuple[Lane, ...]) -> DropReason | None:
    """Put a record, and wait for room; not in a consumer of one of the client's lanes, which nobody else empties.

    Args:
        lane: Where to.
        record: The record.
        deadline: When to give up, in seconds of the monotonic clock.
        lanes: All of the client's.

    Returns:
        Why the record was refused, if it was.
    """
    reason = lane.buffer.put(record)
    while reason in _NO_ROOM and not any(one.pipeline.is_runner for one in lanes):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            break
        if lane.pipeline.cold:
            lane.pipeline.start()
        if not lane.buffer.wait_for_room(len(record), remaining):
            break
        reason = lane.buffer.put(record)
    return reason


def all_of(destination: Any, *, gzip: bool | None) -> tuple[Destination, ...]:
    """The destinations that a client was given: one, or several.

    Args:
        destination: What was given.
        gzip: Whether bodies are to be compressed.

    Raises:
        ValueError: If there is none, one is no destination, two have the same name, or none takes compressed bodies.
    """
    several = tuple(destination) if isinstance(destination, Sequence) else (destination,)
    for one in several:
        if isinstance(one, type) or not hasattr(one, "verdict") or not hasattr(one, "wire"):
            given = one.__name__ if isinstance(one, type) else type(one).__name__  # its value may hold a secret
            raise ValueError(f"destination is {given}: allowed is Vitally(...), CustomerIO(...), Segment(...)")
    names = [name_of(one.name) for one in several]
    if not several or len(set(names)) < len(names):
        raise ValueError(f"destination names {names}: allowed is at least one, each with a name of its own (name=...)")
    if gzip and not any(one.gzip for one in several):
        raise ValueError(f"gzip=True: {names[0]} does not take compressed bodies; allowed is False or None")
    return several


def drain_all(deadlines: Sequence[tuple[Pipeline, float]], *, patient: bool) -> list[Pipeline]:
    """Drain several pipelines at the same time, each until its deadline.

    Where no threads run them, each gets its share of the time that is left, so that one that hangs takes none of the
    others'; what a share was too short for is gone on with at the end.

    Args:
        deadlines: The pipelines, and when to return, in seconds of the monotonic clock.
        patient: As for `Pipeline.drain`.

    Returns:
        Those that were not done by then.
    """
    tickets = [(pipeline, pipeline.begin_flush(), deadline) for pipeline, deadline in deadlines]
    late = []
    for place, (pipeline, ticket, deadline) in enumerate(tickets):
        if pipeline.buffer.settled_below() < ticket:
            now = time.monotonic()
            share = now + max(deadline - now, 0.0) / (len(tickets) - place)
            if pipeline.drain(ticket, deadline if pipeline.start() else share, patient=patient):
                late.append((pipeline, ticket, deadline))
        else:
            pipeline.report_here()
    return [pipeline for pipeline, ticket, deadline in late if pipeline.drain(ticket, deadline, patient=patient)]


def flush_all(deadlines: Sequence[tuple[Pipeline, float]]) -> list[FlushResult]:
    """Flush several pipelines; in the thread of one of their consumers, where all of them would wait, at once.

    Args:
        deadlines: The pipelines, and when to return, in seconds of the monotonic clock.
    """
    if any(pipeline.is_runner for pipeline, _ in deadlines):
        return _at_once(deadlines)
    with _without_locks(deadlines):
        late = drain_all(deadlines, patient=True)
    return [pipeline.result(timed_out=pipeline in late) for pipeline, _ in deadlines]


def settle_all(deadlines: Sequence[tuple[Pipeline, float]]) -> None:
    """Do what a flush does, without its result: the application's next one still has all of it.

    Args:
        deadlines: The pipelines, and when to return, in seconds of the monotonic clock.
    """
    if not any(pipeline.is_runner for pipeline, _ in deadlines):
        with _without_locks(deadlines):
            drain_all(deadlines, patient=True)


def end_all(deadlines: Sequence[tuple[Pipeline, float]]) -> list[FlushResult]:
    """Shut several pipelines down; in the thread of one of their consumers they go on with what waits, and then end.

    Args:
        deadlines: The pipelines, and when to give up what is left, in seconds of the monotonic clock.
    """
    for pipeline, _ in deadlines:  # all of them first: none takes messages while another one drains
        pipeline.close()
    if any(pipeline.is_runner for pipeline, _ in deadlines):
        return _at_once(deadlines)
    with _without_locks(deadlines):
        late = drain_all(deadlines, patient=False)
    return [pipeline.stop(deadline, timed_out=pipeline in late) for pipeline, deadline in deadlines]


def _at_once(deadlines: Sequence[tuple[Pipeline, float]]) -> list[FlushResult]:
    for pipeline, _ in deadlines:
        pipeline.begin_flush()
    return [pipeline.result(timed_out=pipeline.buffer.read().messages > 0) for pipeline, _ in deadlines]


@contextmanager
def _without_locks(deadlines: Sequence[tuple[Pipeline, float]]) -> Iterator[None]:
    """Wait without the buffers' locks, one of which the caller holds if he is a signal handler in another call."""
    held = [take_back for pipeline, _ in deadlines if (take_back := pipeline.buffer.let_go())]
    try:
        yield
    finally:
        for take_back in held:
            take_back()
