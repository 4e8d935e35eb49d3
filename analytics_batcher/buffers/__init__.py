"""The contract of a buffer: the thread-safe queue between callers and consumer.

A buffer sees bytes and stamps and never what they mean. It keeps the books (`Ledger`), so that what is pending and what
is counted change in one stroke. What is leased still counts against its bounds.
"""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..errors import DropReason
    from ..stats import Ledger, Loss

NEVER: Final = float("inf")
"""A threshold that no buffer reaches."""


class Lease:
    """Records handed to the consumer, oldest first, until it settles or releases them. Used by the consumer alone.

    It is made empty and filled by the buffer, so that whoever is interrupted in between still holds what he took.

    Attributes:
        keys: The buffer's own name for each record, in its order of acceptance.
        records: The records, in the same order.
    """

    __slots__ = ("keys", "records")

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.records: list[bytes] = []


class Reading(NamedTuple):
    """What a buffer holds, and its books, at one moment.

    Attributes:
        messages: Records that wait or are leased.
        bytes: Their size with each one's overhead.
        waiting: Records that are not leased.
        waiting_bytes: Their size with each one's overhead.
        oldest: When the oldest one was accepted, in seconds of the monotonic clock, or `None`.
        oldest_waiting: The same of those that are not leased.
        ledger: A copy of the books.
    """

    messages: int
    bytes: int
    waiting: int
    waiting_bytes: int
    oldest: float | None
    oldest_waiting: float | None
    ledger: Ledger


class Buffer(Protocol):
    """What the client and the consumer know of a buffer. Every method may be called from any thread."""

    durable: bool
    """Whether its records survive the process."""
    ledger: Ledger

    @property
    def trouble(self) -> str:
        """What went wrong last where it keeps its records."""

    def put(self, record: bytes) -> DropReason | None:
        """Accept a record and count it, or say why not and count nothing. Never waits and never raises."""

    def wait_for_room(self, size: int, timeout: float) -> bool:
        """Wait until a record of `size` bytes may fit, or the buffer is closed; at most `timeout` seconds.

        Returns:
            False, at once, if it is larger than the whole buffer and will never fit.
        """

    def let_go(self) -> Callable[[], object] | None:
        """Let the buffer's lock go, if the calling thread holds it, which then interrupted itself and must wait.

        That is a signal handler or a finalizer in the middle of another call: what it waits for needs the lock.

        Returns:
            What takes it back, or `None`.
        """

    def refuse(self, reason: DropReason, count: int = 1) -> None:
        """Count messages that were refused before they reached the buffer."""

    def count_requests(self, requests: int, retries: int, batches: int, error: str | None) -> None:
        """Count requests; `error` says what went wrong with the last one."""

    def take(self, lease: Lease, messages: int, size: int) -> None:
        """Fill an empty lease with the oldest records: at most `messages`, and none beyond `size` bytes."""

    def settle(self, lease: Lease, delivered: Sequence[int], losses: Sequence[Loss]) -> bool:
        """Remove records of the lease and count them; the others stay leased.

        Returns:
            False if the lease is void, because its records were abandoned meanwhile: nothing is counted then.
        """

    def release(self, lease: Lease, start: int) -> None:
        """Give the lease's records from position `start` on back to the head of the line, in their order."""

    def give_back(self, lease: Lease, positions: Sequence[int]) -> None:
        """Give the lease's records at `positions` back to the head of the line, in their order."""

    def abandon(self, reason: DropReason) -> list[bytes]:
        """Give up everything, leased records too, and count it. A durable buffer keeps all and returns nothing."""

    def finish(self) -> None:
        """Nobody takes or settles any more: a durable buffer lets others take what is left."""

    def take_evicted(self) -> list[bytes]:
        """The records that made room for newer ones and were kept to be reported; the caller may have them."""

    def ticket(self) -> int:
        """A key above those of all records accepted so far."""

    def settled_below(self) -> int:
        """A key such that no record below it is waiting or leased."""

    def read(self) -> Reading:
        """What the buffer holds, and its books, at one moment."""

    def arm(self, messages: float, size: float) -> bool:
        """Wake the consumer once this much is waiting (`NEVER`: not at all).

        Returns:
            Whether that much is waiting already, or the buffer is full; then nobody is woken.
        """

    def wake(self) -> None:
        """Wake the consumer, now or when it next waits."""

    def wait(self, timeout: float | None) -> None:
        """In the consumer: wait until woken, at most `timeout` seconds."""

    def renew(self) -> None:
        """In the consumer, before it first waits: wait by locks of the kind that threads have now."""

    def close(self) -> None:
        """Refuse every further record as `closed`."""

    def reset(self) -> None:
        """In a forked child: begin empty, with new locks and new books."""


def first_of(records: list[bytes], size: int) -> list[bytes]:
    """The records up to the one with which they come to `size` bytes."""
    weights = list(accumulate(map(len, records)))
    return records[: bisect_left(weights, size) + 1] if weights and weights[-1] > size else records
