"""The books of a durable buffer, and the part of it that is in memory."""

from __future__ import annotations

import _thread
import time
from collections import deque
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..errors import DropReason
from ..log import Damper, logger
from ..stamp import accepted_at
from ..stats import Ledger
from . import NEVER, Lease, Reading
from .spool_file import NUMBER, STREAM_BITS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .owners import Owner
    from .spool_file import SpoolFile

RECORD_OVERHEAD: Final = 32
"""What a record takes in the file beside its bytes: its row's header, and its share of the page's."""
LOOK: Final = 10.0
"""Seconds after which to look for dead owners, and for what went wrong before."""
ADOPTED: Final = -(1 << 62)
"""The key of the first record that is taken over: all of them are below those of our own."""
_EVICTED_SHARE: Final = 16
_OTHERS_AT_ONCE: Final = 0.25
"""Seconds for which a caller waits for room that others may make."""


class Line:
    """A stream of which we know how far it is in memory.

    Attributes:
        id: The stream's number; 0 before there is one.
        position: The number up to which it was read.
        last: The greatest number that there may be.
        left: How many messages are still to be read.
        weight: Their bytes, with each one's overhead; of others' messages an estimate.
        wall: When the next one was accepted, by the wall clock; `None` if that was not looked up.
        is_ours: Whether we put into it.
        same_boot: Whether its moments of acceptance are by the monotonic clock that runs now.
        open: How many of its messages are not settled. Of others' streams only.
        is_counted: Whether `left` is known. If not, it is 1 until the end was found.
    """

    __slots__ = ("id", "is_counted", "is_ours", "last", "left", "open", "position", "same_boot", "wall", "weight")

    def __init__(self, number: int, *, is_ours: bool, left: int = 0, same_boot: bool = True) -> None:
        self.id = number
        self.position = 0
        self.last = NUMBER
        self.left = self.open = left
        self.weight = 0
        self.wall: float | None = None
        self.is_counted = True
        self.is_ours = is_ours
        self.same_boot = same_boot


