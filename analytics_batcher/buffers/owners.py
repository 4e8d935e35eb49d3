"""Who owns messages on disk, and whether he still lives: a file of his own, locked for as long as his process does.

The lock is the kernel's (`flock`): it ends with the process, however that ends, and knows no clock. It belongs to the
open file, so two owners in one process are two, and a forked child has to close its copy, or the owner would outlive
his process.
"""

from __future__ import annotations

import _thread
import errno
import fcntl  # not on Windows, where nobody imports this module
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

_NAME_BYTES: Final = 8
_SUFFIX: Final = ".owner"
_PATIENCE: Final = 1.0
"""Seconds that a fork waits for a lock that is just being taken."""
_ALIVE: Final = (errno.EACCES, errno.EAGAIN)

# Locks that this process holds, by their descriptors. Changed under `_turn`, which a fork takes too.
_held: dict[int, None] = {}
_turn = _thread.RLock()
_process = os.getpid()


class Owner:
    """One who puts messages into a file: a buffer of one process. Names are never used twice.

    Args:
        path: The file that he shares with others.

    Raises:
        OSError: If his own file cannot be made.
    """

    def __init__(self, path: str) -> None:
        self._process = os.getpid()
        self._descriptor = -1
        while True:
            self.name = os.urandom(_NAME_BYTES).hex()
            self._path = _path_of(path, self.name)
            with _turn:
                descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                self._descriptor = descriptor
                _held[descriptor] = None
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):  # who sweeps up may have taken it for a dead one's
                if Path(self._path).stat().st_ino == os.fstat(descriptor).st_ino:
                    return
            self.leave(forget=False)

    def leave(self, *, forget: bool) -> None:
        """End to be one: whatever is left is another's to take.

        Args:
            forget: Whether nothing is left, so that the file can go.
        """
        if self._process != os.getpid():
            return  # it is the parent's
        if forget:
            with suppress(OSError):
                Path(self._path).unlink()  # before the lock ends, so that nobody takes up a file that is about to go
        with _turn:
            if self._descriptor in _held:
                del _held[self._descriptor]
                os.close(self._descriptor)

    def __del__(self) -> None:
        self.leave(forget=False)


class Estate:
    """What a dead owner has left: while it is held, nobody else can take it up.

    Attributes:
        is_free: Whether the owner is dead, and nobody else has it in hands.
    """

    def __init__(self, path: str, name: str) -> None:
        self.is_free = False
        self._path = _path_of(path, name)
        self._descriptor = -1
        with _turn:
            try:
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
                _held[self._descriptor] = None
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except FileNotFoundError:
                pass  # it goes when its owner has left nothing, or somebody has taken up what he left
            except OSError as error:
                if error.errno not in _ALIVE:
                    self.close(forget=False)
                    raise
                return
            self.is_free = True

    def close(self, *, forget: bool) -> None:
        """Let it go.

        Args:
            forget: Whether all was taken over, so that the file can go.
        """
        if forget and self.is_free:
            with suppress(OSError):
                Path(self._path).unlink()
        with _turn:
            if self._descriptor in _held:
                del _held[self._descriptor]
                os.close(self._descriptor)


def names(path: str) -> list[str]:
    """The owners of a file that have files of their own, dead or alive."""
    start = f"{Path(path).name}-"
    with suppress(OSError):
        found = [one.name for one in Path(path).parent.iterdir()]
        return [one[len(start) : -len(_SUFFIX)] for one in found if _is_owners(one, start)]
    return []


def _is_owners(name: str, start: str) -> bool:
    middle = name[len(start) : -len(_SUFFIX)]
    return name.startswith(start) and name.endswith(_SUFFIX) and len(middle) == 2 * _NAME_BYTES


def _path_of(path: str, name: str) -> str:
    return f"{path}-{name}{_SUFFIX}"


def _before_fork() -> None:
    _turn.acquire(timeout=_PATIENCE)


def _after_in_parent() -> None:
    with suppress(RuntimeError):  # it was not to be had in time
        _turn.release()


def after_fork() -> None:
    """In a forked child: let go of what is the parent's."""
    global _turn, _process  # noqa: PLW0603 - the old lock may be held by a thread that this process does not have
    if _process == os.getpid():
        return
    _process = os.getpid()
    _turn = _thread.RLock()
    for descriptor in tuple(_held):
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=after_fork)
