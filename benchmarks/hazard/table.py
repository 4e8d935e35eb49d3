"""The table as text."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

from .libraries import LIBRARIES, version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .row import Row
    from .verdict import Cell

NOTES = """\
Each cell is one process with a time limit, the same load and the same criterion for every column; the second table
states the criteria. The endpoint is a server on loopback that counts every event by a number in its properties and
answers in the form of the vendor whose path is asked. Options are the libraries' defaults, apart from the endpoint's
URL. mixpanel is used with its `BufferedConsumer`, which has no thread and sends in the caller; its retries are enabled
for plain http as they are for https. amplitude's `flush()` returns futures, which are waited for. Logging is configured
at WARNING where a row does not say otherwise. A call of `track()` that raises is no fine cell for rows about arriving.
"""


def versions(libraries: Sequence[str]) -> str:
    """The libraries' distributions with their versions."""
    return ", ".join(f"{LIBRARIES[library].distribution} {version(library)}" for library in libraries)


def markdown(cells: Mapping[tuple[str, str], Cell], rows: Sequence[Row], libraries: Sequence[str], made: str) -> str:
    """The table, the criteria, and how it was made.

    Args:
        cells: By row and library.
        rows: In order.
        libraries: The columns.
        made: The date and the command.
    """
    columns = {library: [cells[row.name, library].fine for row in rows] for library in libraries}
    lines = [
        "# What breaks analytics libraries, side by side",
        "",
        f"{made}, Python {platform.python_version()} on {sys.platform}. {versions(libraries)}.",
        "",
        NOTES,
        _line("what happens", *libraries),
        _line("---", *["---"] * len(libraries)),
        *(_line(row.title, *(str(cells[row.name, library]) for library in libraries)) for row in rows),
        _line("fine", *(f"{found.count(True)} of {len(found) - found.count(None)}" for found in columns.values())),
        "",
        "## What is fine",
        "",
        _line("row", "what happens", "criterion", "limit"),
        _line("---", "---", "---", "---"),
        *(_line(f"`{row.name}`", row.title, row.wanted, f"{row.limit:.0f} s") for row in rows),
        "",
    ]
    return "\n".join(lines)


def _line(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
