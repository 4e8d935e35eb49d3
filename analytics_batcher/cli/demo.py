"""`demo`: the main job on real input, against the local receiver, with a report that checks itself."""

from __future__ import annotations

import argparse
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from .. import Client, Retry
from ..receiver import Receiver, Reply
from . import PROG, demo_report
from .demo_checks import Outcome, Side, check_calls, check_side, compare
from .demo_vendors import VENDORS, VITALLY, sender_of
from .demo_world import TRACKS, Call, World, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .. import Stats
    from ..destinations import Destination
    from ..receiver.wire import Wire
    from .demo_checks import Check
    from .demo_vendors import Vendor

    Replies = Mapping[str, Iterable[Reply | None]]

# Four threads outrun one connection, and the default bound of 10,000 would refuse what is too much.
_QUEUE_MESSAGES: Final = 50_000
_QUEUE_BYTES_EACH: Final = 1_024
_FLUSH_SECONDS: Final = 60.0

_LOST_ANSWER: Final = Reply(reset="after")
# By the place in every twenty requests: a quarter of them, the first ones too, because full batches are few. The
# second lost answer is that to the repetition.
_FAILURES: Final = {
    1: Reply(500),
    2: _LOST_ANSWER,
    3: _LOST_ANSWER,
    7: Reply(429),
    11: Reply(reset="before"),
}
_FAILURES_EVERY: Final = 20
_FAILING_REQUESTS: Final = 240


def failures() -> list[Reply | None]:
    """A vendor's answers to the first requests: a quarter of them fail, always the same ones."""
    return [_FAILURES.get(number % _FAILURES_EVERY) for number in range(1, _FAILING_REQUESTS + 1)]


def run(world: World, vendors: Sequence[Vendor] = (VITALLY,), replies: Replies | None = None) -> Outcome:
    """Start a receiver, make all calls from their threads, and flush.

    Args:
        world: The calls of each thread.
        vendors: Where they go.
        replies: The answers to the first requests for each vendor, by its name; `None` for a normal one.
    """
    secret = secrets.token_hex(16)
    wires = [vendor.wire(secret) for vendor in vendors]
    with Receiver(wires=wires) as receiver:
        receiver.decide = _decider(replies or {})
        with _client([vendor.destination(receiver.url, secret) for vendor in vendors], bound(world)) as client:
            started = time.perf_counter()
            results = _make_calls(client, world)
            called = time.perf_counter()
            flushed = client.flush(_FLUSH_SECONDS)
            ended = time.perf_counter()
            return Outcome(
                url=receiver.url,
                nanoseconds=list(chain.from_iterable(nanoseconds for nanoseconds, _ in results)),
                accepted=sum(accepted for _, accepted in results),
                call_seconds=called - started,
                flush_seconds=ended - called,
                flushed=flushed,
                sides=_sides(vendors, wires, client, receiver),
            )


def _decider(replies: Replies) -> Callable[[list[dict[str, Any]]], Reply | None]:
    answers = {name: iter(given) for name, given in replies.items()}
    return lambda messages: next(answers.get(sender_of(messages), iter(())), None)


def _sides(vendors: Sequence[Vendor], wires: Sequence[Wire], client: Client, receiver: Receiver) -> tuple[Side, ...]:
    stats = client.stats().destinations
    return tuple(_side(vendor, wire, stats[vendor.name], receiver) for vendor, wire in zip(vendors, wires, strict=True))


def _side(vendor: Vendor, wire: Wire, stats: Stats, receiver: Receiver) -> Side:
    stored = receiver.messages_of(vendor.name)
    return Side(
        vendor=vendor,
        stats=stats,
        requests=tuple(request for request in receiver.requests if request.wire == vendor.name),
        stored=len(stored),
        unique=len(set(map(wire.key, stored))),
    )


def bound(world: World) -> int:
    """The most messages that the queue of each destination may hold.

    Args:
        world: The calls of each thread.
    """
    return max(_QUEUE_MESSAGES, sum(map(len, world)))


def _client(destinations: list[Destination], most: int) -> Client:
    return Client(
        destinations,
        max_queue_messages=most,
        max_queue_bytes=most * _QUEUE_BYTES_EACH,
        # A tenth of the default's first wait: nobody likes to watch a demo wait.
        retry=Retry(base=0.05, cap=0.5),
    )


def _make_calls(client: Client, world: World) -> list[tuple[list[int], int]]:
    """Each thread's durations in nanoseconds, and how many of its calls were accepted."""
    all_ready = threading.Barrier(len(world), timeout=10.0)

    def make(calls: Sequence[Call]) -> tuple[list[int], int]:
        prepared = [(getattr(client, call.method), call.arguments) for call in calls]
        nanoseconds, accepted, clock = [], 0, time.perf_counter_ns
        all_ready.wait()
        for method, arguments in prepared:
            started = clock()
            taken = method(**arguments)
            nanoseconds.append(clock() - started)
            accepted += taken
        return nanoseconds, accepted

    with ThreadPoolExecutor(len(world)) as pool:
        return list(pool.map(make, world))


def main(arguments: Sequence[str]) -> int:
    """Run the demo and print its report.

    Args:
        arguments: Those after the command's name.

    Returns:
        0 if every check holds, else 1.
    """
    parser = argparse.ArgumentParser(prog=f"{PROG} demo", description="Run the main job against a local receiver.")
    names = [vendor.name for vendor in VENDORS]
    parser.add_argument("--to", choices=[*names, "all"], default=VITALLY.name, help="where to (default: %(default)s)")
    parser.add_argument("--faults", action="store_true", help="let the receiver fail a quarter of the requests")
    parser.add_argument("--tracks", type=_count, default=TRACKS, metavar="N", help="events (default: %(default)s)")
    options = parser.parse_args(arguments)
    vendors = [vendor for vendor in VENDORS if options.to in {vendor.name, "all"}]
    return show(build(options.tracks), vendors, dict.fromkeys(names, failures()) if options.faults else None)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 0")
    return int(text)


def show(world: World, vendors: Sequence[Vendor] = (VITALLY,), replies: Replies | None = None) -> int:
    """Run, check, and print the report.

    Args:
        world: The calls of each thread.
        vendors: Where they go.
        replies: The answers to the first requests for each vendor, by its name; `None` for a normal one.

    Returns:
        0 if every check holds, else 1.
    """
    lines, checks = report(world, run(world, vendors, replies))
    print("\n".join(lines))  # noqa: T201 - the report is what the command is for
    return 0 if all(holds for holds, _ in checks) else 1


def report(world: World, outcome: Outcome) -> tuple[list[str], list[Check]]:
    """Check everything that the demo claims.

    Args:
        world: The calls that were made.
        outcome: What came of them.

    Returns:
        The lines of the report, and all checks.
    """
    found = [compare(world, side) for side in outcome.sides]
    checks = check_calls(world, outcome)
    lines = [*demo_report.heading(world, outcome, found), *demo_report.calls(outcome, bound(world), checks)]
    for side, comparison in zip(outcome.sides, found, strict=True):
        own = check_side(side, comparison)
        lines += demo_report.side(side, own)
        checks += own
    return lines, checks
