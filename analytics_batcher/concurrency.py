"""Several requests in flight at once, for endpoints that are slow to answer; one consumer decides, threads post."""

from __future__ import annotations

import math
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from .buffers import NEVER, Lease
from .consumer import EXPIRED_AT_ONCE, EXPIRED_BYTES_AT_ONCE, Consumer
from .message import entities_of
from .sender import Outcome
from .stamp import STAMP_BYTES, accepted_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from .buffers import Buffer
    from .delivery import Attempt, BatchSender
    from .report import Reporter

_NOBODY: Final[frozenset[str]] = frozenset()


class _Slot:
    """One of the requests that may be in flight: its sender, what it has leased, and the thread that posts.

    Locking: none. The consumer owns all of it, but for the sender's `post` and the attempt between `begin` and the
    moment at which `done` is set, which the thread does last.

    Args:
        sender: Packs and judges in the consumer, and posts here.
        wake: Wakes the consumer.
    """

    def __init__(self, sender: BatchSender, wake: Callable[[], None]) -> None:
        self.sender = sender
        self.lease = Lease()
        self.entities: frozenset[str] = _NOBODY  # whom the leased messages are about
        self.attempt: Attempt | None = None  # in flight
        self.done = False
        self._wake = wake
        self._inbox: SimpleQueue[Attempt | None] | None = None

    def begin(self, attempt: Attempt, deadline: float | None) -> None:
        """Post: in the slot's thread, or in this one if there is a deadline, or no thread to be had."""
        self.done, self.attempt = False, attempt
        if deadline is None and self._has_thread():
            self._inbox.put(attempt)  # type: ignore[union-attr] # if there is a thread
        else:
            self._post(attempt, deadline)

    def close(self) -> None:
        """Let the thread end, and close the connection, unless it is in use."""
        inbox, self._inbox = self._inbox, None
        if inbox is not None:
            inbox.put(None)
        if self.attempt is None:
            self.sender.close()

    def _has_thread(self) -> bool:
        if self._inbox is None:
            inbox: SimpleQueue[Attempt | None] = SimpleQueue()
            name = f"analytics-batcher:{self.sender.name}:request"
            try:
                threading.Thread(target=self._run, args=(inbox,), name=name, daemon=True).start()
            except RuntimeError:  # the limit of threads, or an interpreter that is about to end
                return False
            self._inbox = inbox
        return True

    def _run(self, inbox: SimpleQueue[Attempt | None]) -> None:
        while (attempt := inbox.get()) is not None:
            self._post(attempt, None)
            del attempt  # and with it the body, while this waits for the next one
            self._wake()

    def _post(self, attempt: Attempt, deadline: float | None) -> None:
        try:
            self.sender.post(attempt, deadline)
        finally:
            self.done = True


