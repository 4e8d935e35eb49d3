"""How processor time, memory and connections grow: `python benchmarks/cost.py [--help]`.

With events a second, with a message's size, with the queue, with destinations, with threads: a small table each. Each
row is a process of its own, with the default settings but for the queue's bounds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure.libraries import OURS
from measure.rounds import run_round

Column = tuple[str, str, Callable[[float], str]]

_CALL: tuple[Column, ...] = (
    ("a call, p50, µs", "p50", "{:.1f}".format),
    ("p99, µs", "p99", "{:.1f}".format),
)
_PROCESS: tuple[Column, ...] = (
    ("CPU per event, µs", "cpu", "{:.0f}".format),
    ("of one core", "share", "{:.1%}".format),
    ("requests/s", "requests", "{:.0f}".format),
    ("connections", "connections", "{:.0f}".format),
    ("threads", "threads", "{:.0f}".format),
    ("the process, MB", "mb", "{:.0f}".format),
)
_RATES = (10, 100, 500, 1_000, 2_000, 5_000, 10_000, 20_000)
_SIZES = (100, 300, 1_000, 3_000, 10_000, 30_000)
_QUEUES = (1_000, 10_000, 100_000)
_THREADS = (1, 2, 4, 8, 16, 32)
_CONCURRENCY = (1, 2, 4, 8, 16)


def text(*, quick: bool = False, tiny: bool = False) -> str:
    """All tables in Markdown."""
    seconds = 0.1 if tiny else 1.0 if quick else 3.0
    events = 500 if tiny else 10_000 if quick else 60_000

    def few(values: Sequence[int]) -> Sequence[int]:
        return values[:1] if tiny else values[:-1:2] if quick else values

    tables = [
        _table(
            "Events a second, steadily",
            *("steady", [(f"{rate:,}/s", {"rate": rate, "seconds": seconds}) for rate in few(_RATES)]),
            _CALL + _PROCESS,
        ),
        _table(
            "Bytes of a message, 500 a second",
            "steady",
            [(f"{size:,}", {"rate": 500, "seconds": seconds, "size": size}) for size in few(_SIZES)],
            _CALL + _PROCESS[:4],
        ),
        _table(
            "Messages in the queue, while the endpoint hangs",
            "waiting",
            [(f"{events:,}", {"events": events}) for events in few(_QUEUES)],
            (*_CALL, ("grown by, MB", "mb", "{:.1f}".format)),
        ),
        _table(
            "Destinations, 1,000 events a second to each (Vitally, Customer.io, Segment)",
            "steady",
            [(str(count), {"rate": 1_000, "seconds": seconds, "destinations": count}) for count in (1, 2, 3)],
            _CALL + _PROCESS,
        ),
        _table(
            "Threads that track as fast as they can",
            "threads",
            [(str(count), {"events": events, "threads": count}) for count in few(_THREADS)],
            (
                *_CALL,
                ("accepted/s", "accepted", "{:,.0f}".format),
                ("delivered/s", "rate", "{:,.0f}".format),
                ("CPU per event, µs", "cpu", "{:.1f}".format),
                ("connections", "connections", "{:.0f}".format),
            ),
        ),
        _table(
            "Requests in flight (`concurrency`), answers after 200 ms, 8,000 events of 5,000 users",
            "slow",
            [(str(count), {"events": 500 if tiny else 8_000, "concurrency": count}) for count in few(_CONCURRENCY)],
            (
                ("delivered/s", "rate", "{:,.0f}".format),
                ("CPU per event, µs", "cpu", "{:.1f}".format),
                ("connections", "connections", "{:.0f}".format),
                ("threads", "threads", "{:.0f}".format),
            ),
        ),
    ]
    return "\n\n".join(tables)


def _table(title: str, figure: str, rows: Sequence[tuple[str, dict[str, Any]]], columns: Sequence[Column]) -> str:
    lines = [f"| {title} | " + " | ".join(name for name, _, _ in columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name, options in rows:
        found = run_round(figure, OURS, options)
        if isinstance(found, str):
            cells = [f"failed: {found[:60]}", *[""] * (len(columns) - 1)]
        else:
            cells = [form(found[key]) for _, key, form in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two rows a table")
    parser.add_argument("--tiny", action="store_true", help="one row a table, to see that it runs")
    print(text(**vars(parser.parse_args())))


if __name__ == "__main__":
    main()
