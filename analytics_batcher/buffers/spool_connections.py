"""Connections to a spool: how they are made, what goes wrong with them, and what a fork does to them."""

from __future__ import annotations

import _thread
import os
import sqlite3
import time
import weakref
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from . import owners
from .spool_disk import (
    Gone,
    Trouble,
    forget_probe,
    keep_for_ever,
    lock_as_inherited,
    log_bytes,
    log_pages,
    pages_for,
    probe,
    trouble_of,
)
from .spool_schema import HEADER_BYTES, begin_log, check_header, upgrade

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE: Final = 0.05
"""Seconds that a call waits for other threads, and then for other processes."""
_OPENING: Final = 2.0
_FORKING: Final = 1.0
_TRY_AGAIN: Final = 1.0
_LOOK: Final = 1.0
_LEAST_BYTES: Final = 2**18
_WAL_LIMIT: Final = 8 * 2**20

SqlError, RowIsThere = sqlite3.Error, sqlite3.IntegrityError

# Those with open connections; a fork closes them, as SQLite cannot live through one.
_open: weakref.WeakSet[SpoolConnections] = weakref.WeakSet()
_turns: dict[str, Any] = {}
_resting: list[SpoolConnections] = []
_process = os.getpid()


class Connection(sqlite3.Connection):
    """One that keeps the cursor of its puts: a new one for each would cost them 0.3 microseconds."""

    put: Any


