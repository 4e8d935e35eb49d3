"""The file of refused rows: a line of JSON for each, once, whatever the process is killed in."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any, Final

from .checkpoint import sync_folder
from .problems import ImportProblem

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_MODE: Final = 0o600  # it has rows of the source, which may be about persons
_FLAGS: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Rejected:
    """The file, and the lock that keeps a second import of the same source out.

    It is to be made before the checkpoint is read, which another import may be changing until then.

    Args:
        path: The file. It is made if it is not there.

    Raises:
        ImportProblem: If another import holds it.
        OSError: If it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _locked(path)
        self.size = os.fstat(self._file).st_size

    def keep(self, size: int) -> None:
        """Cut off what stands behind the size that the checkpoint knows: it is of rows that will be sent again."""
        if self.size > size:
            os.ftruncate(self._file, size)
        # If somebody took lines away, what comes is put behind the rest.
        self.size = os.lseek(self._file, 0, os.SEEK_END)

    def add(self, lines: Sequence[Mapping[str, Any]]) -> int:
        """Write refused rows, and have them on the disk.

        Returns:
            The file's size after them.
        """
        if lines:
            is_first = not self.size
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            left = memoryview(text.encode("utf-8", "backslashreplace"))
            while left:
                written = os.write(self._file, left)
                left = left[written:]
                self.size += written
            os.fsync(self._file)
            if is_first:
                sync_folder(self.path)
        return self.size

    def close(self) -> None:
        """Let go of it; an empty one is removed."""
        if not self.size:
            self.path.unlink(missing_ok=True)
        os.close(self._file)


def _locked(path: Path) -> int:
    """A descriptor of the file that is in this place, and held by nobody else."""
    while True:
        file = os.open(path, _FLAGS, _MODE)
        try:
            if sys.platform != "win32":
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_there(path, file):
                return file
        except BlockingIOError:
            os.close(file)
            raise ImportProblem("another import of this file is at work", where=str(path)) from None
        except BaseException:
            os.close(file)
            raise
        os.close(file)  # one that another import has just removed, as nothing was refused


def _is_there(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
