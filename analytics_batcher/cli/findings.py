"""What `doctor` finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(str, Enum):
    """What a finding comes to."""

    FINE = "ok"
    WARNING = "warning"
    FAULT = "fault"
    UNKNOWN = "not checked"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: Whether it is fine.
        what: What was looked at.
        found: What there is.
        remedy: What to do about it, if something is to be done.
    """

    state: State
    what: str
    found: str
    remedy: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """It as plain data."""
        return {"state": self.state.value, "what": self.what, "found": self.found, "remedy": self.remedy}
