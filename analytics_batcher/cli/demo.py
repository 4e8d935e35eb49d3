"""`demo`: the main job on real input, against the local receiver, with a report that checks itself."""

from __future__ import annotations

import argparse
import json
import secrets
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .. import Client, Retry, Vitally, __version__
from ..receiver import Receiver, Reply
from . import PROG
from .demo_world import TRACKS, Call, World, build

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .. import FlushResult, Stats
    from ..receiver import Report, Request

# Four threads outrun one connection, and the default bound of 10,000 would refuse what is too much.
_QUEUE_MESSAGES: Final = 50_000
_QUEUE_BYTES_EACH: Final = 1_024
_FLUSH_SECONDS: Final = 60.0

_LOST_ANSWER: Final = Reply(reset="after")
# By the place in every twenty requests: a quarter of them. The second lost answer is that to the repetition.
_FAILURES: Final = {
    3: Reply(500),
    7: _LOST_ANSWER,
    8: _LOST_ANSWER,
    12: Reply(429),
    16: Reply(reset="before"),
}
_FAILURES_EVERY: Final = 20
_FAILING_REQUESTS: Final = 240

_KINDS: Final = {
    "organization": "organizations",
    "account": "accounts",
    "user": "users",
    "customobjectinstance": "custom objects",
    "unlink": "unlinks",
    "track": "tracks",
}


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        url: Where the receiver listened.
        nanoseconds: How long each call took, the timer's own cost included.
        accepted: Calls that returned `True`.
        call_seconds: From the first call to the last one's return.
        flush_seconds: How long the flush took after that.
        flushed: What the flush returned.
        stats: The client's figures after it.
        requests: What the receiver was sent.
        report: What the receiver counted.
    """

    url: str
    nanoseconds: Sequence[int]
    accepted: int
    call_seconds: float
    flush_seconds: float
    flushed: FlushResult
    stats: Stats
    requests: tuple[Request, ...]
    report: Report


def failures() -> list[Reply | None]:
    """The receiver's answers to the first requests: a quarter of them fail, always the same ones."""
    return [_FAILURES.get(number % _FAILURES_EVERY) for number in range(1, _FAILING_REQUESTS + 1)]


def run(world: World, replies: Iterable[Reply | None] = ()) -> Outcome:
    """Start a receiver, make all calls from their threads, and flush.

    Args:
        world: The calls of each thread.
        replies: The receiver's answers to the first requests; `None` for a normal one.
    """
    token = secrets.token_hex(16)
    answers = iter(replies)
    with Receiver(api_token=token) as receiver:
        receiver.decide = lambda _: next(answers, None)
        with _client(receiver.url, token, _bound(world)) as client:
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
                stats=client.stats(),
                requests=receiver.requests,
                report=receiver.report(),
            )


def _bound(world: World) -> int:
    return max(_QUEUE_MESSAGES, sum(map(len, world)))


