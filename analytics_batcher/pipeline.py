"""One destination's way: its buffer, its consumer, and whoever runs the consumer."""

from __future__ import annotations

import _thread
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from . import lifecycle
from .errors import DropReason
from .stats import Dropped, FlushResult, Stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from .buffers import Buffer, Reading
    from .consumer import Consumer
    from .report import Reporter

_HOLDER: Final = 0
_LOOK: Final = 0.25
"""Seconds after which a flush looks whether the consumer it waits for still lives."""
_REPORTING: Final = 0.5
"""Seconds that a shutdown with nothing left to send waits for the consumer to have told what it did."""
_START_AGAIN: Final = 1.0
_CRASH_WAIT: Final = 1.0
_LEAVING: Final = 0.1
"""Seconds that a shutdown waits for a consumer that has next to nothing more to do."""


class Pipeline:
    """Runs one consumer: in a thread of its own, or in a flush where no thread can run.

    Locking: `_claim` holds the token of whoever runs the consumer, which names his thread; nobody ever waits for it.
    It is a dictionary, not a lock: whoever is interrupted just after `setdefault` can still see that he got it, and
    looking at an item and deleting it are no calls, so that nothing can come between. `cold` is a hint, and changing
    it twice does no harm: a thread that does not get the claim ends. `_gates` is changed under `_books`, and
    `_baseline` is; there are no calls and no loops while it is held, at which a signal handler could come in and wait.

    Args:
        name: What logs and callbacks call the destination.
        buffer: Where records wait.
        consumer: Moves them to where they go.
        reporter: Is told what happened.
        background: Whether a thread may run the consumer.
        shutdown_timeout: The seconds that the exit hook may spend.
    """

    def __init__(
        self,
        name: str,
        buffer: Buffer,
        consumer: Consumer,
        reporter: Reporter,
        *,
        background: bool,
        shutdown_timeout: float,
    ) -> None:
        self.name = name
        self.buffer = buffer
        self.reporter = reporter
        self.shutdown_timeout = shutdown_timeout
        self._consumer = consumer
        self._background = background
        self._closed = False
        self._stopped = False
        self._begin()

    def _begin(self) -> None:
        self._claim: dict[int, list[int]] = {}
        self._books = _thread.RLock()  # native, for the reasons of the memory buffer's
        self._made_with = _thread.allocate_lock
        self._thread: threading.Thread | None = None
        self._gates: dict[_thread.LockType, None] = {}
        self._baseline = self.buffer.ledger.copy()
        self._start_after = 0.0
        self._died = False
        self.restarts = 0
        self.cold = self._background
        """Whether the next accepted message must start the thread."""

    def after_fork(self) -> None:
        """In a forked child: begin empty. What was accepted before the fork is the parent's."""
        self.buffer.reset()
        self._consumer.reset()
        self.reporter.reset()
        self._begin()
        if self._closed:
            self.buffer.close()

    def watch(self, owner: object, end_all: Callable[[list[tuple[Any, float]]], object]) -> None:
        """Be seen to after a fork, when `owner` is collected, and at exit, by `end_all`."""
        if not lifecycle.watch(self, end_all):
            self._background = self.cold = False
        weakref.finalize(owner, self.retire).atexit = False

    # Running

    def start(self) -> bool:
        """Start the consumer's thread, if none runs.

        Returns:
            Whether one runs now, or is about to.
        """
        if self._stopped or not self._background:
            return False
        if self._claim:
            return True
        if time.monotonic() < self._start_after:
            return False
        self.cold = False
        try:
            # A daemon, so that it never holds the exit up; the exit hook sees to what it had to do.
            threading.Thread(target=self._run, name=f"analytics-batcher:{self.name}", daemon=True).start()
        # The limit of threads, or an interpreter that is about to end; or (AssertionError) a callback of gevent's hub,
        # where the new one cannot be waited for. It may run all the same: whichever of two comes second ends at once.
        except (RuntimeError, AssertionError):
            self.cold = True
            self._start_after = time.monotonic() + _START_AGAIN
            return False
        except BaseException:
            self.cold = True
            raise
        return True

    def _run(self) -> None:
        claim, token = self._claim, [_thread.get_ident()]
        try:
            if claim.setdefault(_HOLDER, token) is not token:
                return
            self._follow_patch()
            self._thread = threading.current_thread()
            self.cold = False
            if self._died:
                self.restarts += 1
                self.reporter.restarted()
            self._died = True
            while claim is self._claim and not self._finished():  # another claim: this thread is a forked child's
                wait = self._step(None)
                self._open_gates()
                if wait != 0.0 and not self._finished():
                    self.buffer.wait(wait)
            self._died = False
        finally:
            if _HOLDER in claim and claim[_HOLDER] is token:
                self.cold = self._background
                del claim[_HOLDER]
                self._left()

    def _follow_patch(self) -> None:
        """If threads were made greenlets (gevent) since the client was made, wait and post without stopping the hub."""
        if self._made_with is not _thread.allocate_lock:
            self._made_with = _thread.allocate_lock
            self.buffer.renew()
            self._consumer.renew()

    def _finished(self) -> bool:
        return self._stopped or (self._closed and not self.buffer.read().messages)

    def _left(self) -> None:
        self._open_gates()
        if self._finished():
            self._stopped = True  # closed and empty, as it stays: from now on callers report what they are refused
            self._consumer.close()
            self.buffer.finish()
            lifecycle.forget(self)
            self.reporter.report_refused(self.buffer)

    def _step(self, deadline: float | None) -> float | None:
        try:
            return self._consumer.step(deadline)
        except Exception as error:  # noqa: BLE001 - an error of ours must cost a wait, not the queue
            self.buffer.count_requests(0, 0, 0, self.reporter.crashed(error))
            return _CRASH_WAIT

    def _open_gates(self) -> None:
        with self._books:
            gates = self._gates
            self._gates = {}
        for gate in gates:
            gate.release()

    # Flushing

    @property
    def stopped(self) -> bool:
        """Whether no consumer will run again."""
        return self._stopped

    @property
    def is_runner(self) -> bool:
        """Whether the calling thread is the one that runs the consumer, or is in a callback of it."""
        thread = _thread.get_ident()
        return self._claim.get(_HOLDER) == [thread] or self.reporter.is_telling

    def begin_flush(self) -> int:
        """End the wait for company of what was accepted so far.

        Returns:
            The ticket that `drain` waits for.
        """
        ticket = self.buffer.ticket()
        if self.buffer.settled_below() < ticket:
            self._flush_below(ticket)
            self.buffer.wake()  # also if that was no news: a flush interrupted by this one may not have come to it
            self.start()
        return ticket

    def _flush_below(self, ticket: int) -> None:
        if self._consumer.flush_below < ticket:
            self._consumer.flush_below = ticket
            self.buffer.wake()

    def drain(self, ticket: int, deadline: float, *, patient: bool) -> bool:
        """Wait until everything accepted before the ticket is settled, or settle it here.

        Args:
            ticket: What `begin_flush` returned.
            deadline: When to return, in seconds of the monotonic clock.
            patient: Whether to wait for the deadline although the next attempt lies beyond it.

        Returns:
            Whether the deadline, or the lack of patience, ended it.
        """
        while self.buffer.settled_below() < ticket:
            now = time.monotonic()
            if now >= deadline or self.is_runner or (not patient and self._consumer.not_before > deadline):
                return True
            self._flush_below(ticket)  # in the loop: another flush may have set a lower one meanwhile
            if self.start() or not self._run_here(ticket, deadline, patient=patient):
                self._wait_for_runner(ticket, min(deadline - now, _LOOK))
        return False

    def report_here(self) -> None:
        """Where no thread is to run: report what was refused at calls, though there may be nothing to send."""
        if not self._background:
            self._run_here(0, 0.0, patient=True)

    def _run_here(self, ticket: int, deadline: float, *, patient: bool) -> bool:
        claim, token = self._claim, [_thread.get_ident()]
        try:
            if claim.setdefault(_HOLDER, token) is not token:
                return False
            self._follow_patch()
            while self.buffer.settled_below() < ticket:
                if not patient and self._consumer.not_before > deadline:
                    break
                wait = self._step(deadline)
                remaining = deadline - time.monotonic()
                if remaining <= 0 or wait is None:
                    break
                if wait:
                    self.buffer.wait(min(wait, remaining))
            self.reporter.report_refused(self.buffer)  # nobody else will, where no thread runs
        finally:
            if _HOLDER in claim and claim[_HOLDER] is token:
                self.cold = self._background
                del claim[_HOLDER]
                self._left()
        return True

    def _wait_for_runner(self, ticket: int, timeout: float) -> None:
        self._wait_at_gate(lambda: self.buffer.settled_below() >= ticket, timeout)

    def await_step(self, timeout: float) -> bool:
        """Wait until what the consumer does now is done, and reported: a flush ends once it is counted.

        Args:
            timeout: The most seconds to wait.

        Returns:
            Whether it was done by then.
        """

        def is_idle() -> bool:
            if self._claim:
                self.buffer.wake()  # it may be waiting for messages, and has then reported already
                return False
            return True

        return self._wait_at_gate(is_idle, timeout)

    def _wait_at_gate(self, is_done: Callable[[], bool], timeout: float) -> bool:
        """Wait until it is done already, or a step has ended that began no later than this."""
        gate = _thread.allocate_lock()
        gate.acquire()
        with self._books:
            self._gates[gate] = None
        done = is_done() or gate.acquire(timeout=max(timeout, 0.0))
        with self._books:
            if gate in self._gates:
                del self._gates[gate]
        return done

    def result(self, *, timed_out: bool) -> FlushResult:
        """What was settled since the previous result."""
        return self._result(self.buffer.read(), timed_out=timed_out)

    def _result(self, reading: Reading, *, timed_out: bool, left: int | None = None) -> FlushResult:
        ledger = reading.ledger.copy()
        if left is not None:  # what the result calls pending, it does not call dropped
            ledger.lost = {**ledger.lost, DropReason.EXIT: ledger.lost[DropReason.EXIT] - left}
        with self._books:
            before, self._baseline = self._baseline, reading.ledger
        return FlushResult(
            delivered=ledger.delivered - before.delivered,
            dropped=Dropped(ledger.dropped).since(Dropped(before.dropped)),
            pending=reading.messages + (left or 0),
            timed_out=timed_out,
            lost=ledger.accepted_and_lost() - before.accepted_and_lost(),
        )

    # The end

    def close(self) -> None:
        """Refuse further messages, and send what waits without waiting for company."""
        self._closed = True
        self.buffer.close()
        self._consumer.draining = True
        self.buffer.wake()

    def stop(self, deadline: float, *, timed_out: bool) -> FlushResult:
        """Give up what could not be sent, report it, and let the thread end.

        Args:
            deadline: When to return, in seconds of the monotonic clock.
            timed_out: What the result says of that.
        """
        if not timed_out and not self.is_runner:
            # Or the process may end while the consumer's thread still tells of a loss.
            self.await_step(min(_REPORTING, deadline - time.monotonic()))
        self._stopped = True
        self.buffer.wake()
        if self.buffer.durable:  # whoever comes next may want what is kept at once
            self.join(_LEAVING)
        left = self.buffer.abandon(DropReason.EXIT)
        result = self._result(self.buffer.read(), timed_out=timed_out, left=len(left))
        kept = result.pending - len(left)
        self.reporter.report_refused(self.buffer)
        error = self.buffer.ledger.last_error
        if left:
            self.reporter.drop(DropReason.EXIT, "left behind at the end", len(left), left)
        self.reporter.left(len(left) or kept, error, kept=bool(kept))
        if not self._claim:
            self._consumer.close()
            self.buffer.finish()
        lifecycle.forget(self)
        return result

    def join(self, timeout: float) -> None:
        """Wait for the thread of a stopped consumer, which ends at once unless it is in the middle of a request."""
        if self._thread is not None and not self.is_runner:
            self._thread.join(timeout)

    def retire(self) -> None:
        """The client was collected without a shutdown: send what waits, then end."""
        if not self._stopped:
            self.close()
            if not self.buffer.read().messages:
                self._stopped = True
                lifecycle.forget(self)
                if not self._claim:
                    self.buffer.finish()
            elif not self._claim:
                self.start()

    def report_soon(self) -> None:
        """See to it that refused messages are reported: by the consumer, or here where none can run any more."""
        if self._stopped:
            self.reporter.report_refused(self.buffer)
        elif self.start():
            self.buffer.wake()

    # Figures

    @property
    def unsettled(self) -> int:
        """How many messages would be lost with the process; found without waiting for a lock."""
        if self.buffer.durable:
            return 0
        ledger = self.buffer.ledger
        return ledger.tracked - ledger.delivered - sum(ledger.dropped.values())

    def stats(self) -> Stats:
        """The figures of this destination."""
        reading = self.buffer.read()
        ledger = reading.ledger
        return Stats(
            tracked=ledger.tracked,
            recovered=ledger.recovered,
            handed_over=ledger.handed_over,
            delivered=ledger.delivered,
            dropped=Dropped(ledger.dropped),
            pending=reading.messages,
            pending_bytes=reading.bytes,
            requests=ledger.requests,
            retries=ledger.retries,
            batches=ledger.batches,
            last_error=ledger.last_error,
            oldest_pending_age=None if reading.oldest is None else max(time.monotonic() - reading.oldest, 0.0),
            consumer_alive=not self._died or bool(self._claim),
        )
