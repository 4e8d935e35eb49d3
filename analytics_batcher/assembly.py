"""Puts one destination's pipeline together, and loads what it needs, which importing the package does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

# These two are used in the consumer, and imported here: see `Client`.
import backoff
import dateutil.parser
import dateutil.tz

from .buffers.memory import MemoryBuffer
from .consumer import Consumer
from .delivery import BatchSender
from .pipeline import Pipeline
from .report import Reporter
from .transport import Transport

if TYPE_CHECKING:
    from .batch import Limits
    from .destinations import Destination
    from .options import Options

LOADED = (backoff, dateutil.parser, dateutil.tz)
"""What the calls and the consumer import where they use it."""


def assemble(destination: Destination, limits: Limits, options: Options) -> Pipeline:
    """Make the buffer, the sender and the consumer of one destination.

    Args:
        destination: Where messages go.
        limits: The destination's own limits, or lower ones.
        options: The client's settings.

    Raises:
        ValueError: If `timeout`, `proxy` or `verify` is wrong.
    """
    retry = options.retry
    transport = Transport(timeout=options.timeout, proxy=options.proxy, verify=options.verify)
    sender = BatchSender(
        destination,
        transport,
        limits,
        retry,
        before_send=options.before_send,
        default=options.default,
        gzip=bool(options.gzip) and destination.gzip,
    )
    reporter = Reporter(
        destination.name,
        on_drop=options.on_drop,
        on_delivery=options.on_delivery,
        max_bytes=options.max_queue_bytes,
    )
    buffer = MemoryBuffer(
        options.max_queue_messages,
        options.max_queue_bytes,
        evict=options.when_full == "drop_oldest",
        keep_evicted=reporter.keeps_messages,
    )
    consumer = Consumer(
        buffer,
        sender,
        reporter,
        flush_interval=options.flush_interval,
        max_age=retry.age(durable=buffer.durable),
    )
    return Pipeline(
        buffer,
        consumer,
        sender,
        reporter,
        background=options.background,
        shutdown_timeout=options.shutdown_timeout,
    )
