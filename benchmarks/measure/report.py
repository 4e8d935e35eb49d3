"""The figures in Markdown."""

from __future__ import annotations

import os
import platform
import statistics
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .goals import Goal, Results, median
from .libraries import DURABLE, NOTHING, OURS, WITHOUT_ORJSON, Snowplow, version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .rounds import Rounds

CAVEATS = """## How to read them

- They are of one run on one machine: times differ by machine, ratios by less. Rounds alternate, so that what else the
  machine does meets all libraries alike; each is a fresh process, and the medians are of rounds.
- The server is on loopback and answers at once. With a real one each request waits for the network, which costs no
  processor time but, at `concurrency=1`, bounds events/s at 100 divided by the seconds of an answer.
- Every library has its own defaults, but for a queue that holds the round: ours, segment, posthog and rudder send
  batches of 100, amplitude of 200, launchdarkly all there is at once, snowplow of 10. rudder compresses by default,
  which is part of its processor time. launchdarkly and amplitude check no sizes. launchdarkly keeps the caller's own
  dict until it sends, and writes no JSON before.
- What is called is prepared before: ids, dicts, a partial function for each call, whose own cost, the column "nothing",
  is in every figure. amplitude's event object, one for each call, counts to the call; launchdarkly's context, one for
  each user, does not.
- In a tight loop the consumer works all the time, beside the caller, under one interpreter lock; the caches are warm.
  At a steady rate they are cold, and one call of a hundred wakes the consumer: "How it grows" has those figures.
- launchdarkly's `flush()` does not wait: its figure is the arrival of the last event.
- The web handler is a threaded server of the standard library, with a form in JSON, twenty rows out of SQLite and four
  events for each of 500 requests a second; its clients are in another process, and count from when a request was due.
- Bad weather begins with the first request after a second, and lasts as long as it says; lost is what has not arrived
  30 s after the last call."""


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


def variants(caller: Rounds) -> str:
    """The caller's figures where orjson is not installed, and with a file."""
    titles = "| | as it is | without orjson: the standard library's json | with a file: `SqliteBuffer` |"
    lines = ["## Variants of ours", "", titles, "|---|---|---|---|"]
    for key, title in (("p50", "a call, p50, µs"), ("p99", "a call, p99, µs"), ("cpu", "CPU per event, µs")):
        values = [median(caller, library, key) for library in (OURS, WITHOUT_ORJSON, DURABLE)]
        lines.append(f"| {title} | " + " | ".join("" if one is None else f"{one:.1f}" for one in values) + " |")
    return "\n".join(lines)


def sink(ceiling: dict[str, float], results: Results, library: str) -> str:
    """How we know that the server is not what bounds events a second."""
    text = (
        f"From two raw sockets that flood it, it took {ceiling['events']:,.0f} events/s in {ceiling['requests']:,.0f} "
        f"requests/s, and was busy for {ceiling['share']:.0%} of the time. In the rounds:"
    )
    lines = [
        "## The sink",
        "",
        text,
        "",
        "| | events/s | of the flood's | the sink was busy for |",
        "|---|---|---|---|",
    ]
    for threads in (1, 4):
        rounds = results.get(f"throughput-{threads}")
        if rounds is not None and rounds.found.get(library):
            rate = statistics.median(rounds.values(library, "rate"))
            busy = statistics.median(rounds.values(library, "sink"))
            share = rate / ceiling["events"]
            lines.append(
                f"| {library}, {threads} thread{'s' * (threads > 1)} | {rate:,.0f} | {share:.0%} | {busy:.0%} |"
            )
    return "\n".join(lines)
