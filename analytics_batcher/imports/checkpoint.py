"""How far an import got: a small file beside the source, which is replaced as a whole.

It says what is settled, and never what was read only. A process that is killed, or a machine that loses its power,
leaves either the one or the next.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final

from .problems import ImportProblem

if TYPE_CHECKING:
    from pathlib import Path

_VERSION: Final = 1


@dataclass(frozen=True)
class Checkpoint:
    """What is settled of a source.

    Attributes:
        head_bytes: So many bytes of the source's beginning are known.
        head: Their digest.
        mapping: The mapping's digest.
        started: When the first run began, in ISO 8601: the time of rows that have none of their own.
        offset: Bytes of the source that are settled.
        line: Lines, likewise.
        last_bytes: The bytes of the last row.
        last: Their digest.
        rows: Rows that were read, blank ones included.
        delivered: Rows that the vendors took.
        rejected: Rows that were refused.
        skipped: Blank rows, and those that the client's `before_send` did not want.
        rejected_bytes: The size of the file of refused rows.
        done: Whether the source's end was reached.
    """

    head_bytes: int
    head: str
    mapping: str
    started: str
    offset: int
    line: int
    last_bytes: int = 0
    last: str = ""
    rows: int = 0
    delivered: int = 0
    rejected: int = 0
    skipped: int = 0
    rejected_bytes: int = 0
    done: bool = False

    def moved(self, *, offset: int, line: int, last: bytes) -> Checkpoint:
        """Itself at another place.

        Args:
            offset: As the attribute.
            line: As the attribute.
            last: The last row.
        """
        return replace(self, offset=offset, line=line, last_bytes=len(last), last=digest_of(last))


def digest_of(data: bytes) -> str:
    """What tells bytes from others."""
    return hashlib.sha256(data).hexdigest()


def read(path: Path) -> Checkpoint | None:
    """Read a checkpoint; `None` if there is none.

    Raises:
        ImportProblem: If it is not one of ours.
        OSError: If it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        found = json.loads(text)
        version = found.pop("version")
        checkpoint = Checkpoint(**found)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ImportProblem("is no checkpoint", where=str(path), expected="one of an import, or no file") from None
    if version != _VERSION:
        raise ImportProblem("is a checkpoint of another version", where=str(path), found=str(version))
    return checkpoint


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Replace a checkpoint, so that it is there whole whenever the process or the machine stops.

    Raises:
        OSError: If it cannot be written.
    """
    is_first = not path.exists()
    new = path.with_name(f"{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        json.dump({"version": _VERSION, **asdict(checkpoint)}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    if is_first:  # of a later one the power may leave the one before: rows are sent again then, with the same ids
        sync_folder(path)


def sync_folder(path: Path) -> None:
    """Have the name of a file on the disk, where folders can be opened for that."""
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
