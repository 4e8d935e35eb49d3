"""The rows of the table, in its order."""

from __future__ import annotations

from . import answers, endings, interruption, lifecycle, network, secrecy, values

ROWS = {
    row.name: row
    for module in (lifecycle, interruption, endings, network, answers, values, secrecy)
    for row in module.ROWS
}
"""Every row, by its name."""
