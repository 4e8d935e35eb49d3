"""A durable buffer: one owner's messages for one destination in an SQLite file, and those of dead owners."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from ..errors import DropReason
from . import NEVER
from .spool_books import LOOK, RECORD_OVERHEAD
from .spool_connections import after_fork
from .spool_disk import Gone, Trouble
from .spool_file import STREAM_BITS
from .spool_heirs import BOOT, SpoolHeir

if TYPE_CHECKING:
    from . import Lease, Reading
    from .spool_file import SpoolFile

_EVICTED_AT_ONCE: Final = 16
_UNREADABLE: Final = 0.25
"""Seconds to wait where the file cannot be read."""

_buffers: weakref.WeakSet[SpoolBuffer] = weakref.WeakSet()


class SpoolBuffer(SpoolHeir):
    """Records in a file, and the next ones to be sent in memory too.

    A record is in the file before its call returns, and gone from it once it is settled. What was put while everything
    before it was in memory is in memory too, so that the consumer reads the file only after an outage, or what others
    have left.

    Args:
        file: The file, which is opened; what dead owners have left in it is taken over.
        destination: As for `SpoolBooks`, which also says how locks are used.
        options: As for `SpoolBooks`.

    Raises:
        ValueError: If the file is not to be used.
    """

    def __init__(self, file: SpoolFile, destination: str, **options: Any) -> None:
        super().__init__(file, destination, **options)
        try:
            file.open()
        except Trouble:
            self._next_look = 0.0
        else:
            self._tend()
            self._sweep()
        _buffers.add(self)

    def reset(self) -> None:
        """In a forked child: begin empty, as an owner of its own."""
        after_fork()
        self._file.after_fork()
        self._begin()

    def put(self, record: bytes) -> DropReason | None:
        """Accept a record and count it, or say why not and count nothing. Never raises, and waits 0.1 s at most."""
        reason: DropReason | None = DropReason.SPOOL_ERROR
        try:
            with self._file.turn as mine:
                if mine:
                    reason = self._put(record)
        except RuntimeError:  # another thread has the turn
            self._file.trouble = "another thread is at it"
        finally:
            ready = self._held >= self._wake_messages or self._bytes - self._leased_bytes >= self._wake_bytes
            if ready and self._token.locked():
                self.wake()
        return reason

    def _put(self, record: bytes) -> DropReason | None:
        size = len(record) + RECORD_OVERHEAD
        try:
            while True:
                if self._closed:
                    return DropReason.CLOSED
                crowded = self._bytes + size > self._max_bytes or self._max_messages != NEVER
                if crowded and not self._has_room(size) and not self._make_room(size):
                    return DropReason.SPOOL_FULL
                if not self._own.id:
                    self._begin_stream()
                number = self._issued + 1
                self._doubt = True
                try:
                    new = self._file.insert(self._own.id << STREAM_BITS | number, record)
                except Trouble as trouble:
                    if trouble.reason is DropReason.SPOOL_FULL and self._find_space():
                        continue
                    raise
                if new:
                    self._count(number, size, (number, record))
                    return None
                self._count_found(number)
        except Trouble as trouble:
            if trouble.reason is DropReason.SPOOL_FULL:
                self._say_full()
            self._look_soon()
            return trouble.reason

    def _count(self, number: int, size: int, pair: tuple[int, bytes] | None) -> None:
        """Count the record that has this number, unless a call that interrupted its own did."""
        most, most_bytes = self._ahead
        own = self._own
        ledger = self.ledger
        with self._lock:
            while self._issued < number:
                near = pair is not None and not self._far and self._near + self._leased < most
                near = near and self._near_bytes + self._leased_bytes + size <= most_bytes
                if near and self._issued < number and not self._far:
                    self._issued = own.position = number
                    self._doubt = False
                    self._changes += 1
                    ledger.tracked += 1
                    self._held += 1
                    self._bytes += size
                    self._near += 1
                    self._near_bytes += size
                    self._ready.append(pair)  # type: ignore[arg-type] # not if near
                    break
                if not near and self._issued < number:
                    self._issued = number
                    self._doubt = False
                    self._changes += 1
                    ledger.tracked += 1
                    self._held += 1
                    self._bytes += size
                    own.left += 1
                    own.weight += size
                    self._far += 1
                    break

    def _count_found(self, number: int) -> None:
        """Count a row whose put was interrupted just after it was written."""
        record = self._file.record_at(self._own.id << STREAM_BITS | number)
        if record is not None:
            self._count(number, len(record) + RECORD_OVERHEAD, None)

    def _begin_stream(self) -> None:
        number = self._file.new_stream(self._own_name(), self._destination, BOOT, self._issued)
        if not self._own.id:  # or else a signal handler has been here meanwhile
            self._own.id = number

    def _has_room(self, size: int) -> bool:
        if self._bytes + size > self._max_bytes:
            return False
        return self._max_messages == NEVER or self._held + self._count_others() < self._max_messages

    def _count_others(self) -> int:
        """The messages of others in the file, at most a second ago."""
        now = time.monotonic()
        if now > self._others_at + 1.0:
            self._others = self._file.count(but="" if self._owner is None else self._owner.name)
            self._others_at = now
        return self._others

    def _make_room(self, size: int) -> bool:
        self._say_full()
        if not self._evict:
            return False
        others = self._others if self._max_messages != NEVER else 0
        least = self._leased + self._foreign - self._foreign_leased() + others
        if least >= self._max_messages or self._leased_bytes + size > self._max_bytes:
            return False  # if need be, without evicting in vain
        while not self._has_room(size):
            if not self._evict_one():
                break
        self._pay()
        return self._has_room(size)

    def _foreign_leased(self) -> int:
        return sum(key < 0 for lease in self._leases for key in lease.keys)

    def _find_space(self) -> bool:
        """Where the file may not grow: give up some of our oldest, if we may."""
        self._crowded = True
        if not self._evict:
            return False
        found = [self._evict_one() for _ in range(_EVICTED_AT_ONCE)]
        self._pay()
        return found[0] and not self._debts

    def _evict_one(self) -> bool:
        """Give up the oldest record of our own that is not leased, first in the books."""
        own = self._own
        while True:
            seen = self._changes
            place = next((place for place, (key, _) in enumerate(self._snapshot()) if key > 0), None)
            number = own.position + 1
            if place is None and not own.left:
                return False
            row = own.id << STREAM_BITS
            found = None if place is not None else self._file.record_at(row | number)
            with self._lock:
                if seen != self._changes:
                    continue
                ledger = self.ledger
                if place is not None:
                    key, record = self._ready[place]
                    ready = deque(pair for pair in self._snapshot() if pair[0] != key)
                    freed = len(record) + RECORD_OVERHEAD
                    debts = (*self._debts, row | key)
                    if seen != self._changes:
                        continue
                    self._changes += 1
                    self._ready = ready
                    self._near -= 1
                    self._near_bytes -= freed
                else:
                    record = found or b""
                    freed = min(len(record) + RECORD_OVERHEAD, own.weight) if own.left > 1 else own.weight
                    debts = (*self._debts, row | number)
                    if seen != self._changes:
                        continue
                    self._changes += 1
                    own.position = number
                    own.left -= 1
                    own.weight -= freed
                    self._far -= 1
                self._held -= 1
                self._bytes -= freed
                self._debts = debts
                ledger.evicted += 1
                if record and self._evicted_bytes + freed <= self._keep_evicted:
                    self._evicted_bytes += freed
                    self._evicted += (record,)
                return True

    def _tend(self) -> None:
        """In the consumer, now and then: see what went wrong, and whether another owner has died."""
        self._looked = time.monotonic()
        self._next_look = self._looked + LOOK
        if self._finished:
            return
        try:
            self._file.check()
            if self._doubt:
                with self._file.turn as mine:
                    if mine and self._own.id:
                        self._doubt = False
                        self._count_found(self._issued + 1)
            self._pay()
            self._end_lines()
            self._adopt()
            self._others_at = -NEVER
            if self._written_at != self._changes:
                self._written_at = self._changes
                self._file.checkpoint()
        except RuntimeError:
            pass
        except Gone as trouble:
            self._tell(str(trouble))
            self._begin_anew()
        except Trouble as trouble:
            self._tell(str(trouble))

    def wait(self, timeout: float | None) -> None:
        """In the consumer: wait until woken, at most `timeout` seconds; and look after the file now and then."""
        if timeout is None:  # it is a thread, which comes by again: a flush does not wait for ever
            self._file.may_share = True
        most = max(self._next_look - time.monotonic(), 0.0)
        wait = most if timeout is None else min(max(timeout, 0.0), most)
        self._token.acquire(timeout=min(wait, threading.TIMEOUT_MAX))
        self._wake_messages = self._wake_bytes = NEVER
        if time.monotonic() >= self._next_look:
            self._tend()

    def take(self, lease: Lease, messages: int, size: int) -> None:
        """Fill an empty lease with the oldest records: at most `messages`, and none beyond `size` bytes."""
        if time.monotonic() >= self._next_look:
            self._tend()
        super().take(lease, messages, size)
        if not lease.records and self._far:  # it cannot be read now: whoever asks for it is to ask less often
            self._token.acquire(timeout=_UNREADABLE)

    def read(self) -> Reading:
        """What the buffer holds, and its books, at one moment."""
        if self._finished:
            self._look_after_heirs()
        return super().read()


def _reset_all() -> None:
    for buffer in tuple(_buffers):
        buffer.reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
