"""The client: options, the way into the buffer, flush, shutdown, figures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NoReturn

from .calls import Calls
from .encoding import Unserializable
from .errors import DropReason, InvalidMessage, refusal
from .given import add_given, plain_given
from .given import message_id as checked_message_id
from .given import timestamp as checked_timestamp
from .lanes import Lane, all_of, end_all, flush_all, put_when_room
from .message import encode, kept, native_flags, normalise, written
from .retry import Retry
from .settings import number, shown
from .stamp import HEAD_BYTES, ID_GIVEN, NATIVE, TIME_GIVEN, flags_of, new_head
from .text import printable, seal_url

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

    from .buffers.redis import RedisBuffer
    from .buffers.sqlite import SqliteBuffer
    from .destinations import Destination
    from .direct import BatchResult
    from .options import Options
    from .stats import Delivery, Drop, FlushResult, Stats


class Client(Calls):
    """Queues analytics messages and delivers them in the background.

    Args:
        destination: Where to: `Vitally(...)`, `CustomerIO(...)`, `Segment(...)`; or a sequence of them, each of which
            gets every message through a buffer and a thread of its own.
        buffer: `SqliteBuffer(path)` keeps messages in a file until they are delivered; `RedisBuffer(url)` ships them to
            a stream, from which relays deliver; `None`: in memory.
        max_queue_messages: The most messages to hold, those in flight included. With a file: to hold in memory, too.
        max_queue_bytes: The most bytes to hold, those in flight and each message's overhead included. As above.
        when_full: `"drop_newest"` refuses the new message, `"drop_oldest"` gives up the oldest one that is not in
            flight, `"block"` waits for room.
        block_timeout: With `"block"`: the most seconds that a call waits; then it refuses the new message.
        batch_messages: The most messages of a batch; `None`: the destination's own limit, which is also the most.
        batch_bytes: The most bytes of a request's body; `None`: the destination's own limit, which is also the most.
        message_bytes: The most bytes of a message, its id and time included; `None`: the destination's own limit.
        flush_interval: Seconds that a message may wait for company.
        concurrency: The most requests in flight at once, 1 to 64, for endpoints that are slow to answer. What concerns
            one user (or else account, or organization) stays in order. With `RedisBuffer`: 1.
        max_requests_per_second: The most requests in a second, evenly spaced, over all destinations; `None`: no limit.
            With `RedisBuffer`: `None`, as the relays have it.
        retry: The waits between attempts, and the age at which a message is given up.
        timeout: Seconds for one request, from connecting to the answer's end; or `(connect, read)`, which bound the
            connecting, and the whole to their sum.
        shutdown_timeout: Seconds that the exit hook may spend.
        gzip: Whether bodies are compressed, for destinations whose vendor takes that (Segment's); `None`: not.
        proxy: A proxy's URL, `"environment"` for those of the environment, or `None`.
        verify: Whether certificates are checked, or the path of a CA file to check them by.
        before_send: `(message) -> message or None`, in the consumer, once per message: may change it, or drop it.
        on_drop: `(Drop) -> None`, in the consumer: is told of dropped messages.
        on_delivery: `(Delivery) -> None`, in the consumer: is told of each delivered batch.
        dead_letters: The path of a file to which each message that will never be delivered is written, as a line of
            JSON; `filtered` ones are not.
        default: `(value) -> JSON value`, for values that JSON does not know, on the caller's thread.
        strict: Whether calls raise instead of counting a drop.
        background: Whether a thread sends. If not, `flush` sends, in the calling thread.
        enabled: If not, every call does nothing and returns `False`.

    Raises:
        ValueError: If a setting is wrong; it names the setting, the value and what is allowed.
    """

    _lanes: tuple[Lane, ...] = ()
    _only: Lane | None = None

    def __init__(
        self,
        destination: Destination | Sequence[Destination],
        *,
        buffer: SqliteBuffer | RedisBuffer | None = None,
        max_queue_messages: int = 10_000,
        max_queue_bytes: int = 32 * 2**20,
        when_full: str = "drop_newest",
        block_timeout: float = 1.0,
        batch_messages: int | None = None,
        batch_bytes: int | None = None,
        message_bytes: int | None = None,
        flush_interval: float = 0.5,
        concurrency: int = 1,
        max_requests_per_second: float | None = None,
        retry: Retry | None = None,
        timeout: float | tuple[float, float] = 10.0,
        shutdown_timeout: float = 5.0,
        gzip: bool | None = None,
        proxy: str | None = None,
        verify: bool | str = True,
        before_send: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None,
        on_drop: Callable[[Drop], object] | None = None,
        on_delivery: Callable[[Delivery], object] | None = None,
        dead_letters: str | os.PathLike[str] | None = None,
        default: Callable[[Any], Any] | None = None,
        strict: bool = False,
        background: bool = True,
        enabled: bool = True,
    ) -> None:
        from .options import Options  # noqa: PLC0415 - see `_open`

        proxy = seal_url(proxy)
        options = Options(
            max_queue_messages=max_queue_messages,
            max_queue_bytes=max_queue_bytes,
            when_full=when_full,
            block_timeout=block_timeout,
            flush_interval=flush_interval,
            concurrency=concurrency,
            max_requests_per_second=max_requests_per_second,
            retry=Retry() if retry is None else retry,
            timeout=timeout,
            shutdown_timeout=shutdown_timeout,
            gzip=gzip,
            proxy=proxy,
            verify=verify,
            before_send=before_send,
            on_drop=on_drop,
            on_delivery=on_delivery,
            dead_letters=dead_letters,
            default=default,
            strict=strict,
            background=background,
            enabled=enabled,
            buffer=buffer,
        )
        self._open(all_of(destination, gzip=gzip), options, (batch_messages, batch_bytes, message_bytes))

    def _open(
        self,
        destinations: tuple[Destination, ...],
        options: Options,
        lowered: tuple[int | None, int | None, int | None],
    ) -> None:
        self._lanes = self._make_lanes(destinations, options, lowered)
        self._only = self._lanes[0] if len(self._lanes) == 1 else None
        self._options = options
        self._default = options.default
        self._strict = options.strict
        self._block_timeout = options.block_timeout if options.when_full == "block" else 0.0
        if options.enabled:
            for lane in self._lanes:
                lane.pipeline.watch(self, end_all)
                if lane.buffer.durable:  # what an earlier process left is sent without a call
                    lane.pipeline.start()
        else:
            self._accept = _ignore  # type: ignore[method-assign]
            self.enqueue = _ignore  # type: ignore[method-assign]

    def _make_lanes(
        self,
        destinations: tuple[Destination, ...],
        options: Options,
        lowered: tuple[int | None, int | None, int | None],
    ) -> tuple[Lane, ...]:
        # With the first client and not with this module; and never first in the consumer, as nothing can be imported
        # after a fork in the middle of an import, or while the process ends.
        from .assembly import lanes_of  # noqa: PLC0415

        return lanes_of(destinations, options, lowered)

    @classmethod
    def from_env(cls, variables: Mapping[str, Any] | None = None, /, **options: Any) -> Self:
        """Make a client out of environment variables, secrets included.

        `ANALYTICS_BATCHER_DESTINATION` names `vitally`, `customerio`, `segment`, or several with commas;
        `..._VITALLY_SUBDOMAIN`, `..._VITALLY_API_TOKEN`, `..._CUSTOMERIO_SITE_ID`, `..._CUSTOMERIO_API_KEY`,
        `..._CUSTOMERIO_REGION`, `..._SEGMENT_WRITE_KEY` and `..._BASE_URL` describe them. Each option is read from
        `ANALYTICS_BATCHER_<OPTION>`; those of `Retry` from `..._RETRY_BASE` and its like.

        Args:
            variables: Read these, by the same names, and not the environment: a framework's settings, for example. What
                is no text is an option's value as `Client` takes it.
            options: Options of the client; they come before those of the environment.

        Raises:
            ValueError: If a variable is missing, unknown or wrong; it names the variable.
        """
        from .environment import make  # noqa: PLC0415 - not for those who never call it

        return make(cls, options, variables)

    def __repr__(self) -> str:
        each = [lane.destination for lane in self._lanes]
        return f"Client({each[0] if len(each) == 1 else each!r})"

    def __reduce_ex__(self, protocol: Any, /) -> NoReturn:
        raise TypeError(
            "a Client is neither pickled nor copied, since it holds threads, connections and secrets: make one in the "
            "process that uses it, for example by Client.from_env(); children made by a fork may use their parent's"
        )

    # The way in

    def _accept(  # noqa: PLR0917 - as its base
        self,
        message: dict[str, Any],
        timestamp: Any,
        message_id: Any,
        flags: int,
        field: str = "",
        content: Any = None,
    ) -> bool:
        lane = self._only
        # What is common, in half of the time that what follows it takes.
        if lane is not None and not flags:
            given = 0 if timestamp is None and message_id is None else plain_given(message, timestamp, message_id)
            if given is not None and (body := written(message, field, content)) is not None:
                record = new_head(given) + body
                if lane.check(message) is None and len(body) <= lane.plain_bytes and lane.buffer.put(record) is None:
                    if lane.pipeline.cold:
                        lane.pipeline.start()
                    return True
                return self._offer(self._lanes, message, record)
        if content is not None:
            message[field] = content
        try:
            plain = normalise(message)
            if timestamp is not None:
                message["timestamp"] = checked_timestamp(timestamp)
                flags |= TIME_GIVEN
            if message_id is not None:
                message["messageId"] = checked_message_id(message_id)
                flags |= ID_GIVEN
        except InvalidMessage as error:
            add_given(message, timestamp, message_id)
            return self._refuse([(lane, DropReason.INVALID, error.detail) for lane in self._lanes], message)
        return self._put(self._lanes, message, flags, plain)

    def enqueue(self, message: Any, *, to: str | None = None) -> bool:
        """Queue a message in a destination's own form. It goes out as it is, but for a missing id and time.

        Args:
            message: A dict. Whether it makes sense is the vendor's to judge.
            to: The destination's name; may be left out where there is one.

        Returns:
            Whether the message was accepted into the buffer.

        Raises:
            ValueError: If there are several destinations and `to` names none of them.
        """
        lane = self._lane(to)
        try:
            flags = native_flags(message, lane.destination.id_field, lane.destination.time_field)
        except InvalidMessage as error:
            return self._refuse([(lane, DropReason.INVALID, error.detail)], None)
        return self._put((lane,), message, flags, None)

    def batch(self, messages: list[dict[str, Any]], *, to: str | None = None) -> BatchResult:
        """Send messages in a destination's own form in one request, now, in the calling thread; nothing is queued.

        One attempt, over a connection of its own, outside the figures, on a closed client too. With `enabled=False`
        nothing is sent, and the result is falsy.

        Args:
            messages: They go out as they are: no id and no time is added.
            to: The destination's name; may be left out where there is one.

        Returns:
            The answer; truthy if the vendor named no errors in it.

        Raises:
            TypeError: If `messages` is no list.
            ValueError: If it is empty, over the vendor's limits, or cannot be written as JSON.
            TransportError: If no answer came.
            InvalidResponse: If the answer's status is not 2xx.
        """
        from .direct import send_batch  # noqa: PLC0415 - not for those who never call it

        return send_batch(self._lane(to).destination, messages, self._options)

    def _lane(self, to: str | None) -> Lane:
        if to is None and len(self._lanes) == 1:
            return self._lanes[0]
        for lane in self._lanes:
            if lane.destination.name == to:
                return lane
        names = " or ".join(repr(lane.destination.name) for lane in self._lanes)
        raise ValueError(f"to={shown(to)}: allowed is {names}")

    def _put(self, lanes: tuple[Lane, ...], message: dict[str, Any], flags: int, plain: bool | None) -> bool:
        try:
            body = encode(message, self._default, plain=plain)
        except Unserializable as error:
            return self._refuse([(lane, DropReason.UNSERIALIZABLE, str(error)) for lane in lanes], None)
        return self._offer(lanes, message, new_head(flags) + body)

    def _offer(self, lanes: tuple[Lane, ...], message: dict[str, Any], record: bytes) -> bool:
        flags, size = flags_of(record), len(record) - HEAD_BYTES
        refused = []
        accepted = cold = False
        deadline = 0.0
        for lane in lanes:
            unfit = None if flags & NATIVE else lane.check(message)
            if unfit is None and size > lane.plain_bytes:
                unfit = lane.excess(record[HEAD_BYTES:], flags)
            if unfit is None:
                reason = lane.buffer.put(record)
                if reason is not None and self._block_timeout:
                    deadline = deadline or time.monotonic() + self._block_timeout
                    reason = put_when_room(lane, record, deadline, self._lanes)
                cold = cold or lane.pipeline.cold  # without room, too: nobody else would make any
                if reason is None:
                    accepted = True
                    continue
                unfit = reason, lane.why(reason)
            refused.append((lane, *unfit))
        if cold:  # not before the message is with all of them: a thread takes its time to start
            for lane in lanes:
                if lane.pipeline.cold:
                    lane.pipeline.start()
        return accepted if not refused else self._refuse(refused, record, accepted=accepted)

    def _refuse(
        self,
        refused: list[tuple[Lane, DropReason, str]],
        message: dict[str, Any] | bytes | None,
        *,
        accepted: bool = False,
    ) -> bool:
        if self._strict and not accepted:
            raise refusal(refused[0][1], printable(refused[0][2]))
        record = kept(message, self._default) if refused[0][0].pipeline.reporter.keeps_messages else None
        for lane, reason, detail in refused:
            pipeline = lane.pipeline
            must_wake = pipeline.reporter.note(reason, detail, record)
            lane.buffer.refuse(reason)
            if must_wake or pipeline.cold or pipeline.stopped:  # cold: a full queue may be waiting for a thread
                pipeline.report_soon()
        return accepted

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
        from .stats import together  # noqa: PLC0415 - it is loaded, but was not to be loaded with this module

        return together(flush_all([(lane.pipeline, deadline) for lane in self._lanes]))

    def shutdown(self, timeout: float | None = None) -> FlushResult:
        """Refuse further messages, deliver what was accepted, and end.

        What is left at the deadline is dropped as `exit`, or kept in the file of a durable buffer, and one warning says
        how many. It returns earlier if the next attempt is due only after the deadline.

        Args:
            timeout: The most seconds to wait; `None`: `shutdown_timeout`.

        Returns:
            As for `flush`; what is left behind is still called pending in it.

        Raises:
            ValueError: If `timeout` is no number of at least 0.
        """
        seconds = self._options.shutdown_timeout if timeout is None else number("timeout", timeout, at_least=0)
        deadline = time.monotonic() + seconds
        from .stats import together  # noqa: PLC0415 - as above

        return together(end_all([(lane.pipeline, deadline) for lane in self._lanes]))

    async def aflush(self, timeout: float = 10.0) -> FlushResult:
        """`flush`, without blocking the event loop."""
        from .off_loop import run  # noqa: PLC0415 - it loads asyncio: 50 ms that only its users have already spent

        return await run(lambda: self.flush(timeout))

    async def ashutdown(self, timeout: float | None = None) -> FlushResult:
        """`shutdown`, without blocking the event loop."""
        from .off_loop import run  # noqa: PLC0415 - as above

        return await run(lambda: self.shutdown(timeout))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.shutdown()

    def stats(self) -> Stats:
        """The figures of this client, at this moment."""
        from .stats import total  # noqa: PLC0415 - as above

        return total({lane.pipeline.name: lane.pipeline.stats() for lane in self._lanes})


def _ignore(*_: object, **__: object) -> bool:
    return False
