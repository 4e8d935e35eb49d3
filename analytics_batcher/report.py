"""Telling what happened: callbacks and log lines, in the consumer, never under a lock."""

from __future__ import annotations

import _thread
import threading
import traceback
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from .errors import DropReason
from .log import Damper, logger
from .message import decode
from .stats import Drop
from .text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .buffers import Buffer
    from .stats import Delivery

LOOK_AGAIN: Final = 0.5
"""Seconds in which refusals are gathered before they are reported together."""
_HOLDER: Final = 0
_NOTICES: Final = 1_000
_SHARE: Final = 16
_EVICTED: Final = "the oldest, to make room"
_VANISHED: Final = "accepted, but not to be read any more"
_NOT_WRITTEN: Final = "dropped messages are not among the dead letters"


class Letters(Protocol):
    """What a reporter knows of dead letters."""

    def write(
        self, reason: DropReason, detail: str, status: int | None, records: Sequence[bytes]
    ) -> tuple[int, str] | None:
        """Write messages that were dropped; how many could not be written, and why."""

    def reset(self) -> None:
        """In a forked child: what is being written is the parent's."""


def is_interrupt(error: BaseException) -> bool:
    """Whether what came out of a callback is a Ctrl-C, which reaches the main thread only, and not the callback's own.

    Args:
        error: What was raised.
    """
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


