"""The default buffer: in memory, bounded by count and by bytes."""

from __future__ import annotations

import _thread
import sys
import threading
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from ..errors import DropReason
from ..stamp import accepted_at
from ..stats import Ledger, Loss
from . import NEVER, Lease, Reading, first_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

RECORD_OVERHEAD: Final = sys.getsizeof(b"") + 8 + 16
"""What a waiting record takes beside its bytes: the object's header, its place in the queue, rounding."""

# Looking a member up on its enum runs Python code on some versions.
_QUEUE_FULL: Final = DropReason.QUEUE_FULL
_CLOSED: Final = -1
_EVICTED_SHARE: Final = 16
# Not on PyPy, and not on a CPython without its own lock: there the plain statements are under ours.
_WHOLE: Final = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()


class MemoryBuffer:
    """Records in the order of their acceptance, in this process's memory.

    Args:
        max_messages: The most records to hold, leased ones included.
        max_bytes: The most bytes to hold, each record's overhead included.
        evict: Whether a full buffer gives up its oldest records that are not leased, rather than refuse the new one.
        keep_evicted: Whether to keep evicted records until they are reported, within a sixteenth of `max_bytes`.

    Locking: `_lock` guards every field below but `_token`. Whoever changes something computes it first, and then
    changes all of it in plain statements: no call but one into C at their end, no loop and (for Python 3.10) no jump
    that is taken, nothing at which the interpreter lets a signal handler, a finalizer, an exception from outside or
    another thread in. So none of them can see, or leave, half of a change. What another call may have changed in
    between, from a signal handler in this very thread (the lock is reentrant), is noticed and computed again. So it is
    if another thread puts: a record for which there is room is tested and taken in one such stretch, without the lock,
    which would cost as much again. Nothing waits and nothing is called back inside; a handler that must wait lets the
    lock go (`let_go`), so that other threads may change other things in between, too.
    """

    durable, trouble = False, ""

    def __init__(self, max_messages: int, max_bytes: int, *, evict: bool = False, keep_evicted: bool = False) -> None:
        self._limits, self._evict = (max_messages, max_bytes), evict
        self._keep_evicted = max_bytes // _EVICTED_SHARE if keep_evicted else 0
        if not _WHOLE:
            self.put = self._put_locked  # type: ignore[method-assign]
        self.reset()

    def reset(self) -> None:
        """In a forked child: begin empty, with new locks and new books."""
        # Not that of `threading`, which under a patch is written in Python: a signal handler may find it half taken.
        # Greenlets of one thread share this one, and do no harm, since none of them waits inside.
        self._lock = _thread.RLock()
        self.renew()
        self.ledger = Ledger()
        self._max_messages, self._max_bytes = self._limits
        self._messages = self._bytes = self._waiting_bytes = self._evicted_bytes = 0
        self._waiting: deque[bytes] = deque()
        self._head = 0  # the key of the first record in `_waiting` that is not stale; each further one's is one more
        self._stale = 0  # how many records at the head of `_waiting` are leased, and only not removed yet
        self._returned: deque[tuple[int, bytes]] = deque()  # released records, all older than `_head`
        self._leases: tuple[Lease, ...] = ()
        self._gates: dict[_thread.LockType, None] = {}
        self._evicted: deque[bytes] = deque()
        self._full = False  # whether a record found no room since the last `take`
        self._wake_messages = self._wake_bytes = NEVER

    def renew(self) -> None:
        """Before the consumer runs: wait by means that the threads of now know."""
        # Looked up here and not at import, so that a patch of `threading` made since then is seen.
        self._token = _thread.allocate_lock()  # a binary semaphore: free means that the consumer was woken
        self._token.acquire()

    def put(self, record: bytes) -> DropReason | None:
        """Accept a record and count it, or say why not and count nothing. Never waits and never raises."""
        size = len(record) + RECORD_OVERHEAD
        refusal = None
        try:
            while refusal is None:
                if self._messages < self._max_messages and self._bytes + size <= self._max_bytes:
                    self.ledger.tracked += 1
                    self._messages += 1
                    self._bytes += size
                    self._waiting_bytes += size
                    self._waiting.append(record)
                    break
                with self._lock:
                    refusal = self._make_room(size)
        finally:
            # Also when an exception was thrown in at the last moment.
            ready = self._messages >= self._wake_messages or self._waiting_bytes >= self._wake_bytes
            if ready and self._token.locked():
                self.wake()
        return refusal

    def _put_locked(self, record: bytes) -> DropReason | None:
        with self._lock:
            return MemoryBuffer.put(self, record)

    def _make_room(self, size: int) -> DropReason | None:
        if self._max_messages == _CLOSED:
            return DropReason.CLOSED
        self._trim()
        self._full = True
        if self._wake_messages is not NEVER:
            self._wake_messages = 0  # the consumer must not wait for company that cannot come
        leased = self._messages - len(self._returned) - len(self._waiting)
        leased_bytes = self._bytes - self._waiting_bytes
        if not self._evict or leased >= self._max_messages or leased_bytes + size > self._max_bytes:
            return _QUEUE_FULL  # if need be, without evicting in vain
        # Each turn is whole in itself: what interrupts between two finds the books balanced.
        while self._messages >= self._max_messages or self._bytes + size > self._max_bytes:
            if self._returned:
                record = self._returned[0][1]
            elif self._waiting:
                record = self._waiting[0]
            else:
                return _QUEUE_FULL
            freed = len(record) + RECORD_OVERHEAD
            if self._returned and self._returned[0][1] is record:
                del self._returned[0]
            elif self._waiting and self._waiting[0] is record:
                del self._waiting[0]
                self._head += 1
            else:
                continue
            self._messages -= 1
            self._bytes -= freed
            self._waiting_bytes -= freed
            self.ledger.evicted += 1
            self._keep(record, freed)
        return None

    def _keep(self, record: bytes, size: int) -> None:
        if self._evicted_bytes + size <= self._keep_evicted:
            self._evicted_bytes += size
            self._evicted += (record,)

    def wait_for_room(self, size: int, timeout: float) -> bool:
        """Wait until a record of `size` bytes may fit, or the buffer is closed; at most `timeout` seconds.

        Returns:
            False, at once, if it is larger than the whole buffer and will never fit.
        """
        size += RECORD_OVERHEAD
        if size > self._max_bytes:
            return False
        gate = _thread.allocate_lock()
        gate.acquire()
        with self._lock:
            fits = self._messages < self._max_messages and self._bytes + size <= self._max_bytes
            if fits or self._max_messages == _CLOSED:
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

    def let_go(self) -> Callable[[], object] | None:
        """Let this buffer's lock go, if the calling thread holds it, which then interrupted itself and must wait.

        Returns:
            What takes it back, or `None`.
        """
        lock: Any = self._lock  # its methods are those by which a `Condition` waits with a lock that is held repeatedly
        return partial(lock._acquire_restore, lock._release_save()) if lock._is_owned() else None  # noqa: SLF001

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

    def take(self, lease: Lease, messages: int, size: int) -> None:
        """Fill an empty lease with the oldest records: at most `messages`, and none beyond `size` bytes."""
        with self._lock:
            self._trim()
            evicted, line = self.ledger.evicted, self._returned
            back = list(islice(self._returned, messages))
            waited = self._first_waiting(messages - len(back))
            records = first_of([*[record for _, record in back], *waited], size)
            later = deque(islice(self._returned, len(records), None))
            stale = len(records) - len(self._returned) + len(later)
            keys = [*[key for key, _ in back[: len(records)]], *range(self._head, self._head + stale)]
            weight = sum(map(len, records)) + RECORD_OVERHEAD * len(records)
            leases = (*self._leases, lease)
            if records and evicted == self.ledger.evicted and line is self._returned:  # or else they were abandoned
                lease.keys, lease.records = keys, records
                self._leases = leases
                self._returned = later
                self._waiting_bytes -= weight
                self._head += stale
                self._stale = stale
                self._full = False
            self._trim()

    def _first_waiting(self, count: int) -> list[bytes]:
        while True:
            with suppress(RuntimeError):  # another call put or evicted something before the first one was read
                return list(islice(self._waiting, count))

    def _trim(self) -> None:
        """Remove what was leased. If it is interrupted, the next one goes on: each turn is whole in itself."""
        while self._stale:
            if self._stale:  # once more: what came in at the loop's jump, after its test, may have removed the last one
                del self._waiting[0]
                self._stale -= 1

    def settle(self, lease: Lease, delivered: Sequence[int], losses: Sequence[Loss]) -> bool:
        """Remove records of the lease and count them; the others stay leased.

        Returns:
            False if the lease is void, because its records were abandoned meanwhile: nothing is counted then.
        """
        gone = set(delivered).union(*(loss.positions for loss in losses))
        rest = [position for position in range(len(lease.records)) if position not in gone]
        keys = [lease.keys[position] for position in rest]
        records = [lease.records[position] for position in rest]
        size = sum(map(len, lease.records)) - sum(map(len, records)) + RECORD_OVERHEAD * len(gone)
        settled, arrived = len(gone), len(delivered)
        with self._lock:
            lost = self.ledger.lost_with(losses)
            leases = self._leases if records else self._without(lease)
            valid = lease in self._leases
            if valid:
                lease.keys, lease.records = keys, records
                self._leases = leases
                self._messages -= settled
                self._bytes -= size
                self.ledger.delivered += arrived
                self.ledger.lost = lost
            gates, self._gates = self._gates, {}
        _open(gates)
        return valid

    def _without(self, lease: Lease) -> tuple[Lease, ...]:
        return tuple([other for other in self._leases if other is not lease])

    def release(self, lease: Lease, start: int) -> None:
        """Give the lease's records from position `start` on back to the head of the line, in their order."""
        if start < len(lease.records):
            self.give_back(lease, range(start, len(lease.records)))

    def give_back(self, lease: Lease, positions: Sequence[int]) -> None:
        """Give the lease's records at `positions` back to the head of the line, in their order."""
        back = [(lease.keys[position], lease.records[position]) for position in positions]
        size = sum(len(record) + RECORD_OVERHEAD for _, record in back)
        gone = set(positions)
        keys = [key for position, key in enumerate(lease.keys) if position not in gone]
        records = [record for position, record in enumerate(lease.records) if position not in gone]
        with self._lock:
            while back and lease in self._leases:
                evicted = self.ledger.evicted
                returned = deque(sorted([*self._returned, *back]))
                leases = self._leases if records else self._without(lease)
                if evicted == self.ledger.evicted:
                    lease.keys, lease.records = keys, records
                    self._leases = leases
                    self._returned = returned
                    self._waiting_bytes += size
                    return

    def abandon(self, reason: DropReason) -> list[bytes]:
        """Give up everything, leased records too, and count it as `reason`."""
        ledger = self.ledger
        with self._lock:
            while True:
                self._trim()
                before = self._messages, ledger.tracked, ledger.delivered, ledger.evicted, self._leases, self._returned
                held = [pair for lease in self._leases for pair in zip(lease.keys, lease.records, strict=True)]
                records = [record for _, record in sorted([*held, *self._returned])] + list(self._waiting)
                lost = ledger.lost_with([Loss(reason, "", range(len(records)))])
                head = self._head + len(self._waiting)
                returned: deque[tuple[int, bytes]] = deque()
                waiting: deque[bytes] = deque()
                now = self._messages, ledger.tracked, ledger.delivered, ledger.evicted, self._leases, self._returned
                if before == now:
                    self._leases = ()
                    self._head = head
                    self._returned = returned
                    self._waiting = waiting
                    self._messages = self._bytes = self._waiting_bytes = 0
                    self.ledger.lost = lost
                    break
            gates, self._gates = self._gates, {}
        _open(gates)
        return records

    def finish(self) -> None:
        """Nobody takes or settles any more."""

    def take_evicted(self) -> list[bytes]:
        """The records that made room for newer ones and were kept to be reported; the caller may have them."""
        none: deque[bytes] = deque()
        with self._lock:
            evicted, self._evicted, self._evicted_bytes = self._evicted, none, 0
        return list(evicted)

    def ticket(self) -> int:
        """A key above those of all records accepted so far."""
        with self._lock:
            self._trim()
            return self._head + len(self._waiting)

    def settled_below(self) -> int:
        """A key such that no record below it is waiting or leased."""
        with self._lock:
            while True:
                leases, returned, head = self._leases, self._returned, self._head
                held = [lease.keys[0] for lease in leases if lease.keys]
                if returned:
                    held.append(returned[0][0])
                if leases is self._leases and returned is self._returned:
                    return min(held, default=head)

    def read(self) -> Reading:
        """What the buffer holds, and its books, at one moment."""
        ledger = self.ledger
        with self._lock:
            while True:
                self._trim()
                before = self._messages, ledger.tracked, ledger.delivered, ledger.evicted, self._leases
                heads = [lease.records[0] for lease in self._leases if lease.records]
                first = [self._returned[0][1]] if self._returned else self._first_waiting(1)
                waiting = len(self._returned) + len(self._waiting)
                sizes = self._bytes, self._waiting_bytes
                books = ledger.copy()
                if before == (self._messages, ledger.tracked, ledger.delivered, ledger.evicted, self._leases):
                    break
        oldest = min(map(accepted_at, heads + first), default=None)
        return Reading(before[0], sizes[0], waiting, sizes[1], oldest, accepted_at(first[0]) if first else None, books)

    def arm(self, messages: float, size: float) -> bool:
        """Wake the consumer once this much is waiting (`NEVER`: not at all).

        Returns:
            Whether that much is waiting already, or the buffer is full; then nobody is woken.
        """
        with self._lock:
            self._trim()
            while True:
                tracked = self.ledger.tracked
                waiting = len(self._returned) + len(self._waiting)
                leased = self._messages - waiting
                if waiting >= messages or self._waiting_bytes >= size or (waiting and self._full):
                    self._wake_messages = self._wake_bytes = NEVER
                    return True
                if tracked == self.ledger.tracked:  # or else what came meanwhile may have been enough
                    self._wake_messages, self._wake_bytes = leased + messages, size
                    return False

    def wake(self) -> None:
        """Wake the consumer, now or when it next waits."""
        with suppress(RuntimeError):  # it was woken already
            self._token.release()

    def wait(self, timeout: float | None) -> None:
        """In the consumer: wait until woken, at most `timeout` seconds."""
        self._token.acquire(timeout=-1 if timeout is None else min(max(timeout, 0.0), threading.TIMEOUT_MAX))
        self._wake_messages = self._wake_bytes = NEVER

    def close(self) -> None:
        """Refuse every further record as `closed`."""
        with self._lock:
            self._max_messages = _CLOSED
            gates, self._gates = self._gates, {}
        _open(gates)


def _open(gates: Iterable[_thread.LockType]) -> None:
    for gate in gates:
        gate.release()
