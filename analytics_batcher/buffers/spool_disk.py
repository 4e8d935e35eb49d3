"""What a durable buffer has to know of the disk, and of SQLite's own files on it."""

from __future__ import annotations

import fcntl
import os
import resource
from contextlib import suppress
from pathlib import Path
from typing import Final

from ..errors import DropReason

PAGE: Final = 2048
"""Bytes of a new file's pages. A put writes one whole, with a checksum over it: for messages of 250 to 600 bytes half
of SQLite's own 4,096 is 5 to 15 % quicker. Of over 1,000 bytes a page holds only one."""
_LEAST_LOG: Final = 32
_MOST_LOG: Final = 16_384
_LOG_SHARE: Final = 16
_UNLIMITED: Final = 1 << 60

_FULL, _BUSY, _LOCKED, _NOT_A_DATABASE, _CORRUPT = 13, 5, 6, 26, 11
_TEXTS: Final = {"full": _FULL, "locked": _BUSY, "not a database": _NOT_A_DATABASE, "malformed": _CORRUPT}

_probes: dict[tuple[int, int], int] = {}


class Trouble(Exception):  # noqa: N818 - what is wrong is the disk
    """The disk, or somebody else on it, is in the way.

    Attributes:
        reason: What a message is dropped as because of it.
        corrupt: Whether the file is damaged.
        passes: Whether the connection is as good as before.
    """

    def __init__(
        self,
        detail: str,
        reason: DropReason = DropReason.SPOOL_ERROR,
        *,
        corrupt: bool = False,
        passes: bool = True,
    ) -> None:
        super().__init__(detail)
        self.reason = reason
        self.corrupt = corrupt
        self.passes = passes


class Gone(Trouble):
    """The file is not where it was, or another one is."""


def trouble_of(error: Exception) -> Trouble:
    """What an error of SQLite's means."""
    text = str(error)
    code = getattr(error, "sqlite_errorcode", None)  # from Python 3.11 on
    if code is None:
        code = next((code for part, code in _TEXTS.items() if part in text), 0)
    code &= 0xFF
    reason = DropReason.SPOOL_FULL if code == _FULL else DropReason.SPOOL_ERROR
    return Trouble(text, reason, corrupt=code == _CORRUPT, passes=code in {_FULL, _BUSY, _LOCKED, _CORRUPT})


def log_pages(path: str, page: int, most: int) -> int:
    """The pages of a log that a put writes back to the file. The consumer does it before, if it can.

    Args:
        path: The file.
        page: The bytes of its pages.
        most: The most pages of the file.
    """
    disk = os.statvfs(path)
    pages = min(disk.f_blocks * disk.f_frsize, most * page, _file_limit()) // _LOG_SHARE // page
    return max(_LEAST_LOG, min(pages, _MOST_LOG))


def log_bytes(path: str) -> int:
    """The size of a file's log."""
    try:
        return Path(f"{path}-wal").stat().st_size
    except OSError:
        return 0


def pages_for(path: str, page: int, most: int, size: int) -> int:
    """How far a file may grow, so that room is left for its log, in which removals are written too.

    Where the log had the last of it, neither could be emptied any more.

    Args:
        path: The file.
        page: The bytes of its pages.
        most: The most pages of the file.
        size: The bytes that it has.
    """
    disk = os.statvfs(path)
    room = max(disk.f_bavail * disk.f_frsize - 2 * log_pages(path, page, most) * page, 0)
    return max(min(most, _file_limit() // 2 // page, (size + room) // page), 1)


def _file_limit() -> int:
    """The bytes that the process may write to a file."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return _UNLIMITED if limit == resource.RLIM_INFINITY else limit


# To close any descriptor of a file ends all locks that this process has on it, those of SQLite too. So files are looked
# into through descriptors that stay open.


def probe(path: str, *, create: bool) -> int:
    """A descriptor of the file that is in this place now."""
    with suppress(FileNotFoundError):
        found = Path(path).stat()
        if (found.st_dev, found.st_ino) in _probes:
            return _probes[found.st_dev, found.st_ino]
    flags = os.O_RDWR | os.O_CLOEXEC
    descriptor = os.open(path, flags | os.O_CREAT if create else flags, 0o600)
    made = os.fstat(descriptor)
    return _probes.setdefault((made.st_dev, made.st_ino), descriptor)


def forget_probe(identity: tuple[int, int] | None) -> None:
    """Nobody in this process has the file open any more."""
    descriptor = _probes.pop(identity, None) if identity else None
    if descriptor is not None:
        os.close(descriptor)


def keep_for_ever(inherited: object) -> None:
    """See to it that what a parent has open is never closed here, not at the interpreter's end either."""
    with suppress(Exception):
        import ctypes  # noqa: PLC0415 - hardly ever needed: after a fork of which nobody was told before

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(inherited))


def lock_as_inherited(path: str) -> None:
    """Take the two locks of a connection at rest, which SQLite in this process believes that it has.

    They are the parent's. Without them the last other process to leave would take the log for unused, and remove it.
    The bytes are part of SQLite's file format: https://www.sqlite.org/fileformat2.html and `os_unix.c`.
    """
    with suppress(OSError):
        shared = fcntl.LOCK_SH | fcntl.LOCK_NB
        fcntl.lockf(probe(path, create=False), shared, 510, 0x40000002)
        fcntl.lockf(os.open(f"{path}-shm", os.O_RDWR | os.O_CLOEXEC), shared, 1, 128)
