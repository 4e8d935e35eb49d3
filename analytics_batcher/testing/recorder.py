"""The recorder: a client whose far end is a list."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from .. import default
from ..buffers.memory import MemoryBuffer
from ..client import Client
from ..consumer import Consumer
from ..direct import send_batch
from ..errors import InvalidMessage
from ..given import timestamp
from ..lanes import Lane, settle_all
from ..message import encode, kept
from ..options import limits_of
from ..pipeline import Pipeline
from ..report import Reporter
from ..settings import number, proxy_url, shown, timeout_pair
from .asserting import Assertions
from .tape import Anywhere, Clock, RecordingSender, Tape, direct_entry, no_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

    from ..destinations import Destination
    from ..direct import BatchResult
    from ..errors import DropReason
    from ..options import Options
    from ..stats import Drop, FlushResult

_SECONDS: Final = 60.0
"""The longest that a look waits for another thread's, which may be in a `before_send`."""
_MESSAGES: Final = 1_000_000
_BYTES: Final = 2**30


class Recorder(Client, Assertions):
    """A client for tests. It checks and encodes as another client does, and delivers to a list: no network, no thread.

    It can stand wherever a `Client` is wanted, and takes the same options. Messages go the whole way, `before_send`,
    `on_drop` and `on_delivery` included, whenever somebody looks: at `messages`, `dropped`, an assertion, or by
    `flush` and `shutdown`. Until then they wait in a queue, which is a million messages long unless an option says
    otherwise. Each process has its own: a forked child's calls are not seen in its parent.

    Args:
        destination: Whose rules hold, one or several; its token may be any. `None`: what no vendor takes is refused.
        at: A moment at which the clock stands still, as `timestamp` takes it; see `freeze`.
        seed: Of the ids, with `at`; 0 if left out.
        strict: As for `Client`.
        options: Those of `Client`. Those of network and files (`timeout`, `proxy`, `verify`, `retry`, `concurrency`,
            `max_requests_per_second`, `buffer`, `dead_letters`, `background`) have no effect.

    Raises:
        ValueError: If a setting is wrong.
    """

    def __init__(
        self,
        destination: Destination | Sequence[Destination] | None = None,
        *,
        at: datetime | float | str | None = None,
        seed: int | None = None,
        strict: bool = False,
        **options: Any,
    ) -> None:
        self._tape = Tape()
        self._clock: Clock | None = None
        room = {"max_queue_messages": _MESSAGES, "max_queue_bytes": _BYTES}
        super().__init__(Anywhere() if destination is None else destination, strict=strict, **{**room, **options})
        if at is not None:
            self.freeze(at, seed=0 if seed is None else seed)
        elif seed is not None:
            raise ValueError(f"seed={shown(seed)}: allowed with at=... only, as the time is a part of an id")

    def __repr__(self) -> str:
        return super().__repr__().replace("Client(", "Recorder(", 1)

    def _make_lanes(
        self,
        destinations: tuple[Destination, ...],
        options: Options,
        lowered: tuple[int | None, int | None, int | None],
    ) -> tuple[Lane, ...]:
        timeout_pair(options.timeout)
        proxy_url(options.proxy)
        options = replace(options, on_drop=_told(self._tape, options.on_drop))
        pairs = [(one, limits_of(one, *lowered)) for one in destinations]
        return tuple(
            Lane(one, limits, _pipeline(one, RecordingSender(one, limits, options, self._tape), options))
            for one, limits in pairs
        )

    # A clock that stands still

    def freeze(self, at: datetime | float | str, *, seed: int = 0) -> None:
        """Let the clock stand still: from now on times and ids are the same in each run.

        Args:
            at: The moment, as `timestamp` takes it.
            seed: What the ids are made of.

        Raises:
            ValueError: If `at` is no moment.
        """
        try:
            moment = datetime.fromisoformat(timestamp(at).replace("Z", "+00:00"))
        except InvalidMessage:
            wanted = "a datetime, Unix seconds or ISO 8601 text, from 1970 to 9999"
            raise ValueError(f"at={shown(at)}: allowed is {wanted}") from None
        self._clock = Clock(round(moment.timestamp() * 1000), seed)
        self._only = None  # the quick way takes its stamp itself

    def advance(self, seconds: float) -> None:
        """Let the clock that stands still stand later.

        Raises:
            ValueError: If `seconds` is no number of at least 0, or the clock does not stand still.
        """
        if self._clock is None:
            raise ValueError("advance() needs a clock that stands still: Recorder(at=...) or freeze(...)")
        self._clock.now += round(number("seconds", seconds, at_least=0) * 1000)

    def _offer(self, lanes: tuple[Lane, ...], message: dict[str, Any], record: bytes) -> bool:
        return super()._offer(lanes, message, self._stamped(record))

    def _refuse(
        self,
        refused: list[tuple[Lane, DropReason, str]],
        message: dict[str, Any] | bytes | None,
        *,
        accepted: bool = False,
    ) -> bool:
        if isinstance(message, dict) and (record := kept(message, self._default)) is not None:
            message = self._stamped(record)
        return super()._refuse(refused, message, accepted=accepted)

    def _stamped(self, record: bytes) -> bytes:
        return record if self._clock is None else self._clock.stamped(record)

    # The way out

    def batch(self, messages: list[dict[str, Any]], *, to: str | None = None) -> BatchResult:
        """As `Client.batch`, but for the request: the messages are recorded, and all is well."""
        destination = self._lane(to).destination
        result = send_batch(destination, messages, self._options, no_network)
        if self._options.enabled:
            for message in messages:
                self._tape.entries.append(
                    direct_entry(destination.name, len(self._tape.entries), encode(message, self._default))
                )
        return result

    async def aflush(self, timeout: float = 10.0) -> FlushResult:
        """As `Client.aflush`, but in the event loop's own thread: there is nothing to wait for."""
        return self.flush(timeout)

    async def ashutdown(self, timeout: float | None = None) -> FlushResult:
        """As `Client.ashutdown`, but in the event loop's own thread: there is nothing to wait for."""
        return self.shutdown(timeout)

    # What was recorded

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Every message that was delivered since the last `clear`, in the order of the calls, the newest last.

        In neutral form (those of `enqueue` and `batch` in the vendor's), with `messageId` and `timestamp` as they would
        be sent, and as `before_send` left it. With several destinations each is here once: see `messages_of`.
        """
        self._settle()
        return self._tape.messages()

    def messages_of(self, name: str) -> list[dict[str, Any]]:
        """The messages of one of several destinations.

        Args:
            name: The destination's.

        Raises:
            ValueError: If there is no such destination.
        """
        name = self._lane(name).destination.name
        self._settle()
        return self._tape.messages(name)

    @property
    def dropped(self) -> list[Drop]:
        """What was dropped since the last `clear`, as `on_drop` is told it; by several destinations, once for each."""
        self._settle()
        return list(self._tape.drops)

    def clear(self) -> None:
        """Forget what was recorded and what was dropped; the figures of `stats` go on."""
        self._settle()
        self._tape.entries.clear()
        self._tape.drops.clear()

    def _settle(self) -> None:
        deadline = time.monotonic() + _SECONDS
        settle_all([(lane.pipeline, deadline) for lane in self._lanes])

    # The default client

    @contextmanager
    def installed(self) -> Iterator[Self]:
        """Let the functions of `analytics_batcher` use this recorder for a while; then what they used before.

        What was their client meanwhile goes on. A `configure()` in that while takes the recorder's place.
        """
        former = default.replace(self)
        try:
            yield self
        finally:
            default.replace(former)


def _told(tape: Tape, hook: Callable[[Drop], object] | None) -> Callable[[Drop], object]:
    """An `on_drop` that records first. It does not know the recorder, which could not be collected otherwise."""

    def told(drop: Drop) -> None:
        tape.drops.append(drop)
        if hook is not None:
            hook(drop)

    return told


def _pipeline(destination: Destination, sender: RecordingSender, options: Options) -> Pipeline:
    """As a client's that has no thread."""
    bounds = options.max_queue_messages, options.max_queue_bytes
    buffer = MemoryBuffer(*bounds, evict=options.when_full == "drop_oldest", keep_evicted=True)
    reporter = Reporter(
        destination.name,
        on_drop=options.on_drop,
        on_delivery=options.on_delivery,
        max_bytes=options.max_queue_bytes,
    )
    consumer = Consumer(
        buffer, sender, reporter, flush_interval=options.flush_interval, max_age=options.retry.age(durable=False)
    )
    return Pipeline(
        destination.name,
        buffer,
        consumer,
        reporter,
        background=False,
        shutdown_timeout=options.shutdown_timeout,
    )