class Reporter:
    """Reports to the application's callbacks, and to the log, for one destination.

    What was refused at a call is counted there and then, in the buffer's books; what is reported is the difference to
    what was reported before, so that no count depends on the notices kept.

    Args:
        name: The destination's name.
        on_drop: Is told of dropped messages.
        on_delivery: Is told of delivered batches.
        max_bytes: The queue's bound; refused messages are kept to be told within a sixteenth of it.
        letters: Writes dropped messages, if that is wanted.

    Locking: `_busy` holds the token of whoever gathers refusals, as a pipeline's claim does. The deques in `_notices`
    and the flag `_listening` are changed by single C calls and may be shared, and so is the list `_telling`;
    `_noted_bytes` is an estimate. Everything else belongs to the thread that runs the consumer, and at the end to the
    one that shuts down.
    """

    def __init__(
        self,
        name: str,
        *,
        on_drop: Callable[[Drop], object] | None = None,
        on_delivery: Callable[[Delivery], object] | None = None,
        max_bytes: int = 0,
        letters: Letters | None = None,
    ) -> None:
        self._name = name
        self._on_drop = on_drop
        self._on_delivery = on_delivery
        self._max_bytes = max_bytes // _SHARE
        self.letters = letters
        self.reset()

    def reset(self) -> None:
        """In a forked child: what is not reported yet is the parent's."""
        if self.letters is not None:
            self.letters.reset()
        self._notices: dict[DropReason, deque[tuple[str, bytes | None]]] = {reason: deque() for reason in DropReason}
        self._noted_bytes = 0
        self._reported = dict.fromkeys(DropReason, 0)
        self._reported_evicted = self._reported_vanished = 0
        self._listening = True
        self._busy: dict[int, object] = {}
        self._damper = Damper()
        self._halt: str | None = None
        self._telling: list[int] = []  # the threads that are in a callback, each as often as it is

    @property
    def is_telling(self) -> bool:
        """Whether the calling thread is in a callback; after the end, that may be any thread."""
        return _thread.get_ident() in self._telling

    @property
    def keeps_messages(self) -> bool:
        """Whether somebody wants to see dropped messages."""
        return self._on_drop is not None or self.letters is not None

    def note(self, reason: DropReason, detail: str, record: bytes | None) -> bool:
        """On the caller's thread: remember a message that is about to be counted as refused.

        Args:
            reason: Why it is refused.
            detail: What exactly.
            record: The message, if somebody wants it and it could be written.

        Returns:
            Whether the consumer must be woken to report it.
        """
        notices = self._notices[reason]
        size = len(record) if record is not None else 0
        if len(notices) < _NOTICES and self._noted_bytes + size <= self._max_bytes:
            self._noted_bytes += size
            notices.append((detail, record))
        listening, self._listening = self._listening, False
        return listening

    def report_refused(self, buffer: Buffer) -> float | None:
        """In the consumer: report what was refused or evicted at calls since the last time.

        Returns:
            The seconds after which to look again; `None` if there was nothing: `note` then says when to wake.
        """
        busy, token = self._busy, object()
        try:
            if busy.setdefault(_HOLDER, token) is not token:
                return LOOK_AGAIN
            found = self._report_refused(buffer)
            if not found and not self._listening:
                self._listening = True
                found = self._report_refused(buffer)  # what came just before callers could see it
        finally:
            if _HOLDER in busy and busy[_HOLDER] is token:
                del busy[_HOLDER]
        return LOOK_AGAIN if found else None

    def _report_refused(self, buffer: Buffer) -> bool:
        found = False
        for reason, count in tuple(buffer.ledger.refused.items()):
            new = count - self._reported[reason]
            if new:
                self._reported[reason] = count
                notices = self._notices[reason]
                taken = [notices.popleft() for _ in range(min(new, len(notices)))]
                self._report_notices(reason, taken, new)
                found = True
        evicted = buffer.ledger.evicted - self._reported_evicted
        if evicted:
            self._reported_evicted += evicted
            self.drop(buffer.ledger.full, _EVICTED, evicted, buffer.take_evicted())
            found = True
        vanished = buffer.ledger.vanished - self._reported_vanished
        if vanished:
            self._reported_vanished += vanished
            self.drop(DropReason.SPOOL_ERROR, _VANISHED, vanished, ())
            found = True
        return found

    def _report_notices(self, reason: DropReason, notices: list[tuple[str, bytes | None]], count: int) -> None:
        rest = count - len(notices)
        by_detail: dict[str, list[bytes | None]] = {}
        for detail, record in notices:
            by_detail.setdefault(detail, []).append(record)
        for detail, given in by_detail.items():
            records = [record for record in given if record is not None]
            self._noted_bytes -= sum(map(len, records))
            self.drop(reason, detail, len(given), records)
        if rest:
            self.drop(reason, "", rest, ())

    def drop(
        self,
        reason: DropReason,
        detail: str,
        count: int,
        records: Sequence[bytes],
        status: int | None = None,
        *,
        written: bool = False,
    ) -> None:
        """Report messages that were dropped.

        Args:
            reason: Why.
            detail: What exactly, without the messages' content.
            count: How many.
            records: Those of them that were kept.
            status: The HTTP status, if that was the reason.
            written: Whether `write` has written them already.
        """
        said = 0 if reason is DropReason.EXIT else self._damper.count(reason, count)
        detail = printable(detail)
        if said:
            text = f" ({detail})" if detail else ""
            logger.warning("%s: dropped %d as %s%s", self._name, said, str(reason), text)
        if not written:
            self.write(reason, detail, count, records, status)
        if self._on_drop is not None:
            messages = tuple(decode(record) for record in records)
            self._call("on_drop", self._on_drop, Drop(reason, count, detail, messages, self._name))

    def write(self, reason: DropReason, detail: str, count: int, records: Sequence[bytes], status: int | None) -> None:
        """Write messages that are dropped to the dead letters, if there are any; as for `drop`."""
        if self.letters is not None:
            missed = self.letters.write(reason, printable(detail), status, records)
            self._say_missed(reason, count - len(records), missed)

    def _say_missed(self, reason: DropReason, unknown: int, missed: tuple[int, str] | None) -> None:
        count, why = missed or (0, "")
        if reason is not DropReason.FILTERED:
            count, why = count + unknown, why or "they were too many to be kept till then, or could not be encoded"
        said = self._damper.count(_NOT_WRITTEN, count) if count else 0
        if said:
            logger.error("%s: %d %s: %s", self._name, said, _NOT_WRITTEN, printable(why))

    def delivered(self, delivery: Delivery) -> None:
        """Report a delivered batch."""
        if self._halt is not None:
            logger.warning("%s: requests are taken again", self._name)
            self._halt = None
        if self._on_delivery is not None:
            self._call("on_delivery", self._on_delivery, delivery)

    def failed(self, error: str, *, halted: bool) -> None:
        """Report a request that failed: a halt once, other failures damped."""
        if halted:
            if self._halt != error:
                self._halt = error
                logger.error("%s: halted, everything is kept: %s", self._name, printable(error))
            return
        said = self._damper.count(error.partition(":")[0])
        if said:
            logger.warning("%s: requests failed: %d, the last one: %s", self._name, said, printable(error))

    def crashed(self, error: Exception) -> str:
        """Report an error in the consumer, which goes on.

        Its type and place are told, and not its text, which may quote a message.

        Returns:
            What is to be seen as the last error.
        """
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = printable(f"{type(error).__name__} in {place.name}, {Path(place.filename).name}:{place.lineno}")
        said = self._damper.count(text)
        if said:
            logger.error("%s: the consumer failed: %d times, the last one: %s", self._name, said, text)
        return text

    def restarted(self) -> None:
        """Report that the consumer's thread had died and was started again."""
        logger.error("%s: the consumer's thread had died, and runs again", self._name)

    def left(self, count: int, error: str | None, *, kept: bool = False) -> None:
        """At the end: say in one line what was left behind, and before it what the damper still holds back.

        Args:
            count: Messages left behind.
            error: What went wrong last.
            kept: Whether they wait for the next process.
        """
        for reason in self._damper.held():
            logger.warning("%s: %d more: %s", self._name, self._damper.count(reason, 0, now=True), printable(reason))
        if count:
            why = f"; the last error was {printable(error)}" if error else ""
            fate = "are kept for the next start" if kept else "were left behind and dropped at exit"
            logger.warning("%s: %d messages %s%s", self._name, count, fate, why)

    def _call(self, option: str, hook: Callable[..., object], told: object) -> None:
        telling, thread = self._telling, _thread.get_ident()  # a fork in the callback begins another list
        try:
            telling.append(thread)
            hook(told)
        except BaseException as error:
            if is_interrupt(error):
                raise  # and nothing else: the application's callback must not end the consumer
            said = self._damper.count(option)
            if said:
                name = printable(type(error).__name__)
                logger.error("%s: %s raised %s (%d times)", self._name, option, name, said)
        finally:
            telling.remove(thread)
