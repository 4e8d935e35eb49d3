"""Fan-out: one way for each destination, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .message import wire_bytes
from .settings import shown

if TYPE_CHECKING:
    from .batch import Limits
    from .destinations import Destination
    from .pipeline import Pipeline

_PLAIN_EXTRA = wire_bytes(b"", 0)


class Lane:
    """What a call needs to know of one destination.

    Args:
        destination: The vendor.
        limits: Its limits, or lower ones.
        pipeline: The way there.

    Attributes:
        check: The destination's own check of a neutral message.
        message_bytes: The most bytes of a message, its id and time included.
        plain_bytes: The most bytes of a message whose id and time are still to be written.
        buffer: Where accepted messages go.
    """

    __slots__ = ("buffer", "check", "destination", "message_bytes", "pipeline", "plain_bytes")

    def __init__(self, destination: Destination, limits: Limits, pipeline: Pipeline) -> None:
        self.destination = destination
        self.pipeline = pipeline
        self.check = destination.check
        self.message_bytes = limits.message_bytes
        self.plain_bytes = limits.message_bytes - _PLAIN_EXTRA
        self.buffer = pipeline.buffer


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
        if not hasattr(one, "verdict") or not hasattr(one, "wire"):
            raise ValueError(f"destination={shown(one)}: allowed is Vitally(...), CustomerIO(...), Segment(...)")
    names = [one.name for one in several]
    if not several or len(set(names)) < len(names):
        raise ValueError(f"destination names {names}: allowed is at least one, each with a name of its own (name=...)")
    if gzip and not any(one.gzip for one in several):
        raise ValueError(f"gzip=True: {names[0]} does not take compressed bodies; allowed is False or None")
    return several


def drain_all(pipelines: Sequence[Pipeline], deadline: float, *, patient: bool) -> list[Pipeline]:
    """Drain several pipelines within one deadline.

    Where no threads run them, each gets its share of the time that is left, so that one that hangs takes none of the
    others'; what a share was too short for is gone on with at the end.

    Args:
        pipelines: The pipelines.
        deadline: When to return, in seconds of the monotonic clock.
        patient: As for `Pipeline.drain`.

    Returns:
        Those that were not done by then.
    """
    tickets = [(pipeline, pipeline.ticket()) for pipeline in pipelines]
    late = []
    for place, (pipeline, ticket) in enumerate(tickets):
        if pipeline.buffer.settled_below() >= ticket:
            continue
        now = time.monotonic()
        share = deadline if pipeline.runs_alone else now + max(deadline - now, 0.0) / (len(tickets) - place)
        if pipeline.drain(ticket, share, patient=patient):
            late.append((pipeline, ticket))
    return [pipeline for pipeline, ticket in late if pipeline.drain(ticket, deadline, patient=patient)]
