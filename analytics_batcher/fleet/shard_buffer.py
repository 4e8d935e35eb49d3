"""The buffer of a relay: one shard's stream, of which the records that come next are in memory."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ..buffers import NEVER
from ..buffers.memory import MemoryBuffer
from ..errors import DropReason
from ..log import Damper, logger
from ..stamp import rebased
from .books import LATE, LOST
from .entries import OVERHEAD
from .reading import Entry, as_record
from .scripts import ADOPT, READ, RELEASE, SETTLE, START
from .server import GROUP, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..buffers import Lease
    from ..stats import Loss
    from .server import Keys, Script, Server
    from .shards import Holding

_UNBOUNDED: Final = 2**62  # it is this buffer that asks for what it gets
_AT_ONCE: Final = 500
_AHEAD: Final = 4
"""So many batches are read at once, if they are there."""
_LOOK: Final = 0.5
"""Seconds after which to look whether the shard is still ours, and still wanted here."""
_PAUSE: Final = 0.02
"""Seconds between two reads that found less than a batch."""
_SHORT: Final = 0.01
_UNREACHABLE: Final = 0.5
_NEW: Final = ">"
_RAN_OUT: Final = "the lease ran out, and is not renewed yet"


class Debt:
    """Entries that are settled here, and not on the server yet. Of the thread that serves the shard."""

    __slots__ = ("delivered", "given_up", "letters", "size")

    def __init__(
        self, delivered: Sequence[bytes], given_up: Sequence[bytes], letters: Sequence[bytes], size: int
    ) -> None:
        self.delivered = delivered
        self.given_up = given_up
        self.letters = letters
        self.size = size


class ShardBuffer(MemoryBuffer):
    """What a relay has of a shard that it holds. What is not settled stays on the server, pending, for the next holder.

    First comes all that is pending for the group, in its order, then what is new: so the stream's order is kept.
    What is settled is acknowledged at once; the consumer has written dead letters before. What cannot be acknowledged
    now is tried again before anything else is read. If somebody else has had the shard meanwhile, everything is void.

    All but the figures belongs to the one thread that serves the shard.

    Args:
        server: A connection of its own.
        keys: The stream's keys.
        holding: The shard.
        relay: This relay's name.
        refuse: Is told of entries that are no records, as records that say so, after they were counted.
    """

    durable = True

    def __init__(
        self, server: Server, keys: Keys, holding: Holding, relay: str, refuse: Callable[[list[bytes]], object]
    ) -> None:
        super().__init__(_UNBOUNDED, _UNBOUNDED)
        self._server = server
        self._holding = holding
        self._relay = relay
        self._refuse = refuse
        shard = holding.shard
        self._stream = keys.stream(shard)
        self._keys = [self._stream, keys.books(shard), keys.lease(shard), keys.dead]
        self._entries: dict[int, bytes] = {}  # by a record's key, of those that wait or are leased
        self._known: set[bytes] = set()
        self._issued = 0
        self._adopted = START  # how far what others had pending is ours; nothing once it all is
        self._position = START  # after which entry to read on
        self._last = START
        self._debts: list[Debt] = []
        self._letters: list[bytes] = []  # written with the next ones that are acknowledged
        self._requests = self._retries = 0
        self._damper = Damper()

    # What the consumer does

    def count_requests(self, requests: int, retries: int, batches: int, error: str | None) -> None:
        """Count requests; `error` says what went wrong with the last one."""
        super().count_requests(requests, retries, batches, error)
        self._requests += requests
        self._retries += retries

    def take(self, lease: Lease, messages: int, size: int) -> None:
        """Fill an empty lease with the oldest records: at most `messages`, and none beyond `size` bytes."""
        self._letters.clear()  # of what was not settled after all
        if self._pay():
            self._fill(messages, size)
        super().take(lease, messages, size)

    def settle(self, lease: Lease, delivered: Sequence[int], losses: Sequence[Loss]) -> bool:
        """Remove records of the lease and count them; the others stay leased.

        Returns:
            False if the shard is not ours any more: nothing is counted then.
        """
        if self._holding.lost:
            self._hand_over()
            return False
        given_up = [position for loss in losses for position in loss.positions]
        settled = [self._entries[lease.keys[position]] for position in delivered]
        lost = [self._entries[lease.keys[position]] for position in given_up]
        keys = [lease.keys[position] for position in (*delivered, *given_up)]
        if keys:
            self._owe(settled, lost, _size(lease, (*delivered, *given_up)))
            self._pay()
        if self._holding.lost or not super().settle(lease, delivered, losses):
            return False
        for key in keys:
            self._known.discard(self._entries.pop(key))
        return True

    def wait(self, timeout: float | None) -> None:
        """In the consumer: wait until woken, or so much has come as it is armed for, at most `timeout` seconds."""
        wanted, size = self._wake_messages, self._wake_bytes
        most = _LOOK if timeout is None else min(timeout, _LOOK)
        if most < _SHORT:
            super().wait(most)
            return
        if self._pay() and (wanted is not NEVER or size is not NEVER):
            self._await_entries(wanted, size, time.monotonic() + most)
            self._wake_messages = self._wake_bytes = NEVER
        else:
            super().wait(most)

    def abandon(self, reason: DropReason) -> list[bytes]:
        """Nothing: what is not settled is the next holder's."""
        del reason
        return []

    def finish(self) -> None:
        """Give the shard up, so that another one can have it at once."""
        self._pay()
        with suppress(Trouble):
            self._run(RELEASE)
        self._hand_over()
        self._server.close()

    # What only the relay does

    def add_letters(self, lines: Sequence[bytes]) -> None:
        """Have dead letters written to the server in the step in which the records are acknowledged that are next."""
        self._letters += lines

    def tell(self, trouble: Trouble) -> None:
        """Say what went wrong with the server, now and then; and look again at what is pending here."""
        self.trouble = str(trouble)
        # What a lost answer had in it comes after all that is here.
        self._position = START
        if self._damper.count("server"):
            logger.warning("relay: shard=%d redis: %s", self._holding.shard, self.trouble)

    def _run(self, script: Script, *arguments: Any) -> list[Any] | None:
        """Run a fenced script; nothing if the shard is not ours any more, and then everything here is void."""
        if self._holding.lost:
            self._hand_over()
            return None
        answer: list[Any] = self._server.run(script, self._keys, [self._holding.token, *arguments])
        if answer[0] == LATE:
            raise Trouble(_RAN_OUT)
        if answer[0] == LOST:
            self._holding.lost = True
            self._hand_over()
            return None
        return answer

    def _hand_over(self) -> None:
        """Forget what is not settled: it is another one's now, or soon."""
        self._debts.clear()
        self._letters.clear()
        self._entries.clear()
        self._known.clear()
        count = len(super().abandon(DropReason.EXIT))
        self.ledger.lost = {**self.ledger.lost, DropReason.EXIT: 0}
        self.ledger.handed_over += count

    def _owe(self, delivered: Sequence[bytes], given_up: Sequence[bytes], size: int) -> None:
        self._debts.append(Debt(delivered, given_up, self._letters, size))
        self._letters = []

    def _pay(self) -> bool:
        """Settle on the server what is settled here.

        Returns:
            Whether all is, so that more can be read.
        """
        requests, retries = self._requests, self._retries
        if requests and not self._debts:
            self._owe((), (), 0)
        try:
            while self._debts:
                debt = self._debts[0]
                figures = [debt.size, len(debt.delivered), len(debt.given_up)]
                ids = [*debt.delivered, *debt.given_up]
                answer = self._run(SETTLE, GROUP, *figures, *ids, requests, retries, *debt.letters)
                if answer is None:
                    return False
                self._tell_trimmed(answer[1])
                self._requests -= requests
                self._retries -= retries
                requests = retries = 0
                del self._debts[0]
        except Trouble as trouble:
            self.tell(trouble)
            return False
        return True

    def _tell_trimmed(self, count: int) -> None:
        said = self._damper.count("trimmed", count) if count else 0
        if said:
            text = "relay: shard=%d trimmed=%d: entries that were not delivered were removed by somebody else"
            logger.error(text, self._holding.shard, said)

    # Reading

    def _await_entries(self, wanted: float, size: float, end: float) -> None:
        """Until so much is here, or somebody wakes us, or it is time."""
        came: Any = None
        while not self._holding.lost and not self._token.acquire(blocking=False):
            found = self._fill(wanted, size)
            reading = self.read()
            left = end - time.monotonic()
            if found is None or reading.waiting >= wanted or reading.waiting_bytes >= size or left <= 0:
                return
            # What came and cannot be read is nobody's any more: it must not keep us busy.
            pause = min(_PAUSE if found else _LOOK if came else 0.0, left)
            if pause and self._token.acquire(timeout=pause):
                return
            try:
                milliseconds = max(int((left - pause) * 1000), 1)
                block = ("XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", self._stream, self._last)
                came = self._server.call(*block, patience=left)
            except Trouble as trouble:
                self.tell(trouble)
                return

    def _fill(self, messages: float, size: float) -> int | None:
        """Read on until so much waits, or there is no more.

        Returns:
            How many were read; `None` if they could not be.
        """
        found = 0
        try:
            while not self._holding.lost:
                reading = self.read()
                if reading.waiting >= messages or reading.waiting_bytes >= size:
                    return found
                more = self._read(int(min(_AHEAD * min(messages, _AT_ONCE), _AT_ONCE)))
                if more is None:
                    return found
                found += more
        except Trouble as trouble:
            self.tell(trouble)
            super().wait(_UNREACHABLE)
        return None

    def _read(self, count: int) -> int | None:
        """Read once; nothing if there is nothing."""
        while self._adopted:
            answer = self._run(ADOPT, GROUP, self._relay, self._adopted)
            if answer is None:
                return None
            cursor = answer[1].decode()
            self._adopted = "" if cursor == START else cursor
        answer = self._run(READ, GROUP, self._relay, count, self._position)
        if answer is None:
            return None
        self.trouble = ""
        self._tell_trimmed(answer[1])
        last, found = answer[2], answer[3]
        if last:
            self._last = last
        if self._position != _NEW:
            self._position = last or _NEW
        elif not last:
            return None
        return self._add([Entry(*pair) for pair in zip(found[::2], found[1::2], strict=True)])

    def _add(self, entries: Sequence[Entry]) -> int:
        """Take up what was read, but for what is here already."""
        now, moment = time.monotonic(), time.time()
        strange = []
        added = 0
        for entry in entries:
            content = entry.content
            if entry.id in self._known:
                continue
            if not entry.is_record or not isinstance(content, bytes):
                strange.append(entry)
                continue
            self._known.add(entry.id)
            self._entries[self._issued] = entry.id
            self._issued += 1
            self.put(rebased(content, now, moment))
            added += 1
        if strange:
            self._give_up(strange)
        return added

    def _give_up(self, strange: Sequence[Entry]) -> None:
        """Count and tell what is no record; acknowledge it after that."""
        self.ledger.tracked += len(strange)
        self.ledger.lost = {**self.ledger.lost, DropReason.INVALID: self.ledger.lost[DropReason.INVALID] + len(strange)}
        self._refuse([as_record(entry) for entry in strange])
        self._owe((), [entry.id for entry in strange], sum(map(_weight, strange)))


def _weight(entry: Entry) -> int:
    content = entry.content
    return len(content if isinstance(content, bytes) else b"".join(content)) + OVERHEAD


def _size(lease: Lease, positions: Sequence[int]) -> int:
    return sum(len(lease.records[position]) + OVERHEAD for position in positions)
