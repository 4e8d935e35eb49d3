"""What an import is asked for, and what it says of itself: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .mapping import Mapping as Plan


@dataclass(frozen=True)
class Sums:
    """What became of the rows of a source, over all runs: `rows == delivered + rejected + skipped`.

    Attributes:
        rows: Rows that were settled.
        delivered: Those that the vendors took.
        rejected: Those that were refused, by us or by a vendor.
        skipped: Blank ones, and those that `before_send` did not want.
        earlier: Those of `rows` that an earlier run had settled.
    """

    rows: int = 0
    delivered: int = 0
    rejected: int = 0
    skipped: int = 0
    earlier: int = 0


@dataclass(frozen=True)
class ImportResult:
    """What an import came to. Truthy: all rows were settled, and none was refused.

    Attributes:
        files: The sums by the name of each file that was begun.
        left: The files that were not finished.
        retries: Requests that were repeated.
        error: What ended it early, or `None`.
        stopped: Whether it was asked to end.
    """

    files: Mapping[str, Sums] = field(default_factory=dict)
    left: Sequence[str] = ()
    retries: int = 0
    error: str | None = None
    stopped: bool = False

    @property
    def sums(self) -> Sums:
        """Those of all files."""
        names = ("rows", "delivered", "rejected", "skipped", "earlier")
        return Sums(**{name: sum(getattr(one, name) for one in self.files.values()) for name in names})

    def __bool__(self) -> bool:
        return not self.left and self.error is None and not self.sums.rejected


@dataclass(frozen=True)
class State:
    """How an import goes on, as `progress` is told.

    Attributes:
        path: The file.
        sums: What became of its rows.
        put: Rows that were read.
        retries: Requests that were repeated.
        waiting: What it waits for, if it does.
    """

    path: str
    sums: Sums
    put: int
    retries: int
    waiting: str = ""


@dataclass(frozen=True)
class Job:
    """A source to be imported.

    Attributes:
        path: The file, or `-`.
        plan: Which column becomes what.
        rejected: Where refused rows go; `None`: beside the file.
        checkpoint: Where it is noted how far it got; `None`: beside the file, and nowhere for standard input.
    """

    path: str
    plan: Plan
    rejected: Path | None = None
    checkpoint: Path | None = None

    @property
    def rejected_path(self) -> Path:
        """Where refused rows go."""
        if self.rejected is not None:
            return self.rejected
        return Path("stdin.rejected.jsonl") if self.path == "-" else Path(f"{self.path}.rejected.jsonl")

    @property
    def checkpoint_path(self) -> Path | None:
        """Where it is noted how far it got."""
        if self.checkpoint is not None or self.path == "-":
            return self.checkpoint
        return Path(f"{self.path}.checkpoint.json")
