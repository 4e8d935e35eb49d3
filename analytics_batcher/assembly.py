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
from .buffers.redis import RedisBuffer
from .buffers.sqlite import SqliteBuffer
from .concurrency import ConcurrentConsumer
from .consumer import Consumer
from .dead_letters import DeadLetters
from .delivery import BatchSender, Standing
from .lanes import Lane
from .options import limits_of
from .pipeline import Pipeline
from .report import Reporter
from .retry import Pace, Retry
from .settings import shown
from .transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .batch import Limits
    from .buffers import Buffer
    from .destinations import Destination
    from .options import Options
    from .sender import Sender

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
    _check_buffer(options)
    alone = len(destinations) == 1
    pairs = zip(destinations, limits, strict=True)
    return tuple([Lane(one, own, assemble(one, own, options, pace, alone=alone)) for one, own in pairs])


def assemble(
    destination: Destination, limits: Limits, options: Options, pace: Pace | None, *, alone: bool = True
) -> Pipeline:
    """Make the buffer, the senders and the consumer of one destination.

    Args:
        destination: Where messages go.
        limits: The destination's own limits, or lower ones.
        options: The client's settings.
        pace: Bounds the requests in a second over all of the client's destinations, or `None`.
        alone: Whether it is the client's only destination.

    Raises:
        ValueError: If `timeout`, `proxy` or `verify` is wrong.
        ImportError: If the buffer needs an extra that is not installed.
    """
    sender, make_sender = _senders(destination, limits, options, alone=alone)
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
    if isinstance(sender, BatchSender) and options.concurrency > 1:
        timing |= {"make_sender": make_sender, "concurrency": options.concurrency}
        consumer: Consumer = ConcurrentConsumer(buffer, sender, reporter, **timing)
    else:
        consumer = Consumer(buffer, sender, reporter, **timing)
    return Pipeline(
        destination.name,
        buffer,
        consumer,
        reporter,
        background=options.background,
        shutdown_timeout=options.shutdown_timeout,
    )


def _senders(
    destination: Destination, limits: Limits, options: Options, *, alone: bool
) -> tuple[Sender, Callable[[], BatchSender]]:
    """The sender, and what makes more of those that post batches; what they learn of the destination they share."""
    standing, hook = Standing(), options.before_send

    def make_before_send() -> BeforeSend | None:
        return hook and BeforeSend(hook, destination.check, options.default)

    def make_sender() -> BatchSender:
        return BatchSender(
            destination,
            Transport(timeout=options.timeout, proxy=options.proxy, verify=options.verify),
            limits,
            options.retry,
            before_send=make_before_send(),
            gzip=bool(options.gzip) and destination.gzip,
            standing=standing,
        )

    sender: Sender = make_sender()  # which checks its settings, where nothing is posted too
    if isinstance(options.buffer, RedisBuffer) and options.enabled:
        stream = options.buffer.stream if alone else f"{options.buffer.stream}:{destination.name}"
        sender = _shipping(
            options.buffer, stream, destination.name, limits, options.retry, before_send=make_before_send()
        )
    return sender, make_sender


def _shipping(
    buffer: RedisBuffer, stream: str, name: str, limits: Limits, retry: Retry, *, before_send: BeforeSend | None
) -> Sender:
    from .fleet import server, shipping  # noqa: PLC0415 - not for those who have no fleet

    return shipping.ShippingSender(
        name,
        server.Server(buffer.url, timeout=buffer.timeout, allow_volatile=buffer.allow_volatile),
        stream,
        retry,
        shards=buffer.shards,
        max_messages=buffer.max_messages,
        max_bytes=buffer.max_bytes,
        message_bytes=limits.message_bytes,
        before_send=before_send,
    )


def _check_buffer(options: Options) -> None:
    stage: Any = options.buffer
    if isinstance(options.buffer, RedisBuffer):
        stage = options.buffer.stage
        if not isinstance(stage, SqliteBuffer | None):
            raise ValueError(  # noqa: TRY004 - as all settings
                f"RedisBuffer.stage={shown(stage)}: allowed is SqliteBuffer(...) or None"
            )
        if options.concurrency != 1:
            raise ValueError(
                f"concurrency={options.concurrency}: allowed with RedisBuffer is 1, as requests are its relays' matter"
            )
        if options.max_requests_per_second is not None:
            raise ValueError(
                f"max_requests_per_second={options.max_requests_per_second}: allowed with RedisBuffer is None, as "
                "requests are its relays' matter"
            )
    elif not isinstance(stage, SqliteBuffer | None):
        raise ValueError(  # noqa: TRY004 - as all settings
            f"buffer={shown(stage)}: allowed is SqliteBuffer(...), RedisBuffer(...) or None"
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
    stage = options.buffer.stage if isinstance(options.buffer, RedisBuffer) else options.buffer
    if stage is None or not options.enabled:
        return MemoryBuffer(*bounds, **policy)
    buffer: Buffer = stage.open(name, *bounds, **policy)
    return buffer
