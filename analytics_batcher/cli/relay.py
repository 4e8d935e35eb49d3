"""`relay`: drains a stream of Redis to the vendor, by the settings of the environment; or says what is in it."""

from __future__ import annotations

import inspect
import logging
import os
import sys
import threading
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from .. import environment
from ..buffers.redis import RedisBuffer
from ..client import Client
from ..fleet.relay import Relay
from ..fleet.run import relay
from ..fleet.status import stream_status
from ..text import seal
from .face import DONE, Face
from .parsing import parser_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from ..fleet.relay import RelayFigures
    from ..fleet.status import ShardStatus, StreamStatus
    from ..text import Secret

_URL: Final = f"{environment.PREFIX}REDIS_URL"
_SAMPLE: Final = 1.0
"""Seconds over which the status measures the rate."""
_DESCRIPTION = f"""\
Sends what producers have put into a stream of Redis to the destination that the environment names, as
Client.from_env() reads it, together with all other relays of the stream. SIGTERM and Ctrl-C let it finish what is in
flight. A URL with a password comes from {_URL}, as everybody on the machine sees a command line."""
_EXAMPLES: Final = (
    ("--stream analytics --shards 4 --max-requests-per-second 50", "one of any number of relays"),
    ("--stream analytics --status", "what the stream holds, and who serves it"),
)


def main(arguments: Sequence[str]) -> int:
    """Run a relay, or say what a stream holds.

    Args:
        arguments: What follows the command's name.

    Returns:
        The exit status.
    """
    given = _parser().parse_args(arguments)
    face = Face(json=given.json, debug=given.debug)
    return face.run(lambda: _relay(face, given))


def _relay(face: Face, given: argparse.Namespace) -> int:
    url = _url_of(given.redis)
    given.stream = given.stream or os.environ.get(f"{environment.PREFIX}REDIS_STREAM") or "analytics"
    return _status(face, url, given.stream) if given.status else _run(face, url, given)


def _url_of(given: str | None) -> Secret:
    if given is not None and _has_password(given):
        raise ValueError(f"--redis: a URL with a password comes from {_URL}: everybody here sees a command line")
    url = seal(given or os.environ.get(_URL))
    if not url:
        raise ValueError(f"--redis URL, or {_URL}, is needed")
    return url


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("relay", _DESCRIPTION, _EXAMPLES)
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


def _run(face: Face, url: str, given: argparse.Namespace) -> int:
    _log_by(face)
    destinations, options = environment.make(_given, {})
    producers = options.get("buffer")
    if isinstance(producers, RedisBuffer):
        options |= {"shards": producers.shards, "allow_volatile": producers.allow_volatile}
    known = inspect.signature(Relay).parameters
    chosen = {name: value for name, value in options.items() if name in known}
    own = ("shards", "max_requests_per_second", "dead_letters", "lease", "allow_volatile")
    chosen |= {name: getattr(given, name) for name in own if getattr(given, name) is not None}
    place: dict[str, Any] = {"stream": given.stream, "metrics_port": given.metrics_port}
    with _watching(face, given.stream) as hear:
        results = relay(url, destinations, **place, **chosen, **hear)
    for figures in results:
        _report(face, figures)
    return DONE


class _Lines(logging.Handler):
    """Logs above a bar, which would else be torn."""

    def __init__(self, face: Face) -> None:
        super().__init__()
        self._face = face

    def emit(self, record: logging.LogRecord) -> None:
        self._face.note(self.format(record))


def _log_by(face: Face) -> None:
    handler = logging.StreamHandler(sys.stderr) if face.plain else _Lines(face)
    logging.basicConfig(level=logging.INFO, handlers=[handler], format="%(asctime)s %(levelname)s %(message)s")


@contextmanager
def _watching(face: Face, stream: str) -> Iterator[dict[str, Any]]:
    """What shows figures while relays run: to a person only, as the log tells the others."""
    if face.plain:
        yield {}
        return
    with face.progress(f"Relaying {stream}; Ctrl-C ends it in order", None, unit="messages") as progress:

        def hear(each: Sequence[RelayFigures]) -> None:
            dropped = sum(sum(one.dropped.values()) for one in each)
            done = sum(one.delivered for one in each) + dropped
            errors = [one.last_error for one in each if one.pending and one.last_error]
            stuck = errors[0] if errors and done == progress.done else ""
            idle = "" if any(one.pending for one in each) else "messages"
            progress.update(done=done, refused=dropped, retries=sum(one.retries for one in each), waiting=stuck or idle)

        yield {"hear": hear}


def _report(face: Face, figures: RelayFigures) -> None:
    left = figures.handed_over + figures.pending
    facts = {"taken": figures.taken, "delivered": figures.delivered, "dropped": dict(figures.dropped)}
    face.result({**facts, "left in the stream": left})


def _status(face: Face, url: str, stream: str) -> int:
    before = stream_status(url, stream)
    threading.Event().wait(_SAMPLE if before.shards else 0.0)
    after = stream_status(url, stream)
    seconds = max(after.at - before.at, 0.001)
    rates = []
    for one in after.shards:
        earlier = before.shards[one.shard] if one.shard < len(before.shards) else one
        rates.append((one.delivered - earlier.delivered) / seconds)
    if face.json:
        shards = [{**asdict(one), "rate": rate} for one, rate in zip(after.shards, rates, strict=True)]
        face.result(
            {"shards": shards, "relays": after.relays, "pause": after.pause, "dead letters": after.dead_letters}
        )
    elif face.draws and after.shards:
        rows = [_cells(one, rate) for one, rate in zip(after.shards, rates, strict=True)]
        face.table(f"Stream {stream}", _HEAD, rows)
        face.say(_summary(after))
    else:
        for one, rate in zip(after.shards, rates, strict=True):
            face.say(_line(one, rate))
        face.say(_summary(after))
    return DONE


_HEAD: Final = ("shard", "length", "pending", "oldest", "rate", "delivered", "dropped", "owner")


def _cells(one: ShardStatus, rate: float) -> list[str]:
    counts = [f"{count:,}" for count in (one.length, one.pending)]
    results = [f"{count:,}" for count in (one.delivered, one.dropped)]
    return [str(one.shard), *counts, _age(one), f"{rate:,.1f}/s", *results, one.owner or "none"]


def _age(one: ShardStatus) -> str:
    return "none" if one.oldest_age is None else f"{one.oldest_age:.0f} s"


def _line(one: ShardStatus, rate: float) -> str:
    figures = f"length {one.length}, pending {one.pending}, oldest {_age(one)}, owner {one.owner or 'none'}"
    more = f"rate {rate:.1f}/s, delivered {one.delivered}, dropped {one.dropped}, trimmed {one.trimmed}"
    return f"shard {one.shard}: {figures}, {more}, requests {one.requests}, retries {one.retries}"


def _summary(found: StreamStatus) -> str:
    waiting = sum(one.length for one in found.shards)
    pause = f", paused for {found.pause:.0f} s" if found.pause else ""
    return f"waiting: {waiting}, relays: {len(found.relays)}, dead letters: {found.dead_letters}{pause}"