class ConcurrentConsumer(Consumer):
    """A consumer with several requests in flight.

    A batch is filled with the oldest messages whose entities are not in flight, nor kept for another attempt: what is
    about one of them stays in order. After a failure one request at a time goes, until one is answered well; and the
    search for a bad message in a refused batch is made by one request at a time.

    Args:
        buffer: As for `Consumer`.
        sender: The first sender.
        reporter: As for `Consumer`.
        make_sender: Makes each further one, when it is first needed.
        concurrency: The most requests in flight.
        options: As for `Consumer`.
    """

    def __init__(
        self,
        buffer: Buffer,
        sender: BatchSender,
        reporter: Reporter,
        *,
        make_sender: Callable[[], BatchSender],
        concurrency: int,
        **options: Any,
    ) -> None:
        self._first = sender
        self._make_sender = make_sender
        self._concurrency = concurrency
        super().__init__(buffer, sender, reporter, **options)

    def _begin(self) -> None:
        super()._begin()
        self._slots = [_Slot(self._first, self._buffer.wake)]
        self._careful = False  # since a request failed
        self._known: dict[bytes, tuple[str, ...]] = {}  # by stamp, the entities of messages that were held back

    def reset(self) -> None:
        """In a forked child: what was under way is the parent's, and so are the connections."""
        for slot in self._slots:
            slot.sender.reset()
        super().reset()

    def renew(self) -> None:
        """Before the first step, when threads have changed their kind: connect by the means of now."""
        for slot in self._idle():
            slot.sender.reset()

    def close(self) -> None:
        """At the end: close the connections, and let the threads end."""
        for slot in self._slots:
            slot.close()

    def _idle(self) -> list[_Slot]:
        return [slot for slot in self._slots if slot.attempt is None]

    def _step(self, deadline: float | None) -> float | None:
        now = self._clock()
        self._collect()
        self._expire(now)
        leased = any(slot.lease.records for slot in self._slots)
        if not leased and not self._buffer.arm(1, NEVER):
            return None
        if now < self.not_before:
            return min(self.not_before - now, self._until_expiry(now))
        slot = self._free_slot()
        if slot is None or not (slot.lease.records or self._buffer.arm(1, NEVER)):
            return self._until_expiry(now)  # or till a request has ended
        wait = 0.0 if slot.lease.records else self._until_company_is_over(now)
        if wait <= 0 and self._pace is not None:
            wait = self._pace.claim(now)
        if wait > 0:
            return min(wait, self._until_expiry(now))
        if not slot.lease.records:
            self._fill(slot)
        if not slot.lease.records:
            return self._until_expiry(now)  # all that waits is about someone who is in flight
        self._send(slot, deadline)
        return 0.0

    def _free_slot(self) -> _Slot | None:
        """The slot whose turn it is, those first that have to try again; `None` if a request must end before."""
        idle = self._idle()
        searching = [slot for slot in self._slots if slot.sender.searching]
        if len(idle) < len(self._slots) and (self._careful or searching):
            return None
        again = searching or [slot for slot in idle if slot.lease.records]
        if again:
            return min(again, key=lambda slot: slot.lease.keys[0] if slot.lease.keys else -1)
        if not idle and len(self._slots) < self._concurrency:
            self._slots.append(_Slot(self._make_sender(), self._buffer.wake))
            idle = self._slots[-1:]
        return idle[0] if idle else None

    def _fill(self, slot: _Slot) -> None:
        """Lease the oldest messages whose entities are free, out of a window of as many as could be in flight."""
        taken = set().union(*(other.entities for other in self._slots if other.lease.records))
        messages, size = self._sender.batch_messages, self._sender.batch_bytes
        lease = slot.lease = Lease()
        slot.entities = _NOBODY
        many = self._concurrency + 1
        self._buffer.take(lease, messages * many, size * many)
        about = [self._known.get(one[:STAMP_BYTES]) or entities_of(one) for one in lease.records]
        chosen: set[str] = set()
        back: list[int] = []
        room = messages
        for place, (record, entities) in enumerate(zip(lease.records, about, strict=True)):
            if room <= 0 or size <= 0 or not taken.isdisjoint(entities):
                back.append(place)
                taken.update(entities)  # an alias that is held back holds back both
            else:
                chosen.update(entities)
                room -= 1
                size -= len(record)
        self._known = {lease.records[place][:STAMP_BYTES]: about[place] for place in back}
        slot.entities = frozenset(chosen)
        self._buffer.give_back(lease, back)

    def _send(self, slot: _Slot, deadline: float | None) -> None:
        attempt = slot.sender.prepare(slot.lease.records)
        if isinstance(attempt, Outcome):
            self._book(slot, attempt)
        else:
            slot.begin(attempt, deadline)
            self._collect()

    def _collect(self) -> None:
        """Book the requests that have ended."""
        for slot in self._slots:
            attempt = slot.attempt
            if attempt is not None and slot.done:
                slot.attempt = None
                self._book(slot, slot.sender.conclude(attempt))

    def _book(self, slot: _Slot, outcome: Outcome) -> None:
        if outcome.wait:
            self.not_before = max(self.not_before, self._clock() + outcome.wait)
        if outcome.delivered or outcome.error is not None:
            self._careful = outcome.error is not None
        if not self._settle(slot.lease, outcome):
            slot.lease = Lease()
        if not slot.lease.records:
            slot.entities = _NOBODY

    def _expire(self, now: float) -> None:
        for slot in self._idle():
            if slot.lease.records:
                self._drop_old(slot.lease, now)
        while (oldest := self._buffer.read().oldest_waiting) is not None and oldest + self._max_age <= now:
            lease = Lease()
            self._buffer.take(lease, EXPIRED_AT_ONCE, EXPIRED_BYTES_AT_ONCE)
            found = self._drop_old(lease, now)
            self._buffer.release(lease, 0)
            if not found:
                return

    def _until_expiry(self, now: float) -> float:
        accepted = [accepted_at(slot.lease.records[0]) for slot in self._idle() if slot.lease.records]
        waiting = self._buffer.read().oldest_waiting
        oldest = min(accepted if waiting is None else [*accepted, waiting], default=math.inf)
        return max(oldest + self._max_age - now, 0.0)
