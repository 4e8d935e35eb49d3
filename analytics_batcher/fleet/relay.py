"""A relay: drains the shards of a stream that are its share, and sends what is in them to the vendor."""

from __future__ import annotations

import decimal
import os
import re
import secrets
import socket
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import backoff
import dateutil.parser
import dateutil.tz

from ..log import Damper, logger
from ..retry import Retry
from ..text import printable, seal_url
from . import server
from .serving import Serving
from .settings import RelaySettings
from .shards import Shards, WrongShards
from .status import stream_status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..destinations import Destination
    from ..stats import Delivery, Drop, Ledger
    from .status import StreamStatus

LOADED: Final = (backoff, dateutil.parser, dateutil.tz, decimal)
"""What the consumers import where they use it."""
_LAST_LOOK: Final = 0.05
_AFTER: Final = 2.0
"""Seconds more that a stop may take, to tell the server."""


@dataclass(frozen=True)
class RelayFigures:
    """What a relay did so far: `taken == delivered + sum(dropped) + pending + handed_over`.

    Attributes:
        name: The relay's own name, by which the server knows it.
        shards: The shards that it serves now.
        taken: Messages that it read, those that were pending with others before it too.
        delivered: Messages that the vendor took.
        dropped: Messages given up, by reason.
        pending: Messages that it has read and not settled.
        handed_over: Messages that it had read and that became another relay's, or are again in the stream.
        requests: Requests made.
        retries: Requests that repeated messages of an earlier one.
        trimmed: Entries that somebody else removed, as far as this relay found it out between requests.
        last_error: What went wrong last, or `None`.
    """

    name: str
    shards: tuple[int, ...] = ()
    taken: int = 0
    delivered: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    pending: int = 0
    handed_over: int = 0
    requests: int = 0
    retries: int = 0
    trimmed: int = 0
    last_error: str | None = None


