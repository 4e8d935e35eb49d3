"""Puts destinations' pipelines together, and loads what they need, which importing the package does not."""

from __future__ import annotations

# These are used in the calls and in the consumer, and imported here: see `Client`.
import decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backoff
import dateutil.parser
import dateutil.tz

from .before_send import BeforeSend
from .buffers.memory import MemoryBuffer
from .buffers.sqlite import SqliteBuffer
from .concurrency import ConcurrentConsumer
from .consumer import Consumer
from .dead_letters import DeadLetters
from .delivery import BatchSender, Standing
from .lanes import Lane
from .options import limits_of
from .pipeline import Pipeline
from .report import Reporter
from .retry import Pace
from .settings import shown
from .transport import Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .batch import Limits
    from .buffers import Buffer
    from .destinations import Destination
    from .options import Options

LOADED = (backoff, dateutil.parser, dateutil.tz, decimal)
"""What the calls and the consumer import where they use it."""


def lanes_of(
    destinations: Sequence[Destination], options: Options, lowered: tuple[int | None, int | None, int | None]
) -> tuple[Lane, ...]:
    """Make the ways to all of a client's destinations.

    Args:
        destinations: Where messages go.
        options: The client's settings.
        lowered: As for `limits_of`.

    Raises:
        ValueError: If a setting is wrong.
    """
    limits = [limits_of(one, *lowered) for one in destinations]
    rate = options.max_requests_per_second
    pace = None if rate is None else Pace(rate)
    pairs = zip(destinations, limits, strict=True)
    return tuple([Lane(one, own, assemble(one, own, options, pace)) for one, own in pairs])


def assemble(destination: Destination, limits: Limits, options: Options, pace: Pace | None) -> Pipeline:
    """Make the buffer, the senders and the consumer of one destination.

    Args:
        destination: Where messages go.
        limits: The destination's own limits, or lower ones.
        options: The client's settings.
        pace: Bounds the requests in a second over all of the client's destinations, or `None`.

    Raises:
        ValueError: If `timeout`, `proxy` or `verify` is wrong.
    """
    standing, hook = Standing(), options.before_send

    def make_sender() -> BatchSender:
        transport = Transport(timeout=options.timeout, proxy=options.proxy, verify=options.verify)
        return BatchSender(
            destination,
            transport,
            limits,
            options.retry,
            before_send=hook and BeforeSend(hook, destination.check, options.default),
            gzip=bool(options.gzip) and destination.gzip,
            standing=standing,
        )

    sender = make_sender()
    reporter = Reporter(
        destination.name,
        on_drop=options.on_drop,
        on_delivery=options.on_delivery,
        max_bytes=options.max_queue_bytes,
        letters=_letters(destination, options),
    )
    buffer = _buffer(destination.name, options, keep_evicted=reporter.keeps_messages)
    timing: dict[str, Any] = {
        "flush_interval": options.flush_interval,
        "max_age": options.retry.age(durable=buffer.durable),
        "pace": pace,
    }
    if options.concurrency == 1:
        consumer = Consumer(buffer, sender, reporter, **timing)
    else:
        many = options.concurrency
        consumer = ConcurrentConsumer(buffer, sender, reporter, make_sender=make_sender, concurrency=many, **timing)
    return Pipeline(
        destination.name,
        buffer,
        consumer,
        reporter,
        background=options.background,
        shutdown_timeout=options.shutdown_timeout,
    )


def _letters(destination: Destination, options: Options) -> DeadLetters | None:
    if options.dead_letters is None:
        return None
    return DeadLetters(
        Path(options.dead_letters).absolute(),  # the application may change its folder
        destination.name,
        id_field=destination.id_field,
        time_field=destination.time_field,
        native_form=destination.wire,
        before_send=options.before_send is not None,
    )


def _buffer(name: str, options: Options, *, keep_evicted: bool) -> Buffer:
    policy = {"evict": options.when_full == "drop_oldest", "keep_evicted": keep_evicted}
    bounds = options.max_queue_messages, options.max_queue_bytes
    if options.buffer is not None and not isinstance(options.buffer, SqliteBuffer):
        raise ValueError(f"buffer={shown(options.buffer)}: allowed is SqliteBuffer(...) or None")
    if options.buffer is None or not options.enabled:
        return MemoryBuffer(*bounds, **policy)
    return options.buffer.open(name, *bounds, **policy)
