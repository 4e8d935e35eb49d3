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
        _model_text(points),
        "## What larger fleets need",
        _capacity(points),
    ]
    return "\n\n".join(parts) + "\n" + _CAVEATS


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines)


def _shipping(points: Points, direct: Mapping[str, float]) -> str:
    rows = [["1, posting to the vendor itself", "", f"{direct['rate']:,.0f}", f"{direct['cpu']:.1f}", "", ""]]
    shown = [(point, one) for point, one in points.items() if not point.delay]
    rows += [
        [
            f"{point.producers}",
            f"{point.shards}",
            f"{one['ship_rate']:,.0f}",
            f"{one['ship_cpu']:.1f}",
            f"{one['ship_server']:.1f}",
            f"{one['bytes']:.0f}",
        ]
        for point, one in {(point.producers, point.shards): (point, one) for point, one in shown}.values()
    ]
    head = ["producers", "shards", "messages/s", "CPU a message, µs", "the server's, µs", "bytes there a message"]
    return _table(head, rows)


def _delivering(points: Points) -> str:
    rows = []
    for point, one in points.items():
        model = modelled(point, points)
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


def modelled(point: Point, points: Points) -> float:
    """Messages a second that a fleet delivers by the model: shards go round between relays, server, sink and vendor.

    It is the mean value analysis of a closed network: of the batches under way, one for each shard, each waits where
    others are served, and the time for which nobody has to wait is what is left of a batch's time in the first fleet.
    """
    first, several = _units(points)
    alone = point.shards <= point.relays
    relay = (first if alone else several)["relay_cpu"] * _BATCH / _MICRO
    server = first["deliver_server"] * _BATCH / _MICRO
    sink = first["sink_cpu"] * _BATCH / _MICRO
    rest = max(_BATCH / first["rate"] - first["relay_cpu"] * _BATCH / _MICRO - server - sink, 0.0) + point.delay
    relays = min(point.relays, point.shards)
    demands = [server, sink, *[relay / relays] * relays]
    waiting = [0.0] * len(demands)
    rate = 0.0
    for number in range(1, point.shards + 1):
        times = [demand * (1 + queue) for demand, queue in zip(demands, waiting, strict=True)]
        rate = number / (rest + sum(times))
        waiting = [rate * one for one in times]
    return min(rate, (os.cpu_count() or 1) / (relay + server + sink)) * _BATCH


def _units(points: Points) -> tuple[Mapping[str, float], Mapping[str, float]]:
    """The figures of one relay with one shard, and with several."""
    several = next(one for point, one in points.items() if point.relays == 1 < point.shards and not point.delay)
    return next(iter(points.values())), several


def _model_text(points: Points) -> str:
    first, several = _units(points)
    return (
        "It is made of two rows. With one relay and one shard, a batch of 100 takes "
        f"{_BATCH / first['rate'] * 1000:.1f} ms and the vendor's answer; a message takes the relay "
        f"{first['relay_cpu']:.1f} µs of a core, the server {first['ship_server']:.1f} to be added and "
        f"{first['deliver_server']:.1f} to be read and removed. With several shards in one relay it takes "
        f"{several['relay_cpu']:.1f} µs, as its threads share an interpreter. Each shard has one batch under way, "
        "which waits where others are served: at its relay, at the server, at the sink (mean value analysis of a "
        "closed network); and all together have the machine's cores."
    )


def _capacity(points: Points) -> str:
    first, several = _units(points)
    rows = []
    for rate in _RATES:
        server = rate * (first["ship_server"] + first["deliver_server"]) / _MICRO / _BUSY
        relays = rate * several["relay_cpu"] / _MICRO / _BUSY
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