class SpoolConnections:
    """Two connections to a file, one for puts and one for the consumer, made when they are needed.

    Locking: whoever writes does it in his turn (`with self.turn as mine`), which he waits for `PATIENCE` seconds;
    whoever reads holds `reading`. Both may be taken again by the thread that has them, and a fork takes both. What
    went wrong last and the times at which to look again are hints.

    Args:
        path: The file.
        synchronous: `"normal"` or `"full"`.
        max_bytes: The most bytes of the file.

    Attributes:
        turn: A context manager: whether it was entered in time.
        reading: A lock.
        trouble: What went wrong last.
    """

    def __init__(self, path: str, *, synchronous: str, max_bytes: int) -> None:
        self.path = str(Path(path).resolve())
        self._synchronous = synchronous
        self._most_bytes = max(max_bytes, _LEAST_BYTES)
        self.trouble = ""
        self._begin()

    def _begin(self) -> None:
        self._writing = _turns.setdefault(self.path, _thread.RLock())  # of all in this process: fairer than the file's
        self.turn = _timed(self._writing)
        self.reading: Any = _thread.RLock()
        self._writer: Connection | None = None
        self._reader: Connection | None = None
        self._page = self._pages = self._log_pages = 0
        self._held: sqlite3.Cursor | None = None
        self._log_is_full = False
        self._live: list[Connection] = []
        weakref.finalize(self, _close_all, self._live, os.getpid()).atexit = False
        self._identity: tuple[int, int] | None = None
        self._try_again = self._look_again = 0.0

    # Opening

    def open(self) -> None:
        """Open the file; make it, if there is none.

        Raises:
            ValueError: If it is not ours to open: no database, another application's, a newer version's.
            Trouble: If that may pass.
        """
        self._writer = self._connect(_OPENING, net=True)

    def _connect(self, patience: float, *, net: bool) -> Connection:
        self._try_again = time.monotonic() + _TRY_AGAIN
        try:
            self._refuse_strangers()
            connection = self._connected(patience, net=net)
        except sqlite3.Error as error:
            raise self.say(trouble_of(error)) from None
        except OSError as error:
            raise self.say(Trouble(error.strerror or type(error).__name__)) from None
        self._live.append(connection)
        _open.add(self)
        self._try_again = 0.0
        return connection

    def _refuse_strangers(self) -> None:
        """Look at the file's first bytes before SQLite does, which would take up another application's journal."""
        descriptor = probe(self.path, create=self._identity is None)
        found = os.fstat(descriptor)
        identity = found.st_dev, found.st_ino
        if self._identity not in {None, identity}:
            raise self.say(Gone("another file is in the place of the old one"))
        check_header(self.path, os.pread(descriptor, HEADER_BYTES, 0))
        self._identity = identity

    def _connected(self, patience: float, *, net: bool) -> Connection:
        uri = f"file:{quote(self.path)}?mode=rw"
        options: dict[str, Any] = {"isolation_level": None, "check_same_thread": False, "cached_statements": 32}
        connection = sqlite3.connect(uri, uri=True, timeout=patience, factory=Connection, **options)
        try:
            connection.text_factory = bytes  # or else the error about a damaged text would quote it
            upgrade(connection, self.path)
            self._page = page = connection.execute("PRAGMA page_size").fetchone()[0]
            self._log_pages = log_pages(self.path, page, self._most_bytes // page)
            begin_log(connection, self.path)
            for setting in (
                f"synchronous = {self._synchronous}",
                "secure_delete = FAST",  # where it is on, as in Debian, a removal writes all that it frees into the log
                f"journal_size_limit = {_WAL_LIMIT}",
                f"wal_autocheckpoint = {self._log_pages if net else 0}",
                f"busy_timeout = {int(PATIENCE * 1000)}",
            ):
                connection.execute(f"PRAGMA {setting}").fetchall()
            connection.put = connection.cursor().execute
        except BaseException:
            connection.close()
            raise
        return connection

    def _to_write(self) -> Connection:
        """The connection for puts, and a look whether the file is still where it was."""
        now = time.monotonic()
        self.let_go()
        if self._writer is None:
            self._writer = self._again(now, net=True)
            self._look_again, self._pages = 0.0, 0
        if now >= self._look_again:
            self._look(now)
            self._bound_log(self._writer)
        return self._writer

    def _to_read(self) -> Connection:
        if self._reader is None:
            self._reader = self._again(time.monotonic(), net=False)
        return self._reader

    def _again(self, now: float, *, net: bool) -> Connection:
        if now < self._try_again:
            raise Trouble(self.trouble)
        try:
            return self._connect(PATIENCE, net=net)
        except ValueError as error:
            raise self.say(Trouble(str(error))) from None

    def _look(self, now: float) -> None:
        found = None
        with suppress(OSError):
            status = Path(self.path).stat()
            found = status.st_dev, status.st_ino
        if found != self._identity:
            raise self.say(Gone("the file is not where it was"))
        self._look_again = now + _LOOK
        if self._writer is not None:
            self._keep_reserve(self._writer, status.st_size)

    def _keep_reserve(self, writer: Connection, size: int) -> None:
        try:
            pages = pages_for(self.path, self._page, self._most_bytes // self._page, size)
            if pages != self._pages:
                self._pages = pages
                writer.execute(f"PRAGMA max_page_count = {pages}").fetchall()
        except sqlite3.Error as error:
            raise self._failed(error, writer) from None
        except OSError as error:
            raise self.say(Trouble(error.strerror or type(error).__name__)) from None

    def _bound_log(self, writer: Connection) -> None:
        """Let the log grow no further than the file may, if somebody reads the file for so long."""
        self._log_is_full = False
        if log_bytes(self.path) > self._most_bytes:
            try:
                self._log_is_full = bool(writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
            except sqlite3.Error as error:
                raise self._failed(error, writer) from None

    def let_go(self) -> bool:
        """End the read transaction that puts share, as the one whose turn it is.

        Returns:
            Whether there was one.
        """
        held, self._held = self._held, None
        if held is None:
            return False
        with suppress(sqlite3.Error):  # a fork may have closed its connection
            held.close()
        return True

    def check(self) -> None:
        """See whether the file is still where it was.

        Raises:
            Gone: If it is not.
        """
        self._look(time.monotonic())

    def close(self) -> None:
        """Close the connections, as the only one who uses them; what comes next opens the file that is there then."""
        self.let_go()
        reader, writer = self._reader, self._writer
        self._reader = self._writer = None
        self._drop(reader, writer)
        _open.discard(self)
        if not any(other.path == self.path for other in tuple(_open)):
            forget_probe(self._identity)
        self._identity = None
        self._try_again = self._look_again = 0.0

    @property
    def locks(self) -> tuple[Any, ...]:
        """Those that a thread may hold which is interrupted."""
        return self._writing, self.reading

    # What goes wrong

    def _failed(self, error: sqlite3.Error, connection: Connection) -> Trouble:
        trouble = trouble_of(error)
        if not trouble.passes:  # perhaps it is the connection's
            self._try_again = time.monotonic() + _TRY_AGAIN
            if connection is self._writer:
                self._writer = None
            elif connection is self._reader:
                self._reader = None
            self._drop(connection)
        return self.say(trouble)

    def _drop(self, *connections: Connection | None) -> None:
        for connection in connections:
            if connection is not None:
                self._live.remove(connection)
                with suppress(sqlite3.Error):
                    connection.close()

    def say(self, trouble: Trouble) -> Trouble:
        """Remember what went wrong."""
        self.trouble = str(trouble)
        return trouble

    # Forks

    def rest(self, deadline: float) -> None:
        """Before a fork: close the connections, which must not cross one, and let nobody make new ones."""
        for lock in (self.reading, self._writing):
            lock.acquire(timeout=max(deadline - time.monotonic(), 0.0))
        if self.reading._is_owned() and self._writing._is_owned():  # noqa: SLF001 - see the memory buffer
            self.let_go()
            reader, self._reader = self._reader, None
            writer, self._writer = self._writer, None
            self._drop(reader, writer)

    def resume(self) -> None:
        """After a fork, in the parent."""
        for lock in (self._writing, self.reading):
            with suppress(RuntimeError):  # it was not to be had in time
                lock.release()

    def after_fork(self) -> None:
        """In a forked child: begin anew. A connection that could not be closed before stays the parent's."""
        for connection in self._live:
            keep_for_ever(connection)
            keep_for_ever(self._held)
            lock_as_inherited(self.path)
        self._begin()


def _timed(lock: Any) -> Any:
    """A lock to be waited for `PATIENCE` seconds, by `with`, which enters and leaves it by calls into C alone.

    In any other way an exception from outside could come in between, and leave it locked. Where it was not entered
    in time, leaving it raises a `RuntimeError`.
    """
    enter, leave = partial(lock.acquire, True, PATIENCE), lock.__exit__
    return type("Turn", (), {"__enter__": staticmethod(enter), "__exit__": staticmethod(leave)})()


def _close_all(connections: Sequence[Connection], process: int) -> None:
    for connection in connections:
        if process == os.getpid():
            with suppress(sqlite3.Error):
                connection.close()
        else:
            keep_for_ever(connection)


# Forks


def _before_fork() -> None:
    deadline = time.monotonic() + _FORKING
    for file in tuple(_open):
        _resting.append(file)
        file.rest(deadline)


def _after_in_parent() -> None:
    while _resting:
        _resting.pop().resume()


def after_fork() -> None:
    """In a forked child: nothing of the parent's is used, and nothing of it is closed."""
    global _process  # noqa: PLW0603 - this one's
    if _process == os.getpid():
        return
    _process = os.getpid()
    owners.after_fork()
    _turns.clear()
    _resting.clear()
    for file in tuple(_open):
        file.after_fork()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=after_fork)
