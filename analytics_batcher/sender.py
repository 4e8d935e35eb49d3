"""The contract of a sender: what the consumer hands records to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .stats import Delivery, Loss


@dataclass(frozen=True)
class Outcome:
    """What one attempt came to. Positions are those in the records that were given.

    Attributes:
        tried: How many of the records, from the first, it concerns; the others may go back to the buffer.
        delivered: Positions of the messages that arrived.
        losses: Messages to be given up.
        wait: Seconds before the next attempt.
        requests: Requests made.
        retries: Of these, the ones that repeated messages of an earlier one.
        error: What went wrong, or `None`.
        halted: Whether it is the request that is refused, whatever the messages.
        throttled: Whether there were too many requests, and so nobody should make one during the wait.
        receipt: What `on_delivery` is told, or `None`.
    """

    tried: int
    delivered: Sequence[int] = ()
    losses: Sequence[Loss] = ()
    wait: float = 0.0
    requests: int = 0
    retries: int = 0
    error: str | None = None
    halted: bool = False
    throttled: bool = False
    receipt: Delivery | None = None


class Sender(Protocol):
    """Packs records into requests and makes them. Used by one thread at a time."""

    name: str
    """What logs and callbacks call it."""
    batch_messages: int
    """The most messages that one request can take."""
    batch_bytes: int
    """The most bytes that one request can take."""

    def send(self, records: Sequence[bytes], deadline: float | None) -> Outcome:
        """Make at most one request, out of the oldest records. Raises nothing for the network or the vendor.

        Args:
            records: Oldest first, at least one. Those that an earlier outcome left unsettled come first again.
            deadline: When the request must have ended, in seconds of the monotonic clock, or `None`.
        """

    def reset(self) -> None:
        """In a forked child: forget the connections and whatever is half done."""

    def close(self) -> None:
        """Close the connections."""
