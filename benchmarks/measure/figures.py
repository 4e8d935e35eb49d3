"""What one round measures, with one library, in a process that is made for it."""

from __future__ import annotations

import gc
import os
import resource
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from . import handler
from .far_end import FarEnd
from .libraries import LIBRARIES, NOTHING, Library

Figure = Callable[[str, dict[str, Any]], dict[str, Any]]

_WARM = 20
_PATIENCE = 60.0
clock = time.perf_counter_ns


def _warm(library: Library, far: FarEnd) -> None:
    """Whatever is made once is made: threads, connections."""
    for index in range(_WARM):
        library.track(index)
    library.flush()
    if library.name != NOTHING:
        far.wait(_WARM, _PATIENCE)
    far.forget()


def settle() -> None:
    """What was prepared is none of the collector's business during the measurement."""
    gc.collect()
    gc.freeze()


def processor() -> float:
    """Seconds of processor time that this process has taken, all its threads together."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def caller(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Microseconds of a call in a tight loop, and CPU of the process per event until all are delivered."""
    events = options["events"]
    with FarEnd() as far:
        library = LIBRARIES[name](far.url, events + _WARM + 1)
        _warm(library, far)
        calls = [library.call(index) for index in range(events)]
        samples: list[int] = []
        settle()
        cpu = processor()
        for call in calls:
            began = clock()
            call()
            samples.append(clock() - began)
        library.flush()
        report = far.wait(0 if name == NOTHING else events, _PATIENCE)
        cpu = processor() - cpu
    samples.sort()
    cuts = [samples[min(events * cut // 1000, events - 1)] / 1e3 for cut in range(1001)]
    return {"p50": cuts[500], "p99": cuts[990], "cpu": cpu / events * 1e6, "arrived": report["events"], "cuts": cuts}


def throughput(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Events per second, from the first call to the arrival of the last event, with 1 or more threads."""
    events, threads = options["events"], options["threads"]
    with FarEnd() as far:
        library = LIBRARIES[name](far.url, events + _WARM + 1)
        _warm(library, far)
        calls = [library.call(index) for index in range(events)]
        gate = threading.Barrier(threads + 1)

        def work(share: list[Callable[[], object]]) -> None:
            gate.wait()
            for call in share:
                call()

        workers = [threading.Thread(target=work, args=(calls[start::threads],)) for start in range(threads)]
        for worker in workers:
            worker.start()
        settle()
        cpu = processor()
        gate.wait()
        began = time.monotonic()
        for worker in workers:
            worker.join()
        called = time.monotonic() - began
        library.flush()
        report = far.wait(events, _PATIENCE)
        cpu = processor() - cpu
    return {
        "rate": events / (report["last"] - began),
        "accepted": events / called,
        "cpu": cpu / events * 1e6,
        "arrived": report["events"],
        "sink": report["cpu"] / (report["last"] - began),
        "requests": report["requests"],
    }


def memory(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Resident bytes for each of many events that wait, while the endpoint hangs."""
    events = options["events"]
    with FarEnd(weather=[1e9, "hang"]) as far:
        library = LIBRARIES[name](far.url, events + _WARM + 1)
        for index in range(_WARM):
            library.track(index)
        far.wait(1, 1.0)  # whatever is loaded for the first request is loaded
        gc.collect()
        before = resident()
        for index in range(events):
            library.track(index)
        gc.collect()
        grown = resident() - before
    return {"bytes": grown / events}


def resident() -> int:
    """The process's resident bytes; where the system does not say, their most so far."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - the cheapest way
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


def late(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Microseconds by which a thread that sleeps 1 ms wakes too late, while another tracks at a steady rate."""
    with FarEnd() as far:
        library = LIBRARIES[name](far.url, 100_000)
        _warm(library, far)
        samples: list[float] = []
        over = threading.Event()

        def sleep() -> None:
            while not over.is_set():
                began = clock()
                time.sleep(0.001)
                samples.append((clock() - began) / 1e3 - 1000)

        sleeper = threading.Thread(target=sleep)
        sleeper.start()
        pace(library, options["rate"], int(options["rate"] * options["seconds"]))
        over.set()
        sleeper.join()
    samples.sort()
    return {"p50": samples[len(samples) // 2], "p99": samples[len(samples) * 99 // 100]}


def pace(library: Library, rate: float, events: int) -> None:
    """Track so many events at a steady rate; after a delay, those that are overdue at once."""
    began, index = time.perf_counter(), 0
    while index < events:
        due = int((time.perf_counter() - began) * rate) + 1
        while index < min(due, events):
            library.track(index)
            index += 1
        time.sleep(max(index / rate - (time.perf_counter() - began), 0.0))


def flush(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds until `flush()` has returned and all events, tracked just before it, have arrived."""
    events = options["events"]
    with FarEnd() as far:
        library = LIBRARIES[name](far.url, events + _WARM + 1)
        _warm(library, far)
        calls = [library.call(index) for index in range(events)]
        settle()
        for call in calls:
            call()
        began = time.monotonic()
        library.flush()
        returned = time.monotonic()
        report = far.wait(events, 15.0)
    return {"ms": (max(returned, report["last"]) - began) * 1e3, "arrived": report["events"]}


def idle(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Wake-ups per second (voluntary context switches) of a process whose client has nothing to do."""
    with FarEnd() as far:
        library = LIBRARIES[name](far.url)
        _warm(library, far)
        time.sleep(1.0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        time.sleep(options["seconds"])  # which is one wake-up itself
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - before - 1
    return {"wakeups": max(switches, 0) / options["seconds"]}


def weather(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """How many of the events arrived exactly once, repeatedly, never, through bad weather, with default settings."""
    events = options["events"]
    with FarEnd(weather=options["weather"], calm=1.0, record=True) as far:
        library = LIBRARIES[name](far.url)
        far.forget()
        pace(library, options["rate"], events)
        flusher = threading.Thread(target=library.flush, daemon=True)
        flusher.start()
        far.wait(events, options["patience"])
        time.sleep(options["settle"])  # what is still sent again would be seen
        report = far.wait(0, 0.0)
    unique, repeated = report["unique"], report["repeated"]
    return {"once": unique - repeated, "repeated": repeated, "lost": events - unique, "met": report["refused"]}


def web(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Microseconds of a web handler's answers, as its clients see them, while it tracks."""
    with FarEnd() as far:
        library = LIBRARIES[name](far.url, 100_000)
        _warm(library, far)
        return handler.measure(library, **options)


FIGURES: dict[str, Figure] = {
    figure.__name__: figure for figure in (caller, throughput, memory, late, flush, idle, weather, web)
}
