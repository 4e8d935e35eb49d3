"""Dead letters: messages that will never be delivered, each a line of a JSON file, kept with the reason.

The file is appended to by several processes, and threads, at once. Each append opens it, holds the kernel's lock of it,
which a killed process lets go, and looks whether the file under this name is still the one it opened, as another may
have moved it away: `rotate` when it is full, and a replay when it takes the letters. Nobody appends to a file that was
moved.
"""

from __future__ import annotations

import _thread
import errno
import os
import stat
import sys
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .encoding import OPTIONS, dumps, loads
from .errors import DropReason
from .log import logger
from .message import decode, stamp_of
from .stamp import NATIVE, flags_of, iso_milliseconds
from .text import printable

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

MOST_BYTES: Final = 64 * 2**20
"""The size at which a file is moved away, to where one older file was."""
LOCK_SECONDS: Final = 1.0
"""How long a writer waits for others, each of which takes some milliseconds."""
_PIECE_BYTES: Final = 2**20  # written at once, and so the most memory that is needed beside the messages
_PAUSE: Final = 0.001
_TURNS: Final = 100
_MODE: Final = 0o600
# Not what a link points to, which somebody else may have chosen; and a pipe without a reader must not stop us.
_FLAGS: Final = (
    os.O_RDWR
    | os.O_APPEND
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


class Letter(NamedTuple):
    """A dead letter, as it was read.

    Attributes:
        line: All of its fields.
        destination: The name of the destination that the message was for.
        message: The message: neutral, or native with the id and the time that it was sent with, where it has them.
        native: Whether it is in the destination's own form.
        before_send: Whether its client had such a hook: the message is as it was before that.
    """

    line: dict[str, Any]
    destination: str
    message: dict[str, Any]
    native: bool
    before_send: bool


def read(line: bytes) -> Letter | None:
    """Read a line; `None` of what is no dead letter, such as the beginning of one whose writer was killed."""
    try:
        found = loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    destination, message = found.get("destination"), found.get("message")
    if not isinstance(destination, str) or not isinstance(message, dict):
        return None
    return Letter(found, destination, message, found.get("native") is True, found.get("before_send") is True)


def with_reason(letter: Letter, reason: str, detail: str, status: int | None) -> bytes:
    """A letter as a line again, with another reason, written now."""
    told = {"written": _now(), "reason": str(reason), "detail": printable(detail), "status": status}
    return dumps({**letter.line, **told}, None, OPTIONS) + b"\n"


def _now() -> str:
    return iso_milliseconds(int(time.time() * 1000))


class DeadLetters:
    """Writes one destination's dead letters.

    Args:
        path: The file's absolute path.
        name: The destination's name.
        id_field: Where a native message carries its id.
        time_field: Where it carries its time.
        native_form: A native record as it is sent: with an id and a time where they were missing and are known there.
        before_send: Whether the client has such a hook.
        most_bytes: The size at which the file is moved away.

    Locking: `_writing` has the threads that are writing; it and `_later` are changed by single C calls. A thread that
    comes here again, in a signal handler or a finalizer, would wait for its own lock: what it brings is written by the
    call that it interrupted.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        *,
        id_field: str,
        time_field: str,
        native_form: Callable[[bytes], bytes],
        before_send: bool = False,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._path = path
        self._name = name
        self._id_field = id_field
        self._time_field = time_field
        self._native_form = native_form
        self._before_send = before_send
        self._most_bytes = most_bytes
        self.reset()

    def reset(self) -> None:
        """In a forked child: what is being written is the parent's."""
        opened = getattr(self, "_opened", [])
        while opened:
            os.close(opened.pop())  # or the lock would last as long as this process, if the parent is killed
        self._opened: list[int] = []
        self._writing: dict[int, None] = {}
        self._later: deque[tuple[DropReason, str, int | None, Sequence[bytes]]] = deque()
        self._patience = LOCK_SECONDS

    def write(
        self, reason: DropReason, detail: str, status: int | None, records: Sequence[bytes]
    ) -> tuple[int, str] | None:
        """Write messages that were dropped; those that `before_send` did not want are nobody's dead letters.

        Args:
            reason: Why they were dropped.
            detail: What exactly, without the messages' content.
            status: The HTTP status, if that was the reason.
            records: The messages.

        Returns:
            How many could not be written, and why; `None` if there are none. It raises nothing for the disk.
        """
        if reason is DropReason.FILTERED or not records:
            return None
        thread = _thread.get_ident()
        if thread in self._writing:
            self._later.append((reason, detail, status, records))
            return None
        missed, why = 0, ""
        try:
            self._writing[thread] = None
            missed, why = self._write(reason, detail, status, records)
            while self._later:
                more, also = self._write(*self._later.popleft())
                missed, why = missed + more, why or also
        finally:
            del self._writing[thread]
        return (missed, why) if missed else None

    def _write(self, reason: DropReason, detail: str, status: int | None, records: Sequence[bytes]) -> tuple[int, str]:
        about = {"reason": str(reason), "detail": detail, "status": status}
        written = 0
        try:
            for count, piece in _pieces(self._line(record, about) for record in records):
                self._append(piece)
                written += count
        except BlockingIOError as error:
            self._patience = 0.0  # a process that was stopped with the lock in its hands must not slow us each time
            return len(records) - written, str(error.strerror)
        except Exception as error:  # noqa: BLE001 - a disk that is full or gone, or a message that cannot be written
            return len(records) - written, str(getattr(error, "strerror", None) or type(error).__name__)
        return 0, ""

    def _append(self, lines: bytes) -> None:
        append(self._path, lines, most_bytes=self._most_bytes, patience=self._patience, opened=self._opened)
        self._patience = LOCK_SECONDS

    def _line(self, record: bytes, about: Mapping[str, Any]) -> bytes:
        native = bool(flags_of(record) & NATIVE)
        message = self._native(record) if native else decode(record)
        stamp = stamp_of(record[:8] + bytes([record[8] & 0x0F]) + record[9:]) if native else {}
        line = {
            "written": _now(),
            "destination": self._name,
            **about,
            "native": native,
            "before_send": self._before_send,
            "id": message.get(self._id_field, stamp["messageId"]) if native else message["messageId"],
            "time": message.get(self._time_field, stamp["timestamp"]) if native else message["timestamp"],
            "message": message,
        }
        return dumps(line, None, OPTIONS) + b"\n"

    def _native(self, record: bytes) -> dict[str, Any]:
        try:
            message = loads(self._native_form(record))
        except Exception:  # noqa: BLE001 - what cannot be sent has no such form
            message = None
        return message if isinstance(message, dict) else decode(record)


def _pieces(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Lines gathered to pieces of a bounded size, each with the number of its lines."""
    piece, count = bytearray(), 0
    for line in lines:
        if count and len(piece) + len(line) > _PIECE_BYTES:
            yield count, bytes(piece)
            piece, count = bytearray(), 0
        piece += line
        count += 1
    if count:
        yield count, bytes(piece)


def append(
    path: Path,
    lines: bytes,
    *,
    most_bytes: int | None = None,
    patience: float = LOCK_SECONDS,
    opened: list[int] | None = None,
) -> None:
    """Append whole lines to a file of dead letters, all of them or none.

    Args:
        path: The file, which is made if it is not there, for its owner alone.
        lines: The lines.
        most_bytes: The size at which the file is moved away first; `None`: never.
        patience: The most seconds to wait for other writers.
        opened: Has the file's descriptor while it is open.

    Raises:
        BlockingIOError: If another process keeps the file locked.
        OSError: If it cannot be written.
    """
    for _ in range(_TURNS):
        with locked(path, create=True, patience=patience, opened=opened) as file:
            if file is None:
                continue
            size = os.fstat(file).st_size
            if most_bytes is None or not size or size + len(lines) <= most_bytes:
                _append(file, size, lines)
                return
            _move_away(path)
    raise BlockingIOError(errno.EAGAIN, "the file is moved away again and again")


def _append(file: int, size: int, lines: bytes) -> None:
    if size:
        os.lseek(file, -1, os.SEEK_END)
        if os.read(file, 1) != b"\n":  # the end of what a killed process wrote must not swallow the next line
            lines = b"\n" + lines
    if os.write(file, lines) < len(lines):
        os.ftruncate(file, size)  # as nobody else writes
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _move_away(path: Path) -> None:
    older = older_of(path)
    try:
        lost = older.stat().st_size
    except OSError:
        lost = 0
    path.replace(older)
    if lost:
        text = "dead letters: the oldest, %d bytes in %s, had to make room; replay takes both files"
        logger.warning(text, lost, printable(str(older)))


def older_of(path: Path) -> Path:
    """The file that a file of dead letters is moved to when it is full."""
    return path.with_name(f"{path.name}.1")


@contextmanager
def locked(path: Path, *, create: bool, patience: float, opened: list[int] | None = None) -> Iterator[int | None]:
    """Open a file and hold its lock.

    Args:
        path: The file.
        create: Whether to make it if it is not there.
        patience: The most seconds to wait for the lock.
        opened: Has the descriptor while it is open.

    Returns:
        The descriptor; `None` if the file of that name became another one meanwhile.

    Raises:
        BlockingIOError: If another process keeps it locked.
        OSError: If it cannot be opened, or is no regular file.
    """
    file = os.open(path, _FLAGS | (os.O_CREAT if create else 0), _MODE)
    holders = [] if opened is None else opened
    try:
        holders.append(file)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        _wait_for_lock(file, patience)
        yield file if is_still(path, file) else None
    finally:
        if file in holders:
            holders.remove(file)
            _unlock(file)
            os.close(file)


def is_still(path: Path, file: int) -> bool:
    """Whether a path still leads to an open file or folder."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(file))
    except FileNotFoundError:
        return False


def _wait_for_lock(file: int, patience: float) -> None:
    end = time.monotonic() + patience
    while not try_lock(file):
        if time.monotonic() >= end:
            raise BlockingIOError(errno.EAGAIN, "another process keeps it locked")
        time.sleep(_PAUSE)


def try_lock(file: int) -> bool:
    """Take the kernel's lock of an open file, if nobody has it; where there is none (Windows), as if it were free."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _unlock(file: int) -> None:
    if sys.platform != "win32":
        fcntl.flock(file, fcntl.LOCK_UN)  # and not by closing alone: a forked child may have it open too
