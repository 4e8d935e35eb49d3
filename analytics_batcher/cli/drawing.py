"""Draws bars and tables on a terminal, by `rich`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console, RenderableType

    from .progress import Progress

_BAR_WIDTH: Final = 60
_FRAMES_PER_SECOND: Final = 8


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table; columns of numbers stand to the right, and long cells are folded.

    Args:
        title: What stands above it.
        head: The columns' names.
        rows: The cells.
    """
    drawn = Table(title=Text(title) if title else None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(head):
        numbers = bool(rows) and all(_is_number(row[place]) for row in rows)
        drawn.add_column(Text(name), justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    return drawn


def _is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).isdigit()


def facts(title: str, shown: Mapping[str, str]) -> RenderableType:
    """Names and values, aligned.

    Args:
        title: What stands above them.
        shown: The values by name.
    """
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in shown.items():
        grid.add_row(Text(name), Text(text))
    return Group(Text(title, style="bold"), grid) if title else grid


def live(console: Console, bar: Progress) -> Live:
    """What redraws a bar in its place, until it is left.

    Args:
        console: The terminal.
        bar: What is shown; another thread may update it.
    """
    return Live(get_renderable=lambda: _frame(bar), console=console, refresh_per_second=_FRAMES_PER_SECOND)


def _frame(bar: Progress) -> RenderableType:
    # A bar of its own width, so that the frame is as wide on any terminal that can hold it.
    first = Table.grid(padding=(0, 1))
    share = bar.share
    drawn = ProgressBar(
        total=None if share is None else 1.0, completed=share or 0.0, width=_BAR_WIDTH, pulse=share is None
    )
    first.add_row(drawn, Text("" if share is None else f"{share:.0%}"))
    lines: list[RenderableType] = [Text(bar.title, style="bold"), first, Text(" · ".join(bar.figures))]
    if bar.waiting:
        lines.append(Text(f"waiting: {bar.waiting}", style="yellow"))
    return Group(*lines)
