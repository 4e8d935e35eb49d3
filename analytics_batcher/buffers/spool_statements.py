"""How statements are run: puts, what else is written in one's turn, and what is read."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from zlib import crc32

from ..errors import DropReason
from .spool_connections import RowIsThere, SpoolConnections, SqlError
from .spool_disk import Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

SEED: Final = 0xFFFFFFFF
"""Of a row's number, what its message's checksum begins with: a message in another's row is a damaged one."""
_INSERT: Final = "INSERT INTO message VALUES (?, ?, ?)"
_PUTS: Final = 64
"""Puts after which to look, and to let the read transaction go that they share."""
_ALONE: Final = 1.0
"""Seconds for which each put has a transaction of its own, after another process has written."""
_ROOM: Final = 16 * _PUTS
"""The least pages of the log with which it may grow by those of so many puts more."""


class SpoolStatements(SpoolConnections):
    """Runs statements; those that write, in one's turn.

    SQLite asks the system for six locks at each write, a third of its time; while a read transaction is open it asks
    for two. So puts share one, but not where another process writes too: each write of his makes it outdated. The log
    cannot begin anew while somebody reads; so it ends after `_PUTS` puts, before all else that is done in one's turn,
    and before the log is written back. The latter is for whoever runs the consumer: where nobody does, none is shared,
    and neither is one where the log may hardly grow.

    Attributes:
        may_share: Whether puts may share a read transaction, as somebody comes by who ends it.
    """

    def _begin(self) -> None:
        super()._begin()
        self.may_share = False
        self._shares = False
        self._puts_left = 0
        self._alone_until = 0.0

    def insert(self, row: int, record: bytes) -> bool:
        """Add a message: committed when this returns.

        Returns:
            False if the row is there already.

        Raises:
            Trouble: If it is not to be done now.
        """
        values = row, crc32(record, row & SEED), record
        while True:
            writer, now = self._writer, time.monotonic()
            if writer is None or self._puts_left <= 0 or now >= self._look_again:
                self._look_again = 0.0
                writer = self._to_write()
                self._puts_left = _PUTS
                self._shares = self.may_share and self._log_pages >= _ROOM and now >= self._alone_until
            if self._log_is_full:
                raise self.say(Trouble("the log is full while another process reads the file", DropReason.SPOOL_FULL))
            self._puts_left -= 1
            try:
                writer.put(_INSERT, values)
            except RowIsThere:
                return False
            except SqlError as error:
                if self.let_go():  # it was outdated, unless there is more to it
                    self._shares, self._alone_until = False, now + _ALONE
                elif writer is self._writer:  # or else a fork has closed it just now, in a signal handler
                    raise self._failed(error, writer) from None
            else:
                if self._shares and self._held is None:
                    self._hold(writer)
                return True

    def _hold(self, writer: Any) -> None:
        """Begin a read transaction, by reading the first of several rows that are in every file."""
        with suppress(SqlError):
            held = writer.execute("SELECT 1 FROM sqlite_master, sqlite_master")
            held.fetchone()
            self._held = held

    def _run(self, script: str) -> None:
        """Run statements in one transaction: by one call into C, in which no signal handler is let in."""
        writer = self._to_write()
        try:
            writer.executescript(f"BEGIN IMMEDIATE; {script} COMMIT;")
        except SqlError as error:
            with suppress(SqlError):
                if writer.in_transaction:
                    writer.execute("ROLLBACK")
            raise self._failed(error, writer) from None

    def _write(self, statement: str, values: Sequence[Any]) -> Any:
        writer = self._to_write()
        try:
            return writer.execute(statement, values)
        except SqlError as error:
            raise self._failed(error, writer) from None

    def _read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        with self.reading:
            reader = self._to_read()
            try:
                return reader.execute(statement, values).fetchall()
            except SqlError as error:
                raise self._failed(error, reader) from None
