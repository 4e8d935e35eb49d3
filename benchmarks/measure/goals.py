"""The table of goals: what each figure is, what was wanted, and what the rounds say."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from .libraries import COMPARED, DURABLE, NOTHING, OURS, SEGMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .rounds import Rounds

Results = dict[str, "Rounds"]
REQUIRED = COMPARED[:-1]
"""Those that we must be ahead of; the last one is to be beaten, too."""
_RESAMPLES = 4_000


@dataclass(frozen=True)
class Goal:
    """One row of the table.

    Attributes:
        title: What is measured.
        goal: What is wanted, in words.
        must: What is the least.
        reached: What was reached, in words.
        met: 2 for the goal, 1 for the least, 0 for neither, `None` where nothing was measured.
        cells: The figure of each library.
    """

    title: str
    goal: str
    must: str
    reached: str
    met: int | None
    cells: dict[str, str]

    @property
    def mark(self) -> str:
        """The verdict in a word."""
        return {2: "goal", 1: "must", 0: "**missed**", None: "not measured"}[self.met]


def median(rounds: Rounds, library: str, key: str) -> float | None:
    """The median of a library's rounds; `None` if there are none."""
    values = rounds.values(library, key)
    return statistics.median(values) if values else None


def interval(ratios: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the median, by resampling."""
    chance = Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(_RESAMPLES))
    return medians[int(_RESAMPLES * 0.025)], medians[int(_RESAMPLES * 0.975)]


def _level(value: float, goal: float, must: float) -> int:
    """Of figures of which less is better."""
    return 2 if value <= goal else 1 if value <= must else 0


def _cells(rounds: Rounds, key: str, form: Callable[[float], str]) -> dict[str, str]:
    cells = {}
    for library in [*rounds.found, *rounds.failed]:
        value = median(rounds, library, key)
        cells[library] = f"failed: {rounds.failed[library][0][:60]}" if value is None else form(value)
    return cells


def _unmeasured(title: str, goal: str, must: str, rounds: Rounds | None) -> Goal:
    failed = {library: why[0][:60] for library, why in rounds.failed.items()} if rounds else {}
    return Goal(title, goal, must, "", None, failed)


def _ratio(
    results: Results,
    figure: str,
    key: str,
    title: str,
    wanted: tuple[float, float],
    *,
    form: Callable[[float], str],
    more: bool,
) -> Goal:
    """A figure of ours as a multiple, or a fraction, of segment's. `wanted`: the goal's and the least such."""
    words = ("{:g}x segment's" if more else "1/{:g} of segment's").format
    goal, must = words(wanted[0]), words(wanted[1])
    rounds = results.get(figure)
    ours, theirs = (median(rounds, library, key) if rounds else None for library in (OURS, SEGMENT))
    if rounds is None or not ours or not theirs:
        return _unmeasured(title, goal, must, rounds)
    times = ours / theirs if more else theirs / ours
    reached = f"{times:.1f}x" if more else f"1/{times:.1f}"
    return Goal(title, goal, must, reached, _level(-times, -wanted[0], -wanted[1]), _cells(rounds, key, form))


def goals(results: Results, json_bytes: int) -> list[Goal]:
    """All rows.

    Args:
        results: The rounds of each figure, by its name.
        json_bytes: The size of the event's JSON as it waits, without id and time.
    """
    table = [
        _ratio(
            results, "caller", "p50", "a call, p50, in a tight loop, µs", (30, 15), form="{:.1f}".format, more=False
        ),
        _tail(results),
        _ratio(results, "caller", "cpu", "CPU of the process per event, µs", (16, 9), form="{:.1f}".format, more=False),
        _ratio(
            results, "throughput-1", "rate", "events/s end to end, 1 thread", (12, 7), form="{:,.0f}".format, more=True
        ),
        _ratio(
            results, "throughput-4", "rate", "events/s end to end, 4 threads", (8, 5), form="{:,.0f}".format, more=True
        ),
    ]
    table += [_ahead(results), _lost(results), _memory(results, json_bytes), _web(results)]
    table += [
        _ratio(results, "import", "ms", "import, ms", (4, 3), form="{:.0f}".format, more=False),
        _least(results, "late", "p99", "late wake-ups of other threads, p99, µs", (220, 400), form="{:,.0f}".format),
        _least(results, "flush", "ms", "`flush()` of 1,050 waiting, ms", (10, 50), form="{:,.1f}".format),
        _least(results, "idle", "wakeups", "wake-ups of an idle client per second", (0, 0), form="{:.1f}".format),
    ]
    table += [_concurrency(results), _durable(results)]
    return table


def _concurrency(results: Results) -> Goal:
    """What requests in flight at once are good for, where the endpoint is slow: ours alone has the option."""
    title, least = "events/s with `concurrency=8`, answers after 200 ms", 7.0
    rounds = results.get("slow")
    one, eight = (median(rounds, concurrency, "rate") if rounds else None for concurrency in ("1", "8"))
    if rounds is None or not one or not eight:
        return _unmeasured(title, "", "7x those with 1", rounds)
    short = sum(int(found["wanted"]) - int(found["arrived"]) for each in rounds.found.values() for found in each)
    reached = f"{eight / one:.1f}x" + (f", {short:,} lost" if short else "")
    met = 2 if eight / one >= least and not short else 0
    return Goal(title, "", "7x those with 1", reached, met, {OURS: f"{eight:,.0f}; {one:,.0f} with 1"})


def _durable(results: Results) -> Goal:
    """A call that has put its message into a file when it returns, beside segment's, which keeps it in memory."""
    title, goal, must = "a call with `SqliteBuffer`, p50, µs", "1/3 of segment's", "1/2 of segment's"
    rounds = results.get("caller")
    ours, theirs = (median(rounds, library, "p50") if rounds else None for library in (DURABLE, SEGMENT))
    if rounds is None or not ours or not theirs:
        return _unmeasured(title, goal, must, rounds)
    return Goal(title, goal, must, f"1/{theirs / ours:.1f}", _level(ours / theirs, 1 / 3, 1 / 2), {OURS: f"{ours:.1f}"})


def _tail(results: Results) -> Goal:
    title, goal, must = "a call, p99, µs", "below segment's p50", "1/2 of segment's"
    rounds = results.get("caller")
    if rounds is None or not rounds.values(OURS, "p99") or not rounds.values(SEGMENT, "p99"):
        return _unmeasured(title, goal, must, rounds)
    ours, theirs, middle = (
        statistics.median(rounds.values(library, key))
        for library, key in ((OURS, "p99"), (SEGMENT, "p99"), (SEGMENT, "p50"))
    )
    reached = f"{ours:.1f}; segment's p50 {middle:.1f}"
    return Goal(title, goal, must, reached, _level(ours, middle, theirs / 2), _cells(rounds, "p99", "{:.1f}".format))


def _ahead(results: Results) -> Goal:
    """Whether ours is the best of all in every figure above."""
    behind: dict[str, list[str]] = {}
    measured = False
    figures = (("caller", "p50", 1), ("caller", "p99", 1), ("caller", "cpu", 1))
    for figure, key, sign in (*figures, ("throughput-1", "rate", -1), ("throughput-4", "rate", -1)):
        rounds = results.get(figure)
        ours = median(rounds, OURS, key) if rounds else None
        if rounds is None or ours is None:
            continue
        for library in rounds.found:
            theirs = median(rounds, library, key)
            if library in COMPARED and library != OURS and theirs is not None:
                measured = True
                if sign * theirs <= sign * ours:
                    behind.setdefault(library, []).append(f"{figure} {key}")
    met = None if not measured else 2 if not behind else 0 if set(behind) & set(REQUIRED) else 1
    reached = "; ".join(f"behind {library}: {', '.join(where)}" for library, where in behind.items()) or "ahead of all"
    return Goal("every figure above", "ahead of every peer", "ahead of all but launchdarkly", reached, met, {})


def _lost(results: Results) -> Goal:
    """What did not arrive of what was tracked in the rounds about events a second."""
    missing: dict[str, int] = {}
    for name, rounds in results.items():
        if name.startswith("throughput"):
            for library, found in rounds.found.items():
                short = sum(int(one["wanted"]) - int(one["arrived"]) for one in found)
                missing[library] = missing.get(library, 0) + short
    cells = {library: f"{count:,}" for library, count in missing.items()}
    met = None if OURS not in missing else 0 if missing[OURS] else 2
    return Goal("lost in those rounds", "0", "0", cells.get(OURS, ""), met, cells)


def _memory(results: Results, json_bytes: int) -> Goal:
    title, goal, must = "resident bytes per waiting event", "1.5x its JSON", "2x"
    rounds = results.get("memory")
    ours = median(rounds, OURS, "bytes") if rounds else None
    if rounds is None or ours is None:
        return _unmeasured(title, goal, must, rounds)
    times = ours / json_bytes
    reached = f"{times:.2f}x {json_bytes} bytes"
    return Goal(title, goal, must, reached, _level(times, 1.5, 2), _cells(rounds, "bytes", "{:,.0f}".format))


def ratios(rounds: Rounds, library: str) -> list[float]:
    """A library's p99 of each round as a multiple of the one without tracking beside it."""
    pairs = zip(rounds.values(library, "p99"), rounds.values(NOTHING, "p99"), strict=False)
    return [tracking / nothing for tracking, nothing in pairs]


def _web(results: Results) -> Goal:
    title, goal, must = "a web handler's p99 at 2,000 events/s, to none tracked", "1.05", "interval from under 1.15"
    rounds = results.get("web")
    if rounds is None or not rounds.values(OURS, "p99") or not rounds.values(NOTHING, "p99"):
        return _unmeasured(title, goal, must, rounds)
    cells = {NOTHING: f"{statistics.median(rounds.values(NOTHING, 'p99')):,.0f} µs"}
    for library in rounds.found:
        if library != NOTHING:
            lower, upper = interval(ratios(rounds, library))
            cells[library] = f"{statistics.median(ratios(rounds, library)):.2f} ({lower:.2f} to {upper:.2f})"
    lower, _ = interval(ratios(rounds, OURS))
    met = 2 if statistics.median(ratios(rounds, OURS)) <= 1.05 else 1 if lower < 1.15 else 0
    return Goal(title, goal, must, f"{cells[OURS]}, {len(ratios(rounds, OURS))} pairs", met, cells)


def _least(
    results: Results, figure: str, key: str, title: str, wanted: tuple[float, float], *, form: Callable[[float], str]
) -> Goal:
    """A figure by itself, of which less is better."""
    rounds = results.get(figure)
    ours = median(rounds, OURS, key) if rounds else None
    if rounds is None or ours is None:
        return _unmeasured(title, f"{wanted[0]:g}", f"{wanted[1]:g}", rounds)
    return Goal(title, f"{wanted[0]:g}", f"{wanted[1]:g}", form(ours), _level(ours, *wanted), _cells(rounds, key, form))


def weathers(found: dict[str, dict[str, Any]], events: int) -> list[Goal]:
    """Rows of what arrived in each weather, as exactly once / repeated / lost. `found`: by weather and library."""
    rows = []
    for title, each in found.items():
        cells = {}
        for library, one in each.items():
            if isinstance(one, str):
                cells[library] = f"failed: {one[:60]}"
            else:
                cells[library] = f"{one['once']:,} / {one['repeated']:,} / {one['lost']:,}"
        ours = each.get(OURS)
        may_repeat = "stored" in title
        wanted = "none lost" if may_repeat else f"{events:,} / 0 / 0"
        met = None
        if isinstance(ours, dict):
            met = 0 if ours["lost"] or (ours["repeated"] and not may_repeat) else 2
        rows.append(
            Goal(f"exactly once / duplicated / lost: {title}", wanted, "the same", cells.get(OURS, ""), met, cells)
        )
    return rows
