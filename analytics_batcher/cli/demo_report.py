"""The demo's report, in lines."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from .. import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .demo_checks import Check, Comparison, Outcome, Side
    from .demo_world import World

_KINDS: Final = {
    "organization": "organizations",
    "account": "accounts",
    "user": "users",
    "customobjectinstance": "custom objects",
    "unlink": "unlinks",
    "track": "tracks",
}


def heading(world: World, outcome: Outcome, found: Sequence[Comparison]) -> Iterator[str]:
    """The beginning: what was tracked, and what arrived where.

    Args:
        world: The calls that were made.
        outcome: What came of them.
        found: How each vendor's part compares with them.
    """
    yield f"analytics-batcher {__version__}: a small SaaS calls from {len(world)} threads, {outcome.url} receives"
    yield ""
    columns = ["arrived"] if len(found) == 1 else [side.vendor.title for side in outcome.sides]
    yield f"{'Messages':<20}{'tracked':>12}" + "".join(f"{column:>12}" for column in columns)
    made = Counter(call.message()["type"] for calls in world for call in calls)
    for kind, name in _KINDS.items():
        yield _counts(name, [made[kind], *(one.by_kind[kind] for one in found)])
    yield _counts("all", [made.total(), *(one.unique for one in found)])


def _counts(name: str, figures: Iterable[int]) -> str:
    return f"  {name:<18}" + "".join(f"{figure:>12,}" for figure in figures)


def calls(outcome: Outcome, bound: int, checks: Iterable[Check]) -> Iterator[str]:
    """The part about the calls.

    Args:
        outcome: What came of them.
        bound: The most messages that a queue could hold.
        checks: The checks that concern them.
    """
    ordered = sorted(outcome.nanoseconds)
    p50, p99 = (ordered[len(ordered) * percent // 100] / 1000 for percent in (50, 99))
    seconds = outcome.call_seconds + outcome.flush_seconds
    each = "a queue" if len(outcome.sides) == 1 else "a queue each"
    yield ""
    yield f"The calls: {each} of {bound:,} messages (the default, 10,000, would refuse what is too much)"
    yield _row(
        "accepted", outcome.accepted, f"{seconds:.2f} s in all, of which the flush took {outcome.flush_seconds:.2f}"
    )
    yield _row("call p50", f"{p50:.1f}", "microseconds on the caller's thread, the timer's own cost included")
    yield _row("call p99", f"{p99:.1f}", "while consumer and receiver work in the same interpreter")
    yield from _verdicts(checks)


def side(part: Side, checks: Iterable[Check]) -> Iterator[str]:
    """The part about one vendor.

    Args:
        part: What came to it.
        checks: The checks that concern it.
    """
    stats, limits, failed = part.stats, part.vendor.limits, part.failed()
    how = ", ".join(f"{count:,} {what}" for what, count in sorted(failed.items()))
    yield ""
    yield part.vendor.title
    yield _row("delivered", stats.delivered)
    yield _row("unsupported", stats.dropped["unsupported"], "for want of such a message there")
    yield _row("requests", stats.requests, f"{failed.total():,} failed" + (f": {how}" if how else ""))
    yield _row("retries", stats.retries, "by the client's schedule, or at once as a kept connection broke")
    yield _row("fullest batch", part.fullest, f"messages, of at most {limits.messages:,}")
    yield _row("largest body", part.largest, f"bytes, of at most {limits.bytes:,}")
    yield _row("repeats", part.stored - part.unique, f"of {part.stored:,} stored messages; lost answers make them")
    yield _row("objections", part.objections, "to credentials, headers, JSON and fields of all requests")
    yield from _verdicts(checks)


def _verdicts(checks: Iterable[Check]) -> Iterator[str]:
    for holds, claim in checks:
        yield f"  {'ok' if holds else 'FAILED':<8}{claim}"


def _row(name: str, value: float | str, note: str = "") -> str:
    figure = value if isinstance(value, str) else f"{value:,}"
    return f"  {name:<18}{figure:>12}  {note}".rstrip()
