"""The durable buffer's settings. SQLite is loaded with the first client that uses one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..settings import allowed, shown, whole

if TYPE_CHECKING:
    from .spool import SpoolBuffer

_LEAST_BYTES: Final = 2**20


class SqliteBuffer:
    """Keeps accepted messages in a file until they are delivered: `Client(..., buffer=SqliteBuffer(path))`.

    A message whose call returned `True` is in the file. With `synchronous="normal"` it survives the end of the process,
    by SIGKILL too; a power cut, or the crash of the system, may cost the last moments before it, never the file.
    With `"full"` it survives these as well, for one wait for the disk at each call.

    Several processes may use one file, and several destinations. Each process sends what it put, and what is left of
    processes that are gone, oldest first. The file must be on a local file system. It holds messages as they were
    tracked, before `before_send`; its mode is 0600. Beside it stand SQLite's own files (`-wal`, `-shm`) and one for
    each process (`-....owner`), by which the others see that it lives.

    Args:
        path: The file, made if there is none; its folder must be there.
        synchronous: `"normal"` or `"full"`.
        max_messages: The most messages in the file, those of other processes included as of a second ago; `None`: no
            limit.
        max_bytes: The most bytes of the file.
        on_error: What becomes of a message that the file cannot take: `"refuse"` counts it as `spool_error`, or
            `spool_full`.

    Raises:
        ValueError: If a setting is wrong; it names the setting, the value and what is allowed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: str = "normal",
        max_messages: int | None = None,
        max_bytes: int = 512 * 2**20,
        on_error: str = "refuse",
    ) -> None:
        text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        if not isinstance(text, str) or not text or "\0" in text:
            raise ValueError(f"path={shown(path)}: allowed is the path of a file")
        self.path = text
        self._synchronous = allowed("synchronous", synchronous, ("normal", "full"))
        self._max_messages = None if max_messages is None else whole("max_messages", max_messages, at_least=1)
        self._max_bytes = whole("max_bytes", max_bytes, at_least=_LEAST_BYTES)
        allowed("on_error", on_error, ("refuse",))

    def __repr__(self) -> str:
        return f"SqliteBuffer({self.path!r})"

    def open(
        self,
        destination: str,
        ahead_messages: int = 10_000,
        ahead_bytes: int = 32 * 2**20,
        *,
        evict: bool = False,
        keep_evicted: bool = False,
    ) -> SpoolBuffer:
        """The buffer of one destination, with what is left of those that are gone.

        Args:
            destination: Its name.
            ahead_messages: The most records that it may have in memory.
            ahead_bytes: The most bytes of these.
            evict: Whether the oldest messages make room where there is none.
            keep_evicted: Whether these are kept until they are reported.

        Raises:
            ValueError: If the file is not to be used: no database, another application's, a newer version's; or there
                is no such folder, or no right to it.
        """
        if os.name != "posix":
            raise ValueError("buffer: SqliteBuffer needs the file locks of Linux or macOS")
        from .spool import SpoolBuffer  # noqa: PLC0415 - not for those who never use one
        from .spool_file import SpoolFile  # noqa: PLC0415 - as above

        folder = Path(self.path).resolve().parent
        if not folder.is_dir():
            raise ValueError(f"buffer: {folder} is no folder")
        return SpoolBuffer(
            SpoolFile(self.path, synchronous=self._synchronous, max_bytes=self._max_bytes),
            destination,
            max_messages=self._max_messages,
            max_bytes=self._max_bytes,
            ahead_messages=ahead_messages,
            ahead_bytes=ahead_bytes,
            evict=evict,
            keep_evicted=keep_evicted,
        )
