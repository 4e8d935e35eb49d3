"""The page: what was measured, a model of it, and what larger fleets need by it."""

from __future__ import annotations

import math
import os
import platform
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .rounds import Point

    Points = Mapping[Point, Mapping[str, float]]

_BATCH = 100
_BUSY = 0.7
"""The part of a core that is planned with."""
_ANSWER = 0.1
"""Seconds of a vendor's answer that are planned with."""
_RATES = (1_000, 10_000, 100_000, 1_000_000)
_MICRO = 1e6

_CAVEATS = """
## How to read it

- All of it runs on one machine: producers, relays, the server and the sink share its cores, and more of one take from
  the others. What each costs a message carries over to other machines; what the whole reaches does not.
- The sink answers at once, but in the rows that say otherwise. A vendor does not: there, a shard has one request in
  flight, so that it delivers 100 messages for each answer's time, whatever the processors do. Shards are what is added
  then, and one relay serves many.
- The server has an append-only file with `everysec`. Its figures are of its whole process.
- A stream lives on one server, and one server uses one core for commands, also in a cluster, since a stream's shards
  share a hash tag. What is more than a server carries is several streams, each with a server and relays of its own:
  split by application or by a hash of the user before the client.

## Where this ends

At some ten thousands of messages a second a stream fills its server's core. Several streams go further, each with a
server, relays and alarms of its own, and nobody sees them as one. Who needs hundreds of thousands a second steadily, or
keeps messages for days, or has several readers of the same messages, wants a log that is spread over machines by
itself: that is Kafka and its kin, and this package's relay is no substitute for a connector there.
"""


def text(points: Points, direct: Mapping[str, float], *, rounds: int, messages: int) -> str:
    """The page.

    Args:
        points: The figures of each fleet.
        direct: Those of a producer without one.
        rounds: How often each was measured.
        messages: How many messages each had.
    """
    unit = next(iter(points))
    first = points[unit]
    about = (
        f"Written by `python benchmarks/fleet.py --write benchmarks/fleet.md` on {time.strftime('%Y-%m-%d')}: Python "
        f"{platform.python_version()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores; "
        f"analytics-batcher {version('analytics-batcher')}, redis-py {version('redis')}. {messages:,} messages of 8 "
        f"properties, about 290 bytes each; medians of {rounds} rounds."
    )
    parts = [
        "# What a fleet carries",
        about,
        "## Shipping",
        _shipping(points, direct),
        "## Delivering",
        _delivering(points),
        "## A model",
        _model_text(first),
        "## What larger fleets need",
        _capacity(first),
    ]
    return "\n\n".join(parts) + "\n" + _CAVEATS


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def _shipping(points: Points, direct: Mapping[str, float]) -> str:
    rows = [["1, posting to the vendor itself", "", f"{direct['rate']:,.0f}", f"{direct['cpu']:.1f}", "", ""]]
    rows += [
        [
            f"{point.producers}",
            f"{point.shards}",
            f"{one['ship_rate']:,.0f}",
            f"{one['ship_cpu']:.1f}",
            f"{one['ship_server']:.1f}",
            f"{one['bytes']:.0f}",
        ]
        for point, one in points.items()
        if not point.delay
    ]
    head = ["producers", "shards", "messages/s", "CPU a message, µs", "the server's, µs", "bytes there a message"]
    return _table(head, rows)


def _delivering(points: Points) -> str:
    first = next(iter(points.values()))
    rows = []
    for point, one in points.items():
        model = _rate(point, first)
        answer = f"after {point.delay * 1000:.0f} ms" if point.delay else "at once"
        rows.append(
            [
                f"{point.relays}",
                f"{point.shards}",
                answer,
                f"{one['rate']:,.0f}",
                f"{one['relay_cpu']:.1f}",
                f"{one['deliver_server']:.1f}",
                f"{model:,.0f}",
                f"{one['rate'] / model:.2f}",
            ]
        )
    head = ["relays", "shards", "answers", "messages/s", "CPU a message, µs", "the server's, µs"]
    return _table([*head, "by the model", "measured to that"], rows)


def _rate(point: Point, first: Mapping[str, float]) -> float:
    """Messages a second that a fleet delivers, by the costs of one relay with one shard."""
    relay, server, sink = (first[name] / _MICRO for name in ("relay_cpu", "deliver_server", "sink_cpu"))
    each_batch = _BATCH / first["rate"] + point.delay
    cores = os.cpu_count() or 1
    return min(
        point.shards * _BATCH / each_batch,
        min(point.relays, point.shards) / relay,
        1 / server,
        cores / (relay + server + sink),
    )


def _model_text(first: Mapping[str, float]) -> str:
    return (
        "Of the fleet with one of each: a batch of 100 takes a shard "
        f"{_BATCH / first['rate'] * 1000:.1f} ms and the vendor's answer; a message takes a relay "
        f"{first['relay_cpu']:.1f} µs of a core, the server {first['ship_server']:.1f} to be added and "
        f"{first['deliver_server']:.1f} to be read and removed. A fleet delivers the least of: shards times 100 for "
        "each batch's time; what the relays' cores carry; what the server's one core carries; what the machine's cores "
        "carry, the sink's work included."
    )


def _capacity(first: Mapping[str, float]) -> str:
    rows = []
    for rate in _RATES:
        server = rate * (first["ship_server"] + first["deliver_server"]) / _MICRO / _BUSY
        relays = rate * first["relay_cpu"] / _MICRO / _BUSY
        shards = rate * (_ANSWER + _BATCH / first["rate"]) / _BATCH
        memory = rate * 60 * first["bytes"] / 2**30
        rows.append(
            [
                f"{rate:,}",
                f"{math.ceil(shards):,}",
                f"{math.ceil(relays):,}",
                f"{math.ceil(server):,}",
                f"{memory:.2f} GB" if memory < 10 else f"{memory:,.0f} GB",
            ]
        )
    head = ["messages/s", "shards", "relays", "servers, a stream each", "of their memory, a minute of outage"]
    note = (
        f"With answers after {_ANSWER * 1000:.0f} ms and cores that are {_BUSY:.0%} busy. A relay is a process that "
        "fills one core; two at least, so that one can die."
    )
    return f"{_table(head, rows)}\n\n{note}"
