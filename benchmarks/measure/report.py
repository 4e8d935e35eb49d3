"""The figures in Markdown."""

from __future__ import annotations

import os
import platform
import statistics
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .goals import Goal, Results, median
from .libraries import NOTHING, OURS, WITHOUT_ORJSON, Snowplow, version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .rounds import Rounds

CAVEATS = """## What these figures are not

- Ratios of one run on one machine: absolute times differ by machine, ratios by less. Rounds alternate, so that what else
  the machine does meets all libraries alike; the medians are of rounds, each in a fresh process.
- A loopback server that answers at once. With a real one each request waits for the network, which costs no processor
  time but, at `concurrency=1`, bounds events/s at 100 divided by the seconds of an answer.
- Every library has its own defaults, but for a queue that holds the round: ours, segment, posthog and rudder send
  batches of 100, amplitude of 200, launchdarkly all there is at once, snowplow of 10. rudder compresses by default, which
  is part of its processor time. launchdarkly and amplitude check no sizes.
- What is called is prepared before: ids, dicts, a partial function per call, whose own cost, the column "nothing", is in
  every figure. amplitude's event object, one per call, counts to the call; launchdarkly's context, one per user, does not.
- The tight loop is the worst case for p99: the consumer works all the time, beside the caller, under one interpreter lock.
  At a steady rate a call finds cold caches, and its p50 is higher; "How it grows" has those.
- launchdarkly's `flush()` does not wait: its figure is the arrival of the last event."""


def heading(command: str, libraries: Sequence[str], size: dict[str, Any]) -> str:
    """What was measured, when, on what."""
    versions = ", ".join(f"{library} {version(library)}" for library in libraries)
    others = f"; snowplow {version(Snowplow.name)} for `flush()`" if version(Snowplow.name) else ""
    return f"""# What it costs, beside others

Written by `{command}` on {datetime.now().astimezone().date().isoformat()}: Python {platform.python_version()}, \
{platform.system()} {platform.machine()}, {os.cpu_count()} cores; {versions}{others}.

A track with 8 properties. Medians of {size["rounds"]} rounds for the caller's figures, {size["through_rounds"]} for \
events/s, {size["few"]} for late wake-ups and `flush()`, {size["pairs"]} pairs for the web handler."""


def table(rows: Sequence[Goal], libraries: Sequence[str]) -> str:
    """The table of goals, a column for each library."""
    extra = [one for one in (NOTHING, Snowplow.name) if any(one in row.cells for row in rows)]
    columns = [*libraries, *extra]
    lines = ["| | goal | must | reached | | " + " | ".join(columns) + " |", "|---" * (5 + len(columns)) + "|"]
    for row in rows:
        cells = " | ".join(row.cells.get(column, "") for column in columns)
        lines.append(f"| {row.title} | {row.goal} | {row.must} | {row.reached} | {row.mark} | {cells} |")
    return "\n".join(lines)


def without_orjson(caller: Rounds) -> str:
    """The caller's figures where orjson is not installed."""
    lines = ["## Without orjson", "", "| | with orjson | with the standard library's json |", "|---|---|---|"]
    for key, title in (("p50", "a call, p50, µs"), ("p99", "a call, p99, µs"), ("cpu", "CPU per event, µs")):
        values = [median(caller, library, key) for library in (OURS, WITHOUT_ORJSON)]
        lines.append(f"| {title} | " + " | ".join("" if one is None else f"{one:.1f}" for one in values) + " |")
    return "\n".join(lines)


def sink(ceiling: dict[str, float], results: Results, library: str) -> str:
    """How we know that the server is not what bounds events a second."""
    lines = [
        "## The sink",
        "",
        f"A flood from raw sockets: the sink took {ceiling['events']:,.0f} events/s in {ceiling['requests']:,.0f} requests/s, "
        f"at {ceiling['share']:.0%} of a core. In the rounds:",
        "",
        "| | events/s | of the flood's | the sink's core was busy for |",
        "|---|---|---|---|",
    ]
    for threads in (1, 4):
        rounds = results.get(f"throughput-{threads}")
        if rounds is not None and rounds.found.get(library):
            rate = statistics.median(rounds.values(library, "rate"))
            busy = statistics.median(rounds.values(library, "sink"))
            share = rate / ceiling["events"]
            lines.append(f"| {library}, {threads} thread{'s' * (threads > 1)} | {rate:,.0f} | {share:.0%} | {busy:.0%} |")
    return "\n".join(lines)