def _client(url: str, token: str, bound: int) -> Client:
    return Client(
        Vitally(api_token=token, base_url=url),
        max_queue_messages=bound,
        max_queue_bytes=bound * _QUEUE_BYTES_EACH,
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


# The checks.


class Check(NamedTuple):
    """A claim, and whether it holds."""

    holds: bool
    claim: str


def check(world: World, outcome: Outcome) -> list[Check]:
    """Check everything that the demo claims.

    Args:
        world: The calls that were made.
        outcome: What came of them.
    """
    stats, report, made = outcome.stats, outcome.report, sum(map(len, world))
    dropped, failed = sum(stats.dropped.values()), sum(_failed(outcome.requests).values())
    order, altered = _compare(world, outcome.requests)
    held = stats.delivered + dropped + stats.pending + stats.handed_over
    sums = f"{stats.delivered:,} delivered + {dropped:,} dropped + {stats.pending:,} pending"
    return [
        Check(stats.tracked + stats.recovered == held, f"conservation: {stats.tracked:,} tracked = {sums}"),
        Check(outcome.accepted == stats.tracked == made, f"all {made:,} calls were accepted and counted"),
        Check(not dropped, "nothing was dropped"),
        Check(not stats.pending, "nothing is pending"),
        Check(bool(outcome.flushed) and not outcome.flushed.timed_out, "flush() was true, and within its time"),
        Check(report.unique_messages == stats.delivered, "the receiver stored as many as the client calls delivered"),
        Check(order, "what arrived is what was tracked, in each thread's order"),
        Check(not altered, _repeated(report.repeats)),
        Check(report.requests == stats.batches + failed, _made_again(report.requests, stats.batches, failed)),
        Check(not report.faults, "the receiver found no fault in any request"),
    ]


def _repeated(repeats: int) -> str:
    return f"{repeats:,} messages came again, as the same bytes" if repeats else "no message came twice"


def _made_again(requests: int, batches: int, failed: int) -> str:
    return (
        f"{requests:,} requests received = {batches:,} batches delivered + {failed:,} that failed and were made again"
    )


def _compare(world: World, requests: Iterable[Request]) -> tuple[bool, int]:
    """Whether the first arrivals are the calls of each thread in their order, and how many repeats differ."""
    texts: dict[tuple[str, str], str] = {}
    altered = 0
    for request in requests:
        if request.stored:
            for message, text in zip(request.messages, _texts(request.body), strict=True):
                altered += texts.setdefault((message["type"], str(message.get("messageId"))), text) != text
    expected = {thread: [call.message() for call in calls] for thread, calls in enumerate(world)}
    threads = {_owner(message): thread for thread, messages in expected.items() for message in messages}
    arrived = defaultdict(list)
    for text in texts.values():
        message = json.loads(text)
        message.pop("messageId", None)
        message.pop("timestamp", None)
        arrived[threads.get(_owner(message), -1)].append(message)
    return arrived == expected, altered


def _owner(message: Mapping[str, Any]) -> str:
    return str(message.get("accountId", message.get("organizationId")))


def _texts(body: bytes) -> Iterator[str]:
    """The messages of a batch as they were written: to parse them would hide a difference."""
    text, read, place = body.decode(), json.JSONDecoder().raw_decode, 1
    while place < len(text):
        _, end = read(text, place)
        yield text[place:end]
        place = end + 1


def _failed(requests: Iterable[Request]) -> Counter[str]:
    """The requests that had no success to read, by what happened to them."""
    failed: Counter[str] = Counter()
    for request in requests:
        if request.status is None:
            failed["lost answers" if request.stored else "resets"] += 1
        elif request.status // 100 != 2:  # noqa: PLR2004 - the class of success
            failed[f"times {request.status}"] += 1
    return failed


# The report.


def _lines(world: World, outcome: Outcome, checks: Iterable[Check]) -> Iterator[str]:
    yield f"analytics-batcher {__version__}: a small SaaS calls from {len(world)} threads, {outcome.url} receives"
    yield ""
    yield f"{'Messages':<20}{'tracked':>12}{'arrived':>12}"
    made = Counter(call.message()["type"] for calls in world for call in calls)
    for kind, name in _KINDS.items():
        yield f"  {name:<18}{made[kind]:>12,}{outcome.report.by_kind.get(kind, 0):>12,}"
    yield f"  {'all':<18}{made.total():>12,}{outcome.report.unique_messages:>12,}"
    yield ""
    yield f"The client: a queue of {_bound(world):,} messages (the default, 10,000, would refuse what is too much)"
    yield from _client_lines(outcome)
    yield ""
    yield "The receiver"
    yield from _receiver_lines(outcome)
    yield ""
    yield "Checks"
    for holds, claim in checks:
        yield f"  {'ok' if holds else 'FAILED':<8}{claim}"


def _client_lines(outcome: Outcome) -> Iterator[str]:
    stats, seconds = outcome.stats, outcome.call_seconds + outcome.flush_seconds
    ordered = sorted(outcome.nanoseconds)
    p50, p99 = (ordered[len(ordered) * percent // 100] / 1000 for percent in (50, 99))
    yield _row("delivered", stats.delivered, f"in {seconds:.2f} s, of which the flush took {outcome.flush_seconds:.2f}")
    yield _row("dropped", sum(stats.dropped.values()))
    yield _row("pending", stats.pending)
    yield _row("requests", stats.requests)
    yield _row("retries", stats.retries, "after a wait, by the client's schedule")
    yield _row("call p50", f"{p50:.1f}", "microseconds on the caller's thread, the timer's own cost included")
    yield _row("call p99", f"{p99:.1f}", "while consumer and receiver work in the same interpreter")


def _receiver_lines(outcome: Outcome) -> Iterator[str]:
    report, limits = outcome.report, Vitally.limits
    failed = _failed(outcome.requests)
    # The transport repeats these on its own, and the client counts the two as one.
    at_once = report.requests - outcome.stats.requests
    why = f"{at_once:,} of them at once, as a kept connection broke" if at_once else ""
    yield _row("requests", report.requests, why)
    yield _row("failed", failed.total(), ", ".join(f"{count} {what}" for what, count in sorted(failed.items())))
    yield _row("fullest batch", report.fullest_batch, f"messages, of at most {limits.messages:,}")
    yield _row("largest body", report.largest_body, f"bytes, of at most {limits.bytes:,}")
    yield _row("repeats", report.repeats, f"of {report.messages:,} stored messages; lost answers make them")
    yield _row("faults", len(report.faults), "in token, headers, JSON and fields of all requests")


def _row(name: str, value: float | str, note: str = "") -> str:
    figure = value if isinstance(value, str) else f"{value:,}"
    return f"  {name:<18}{figure:>12}  {note}".rstrip()


# The command.


def main(arguments: Sequence[str]) -> int:
    """Run the demo and print its report.

    Args:
        arguments: Those after the command's name.

    Returns:
        0 if every check holds, else 1.
    """
    parser = argparse.ArgumentParser(prog=f"{PROG} demo", description="Run the main job against a local receiver.")
    parser.add_argument("--faults", action="store_true", help="let the receiver fail a quarter of the requests")
    parser.add_argument("--tracks", type=_count, default=TRACKS, metavar="N", help="events (default: %(default)s)")
    options = parser.parse_args(arguments)
    return show(build(options.tracks), failures() if options.faults else ())


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least 0")
    return int(text)


def show(world: World, replies: Iterable[Reply | None] = ()) -> int:
    """Run, check, and print the report.

    Args:
        world: The calls of each thread.
        replies: The receiver's answers to the first requests; `None` for a normal one.

    Returns:
        0 if every check holds, else 1.
    """
    outcome = run(world, replies)
    checks = check(world, outcome)
    print("\n".join(_lines(world, outcome, checks)))  # noqa: T201 - the report is what the command is for
    return 0 if all(holds for holds, _ in checks) else 1
