"""One SQLite file as one owner sees it: its schema, its statements, and what goes wrong with it.

A message's row number is its stream's, shifted, plus its number in the stream, which counts up without a gap. So a put
is one statement into one table, the oldest ones stand together, and to take over a million of them is to change one
row: that of their stream.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zlib import crc32

from .spool_disk import Trouble
from .spool_statements import SEED, SpoolStatements

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

STREAM_BITS: Final = 38
"""A stream has room for 2.7e11 messages, and a file for 3.3e7 streams."""
NUMBER: Final = (1 << STREAM_BITS) - 1
UNKNOWN: Final = -1
_ROWS: Final = f"row BETWEEN id << {STREAM_BITS} AND id << {STREAM_BITS} | {NUMBER}"
# A stream in which there is a message, and yet nothing left by the count, was damaged.
_LEFT: Final = f"""(
    SELECT CASE WHEN last IS NULL THEN 0 WHEN max(top, {NUMBER} & last) <= settled THEN {UNKNOWN}
    ELSE max(top, {NUMBER} & last) - settled END FROM (SELECT max(row) AS last FROM message WHERE {_ROWS})
)"""  # noqa: S608 - of numbers of ours


class Stream(NamedTuple):
    """Messages of one owner, in their order.

    Attributes:
        id: Its number.
        boot: The system's run in which they were accepted, as far as it has a name.
        left: How many of them are there, or `UNKNOWN`.
    """

    id: int
    boot: str
    left: int


class SpoolFile(SpoolStatements):
    """The statements that a buffer makes; those that write are made in one's turn."""

    def new_stream(self, keeper: str, destination: str, boot: str, settled: int) -> int:
        """Begin a stream; its first message has the number after `settled`."""
        statement = "INSERT INTO stream (keeper, destination, boot, settled, top) VALUES (?, ?, ?, ?, ?)"
        return int(self._write(statement, (keeper, destination, boot, settled, settled)).lastrowid or 0)

    def adopt(self, keeper: str, dead: str, destination: str) -> None:
        """Take over all streams for a destination that a dead owner kept."""
        statement = "UPDATE stream SET keeper = ? WHERE keeper = ? AND destination = ?"
        self._write(statement, (keeper, dead, destination))

    def end_stream(self, number: int, keeper: str) -> None:
        """Remove a stream that has no message any more."""
        low = number << STREAM_BITS
        there = "SELECT 1 FROM message WHERE row BETWEEN ? AND ?"
        statement = f"DELETE FROM stream WHERE id = ? AND keeper = ? AND NOT EXISTS ({there})"  # noqa: S608 - ours
        self._write(statement, (number, keeper, low, low | NUMBER))

    def remove(self, rows: Iterable[int]) -> None:
        """Remove messages, all or none of them, and count them in their streams."""
        by_stream: dict[int, list[int]] = {}
        for row in rows:
            by_stream.setdefault(row >> STREAM_BITS, []).append(row)
        script = ""
        for stream, some in by_stream.items():
            first, last = min(some), max(some)
            whole = last - first + 1 == len(some)
            which = f"BETWEEN {first} AND {last}" if whole else f"IN ({','.join(map(str, some))})"
            script += f"DELETE FROM message WHERE row {which};"  # noqa: S608 - numbers of ours
            counts = f"settled = settled + changes(), top = max(top, {last & NUMBER})"
            script += f"UPDATE stream SET {counts} WHERE id = {stream};"  # noqa: S608 - as above
        self._run(script)

    def streams(self, keeper: str) -> list[Stream]:
        """The streams that an owner keeps."""
        try:
            return self._streams(keeper, _LEFT)
        except Trouble as trouble:
            if not trouble.corrupt:
                raise
            return self._streams(keeper, str(UNKNOWN))  # perhaps it is only the end of one that is damaged

    def _streams(self, keeper: str, left: str) -> list[Stream]:
        found = self._read(f"SELECT id, boot, {left} FROM stream WHERE keeper = ?", (keeper,))  # noqa: S608 - ours
        return [Stream(number, _text(boot), left if isinstance(left, int) else UNKNOWN) for number, boot, left in found]

    def keepers(self, destination: str) -> list[str]:
        """The owners who keep messages for a destination."""
        statement = "SELECT DISTINCT keeper FROM stream WHERE destination = ?"
        return [_text(keeper) for (keeper,) in self._read(statement, (destination,))]

    def all_keepers(self) -> set[str]:
        """The owners who keep messages for any destination."""
        return {_text(keeper) for (keeper,) in self._read("SELECT DISTINCT keeper FROM stream")}

    def kept_by(self, streams: Sequence[int]) -> dict[int, str]:
        """Who keeps these streams, as far as they are there."""
        marks = ",".join("?" * len(streams))
        statement = f"SELECT id, keeper FROM stream WHERE id IN ({marks})"  # noqa: S608 - marks
        return {number: _text(keeper) for number, keeper in self._read(statement, streams)}

    def count(self, but: str = "") -> int:
        """The messages in the file, whoever keeps them, but for one. Made in one's turn, as it must not wait."""
        each = f"SELECT {_LEFT} AS left FROM stream WHERE keeper != ?"  # noqa: S608 - ours
        return sum(abs(left) for (left,) in self._write(each, (but,)).fetchall() if isinstance(left, int))

    def overview(self) -> list[tuple[str, str, int, bytes | None]]:
        """Of each stream with messages: its destination, its keeper, how many there are, and the oldest one."""
        found = []
        statement = f"SELECT destination, keeper, id, {_LEFT} FROM stream"  # noqa: S608 - ours
        for destination, keeper, number, left in self._read(statement):
            if left:
                row = number << STREAM_BITS
                first = [record for _, record in self.read(row, row | NUMBER, 1)]
                found.append((_text(destination), _text(keeper), abs(left), first[0] if first else None))
        return found

    def read(self, after: int, upto: int, messages: int) -> list[tuple[int, bytes | None]]:
        """Messages in the order of their rows, at most so many; `None` for one that is damaged.

        Raises:
            Trouble: If some of them cannot be read.
        """
        statement = "SELECT row, sum, record FROM message WHERE row > ? AND row <= ? ORDER BY row LIMIT ?"
        found: list[tuple[int, bytes | None]] = []
        last = after
        for row, total, record in self._read(statement, (after, upto, messages)):
            if not last < row <= upto:  # the way through a damaged file may lead anywhere
                if not found:
                    raise self.say(Trouble("rows are out of order", corrupt=True))
                break
            found.append((row, record if _is_whole(row, total, record) else None))
            last = row
        return found

    def record_at(self, row: int) -> bytes | None:
        """A message, if it is there; as whoever puts sees it."""
        found = self._write("SELECT record FROM message WHERE row = ?", (row,)).fetchone()
        return found[0] if found is not None and isinstance(found[0], bytes) else None

    def checkpoint(self) -> None:
        """Bring what is in the log into the file, so that the log begins anew."""
        with suppress(Trouble, RuntimeError):
            with self.turn as mine:
                if mine:
                    self.let_go()
            self._read("PRAGMA wal_checkpoint(PASSIVE)")


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_whole(row: int, total: Any, record: Any) -> bool:
    return isinstance(record, bytes) and total == crc32(record, row & SEED)
