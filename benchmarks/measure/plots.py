"""Two pictures: what calls take, and what an event costs the processor. `matplotlib` is imported to draw, only."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from .libraries import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .rounds import Rounds

_OUR_COLOUR, _COLOUR, _INK, _FAINT = "#0b6e99", "#b3b9c0", "#1f2328", "#6b7280"
_SIZE, _SMALL = 12, 10.5
_BINS_PER_DECADE = 60
_LEAST, _MOST = 1.0, 1_000.0
"""Microseconds."""


def draw(rounds: Rounds, libraries: Sequence[str], folder: Path) -> None:
    """Write `caller.svg` and `cpu.svg` out of the rounds about the caller."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.fonttype": "path", "font.family": "DejaVu Sans", "svg.hashsalt": "analytics-batcher"})
    measured = [library for library in libraries if rounds.values(library, "p50")]
    _calls(
        rounds, sorted(measured, key=lambda one: statistics.median(rounds.values(one, "p50"))), folder / "caller.svg"
    )
    _processor(
        rounds, sorted(measured, key=lambda one: statistics.median(rounds.values(one, "cpu"))), folder / "cpu.svg"
    )


def _canvas(rows: int, each: float, below: float, title: str, subtitle: str) -> tuple[Any, Any]:
    import matplotlib.pyplot as plt

    above = 0.95
    height = rows * each + above + below
    figure, axes = plt.subplots(figsize=(8.4, height), facecolor="white")
    figure.subplots_adjust(left=0.225, right=0.97, top=1 - above / height, bottom=below / height)
    figure.text(0.02, 1 - 0.34 / height, title, size=14, weight="bold", color=_INK)
    figure.text(0.02, 1 - 0.64 / height, subtitle, size=_SMALL, color=_FAINT)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=_SMALL, colors=_FAINT)
    return figure, axes


def _names(axes: Any, places: Sequence[float], libraries: Sequence[str]) -> None:
    axes.set_yticks(list(places), list(libraries))
    for label in axes.get_yticklabels():
        ours = label.get_text() == OURS
        label.set(color=_OUR_COLOUR if ours else _INK, weight="bold" if ours else "normal", size=_SIZE)


def _write(
    axes: Any, text: str, at: tuple[float, float], shift: tuple[int, int], align: tuple[str, str], **look: Any
) -> None:
    look = {"size": _SMALL, "color": _INK, **look}
    axes.annotate(text, at, xytext=shift, textcoords="offset points", ha=align[0], va=align[1], **look)


def _save(figure: Any, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _calls(rounds: Rounds, libraries: Sequence[str], path: Path) -> None:
    """One row for each library: how its calls are spread, and where the middle and the slowest of a hundred lie."""
    import numpy as np

    figure, axes = _canvas(
        len(libraries),
        0.72,
        0.5,
        "How long a call takes",
        "A track with 8 properties in a tight loop: microseconds, logarithmic; the shape shows how calls are spread",
    )
    edges = np.logspace(np.log10(_LEAST), np.log10(_MOST), int(3 * _BINS_PER_DECADE) + 1)
    middles, kernel = np.sqrt(edges[:-1] * edges[1:]), np.hanning(7) / np.hanning(7).sum()
    axes.set_xscale("log")
    places = range(len(libraries) - 1, -1, -1)
    for place, library in zip(places, libraries, strict=True):
        colour = _OUR_COLOUR if library == OURS else _COLOUR
        cuts = np.clip(np.concatenate([one["cuts"] for one in rounds.found[library]]), _LEAST, _MOST)
        spread = np.convolve(np.histogram(cuts, edges)[0], kernel, mode="same")
        axes.fill_between(middles, place, place + 0.62 * spread / spread.max(), color=colour, linewidth=0)
        axes.plot([_LEAST, _MOST], [place, place], color="#e5e7eb", linewidth=0.8, zorder=0)
        for key, side, shift in (("p50", "right", 4), ("p99", "left", -4)):  # so that the two never meet
            value = statistics.median(rounds.values(library, key))
            axes.plot([value, value], [place - 0.06, place + 0.1], color=_INK, linewidth=1.4)
            _write(axes, f"{key} {value:.{1 if value < 10 else 0}f}", (value, place - 0.06), (shift, -2), (side, "top"))
    axes.set_xlim(_LEAST, _MOST)
    axes.set_ylim(-0.45, len(libraries) - 0.2)
    axes.set_xticks([1, 10, 100, 1000], ["1 µs", "10 µs", "100 µs", "1 ms"])
    axes.minorticks_off()
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    _names(axes, [place + 0.15 for place in places], libraries)
    _save(figure, path)


def _processor(rounds: Rounds, libraries: Sequence[str], path: Path) -> None:
    figure, axes = _canvas(
        len(libraries),
        0.46,
        0.15,
        "Processor time for each event",
        "Of the whole process, from the call to the delivery: microseconds, less is better",
    )
    places = range(len(libraries) - 1, -1, -1)
    values = [statistics.median(rounds.values(library, "cpu")) for library in libraries]
    colours = [_OUR_COLOUR if library == OURS else _COLOUR for library in libraries]
    axes.barh(list(places), values, height=0.62, color=colours)
    for place, value, library in zip(places, values, libraries, strict=True):
        weight = "bold" if library == OURS else "normal"
        _write(axes, f"{value:.1f} µs", (value, place), (6, 0), ("left", "center"), size=_SIZE, weight=weight)
    axes.set_xlim(0, max(values) * 1.14)
    axes.set_ylim(-0.6, len(libraries) - 0.4)
    axes.set_xticks([])
    _names(axes, list(places), libraries)
    _save(figure, path)
