"""How a durable buffer reads ahead, and removes what was settled."""

from __future__ import annotations

import time
from collections import deque
from contextlib import suppress
from struct import Struct
from typing import TYPE_CHECKING, Final

from ..stamp import rebased
from . import NEVER, Lease, first_of
from .spool_books import RECORD_OVERHEAD, Line, SpoolBooks, open_gates
from .spool_disk import Trouble
from .spool_file import NUMBER, STREAM_BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..stats import Loss

_AT_ONCE: Final = 1_000
_CHECKPOINT: Final = 4_000
"""Removed messages after which the log is written back, while puts take half as long again."""

_wall_of = Struct(">d").unpack_from


class SpoolLines(SpoolBooks):
    """Takes, settles, reads what is in the file only, and removes what was settled."""

    def take(self, lease: Lease, messages: int, size: int) -> None:
        """Fill an empty lease with the oldest records: at most `messages`, and none beyond `size` bytes."""
        self._load(messages, size)
        with self._lock:
            while True:
                seen = self._changes
                line = self._snapshot()
                records = first_of([record for _, record in line[:messages]], size)
                keys = [key for key, _ in line[: len(records)]]
                ready = deque(line[len(records) :])
                weight = sum(map(len, records)) + RECORD_OVERHEAD * len(records)
                leases = (*self._leases, lease)
                count = len(records)
                if seen == self._changes:
                    if count:
                        lease.keys, lease.records = keys, records
                        self._changes += 1
                        self._leases = leases
                        self._ready = ready
                        self._near -= count
                        self._near_bytes -= weight
                        self._leased += count
                        self._leased_bytes += weight
                        self._full = False
                    return

    def settle(self, lease: Lease, delivered: Sequence[int], losses: Sequence[Loss]) -> bool:
        """Remove records of the lease and count them; the others stay leased.

        Returns:
            False if the lease is void: nothing is counted then.
        """
        gone = set(delivered).union(*(loss.positions for loss in losses))
        arrived = len(delivered)
        with self._lock:
            while True:
                seen = self._changes
                valid = lease in self._leases
                rest = [position for position in range(len(lease.records)) if position not in gone]
                keys = [lease.keys[position] for position in rest]
                records = [lease.records[position] for position in rest]
                settled = [lease.keys[position] for position in sorted(gone)] if valid else []
                size = sum(map(len, lease.records)) - sum(map(len, records)) + RECORD_OVERHEAD * len(gone)
                debts = (*self._debts, *map(self._row_of, settled))
                foreign = sum(key < 0 for key in settled)
                lost = self.ledger.lost_with(losses)
                leases = self._leases if records else self._without(lease)
                count = len(gone)
                if seen == self._changes:
                    if valid:
                        self._changes += 1
                        lease.keys, lease.records = keys, records
                        self._leases = leases
                        self._held -= count
                        self._bytes -= size
                        self._leased -= count
                        self._leased_bytes -= size
                        self._foreign -= foreign
                        self._debts = debts
                        self.ledger.delivered += arrived
                        self.ledger.lost = lost
                    break
            gates, self._gates = self._gates, {}
        if valid:
            self._pay()
            self._forget_places(settled)
            if not self._near:  # so that the age of what waits is known
                self._load(_AT_ONCE, self._ahead[1])
        self._crowded = False
        open_gates(gates)
        return valid

    def _pay(self) -> None:
        """Remove from the file what was settled; what cannot be removed now is remembered."""
        debts = self._debts
        if not debts:
            return
        try:
            if self._written >= _CHECKPOINT:
                self._written = 0
                self._file.checkpoint()
            with self._file.turn as mine:
                paid = self._removed(debts) if mine else ()
        except RuntimeError:
            return
        except Trouble as trouble:
            self._tell(f"what was settled cannot be removed yet: {trouble}")
            return
        done = frozenset(paid)
        with self._lock:
            while True:
                seen = self._changes
                rest = tuple([row for row in self._debts if row not in done])
                if seen == self._changes:
                    self._changes += 1
                    self._debts = rest
                    break
        self._written += len(done)

    def _removed(self, debts: Sequence[int]) -> Sequence[int]:
        try:
            self._file.remove(debts)
        except Trouble as trouble:
            if not trouble.corrupt:
                raise
            for row in debts:  # all but what cannot be removed, and so cannot be read any more either
                with suppress(Trouble):
                    self._file.remove([row])
        return debts

    # Reading ahead

    def _load(self, messages: int, size: int) -> None:
        """Read what comes next from the file, until so much is in memory."""
        most, most_bytes = self._ahead
        while self._far and self._near < messages and self._near_bytes < size:
            room = min(messages, most - self._leased) - self._near
            if self._near and (room <= 0 or self._near_bytes + self._leased_bytes >= most_bytes):
                return
            try:
                if not self._load_from_oldest(max(room, 1)):
                    return
            except Trouble as trouble:
                self._tell(f"what waits cannot be read now: {trouble}")
                self._look_soon()
                return

    def _load_from_oldest(self, messages: int) -> bool:
        """Read from the line whose next message is the oldest, as long as it is."""
        lines = [line for line in self._lines if line.left > 0]
        if not lines:
            return False
        until = NEVER
        line = lines[0]
        if len(lines) > 1:
            for one in lines:
                if one.wall is None:
                    self._look_up_wall(one)
            line, other = sorted(lines, key=_next_wall)[:2]
            until = _next_wall(other)
        start = line.position
        try:
            found = self._file.read(line.id << STREAM_BITS | start, self._end_of(line), min(messages, _AT_ONCE))
        except Trouble as trouble:
            if not trouble.corrupt:
                raise
            found = self._read_around(line)
        taken = [one for one in found if one is found[0] or (one[1] and _wall_of(one[1])[0] <= until)]
        taken = found[: len(taken)]
        following = found[len(taken)][1] if len(taken) < len(found) else None
        self._add(line, start, taken, wall=_wall_of(following)[0] if following else None)
        return True

    def _end_of(self, line: Line) -> int:
        return line.id << STREAM_BITS | (self._issued if line.is_ours else line.last)

    def _look_up_wall(self, line: Line) -> None:
        row = line.id << STREAM_BITS | line.position
        try:
            found = self._file.read(row, self._end_of(line), 1)
        except Trouble as trouble:
            if not trouble.corrupt:
                raise
            found = []
        line.wall = _wall_of(found[0][1])[0] if found and found[0][1] else 0.0

    def _read_around(self, line: Line) -> list[tuple[int, bytes | None]]:
        """One by one, where the file is damaged: `None` stands for what cannot be read."""
        row = line.id << STREAM_BITS | line.position
        end = min(self._end_of(line), row + (line.left if line.is_counted else _AT_ONCE), row + _AT_ONCE)
        found: list[tuple[int, bytes | None]] = []
        while row < end:
            row += 1
            try:
                found += self._file.read(row - 1, row, 1)
            except Trouble as trouble:
                if not trouble.corrupt:
                    raise
                if line.is_counted:
                    found.append((row, None))
        return found

    def _add(self, line: Line, start: int, found: Sequence[tuple[int, bytes | None]], *, wall: float | None) -> None:
        """Take up what was read of a line, and count what should have been there and was not."""
        damaged = tuple([row for row, record in found if not record])
        pairs = self._with_keys(line, [(row, record) for row, record in found if record])
        position = found[-1][0] & NUMBER if found else line.last
        weight = sum(len(record) + RECORD_OVERHEAD for _, record in pairs)
        count = len(pairs)
        with self._lock:
            while line.position == start:
                seen = self._changes
                more = 0
                if line.is_ours:
                    end = position if found else self._issued
                    missing = end - start - count
                    left = line.left - (end - start)
                else:
                    end = position
                    left = max(line.left - len(found), 0 if line.is_counted else 1) if found else 0
                    more = max(len(found) + left - line.left, 0)
                    missing = line.left + more - left - count
                each = weight // count if count else line.weight // max(line.left, 1)
                rest = (line.weight - weight if line.is_ours else each * left) if left else 0
                grown = weight + rest - line.weight
                ready = deque([*self._snapshot(), *pairs])
                debts = (*self._debts, *damaged)
                foreign = 0 if line.is_ours else missing - more
                far = self._far - line.left + left
                if seen == self._changes:
                    self._changes += 1
                    line.position = end
                    line.left = left
                    line.weight = rest
                    line.wall = wall
                    self._ready = ready
                    self._near += count
                    self._near_bytes += weight
                    self._far = far
                    self._bytes += grown
                    self._held += more - missing
                    self._foreign -= foreign
                    self.ledger.recovered += more
                    self._debts = debts
                    self.ledger.vanished += missing
                    if foreign:
                        line.open -= foreign
                    return

    def _with_keys(self, line: Line, found: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        if line.is_ours:
            return [(row & NUMBER, record) for row, record in found]
        now, moment = time.monotonic(), time.time()
        pairs = []
        for row, record in found:
            self._places[self._next_key] = line, row
            pairs.append((self._next_key, record if line.same_boot else rebased(record, now, moment)))
            self._next_key += 1
        return pairs


def _next_wall(line: Line) -> float:
    return 0.0 if line.wall is None else line.wall
