"""What a replay takes of a file of dead letters, so that its writers can go on, and how far it got with it.

Beside `letters.jsonl` a folder `letters.jsonl.replay` holds the files that were moved there, and `done`, to which a
line is added for each batch that is settled. A replay that is killed leaves the folder, and the next one goes on with
it. The kernel's lock of the folder keeps a second replay out.
"""

from __future__ import annotations

import errno
import os
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from .dead_letters import is_still, locked, older_of, try_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PATIENCE: Final = 10.0
_TURNS: Final = 100
_FOLDER: Final = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0)
_DONE: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
_TAKEN: Final = re.compile(r"\d{6}\.jsonl")
# With a word at the end: of a line that a killed process began, nothing must be believed.
_SETTLED: Final = re.compile(rb"(\d{6}\.jsonl) (\d+) settled")


def folder_of(path: Path) -> Path:
    """The folder to which a replay moves a file of dead letters."""
    return path.with_name(f"{path.name}.replay")


class Claim:
    """The letters that were taken. It belongs to whoever holds the folder's lock.

    Args:
        path: The file of dead letters.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = folder_of(path)
        self._offsets: dict[str, int] = {}
        with suppress(FileNotFoundError):
            for line in (self._folder / "done").read_bytes().split(b"\n"):
                if settled := _SETTLED.fullmatch(line):
                    self._offsets[settled[1].decode()] = int(settled[2])

    def files(self) -> list[tuple[Path, int]]:
        """The files that were taken, the oldest first, each with the bytes of it that are settled."""
        names = sorted(name for name in os.listdir(self._folder) if _TAKEN.fullmatch(name))  # noqa: PTH208 - names
        return [(self._folder / name, self._offsets.get(name, 0)) for name in names]

    def take(self) -> None:
        """Move what was written so far here, away from its writers, who then begin anew.

        Raises:
            OSError: If it cannot be moved, or is another user's: the lines that stay would become this one's.
        """
        names = [*self._offsets, *(file.name for file, _ in self.files())]
        number = max((int(name[:6]) for name in names), default=0)
        for _ in range(_TURNS):
            try:
                with locked(self._path, create=False, patience=_PATIENCE) as file:
                    if file is None:
                        continue
                    self._move(older_of(self._path), number + 1)  # under the lock: nothing is moved there meanwhile
                    self._move(self._path, number + 2)
                    return
            except FileNotFoundError:
                self._move(older_of(self._path), number + 1)
                return
        raise BlockingIOError(errno.EAGAIN, "the file is moved away again and again")

    def _move(self, file: Path, number: int) -> None:
        with suppress(FileNotFoundError):
            found = file.lstat()
            _refuse_others(file, found)
            if found.st_size:
                file.rename(self._folder / f"{number:06}.jsonl")

    def settle(self, file: Path, offset: int) -> None:
        """Remember that of a file all before `offset` is settled.

        Raises:
            OSError: If it cannot be written.
        """
        line = f"\n{file.name} {offset} settled\n".encode()
        done = os.open(self._folder / "done", _DONE, 0o600)
        try:
            if os.write(done, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(done)

    def remove(self, file: Path) -> None:
        """Remove a file of which everything is settled, once those of its lines that stay are safely on the disk."""
        with suppress(FileNotFoundError):
            kept = os.open(self._path, os.O_RDONLY)
            try:
                os.fsync(kept)
            finally:
                os.close(kept)
        file.unlink()

    def end(self) -> None:
        """Remove the folder, if nothing is left in it."""
        if not self.files():
            with suppress(FileNotFoundError):
                (self._folder / "done").unlink()
            with suppress(OSError):  # somebody else put something there
                self._folder.rmdir()


@contextmanager
def claimed(path: Path) -> Iterator[Claim]:
    """Hold what earlier replays took of a file of dead letters, and keep others from it meanwhile.

    Args:
        path: The file.

    Raises:
        BlockingIOError: If another replay is at work.
        OSError: If the folder cannot be made.
    """
    folder = _locked_folder(folder_of(path))
    try:
        yield Claim(path)
    finally:
        os.close(folder)


def _locked_folder(folder: Path) -> int:
    for _ in range(_TURNS):
        folder.mkdir(0o700, exist_ok=True)
        try:
            opened = os.open(folder, _FOLDER)
        except FileNotFoundError:  # the end of another replay
            continue
        mine = False
        try:
            _refuse_others(folder, os.fstat(opened))
            mine = _is_mine(folder, opened)
        finally:
            if not mine:
                os.close(opened)
        if mine:
            return opened
    raise BlockingIOError(errno.EAGAIN, "other replays of this file come and go")


def _is_mine(folder: Path, opened: int) -> bool:
    if not try_lock(opened):
        raise BlockingIOError(errno.EAGAIN, "another replay of this file is at work")
    return is_still(folder, opened)


def _refuse_others(file: Path, found: os.stat_result) -> None:
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it belongs to another user: run this as that user", str(file))