class Relay:
    """Serves a stream, together with all other relays of it, in threads of its own. Start it after a fork, not before.

    Each shard is served by one relay at a time, in its order. A message is acknowledged once the vendor has judged it.

    Args:
        url: The Redis server.
        destination: Where messages go.
        stream: The stream's name, as producers have it.
        shards: The number of its shards, as producers have it.
        max_requests_per_second: The most requests in a second over all relays of the stream; `None`: no bound.
        dead_letters: The path of a JSONL file for messages that are given up, or `"stream"` for a stream beside the
            others; `None`: they are counted and logged only.
        lease: Seconds for which no shard is without a relay when one dies, as long as another one lives.
        retry: As for `Client`; its `"auto"` is that of a durable buffer.
        timeout: As for `Client`.
        batch_messages: As for `Client`.
        batch_bytes: As for `Client`.
        message_bytes: As for `Client`.
        flush_interval: As for `Client`, counted from the call in the producer.
        gzip: As for `Client`.
        proxy: As for `Client`.
        verify: As for `Client`.
        on_delivery: As for `Client`; called in the shards' threads.
        on_drop: As for `Client`; called in the shards' threads.
        allow_volatile: Whether a server is good enough that forgets what it has.
        shutdown_timeout: Seconds that a stop may take.

    Raises:
        ValueError: If a setting is wrong; it names the setting, the value and what is allowed.
        ImportError: If the extra `redis` is not installed.

    Locking: `_lock` guards `_servings` and what is counted of those that ended. `_until` is set before `_stopping` is.
    """

    def __init__(
        self,
        url: str,
        destination: Destination,
        *,
        stream: str = "analytics",
        shards: int = 1,
        max_requests_per_second: float | None = None,
        dead_letters: str | os.PathLike[str] | None = None,
        lease: float = 10.0,
        retry: Retry | None = None,
        timeout: float | tuple[float, float] = 10.0,
        batch_messages: int | None = None,
        batch_bytes: int | None = None,
        message_bytes: int | None = None,
        flush_interval: float = 0.5,
        gzip: bool | None = None,
        proxy: str | None = None,
        verify: bool | str = True,
        on_delivery: Callable[[Delivery], object] | None = None,
        on_drop: Callable[[Drop], object] | None = None,
        allow_volatile: bool = False,
        shutdown_timeout: float = 10.0,
    ) -> None:
        url, proxy = seal_url(url), seal_url(proxy)
        self._settings = RelaySettings(
            url=url,
            destination=destination,
            stream=stream,
            shards=shards,
            max_requests_per_second=max_requests_per_second,
            dead_letters_path=dead_letters,
            lease=lease,
            retry=Retry() if retry is None else retry,
            timeout=timeout,
            lowered=(batch_messages, batch_bytes, message_bytes),
            flush_interval=flush_interval,
            gzip=gzip,
            proxy=proxy,
            verify=verify,
            on_drop=on_drop,
            on_delivery=on_delivery,
            allow_volatile=allow_volatile,
            shutdown_timeout=shutdown_timeout,
        )
        server.load()
        self.name = _new_name()
        self._keys = server.Keys(stream)
        connection = server.Server(url, timeout=self._settings.server_timeout, allow_volatile=allow_volatile)
        self._shards = Shards(connection, self._keys, self.name, shards, lease)
        self._lock = threading.Lock()
        self._servings: dict[int, Serving] = {}
        self._ended: list[Ledger] = []
        self._trimmed = 0
        self._trouble: str | None = None
        self._damper = Damper()
        self._stopping = threading.Event()
        self._until = 0.0
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"Relay({self.name!r}, stream={self._settings.stream!r}, destination={self._settings.destination!r})"

    @property
    def stream(self) -> str:
        """The stream's name."""
        return self._settings.stream

    @property
    def destination(self) -> str:
        """The destination's name."""
        return self._settings.destination.name

    def status(self) -> StreamStatus:
        """What the stream holds and who serves it, whichever relays these are.

        Raises:
            OSError: If the server cannot be asked.
        """
        return stream_status(self._settings.url, self._settings.stream)

    def start(self) -> None:
        """Begin. A server that cannot be reached now is tried again; what waiting cannot mend is said here.

        Raises:
            ValueError: If the server is not to be used as it is, or the stream has another number of shards.
            RuntimeError: If it was started before.
        """
        if self._thread is not None:
            raise RuntimeError("a relay starts only once")
        try:
            self._look()
        except server.Trouble as trouble:
            if trouble.lasts:
                self._shards.close()
                raise ValueError(f"redis: {trouble}") from None
            self._tell(trouble)
        except WrongShards as wrong:
            self._shards.close()
            raise ValueError(str(wrong)) from None
        self._thread = threading.Thread(
            target=self._run, name=f"analytics-batcher:{self._settings.stream}", daemon=True
        )
        self._thread.start()

    def stop(self, timeout: float | None = None) -> bool:
        """Finish the requests in flight, acknowledge what they delivered, and let other relays have the shards.

        What could not be finished by then stays pending, and another relay takes it over after the lease.

        Args:
            timeout: The most seconds to take; `None`: `shutdown_timeout`.

        Returns:
            Whether all was finished.
        """
        most = self._settings.shutdown_timeout if timeout is None else timeout
        if self._thread is None:
            return True
        self._until = time.monotonic() + most
        self._stopping.set()
        self._thread.join(most + _AFTER)
        return not self._thread.is_alive() and not self._alive()

    def figures(self) -> RelayFigures:
        """What it did so far."""
        with self._lock:
            servings = dict(self._servings)
            ledgers = list(self._ended)
            trimmed, error = self._trimmed, self._trouble
        readings = [serving.buffer.read() for serving in servings.values()]
        ledgers += [reading.ledger for reading in readings]
        dropped: Counter[str] = Counter()
        for ledger in ledgers:
            dropped.update({str(reason): count for reason, count in ledger.dropped.items() if count})
        return RelayFigures(
            name=self.name,
            shards=tuple(sorted(servings)),
            taken=sum(ledger.tracked for ledger in ledgers),
            delivered=sum(ledger.delivered for ledger in ledgers),
            dropped=dict(dropped),
            pending=sum(reading.messages for reading in readings),
            handed_over=sum(ledger.handed_over for ledger in ledgers),
            requests=sum(ledger.requests for ledger in ledgers),
            retries=sum(ledger.retries for ledger in ledgers),
            trimmed=trimmed,
            last_error=error or next((one.last_error for one in reversed(ledgers) if one.last_error), None),
        )

    # The coordinator's thread

    def _run(self) -> None:
        while not self._stopping.wait(self._shards.turn_seconds):
            self._turn()
        try:
            self._wind_down()
        finally:
            self._shards.close()

    def _turn(self, *, taking: bool = True) -> None:
        try:
            self._look(taking=taking)
        except (server.Trouble, WrongShards) as trouble:
            self._tell(trouble)
        except Exception as error:  # noqa: BLE001 - an error of ours must cost a turn, not all shards
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        known = isinstance(error, (server.Trouble, WrongShards))
        self._trouble = printable(str(error) if known else type(error).__name__)
        if self._damper.count("server"):
            logger.error("relay: stream=%s redis: %s", self._settings.stream, self._trouble)

    def _look(self, *, taking: bool = True) -> None:
        self._bury()
        held = {shard: serving.holding for shard, serving in self._servings.items()}
        turn = self._shards.look(held, (), taking=taking)
        self._trouble = None
        if turn.trimmed:
            self._trimmed += turn.trimmed
            text = "relay: stream=%s trimmed=%d: entries that were not delivered were removed by somebody else"
            logger.error(text, self._settings.stream, turn.trimmed)
        for holding in turn.taken:
            serving = Serving(holding, self._keys, self.name, self._settings)
            with self._lock:
                self._servings[holding.shard] = serving
            logger.info("relay: stream=%s shard=%d taken=%s", self._settings.stream, holding.shard, holding.token)
            serving.start()
        self._give_up(turn.surplus)

    def _give_up(self, surplus: int) -> None:
        """Give up so many shards, those that are on their way already included."""
        staying = [one for one in self._servings.values() if not one.holding.leaving and not one.holding.lost]
        leaving = sum(one.holding.leaving for one in self._servings.values())
        for serving in staying[: max(surplus - leaving, 0)]:
            serving.stop()

    def _bury(self) -> None:
        """Forget the servings that have ended."""
        for shard, serving in tuple(self._servings.items()):
            if not serving.is_alive:
                fate = "given_up" if serving.holding.leaving else "lost"
                logger.info("relay: stream=%s shard=%d %s", self._settings.stream, shard, fate)
                with self._lock:
                    del self._servings[shard]
                    self._ended = [_sum(self._ended, serving.buffer.ledger)]

    def _alive(self) -> bool:
        return any(serving.is_alive for serving in self._servings.values())

    def _wind_down(self) -> None:
        for serving in self._servings.values():
            serving.stop()
        next_turn = 0.0
        while self._alive() and (now := time.monotonic()) < self._until:
            if now >= next_turn:
                next_turn = now + self._shards.turn_seconds
                self._turn(taking=False)
            for serving in tuple(self._servings.values()):
                serving.join(_LAST_LOOK)
        with suppress(server.Trouble):
            self._shards.leave()
        self._bury()


def _sum(ledgers: Sequence[Ledger], last: Ledger) -> Ledger:
    """The books of servings that have ended, as those of one."""
    total = last.copy()
    for one in ledgers:
        total.tracked += one.tracked
        total.delivered += one.delivered
        total.handed_over += one.handed_over
        total.requests += one.requests
        total.retries += one.retries
        total.lost = {reason: count + one.lost[reason] for reason, count in total.lost.items()}
        total.last_error = total.last_error or one.last_error
    return total


def _new_name() -> str:
    host = re.sub(r"[^A-Za-z0-9.-]", "_", socket.gethostname())[:64]
    return f"{host}:{os.getpid()}:{secrets.token_hex(4)}"
