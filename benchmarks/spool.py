"""What a spool costs: `python benchmarks/spool.py [--help]`.

A call with a spool beside one with the memory buffer and beside the least that a peer's call does, in the same run;
messages a second, written and drained; and what many waiting messages cost. Medians of alternating repeats.
"""

from __future__ import annotations

import argparse
import atexit
import json
import queue
import sys
import tempfile
import time
import uuid
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from analytics_batcher import Client, Retry, SqliteBuffer, Vitally
from analytics_batcher.buffers import Lease
from analytics_batcher.stamp import new_head

if TYPE_CHECKING:
    from collections.abc import Callable

NOWHERE = "http://127.0.0.1:9"
PROPERTIES = {
    "plan": "team",
    "seats": 12,
    "price": 49.5,
    "trial": False,
    "source": "web",
    "page": "/a",
    "n": 1,
    "x": None,
}
BODY = (
    b'{"type":"track","event":"Report opened","properties":' + json.dumps(PROPERTIES).encode() + b',"userId":"u-00001"}'
)


def like_a_peer() -> Callable[[], object]:
    """The least that a call does in a library that works in memory: an id, a time, JSON to see its size, a queue."""
    line: queue.Queue[dict[str, object]] = queue.Queue(10_000_000)

    def call() -> None:
        message = {"type": "track", "event": "Report opened", "userId": "u-00001", "properties": dict(PROPERTIES)}
        message["timestamp"] = datetime.now(timezone.utc).isoformat()
        message["messageId"] = str(uuid.uuid4())
        message["context"] = {"library": {"name": "python", "version": "1"}}
        if len(json.dumps(message).encode()) < 32_768:
            line.put(message, block=False)

    return call


def segments() -> dict[str, Callable[[], object]]:
    """A call of segment-analytics-python, whose thread sends nothing meanwhile, if it is there."""
    try:
        from segment.analytics.client import Client as Segment  # noqa: PLC0415 - only where it is installed
    except ImportError:
        return {}
    client = Segment("key", host=NOWHERE, max_queue_size=10_000_000)
    for consumer in client.consumers:
        consumer.pause()
    atexit.unregister(client.join)
    return {"segment-analytics-python": lambda: client.track("u-00001", "Report opened", PROPERTIES)}


def caller_of(client: Client) -> Callable[[], object]:
    """A call of a client."""
    return lambda: client.track("u-00001", "Report opened", PROPERTIES)


def p50(call: Callable[[], object], count: int) -> list[int]:
    """Nanoseconds of each of so many calls."""
    clock, times = time.perf_counter_ns, []
    for _ in range(count):
        begun = clock()
        call()
        times.append(clock() - begun)
    return times


def calls(folder: Path, count: int, repeats: int) -> None:
    """The caller's side."""
    options: dict[str, Any] = {
        "flush_interval": 3600.0,
        "retry": Retry(base=3600, cap=3600, jitter="none"),  # the consumer sleeps meanwhile
        "max_queue_messages": 10_000_000,
        "max_queue_bytes": 2**33,
        "shutdown_timeout": 0,
    }
    spool = SqliteBuffer(folder / "calls.db", max_bytes=2**34)
    clients = {
        "memory": Client(Vitally(api_token="t", base_url=NOWHERE), background=False, **options),
        "spool": Client(Vitally(api_token="t", base_url=NOWHERE), buffer=spool, **options),
    }
    kinds = {
        "like a peer": like_a_peer(),
        **segments(),
        **{name: caller_of(client) for name, client in clients.items()},
    }
    times: dict[str, list[int]] = {name: [] for name in kinds}
    for _ in range(repeats):
        for name, call in kinds.items():
            times[name] += p50(call, count)
    for name, each in times.items():
        each.sort()
        shown = ", ".join(f"{each[int(len(each) * part)] / 1000:.1f}" for part in (0.5, 0.99))
        print(f"a call, {name}: p50, p99 of {len(each):,} calls: {shown} µs")
    for client in clients.values():
        client.shutdown(0)


def throughput(folder: Path, count: int) -> None:
    """Messages a second through the buffer alone: written, drained out of memory, and drained out of the file."""
    for title, ahead in (("in memory too", 10_000_000), ("in the file only", 1_000)):
        buffer = SqliteBuffer(folder / f"rate-{ahead}.db", max_bytes=2**34).open("vitally", ahead, 2**33)
        begun = time.perf_counter()
        for _ in range(count):
            buffer.put(new_head() + BODY)
        written = time.perf_counter() - begun
        begun = time.perf_counter()
        drain(buffer, count)
        taken = time.perf_counter() - begun
        print(f"{count:,} messages, {title}: {count / written:,.0f}/s written, {count / taken:,.0f}/s drained")
        buffer.finish()


def drain(buffer: object, count: int) -> None:
    """Take and settle, a hundred at a time."""
    while count > 0:
        lease = Lease()
        buffer.take(lease, 100, 500_000)  # type: ignore[attr-defined]
        count -= len(lease.records)
        buffer.settle(lease, range(len(lease.records)), ())  # type: ignore[attr-defined]


def backlog(folder: Path, count: int) -> None:
    """What many waiting messages cost whoever opens the file."""
    path = folder / "backlog.db"
    settings = SqliteBuffer(path, max_bytes=2**34)
    first = settings.open("vitally", 1_000)
    for _ in range(count):
        first.put(new_head() + BODY)
    first.finish()
    size = sum(one.stat().st_size for one in folder.iterdir() if one.name.startswith("backlog"))
    begun = time.perf_counter()
    heir = settings.open("vitally")
    opened = time.perf_counter() - begun
    lease = Lease()
    heir.take(lease, 100, 500_000)
    taken = time.perf_counter() - begun
    if heir.read().messages != count or len(lease.records) != 100:
        raise SystemExit(f"of {count} messages {heir.read().messages} were found")
    record = len(new_head()) + len(BODY)
    print(f"{count:,} waiting: open {opened * 1000:.1f} ms, first batch after {taken * 1000:.1f} ms", end="; ")
    print(f"{size / count:.0f} bytes on disk a message, of {record} bytes each")
    heir.finish()


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=5_000, help="calls of each kind in a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--messages", type=int, default=100_000, help="messages for the throughput")
    parser.add_argument("--waiting", type=int, default=1_000_000, help="messages that wait")
    parser.add_argument("--folder", help="where the files are made; their disk is what is measured")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        calls(Path(name), options.calls, options.repeats)
        throughput(Path(name), options.messages)
        backlog(Path(name), options.waiting)


if __name__ == "__main__":
    main()
