"""Draws bars and tables on a terminal, by `rich`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TextIO

    from rich.console import RenderableType

    from .progress import Progress

_BAR_WIDTH: Final = 60
_SHORT: Final = 12
"""Characters of what is not folded: a number in two lines is none."""
_FRAMES_PER_SECOND: Final = 8


def console(stream: TextIO) -> Console:
    """What draws on a terminal. Neither colours nor links nor faces are found in what the data says.

    Args:
        stream: The terminal.
    """
    return Console(file=stream, highlight=False, markup=False, emoji=False)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table; columns of numbers stand to the right, and cells of long text are folded where the terminal ends.

    Args:
        title: What stands above it.
        head: The columns' names.
        rows: The cells.
    """
    drawn = Table(
        title=Text(title) if title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for place, name in enumerate(head):
        cells = [row[place] for row in rows]
        numbers = bool(cells) and all(map(_is_number, cells))
        short = max(map(len, [name, *cells])) <= _SHORT
        drawn.add_column(Text(name), justify="right" if numbers else "left", overflow="fold", no_wrap=short)
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
        grid.add_row(Text(name.replace("_", " ")), Text(text))
    return Group(Text(title, style="bold"), grid) if title else grid


def live(terminal: Console, bar: Progress) -> Live:
    """What redraws a bar in its place, until it is left.

    Args:
        terminal: Where.
        bar: What is shown; another thread may update it.
    """
    return Live(get_renderable=lambda: _frame(bar), console=terminal, refresh_per_second=_FRAMES_PER_SECOND)


def _frame(bar: Progress) -> RenderableType:
    # A bar of its own width, so that the frame is as wide on any terminal that can hold it.
    first = Table.grid(padding=(0, 1))
    share = bar.share
    drawn = ProgressBar(
        total=None if share is None else 1.0, completed=share or 0.0, width=_BAR_WIDTH, pulse=share is None
    )
    first.add_row(drawn, Text("" if share is None else f"{share:.0%} {bar.left}".rstrip()))
    lines: list[RenderableType] = [Text(bar.title, style="bold"), first, Text(" · ".join(bar.figures))]
    if bar.waiting:
        lines.append(Text(f"waiting: {bar.waiting}", style="yellow"))
    return Group(*lines)
