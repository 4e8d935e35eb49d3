"""What is wrong with a file, a mapping or a row, in words for a person."""

from __future__ import annotations


class ImportProblem(ValueError):  # noqa: N818 - the public contract has no such word in its errors
    """An import cannot begin, or cannot go on.

    Args:
        what: What is wrong.
        where: The file, with the line and the column where these are known; or the option.
        found: What is there.
        expected: What should be there.
    """

    def __init__(self, what: str, *, where: str = "", found: str = "", expected: str = "") -> None:
        parts = [what, f"found {found}" if found else "", f"expected {expected}" if expected else ""]
        super().__init__("; ".join(part for part in parts if part) + (f" ({where})" if where else ""))
        self.what = what
        self.where = where
        self.found = found
        self.expected = expected


class Stopped(Exception):  # noqa: N818 - it ends an import, and says why
    """An import cannot go on now; the same one goes on later."""


class RowProblem(Exception):  # noqa: N818 - a row that is refused, and no failure of ours
    """A row that cannot be sent.

    Args:
        reason: One word: `unreadable`, `cells`, `type`, or a reason for which messages are dropped.
        detail: What exactly.
        column: The column, where it is one's fault.
        found: What is there.
        expected: What should be there.
    """

    def __init__(self, reason: str, detail: str, column: str = "", found: str = "", expected: str = "") -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.column = column
        self.found = found
        self.expected = expected

    @property
    def parts(self) -> list[str]:
        """What it is made of."""
        return [self.reason, self.detail, self.column, self.found, self.expected]
