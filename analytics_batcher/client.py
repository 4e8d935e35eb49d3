"""The client: options, the way into the buffer, flush, shutdown, figures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from .calls import Calls
from .encoding import Unserializable
from .errors import DropReason, InvalidMessage, refusal
from .message import encode, normalise, wire_bytes
from .message import message_id as checked_message_id
from .message import timestamp as checked_timestamp
from .options import Options, limits_of
from .retry import Retry
from .settings import number
from .stamp import ID_GIVEN, NATIVE, TIME_GIVEN, new_head
from .stats import FlushResult, Stats, total

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from .destinations import Destination
    from .stats import Delivery, Drop

_PLAIN_EXTRA = wire_bytes(b"", 0)


class Client(Calls):
    """Queues analytics messages and delivers them in the background.

    Args:
        destination: Where to: `Vitally(...)`.
        max_queue_messages: The most messages to hold, those in flight included.
        max_queue_bytes: The most bytes to hold, those in flight and each message's overhead included.
        when_full: `"drop_newest"` refuses the new message, `"drop_oldest"` gives up the oldest one that is not in
            flight, `"block"` waits for room.
        block_timeout: With `"block"`: the most seconds that a call waits; then it refuses the new message.
        batch_messages: The most messages of a batch; `None`: the destination's own limit, which is also the most.
        batch_bytes: The most bytes of a request's body; `None`: the destination's own limit, which is also the most.
        message_bytes: The most bytes of a message, its id and time included; `None`: the destination's own limit.
        flush_interval: Seconds that a message may wait for company.
        retry: The waits between attempts, and the age at which a message is given up.
        timeout: Seconds for one request, from connecting to the answer's end; or `(connect, read)`, which bound the
            connecting, and the whole to their sum.
        shutdown_timeout: Seconds that the exit hook may spend.
        proxy: A proxy's URL, `"environment"` for those of the environment, or `None`.
        verify: Whether certificates are checked, or the path of a CA file to check them by.
        before_send: `(message) -> message or None`, in the consumer, once per message: may change it, or drop it.
        on_drop: `(Drop) -> None`, in the consumer: is told of dropped messages.
        on_delivery: `(Delivery) -> None`, in the consumer: is told of each delivered batch.
        default: `(value) -> JSON value`, for values that JSON does not know, on the caller's thread.
        strict: Whether calls raise instead of counting a drop.
        background: Whether a thread sends. If not, `flush` sends, in the calling thread.
        enabled: If not, every call does nothing and returns `False`.

    Raises:
        ValueError: If a setting is wrong; it names the setting, the value and what is allowed.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        max_queue_messages: int = 10_000,
        max_queue_bytes: int = 32 * 2**20,
        when_full: str = "drop_newest",
        block_timeout: float = 1.0,
        batch_messages: int | None = None,
        batch_bytes: int | None = None,
        message_bytes: int | None = None,
        flush_interval: float = 0.5,
        retry: Retry | None = None,
        timeout: float | tuple[float, float] = 10.0,
        shutdown_timeout: float = 5.0,
        proxy: str | None = None,
        verify: bool | str = True,
        before_send: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None,
        on_drop: Callable[[Drop], object] | None = None,
        on_delivery: Callable[[Delivery], object] | None = None,
        default: Callable[[Any], Any] | None = None,
        strict: bool = False,
        background: bool = True,
        enabled: bool = True,
    ) -> None:
        options = Options(
            max_queue_messages=max_queue_messages,
            max_queue_bytes=max_queue_bytes,
            when_full=when_full,
            block_timeout=block_timeout,
            flush_interval=flush_interval,
            retry=Retry() if retry is None else retry,
            timeout=timeout,
            shutdown_timeout=shutdown_timeout,
            proxy=proxy,
            verify=verify,
            before_send=before_send,
            on_drop=on_drop,
            on_delivery=on_delivery,
            default=default,
            strict=strict,
            background=background,
            enabled=enabled,
        )
        limits = limits_of(destination, batch_messages, batch_bytes, message_bytes)
        self._default = default
        self._shutdown_timeout = shutdown_timeout
        self._strict = strict
        self._block_timeout = block_timeout if when_full == "block" else 0.0
        self._check = destination.check
        self._destination = destination
        self._message_bytes = limits.message_bytes
        self._plain_bytes = limits.message_bytes - _PLAIN_EXTRA
        # With the first client and not with this module; and never first in the consumer, as nothing can be imported
        # after a fork in the middle of an import, or while the process ends.
        from .assembly import assemble  # noqa: PLC0415

        self._pipeline = assemble(destination, limits, options)
        self._buffer = self._pipeline.buffer
        if enabled:
            self._pipeline.watch(self)
        else:
            self._accept = _ignore  # type: ignore[method-assign]
            self.enqueue = _ignore  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"Client({self._destination!r})"

    # The way in

    def _accept(self, message: dict[str, Any], timestamp: Any, message_id: Any) -> bool:
        flags = 0
        try:
            plain = normalise(message)
            if timestamp is not None:
                message["timestamp"] = checked_timestamp(timestamp)
                flags |= TIME_GIVEN
            if message_id is not None:
                message["messageId"] = checked_message_id(message_id)
                flags |= ID_GIVEN
        except InvalidMessage as error:
            return self._refuse(DropReason.INVALID, error.detail, message)
        unfit = self._check(message)
        if unfit is not None:
            return self._refuse(unfit[0], unfit[1], message)
        return self._put(message, flags, plain)

    def enqueue(self, message: Any, *, to: str | None = None) -> bool:
        """Queue a message in the destination's own form. It goes out as it is, but for a missing id and time.

        Args:
            message: A dict. Whether it makes sense is the vendor's to judge.
            to: The destination's name; may be left out where there is one.

        Returns:
            Whether the message was accepted into the buffer.
        """
        if to is not None and to != self._destination.name:
            return self._refuse(DropReason.INVALID, "there is no destination of that name", None)
        if not isinstance(message, dict):
            return self._refuse(DropReason.INVALID, f"a message must be a dict, not {type(message).__name__}", None)
        flags = NATIVE
        if self._destination.id_field in message:
            flags |= ID_GIVEN
        if self._destination.time_field in message:
            flags |= TIME_GIVEN
        return self._put(message, flags, None)

    def _put(self, message: dict[str, Any], flags: int, plain: bool | None) -> bool:
        try:
            body = encode(message, self._default, plain=plain)
        except Unserializable as error:
            return self._refuse(DropReason.UNSERIALIZABLE, str(error), None)
        record = new_head(flags) + body
        if len(body) > self._plain_bytes and wire_bytes(body, flags) > self._message_bytes:
            detail = f"{wire_bytes(body, flags)} bytes; allowed are {self._message_bytes}"
            return self._refuse(DropReason.TOO_LARGE, detail, record)
        reason = self._buffer.put(record)
        if reason is None:
            if self._pipeline.cold:
                self._pipeline.start()
            return True
        return self._put_when_room(record, reason)

    def _put_when_room(self, record: bytes, reason: DropReason | None) -> bool:
        pipeline = self._pipeline
        deadline = time.monotonic() + self._block_timeout
        while reason is DropReason.QUEUE_FULL and self._block_timeout and not pipeline.is_runner:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                break
            if pipeline.cold:
                pipeline.start()
            self._buffer.wait_for_room(len(record), remaining)
            reason = self._buffer.put(record)
        if reason is None:
            return True
        full = reason is DropReason.QUEUE_FULL
        return self._refuse(reason, "no room in the queue" if full else "the client was shut down", record)

    def _refuse(self, reason: DropReason, detail: str, message: dict[str, Any] | bytes | None) -> bool:
        if self._strict:
            raise refusal(reason, detail)
        pipeline = self._pipeline
        record = self._kept(message) if pipeline.reporter.keeps_messages else None
        must_wake = pipeline.reporter.note(reason, detail, record)
        self._buffer.refuse(reason)
        if must_wake or pipeline.stopped:
            pipeline.report_soon()
        return False

    def _kept(self, message: dict[str, Any] | bytes | None) -> bytes | None:
        if not isinstance(message, dict):
            return message
        flags = (ID_GIVEN if "messageId" in message else 0) | (TIME_GIVEN if "timestamp" in message else 0)
        try:
            return new_head(flags) + encode(message, self._default)
        except Unserializable:
            return None

    # The way out

    def flush(self, timeout: float = 10.0) -> FlushResult:
        """Deliver what was accepted before this call, and wait for it.

        It ends the wait for company; it never shortens a back-off or what the vendor asked for. In a callback, which
        runs in the consumer, it returns at once.

        Args:
            timeout: The most seconds to wait.

        Returns:
            What was settled since the previous flush; truthy if nothing is pending and nothing accepted was lost.

        Raises:
            ValueError: If `timeout` is no number of at least 0.
        """
        deadline = time.monotonic() + number("timeout", timeout, at_least=0)
        pipeline = self._pipeline
        timed_out = pipeline.drain(pipeline.ticket(), deadline, patient=True)
        return pipeline.result(timed_out=timed_out)

    def shutdown(self, timeout: float | None = None) -> FlushResult:
        """Refuse further messages, deliver what was accepted, and end.

        What is left at the deadline is dropped as `exit`, and one warning says how many. It returns earlier if the
        next attempt is due only after the deadline.

        Args:
            timeout: The most seconds to wait; `None`: `shutdown_timeout`.

        Returns:
            As for `flush`; what is left behind is still called pending in it.

        Raises:
            ValueError: If `timeout` is no number of at least 0.
        """
        seconds = self._shutdown_timeout if timeout is None else number("timeout", timeout, at_least=0)
        deadline = time.monotonic() + seconds
        pipeline = self._pipeline
        pipeline.close()
        timed_out = pipeline.drain(pipeline.ticket(), deadline, patient=False)
        return pipeline.stop(timed_out=timed_out)

    async def aflush(self, timeout: float = 10.0) -> FlushResult:
        """`flush`, without blocking the event loop."""
        import asyncio  # noqa: PLC0415 - 50 ms that only an asynchronous application has already spent

        return await asyncio.to_thread(self.flush, timeout)

    async def ashutdown(self, timeout: float | None = None) -> FlushResult:
        """`shutdown`, without blocking the event loop."""
        import asyncio  # noqa: PLC0415 - as above

        return await asyncio.to_thread(self.shutdown, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def stats(self) -> Stats:
        """The figures of this client, at this moment."""
        return total({self._pipeline.name: self._pipeline.stats()})


def _ignore(*_: object, **__: object) -> bool:
    return False
