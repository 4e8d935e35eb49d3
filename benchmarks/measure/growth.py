"""How the cost grows: with events a second, message size, queue, destinations, threads. Each row is a round of ours."""

from __future__ import annotations

import threading
import time
from random import Random
from typing import TYPE_CHECKING, Any

from .far_end import FarEnd
from .figures import clock, processor, resident, settle
from .libraries import TOKEN
from .workload import EVENT, properties, user

if TYPE_CHECKING:
    from collections.abc import Callable

    from .figures import Figure

_BYTES = 2**30


def _client(url: str, destinations: int = 1, **options: Any) -> Any:
    from analytics_batcher import Client, CustomerIO, Segment, Vitally

    several = [
        Vitally(api_token=TOKEN, base_url=url),
        CustomerIO("site", TOKEN, base_url=url),
        Segment(TOKEN, base_url=url),
    ][:destinations]
    client = Client(several, **options)
    for index in range(20):
        client.track(user(index), EVENT, properties(index))
    client.flush()
    return client


def _sized(index: int, size: int) -> dict[str, Any]:
    """Properties that make about `size` bytes of JSON with their event: ever more of them, as real ones have."""
    values: dict[str, Any] = {"index": index}
    left = size - 90
    while left > 0:
        values[f"field_{len(values)}"] = "x" * max(min(left - 16, 64), 0)
        left -= 80
    return values


def _steady(client: Any, make: Callable[[int], dict[str, Any]], rate: float, seconds: float) -> dict[str, Any]:
    """Track at a steady rate in a few bursts a second; what it cost, less what the loop itself does."""
    burst = max(int(rate / 50), 1)
    prepared = [make(index) for index in range(burst)]
    samples: list[int] = []
    settle()
    began, cpu, sent = time.monotonic(), processor(), 0
    while (now := time.monotonic() - began) < seconds:
        for values in prepared:
            started = clock()
            client.track("user-1", EVENT, values)
            samples.append(clock() - started)
        sent += burst
        time.sleep(max(sent / rate - now, 0.0))
    took = time.monotonic() - began
    client.flush()
    cpu = processor() - cpu
    samples.sort()
    return {
        "rate": sent / took,
        "share": cpu / took,
        "cpu": cpu / sent * 1e6,
        "p50": samples[len(samples) // 2] / 1e3,
        "p99": samples[len(samples) * 99 // 100] / 1e3,
        "mb": resident() / 2**20,
        "threads": threading.active_count() - 1,
    }


def steady(_: str, options: dict[str, Any]) -> dict[str, Any]:
    """Events of a size at a rate, to a number of destinations."""
    count = options.get("destinations", 1)
    with FarEnd() as far:
        client = _client(far.url, count, max_queue_messages=100_000, max_queue_bytes=_BYTES)
        far.wait(0, 0.0)
        far.forget()
        size = options.get("size")
        make = properties if size is None else lambda index: _sized(index, size)
        result = _steady(client, make, options["rate"], options["seconds"])
        report = far.wait(0, 0.0)
        stats = client.stats()
    result |= {"requests": report["requests"] / options["seconds"], "connections": report["most"]}
    return result | {"lost": sum(stats.dropped.values()), "bytes": report["bytes"] / max(report["events"], 1)}


def waiting(_: str, options: dict[str, Any]) -> dict[str, Any]:
    """A queue of so many events, while the endpoint hangs."""
    events = options["events"]
    with FarEnd(weather=[1e9, "hang"]) as far:
        client = _hung(far)
        before = resident()
        samples = []
        for index in range(events):
            values = properties(index)
            started = clock()
            client.track(user(index), EVENT, values)
            samples.append(clock() - started)
        grown = resident() - before
    samples.sort()
    return {"mb": grown / 2**20, "p50": samples[events // 2] / 1e3, "p99": samples[events * 99 // 100] / 1e3}


def _hung(far: FarEnd) -> Any:
    from analytics_batcher import Client, Vitally

    client = Client(Vitally(api_token=TOKEN, base_url=far.url), max_queue_messages=10**7, max_queue_bytes=_BYTES)
    client.track("user-1", EVENT, {})
    far.wait(1, 1.0)
    return client


def threads(_: str, options: dict[str, Any]) -> dict[str, Any]:
    """Threads that all track as fast as they can."""
    events, count = options["events"], options["threads"]
    with FarEnd() as far:
        client = _client(far.url, max_queue_messages=10**7, max_queue_bytes=_BYTES)
        far.wait(0, 0.0)
        far.forget()
        prepared = [properties(index) for index in range(1000)]
        gate, samples = threading.Barrier(count + 1), [[] for _ in range(count)]  # type: ignore[var-annotated]

        def work(mine: list[int]) -> None:
            gate.wait()
            for index in range(events // count):
                started = clock()
                client.track("user-1", EVENT, prepared[index % 1000])
                mine.append(clock() - started)

        workers = [threading.Thread(target=work, args=(mine,)) for mine in samples]
        for worker in workers:
            worker.start()
        settle()
        cpu = processor()
        gate.wait()
        began = time.monotonic()
        for worker in workers:
            worker.join()
        called = time.monotonic() - began
        client.flush(60)
        sent = events // count * count
        report = far.wait(sent, 30.0)
        cpu = processor() - cpu
    merged = sorted(one for mine in samples for one in mine)
    return {
        "p50": merged[len(merged) // 2] / 1e3,
        "p99": merged[len(merged) * 99 // 100] / 1e3,
        "accepted": sent / called,
        "rate": sent / (report["last"] - began),
        "cpu": cpu / sent * 1e6,
        "connections": report["most"],
    }


def slow(_: str, options: dict[str, Any]) -> dict[str, Any]:
    """Events of 5,000 users, as fast as they are taken by an endpoint that answers after 200 ms."""
    events, chance = options["events"], Random(1)
    with FarEnd(delay=0.2) as far:
        client = _client(far.url, max_queue_messages=10**7, max_queue_bytes=_BYTES, concurrency=options["concurrency"])
        far.wait(0, 0.0)
        far.forget()
        users = [f"user-{chance.randrange(5_000)}" for _ in range(events)]
        values = [properties(index) for index in range(events)]
        settle()
        began, cpu = time.monotonic(), processor()
        for one, has in zip(users, values, strict=True):
            client.track(one, EVENT, has)
        client.flush(120)
        took, cpu = time.monotonic() - began, processor() - cpu
        report = far.wait(events, 5.0)
    return {
        "rate": events / took,
        "cpu": cpu / events * 1e6,
        "connections": report["most"],
        "threads": threading.active_count() - 1,
        "wanted": events,
        "arrived": report["events"],
    }


GROWTH: dict[str, Figure] = {figure.__name__: figure for figure in (steady, waiting, threads, slow)}
