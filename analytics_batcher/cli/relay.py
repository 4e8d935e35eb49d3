"""`relay`: drains a stream of Redis to the vendor, by the settings of the environment; or says what is in it."""

from __future__ import annotations

import argparse
import inspect
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from .. import environment
from ..buffers.redis import RedisBuffer
from ..client import Client
from ..fleet.relay import Relay
from ..fleet.run import relay
from ..fleet.status import stream_status
from ..text import seal
from . import PROG
from .plain_lines import counts, say, text_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..fleet.relay import RelayFigures
    from ..fleet.status import ShardStatus, StreamStatus
    from ..text import Secret

_DONE, _FAILED = 0, 1
_URL: Final = f"{environment.PREFIX}REDIS_URL"
_SAMPLE: Final = 1.0
"""Seconds over which the status measures the rate."""
_DESCRIPTION = f"""\
Sends what producers have put into a stream of Redis to the destination that the environment names, as
Client.from_env() reads it, together with all other relays of the stream. SIGTERM and Ctrl-C let it finish what is in
flight. A URL with a password comes from {_URL}, as everybody on the machine sees a command line."""


def main(arguments: Sequence[str]) -> int:
    """Run a relay, or say what a stream holds.

    Args:
        arguments: What follows the command's name.

    Returns:
        The exit status.
    """
    given = _parser().parse_args(arguments)
    try:
        url = _url_of(given.redis)
        given.stream = given.stream or os.environ.get(f"{environment.PREFIX}REDIS_STREAM") or "analytics"
        return _status(url, given.stream) if given.status else _run(url, given)
    except (OSError, ValueError, ImportError) as error:
        say(f"error: {text_of(error)}")
        return _FAILED


def _url_of(given: str | None) -> Secret:
    if given is not None and _has_password(given):
        raise ValueError(f"--redis: a URL with a password comes from {_URL}: everybody here sees a command line")
    url = seal(given or os.environ.get(_URL))
    if not url:
        raise ValueError(f"--redis URL, or {_URL}, is needed")
    return url


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"{PROG} relay", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--redis", metavar="URL", help=f"the server, such as redis://localhost:6379/0 ({_URL})")
    parser.add_argument("--stream", metavar="NAME", help="the stream, as producers have it (analytics)")
    parser.add_argument("--shards", type=int, metavar="N", help="its shards, as producers have them (1)")
    parser.add_argument("--max-requests-per-second", type=float, metavar="R", help="over all relays of the stream")
    parser.add_argument(
        "--dead-letters", metavar="PATH", help="a JSONL file, or 'stream' for a stream beside the others"
    )
    parser.add_argument("--lease", type=float, metavar="SECONDS", help="the most that a dead relay's shards wait (10)")
    parser.add_argument(
        "--allow-volatile", action="store_true", default=None, help="take a server that may forget what it has"
    )
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help="where Prometheus finds figures (nowhere)")
    parser.add_argument("--status", action="store_true", help="only say what the stream holds and who serves it")
    return parser


def _has_password(url: str) -> bool:
    return "@" in url or "password" in url


def _given(destinations: Sequence[Any], **options: Any) -> tuple[Sequence[Any], dict[str, Any]]:
    return destinations, options


# So that the environment is read, and checked, just as for a client.
_given.__signature__ = inspect.signature(Client)  # type: ignore[attr-defined] # what `inspect` looks for


def _run(url: str, given: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    destinations, options = environment.make(_given, {})
    producers = options.get("buffer")
    if isinstance(producers, RedisBuffer):
        options |= {"shards": producers.shards, "allow_volatile": producers.allow_volatile}
    known = inspect.signature(Relay).parameters
    chosen = {name: value for name, value in options.items() if name in known}
    own = ("shards", "max_requests_per_second", "dead_letters", "lease", "allow_volatile")
    chosen |= {name: getattr(given, name) for name in own if getattr(given, name) is not None}
    for figures in relay(url, destinations, stream=given.stream, metrics_port=given.metrics_port, **chosen):
        _report(figures)
    return _DONE


def _report(figures: RelayFigures) -> None:
    say(f"taken: {figures.taken}")
    say(f"delivered: {figures.delivered}")
    say(f"dropped: {counts(figures.dropped)}")
    say(f"left in the stream: {figures.handed_over + figures.pending}")


def _status(url: str, stream: str) -> int:
    before = stream_status(url, stream)
    threading.Event().wait(_SAMPLE if before.shards else 0.0)
    after = stream_status(url, stream)
    seconds = max(after.at - before.at, 0.001)
    for one in after.shards:
        earlier = before.shards[one.shard] if one.shard < len(before.shards) else one
        say(_line(one, (one.delivered - earlier.delivered) / seconds))
    say(_summary(after))
    return _DONE


def _line(one: ShardStatus, rate: float) -> str:
    age = "none" if one.oldest_age is None else f"{one.oldest_age:.0f} s"
    figures = f"length {one.length}, pending {one.pending}, oldest {age}, owner {one.owner or 'none'}"
    more = f"rate {rate:.1f}/s, delivered {one.delivered}, dropped {one.dropped}, trimmed {one.trimmed}"
    return f"shard {one.shard}: {figures}, {more}, requests {one.requests}, retries {one.retries}"


def _summary(found: StreamStatus) -> str:
    waiting = sum(one.length for one in found.shards)
    pause = f", paused for {found.pause:.0f} s" if found.pause else ""
    return f"waiting: {waiting}, relays: {len(found.relays)}, dead letters: {found.dead_letters}{pause}"