class SpoolBooks:
    """What is counted, what is leased, and what comes next. It knows of the file, and leaves it alone.

    Locking: as in the memory buffer, `_lock` guards all that is counted; it is held for plain statements only, and
    whoever computes something for them looks at `_changes` whether a call that interrupted him has changed anything
    meanwhile. Nothing is read or written while it is held. Whoever puts has the file's turn: `_issued` and a row are
    made there, the row first. If an exception comes in between, the next put finds the row, or `_tend` does (`_doubt`).
    `_lines` (but for what is counted in them), `_places`, `_ended` and the times belong to who runs the consumer.

    Args:
        file: The file.
        destination: Whose messages these are.
        max_messages: The most messages in the file, or `None`.
        max_bytes: The most bytes of our messages, each one's overhead included.
        ahead_messages: The most records in memory.
        ahead_bytes: The most bytes of these.
        evict: Whether a full file gives up our oldest records that are not leased.
        keep_evicted: Whether to keep evicted records until they are reported.
    """

    durable = True

    def __init__(
        self,
        file: SpoolFile,
        destination: str,
        *,
        max_messages: int | None,
        max_bytes: int,
        ahead_messages: int,
        ahead_bytes: int,
        evict: bool = False,
        keep_evicted: bool = False,
    ) -> None:
        self._file = file
        self._destination = destination
        self._max_messages = NEVER if max_messages is None else max_messages
        self._max_bytes = max_bytes
        self._ahead = ahead_messages, ahead_bytes
        self._evict = evict
        self._keep_evicted = ahead_bytes // _EVICTED_SHARE if keep_evicted else 0
        self._begin()

    def _begin(self) -> None:
        self._lock = _thread.RLock()
        self.renew()
        self.ledger = Ledger(DropReason.SPOOL_FULL)
        self._closed = self._finished = self._full = self._crowded = self._doubt = False
        self._changes = 0
        self._held = self._bytes = self._leased = self._leased_bytes = 0
        self._foreign = 0  # held of others' streams
        self._issued = 0  # the greatest number of our own
        self._ready: deque[tuple[int, bytes]] = deque()
        self._near = self._near_bytes = 0  # what is in `_ready`
        self._far = 0  # what is in the file only
        self._leases: tuple[Lease, ...] = ()
        self._gates: dict[_thread.LockType, None] = {}
        self._evicted: deque[bytes] = deque()
        self._evicted_bytes = 0
        self._debts: tuple[int, ...] = ()  # rows that were settled, and are to be removed
        self._own = Line(0, is_ours=True)
        self._lines: tuple[Line, ...] = (self._own,)
        self._places: dict[int, tuple[Line, int]] = {}  # where a key of others' is: its line and its row
        self._next_key = ADOPTED
        self._ended: set[int] = set()  # streams of others that are not to be taken up again
        self._owner: Owner | None = None
        self._left_at: dict[int, int] = {}  # by stream, what was there when we let go
        self._others, self._others_at = 0, -NEVER
        self._looked = time.monotonic()
        self._next_look = self._looked + LOOK
        self._written = self._written_at = 0
        self._damper = Damper()
        self._wake_messages: float = NEVER
        self._wake_bytes: float = NEVER

    def renew(self) -> None:
        """Before the consumer runs: wait by means that the threads of now know."""
        self._token = _thread.allocate_lock()
        self._token.acquire()

    @property
    def trouble(self) -> str:
        """What went wrong with the file last."""
        return self._file.trouble

    def refuse(self, reason: DropReason, count: int = 1) -> None:
        """Count messages that were refused before they reached the buffer."""
        with self._lock:
            self.ledger.tracked += count
            self.ledger.refused[reason] += count

    def count_requests(self, requests: int, retries: int, batches: int, error: str | None) -> None:
        """Count requests; `error` says what went wrong with the last one."""
        with self._lock:
            self.ledger.requests += requests
            self.ledger.retries += retries
            self.ledger.batches += batches
            if error is not None:
                self.ledger.last_error = error

    def ticket(self) -> int:
        """A key above those of all records accepted so far."""
        return self._issued + 1

    def settled_below(self) -> int:
        """A key such that no record below it is waiting or leased."""
        with self._lock:
            while True:
                seen = self._changes
                held = [lease.keys[0] for lease in self._leases if lease.keys]
                held += [key for key, _ in self._snapshot()[:1]]
                held.append(self._own.position + 1 if self._own.left else self._issued + 1)
                if seen == self._changes:
                    return ADOPTED if self._foreign else min(held)

    def read(self) -> Reading:
        """What the buffer holds, and its books, at one moment."""
        with self._lock:
            while True:
                seen = self._changes
                heads = [lease.records[0] for lease in self._leases if lease.records]
                first = [record for _, record in self._snapshot()[:1]]
                held, leased = self._held, self._leased
                size, leased_bytes = self._bytes, self._leased_bytes
                books = self.ledger.copy()
                if seen == self._changes:
                    break
        oldest = min(map(accepted_at, heads + first), default=None)
        waiting = accepted_at(first[0]) if first else None
        return Reading(held, size, held - leased, size - leased_bytes, oldest, waiting, books)

    def take_evicted(self) -> list[bytes]:
        """The records that made room for newer ones and were kept to be reported; the caller may have them."""
        none: deque[bytes] = deque()
        with self._lock:
            evicted, self._evicted, self._evicted_bytes = self._evicted, none, 0
        return list(evicted)

    # Leases

    def release(self, lease: Lease, start: int) -> None:
        """Give the lease's records from position `start` on back to the head of the line, in their order."""
        self.give_back(lease, range(start, len(lease.records)))

    def give_back(self, lease: Lease, positions: Sequence[int]) -> None:
        """Give the lease's records at `positions` back to the head of the line, in their order."""
        gone = set(positions)
        with self._lock:
            while gone and lease in self._leases:
                seen = self._changes
                back = [(lease.keys[position], lease.records[position]) for position in positions]
                size = sum(len(record) + RECORD_OVERHEAD for _, record in back)
                keys = [key for position, key in enumerate(lease.keys) if position not in gone]
                records = [record for position, record in enumerate(lease.records) if position not in gone]
                ready = deque(sorted([*back, *self._snapshot()]))
                leases = self._leases if records else self._without(lease)
                count = len(back)
                if seen == self._changes:
                    self._changes += 1
                    lease.keys, lease.records = keys, records
                    self._leases = leases
                    self._ready = ready
                    self._near += count
                    self._near_bytes += size
                    self._leased -= count
                    self._leased_bytes -= size
                    return

    def _snapshot(self) -> list[tuple[int, bytes]]:
        while True:
            with suppress(RuntimeError):  # another call put or evicted something before the first one was read
                return list(self._ready)

    def _row_of(self, key: int) -> int:
        return self._places[key][1] if key < 0 else self._own.id << STREAM_BITS | key

    def _without(self, lease: Lease) -> tuple[Lease, ...]:
        return tuple([other for other in self._leases if other is not lease])

    def _forget_places(self, keys: Iterable[int]) -> None:
        for key in keys:
            if key < 0 and key in self._places:
                line, _ = self._places.pop(key)
                line.open -= 1

    def _count_left(self) -> dict[int, int]:
        left = {line.id: line.left for line in self._lines}
        held = [key for lease in self._leases for key in lease.keys] + [key for key, _ in self._snapshot()]
        for key in held:
            stream = self._row_of(key) >> STREAM_BITS
            left[stream] = left.get(stream, 0) + 1
        return {stream: count for stream, count in left.items() if count}

    # Room, and waking

    def wait_for_room(self, size: int, timeout: float) -> bool:
        """Wait until a record of `size` bytes may fit, or the buffer is closed; at most `timeout` seconds.

        Returns:
            False, at once, if it is larger than the whole buffer and will never fit.
        """
        size += RECORD_OVERHEAD
        if size > self._max_bytes:
            return False
        if self._others or self._crowded:  # what others make room by opens no gate here
            timeout = min(timeout, _OTHERS_AT_ONCE)
        gate = _thread.allocate_lock()
        gate.acquire()
        with self._lock:
            fits = self._held + self._others < self._max_messages and self._bytes + size <= self._max_bytes
            if self._closed or (fits and not self._crowded):
                return True
            self._gates[gate] = None
        take_back = self.let_go()
        try:
            gate.acquire(timeout=max(timeout, 0.0))
        finally:
            if take_back is not None:
                take_back()
        with self._lock:
            if gate in self._gates:
                del self._gates[gate]
        return True

    def _say_full(self) -> None:
        self._full = True
        if self._wake_messages is not NEVER:
            self._wake_messages = 0  # the consumer must not wait for company that cannot come

    def let_go(self) -> Callable[[], object] | None:
        """Let this buffer's locks go, as far as the calling thread holds them, which then interrupted itself.

        Returns:
            What takes them back, or `None`.
        """
        held: list[Callable[[], object]] = []
        for lock in (self._lock, *self._file.locks):
            one: Any = lock
            if one._is_owned():  # noqa: SLF001 - see the memory buffer
                held.append(partial(one._acquire_restore, one._release_save()))  # noqa: SLF001
        return (lambda: [take_back() for take_back in reversed(held)]) if held else None

    def arm(self, messages: float, size: float) -> bool:
        """Wake the consumer once this much is waiting (`NEVER`: not at all).

        Returns:
            Whether that much is waiting already, or the buffer is full; then nobody is woken.
        """
        with self._lock:
            while True:
                seen = self._changes
                waiting, waiting_bytes = self._held - self._leased, self._bytes - self._leased_bytes
                if waiting >= messages or waiting_bytes >= size or (waiting and self._full):
                    self._wake_messages = self._wake_bytes = NEVER
                    return True
                wake = self._leased + messages
                if seen == self._changes:  # or else what came meanwhile may have been enough
                    self._wake_messages, self._wake_bytes = wake, size
                    return False

    def wake(self) -> None:
        """Wake the consumer, now or when it next waits."""
        with suppress(RuntimeError):  # it was woken already
            self._token.release()

    def close(self) -> None:
        """Refuse every further record as `closed`."""
        with self._lock:
            self._closed = True
            gates, self._gates = self._gates, {}
        open_gates(gates)

    def abandon(self, reason: DropReason) -> list[bytes]:  # noqa: ARG002 - nothing is lost here
        """Keep all, for the next one who opens the file."""
        with self._lock:
            gates, self._gates = self._gates, {}
        open_gates(gates)
        return []

    def _look_soon(self) -> None:
        """Let the consumer look after the file, but not more often than once in a second."""
        soon = self._looked + 1.0
        if self._next_look > soon:
            self._next_look = soon
            self.wake()

    def _tell(self, text: str) -> None:
        self.ledger.last_error = f"spool: {text}"
        if self._damper.count(text):
            logger.warning("%s: spool: %s", self._destination, text)


def open_gates(gates: Iterable[_thread.LockType]) -> None:
    """Let those go on who wait for room."""
    for gate in gates:
        gate.release()
