"""The only loop: take, send, settle. One step of it can be called by a thread, by a flush, or by a test."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Final

from .buffers import NEVER, Lease
from .errors import DropReason
from .stamp import accepted_at
from .stats import Loss

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .buffers import Buffer
    from .report import Reporter
    from .retry import Pacing
    from .sender import Outcome, Sender

EXPIRED_AT_ONCE: Final = 1_000
EXPIRED_BYTES_AT_ONCE: Final = 2**20
_MOMENT: Final = 1e-6  # the least for which the system lets us sleep: some 60 microseconds
_LOOK: Final = 1.0  # seconds: what another process left may be older than all that was here


class Consumer:
    """Moves records from a buffer to a sender, and knows no implementation of either.

    Args:
        buffer: Where records wait.
        sender: Where they go.
        reporter: Is told what happened.
        flush_interval: Seconds that a message may wait for company.
        max_age: Seconds after which a message is given up as `expired`; infinite for never.
        pace: Bounds the requests in a second, or `None`.
        clock: The monotonic clock.

    Locking: none. Whoever runs a step must be the only one; see `Pipeline`. `flush_below` and `draining` are only
    ever raised by other threads, in single assignments.
    """

    def __init__(
        self,
        buffer: Buffer,
        sender: Sender,
        reporter: Reporter,
        *,
        flush_interval: float,
        max_age: float,
        pace: Pacing | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._buffer = buffer
        self._sender = sender
        self._reporter = reporter
        self._flush_interval = flush_interval
        self._max_age = max_age
        self._pace = pace
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._lease = Lease()
        self.not_before = 0.0
        self._awake_until = self._expires_after = 0.0
        self.flush_below = 0
        self.draining = False

    def reset(self) -> None:
        """In a forked child: what was under way is the parent's, and so are the connections."""
        self._begin()
        self.renew()
        if self._pace is not None:
            self._pace.reset()

    def renew(self) -> None:
        """Before the first step, when threads have changed their kind: connect by the means of now."""
        self._sender.reset()

    def close(self) -> None:
        """At the end: close the connections."""
        self._sender.close()

    def step(self, deadline: float | None = None) -> float | None:
        """Do what is due, at most one request.

        Args:
            deadline: When the request must have ended, in seconds of the monotonic clock, or `None`.

        Returns:
            The seconds until a step may have something to do; 0 for at once, `None` until the buffer wakes us.
        """
        look_again = self._reporter.report_refused(self._buffer)
        wait = self._step(deadline)
        if look_again is None:
            return wait
        return look_again if wait is None else min(wait, look_again)

    def _step(self, deadline: float | None) -> float | None:
        now = self._clock()
        self._expire(now)
        if not self._lease.records and self._may_sleep(now):
            return None
        if now < self.not_before:
            return min(self.not_before - now, self._until_expiry(now))
        if not self._lease.records:
            wait = self._until_company_is_over(now)
            if wait > 0:
                return wait
        wait = 0.0 if self._pace is None else self._pace.claim(now)
        if wait > 0:
            return min(wait, self._until_expiry(now))
        if not self._lease.records:
            self._let_others_in()
            self._take(self._sender.batch_messages, self._sender.batch_bytes)
            if self._lease.records and accepted_at(self._lease.records[0]) + self._max_age <= now:
                self._expires_after = 0.0  # a buffer may have read just now what others have left
                return 0.0
        if self._lease.records:
            outcome = self._sender.send(self._lease.records, deadline)
            now = self._clock()
            self.not_before = now + outcome.wait if outcome.wait else 0.0
            self._awake_until = now + self._flush_interval
            if not self._settle(self._lease, outcome):
                self._lease = Lease()
        return 0.0

    def _may_sleep(self, now: float) -> bool:
        """Whether to sleep until the next message; which shall not have to wake us soon after a batch, but a full one.

        The call that wakes another thread costs as much as fifty others, and holds that thread up at the worst time.
        """
        return now >= self._awake_until and not self._buffer.arm(1, NEVER)

    def _let_others_in(self) -> None:
        """Let threads go on that wait for the interpreter, before a batch is taken, where that is no hurry.

        Taking a batch and writing it is the longest that we keep them waiting: half a millisecond with cold caches.
        Not in between: the end may drop what waits meanwhile, and what was dropped must not be sent.
        """
        in_a_hurry = self.draining or self._buffer.settled_below() < self.flush_below
        if not in_a_hurry and not self._buffer.arm(2 * self._sender.batch_messages, 2 * self._sender.batch_bytes):
            self._buffer.wait(_MOMENT)

    def _take(self, messages: int, size: int) -> None:
        self._lease = Lease()
        self._buffer.take(self._lease, messages, size)

    def _until_company_is_over(self, now: float) -> float:
        """The seconds that the waiting messages may still wait for others; not above 0 if they should go now."""
        if self.draining or self._buffer.settled_below() < self.flush_below:
            return 0.0
        if self._buffer.arm(self._sender.batch_messages, self._sender.batch_bytes):
            return 0.0
        oldest = self._buffer.read().oldest_waiting
        return self._awake_until - now if oldest is None else oldest + self._flush_interval - now

    def _settle(self, lease: Lease, outcome: Outcome) -> bool:
        """Book what came of an attempt, and report it; not of a lease that is void."""
        records = lease.records
        self._buffer.count_requests(outcome.requests, outcome.retries, int(bool(outcome.delivered)), outcome.error)
        self._buffer.release(lease, outcome.tried)
        self._write_durably(outcome.losses, records)
        if not self._buffer.settle(lease, outcome.delivered, outcome.losses):
            return False
        if outcome.receipt is not None:
            self._reporter.delivered(outcome.receipt)
        if outcome.error is not None:
            self._reporter.failed(outcome.error, halted=outcome.halted)
        for loss in outcome.losses:
            self._report(loss, records)
        return True

    def _write_durably(self, losses: Sequence[Loss], records: Sequence[bytes]) -> None:
        """Write dead letters before their messages are gone from a durable buffer.

        Whoever is killed in between leaves a letter of a message that is sent again, and not a message without one.
        """
        if self._buffer.durable:
            for loss in losses:
                lost = [records[position] for position in loss.positions]
                self._reporter.write(loss.reason, loss.detail, len(lost), lost, loss.status)

    def _report(self, loss: Loss, records: Sequence[bytes]) -> None:
        lost = [records[position] for position in loss.positions]
        written = self._buffer.durable
        self._reporter.drop(loss.reason, loss.detail, len(lost), lost, loss.status, written=written)

    def _expire(self, now: float) -> None:
        """Give up what is too old, whether it waits or is kept for another attempt; look no oftener than need be."""
        if now < self._expires_after:
            return
        while (oldest := self._buffer.read().oldest) is not None and oldest + self._max_age <= now:
            waited = not self._lease.records
            if waited:
                self._take(EXPIRED_AT_ONCE, EXPIRED_BYTES_AT_ONCE)
            lease = self._lease
            if not self._drop_old(lease, now):
                return
            if waited:
                self._buffer.release(lease, 0)
        self._expires_after = min(now + _LOOK, self._max_age + (now if oldest is None else oldest))

    def _drop_old(self, lease: Lease, now: float) -> bool:
        """Give up what is too old in a lease, which it is emptied of if it is void.

        Returns:
            Whether there was any.
        """
        records = lease.records
        old = [place for place, record in enumerate(records) if accepted_at(record) + self._max_age <= now]
        if not old:
            return False
        loss = Loss(DropReason.EXPIRED, f"older than {self._max_age:g} s", old)
        self._write_durably([loss], records)
        if not self._buffer.settle(lease, (), [loss]):
            lease.keys, lease.records = [], []
            return False
        self._report(loss, records)
        return True

    def _until_expiry(self, now: float) -> float:
        oldest = self._buffer.read().oldest
        return math.inf if oldest is None else max(oldest + self._max_age - now, 0.0)
