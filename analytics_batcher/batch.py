"""Packing: how many messages fit into one request. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True)
class Limits:
    """What one request, and one message in it, may come to.

    Attributes:
        messages: The most messages in a batch.
        bytes: The most bytes of a request's body, its envelope and the commas included.
        message_bytes: The most bytes of one message.
    """

    messages: int
    bytes: int
    message_bytes: int


def fill(wires: Iterable[bytes], limits: Limits, envelope: int) -> list[bytes]:
    """Take messages, oldest first, for as long as the body stays within its limits.

    Args:
        wires: The messages as they stand in the body. It is read no further than to the first that does not fit.
        limits: The limits.
        envelope: The bytes of a body without messages.

    Returns:
        The messages that go together. A message that alone exceeds the body's limit is never among them.
    """
    taken: list[bytes] = []
    size = envelope
    for wire in wires:
        size += len(wire) + (1 if taken else 0)  # the comma before it
        if size > limits.bytes:
            break
        taken.append(wire)
        if len(taken) == limits.messages:
            break
    return taken


def fits(wires: Sequence[bytes], limits: Limits, envelope: int) -> bool:
    """Whether messages, at least one, may all go together, and none of them is too large.

    Args:
        wires: The messages as they stand in the body.
        limits: The limits.
        envelope: The bytes of a body without messages.
    """
    sizes = [*map(len, wires)]
    size = envelope + sum(sizes) + len(sizes) - 1
    return len(sizes) <= limits.messages and size <= limits.bytes and max(sizes) <= limits.message_bytes
