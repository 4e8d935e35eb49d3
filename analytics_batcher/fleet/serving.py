"""How a relay serves one shard: the consumer that every client has, on the shard's buffer, in a thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from ..consumer import Consumer
from ..dead_letters import DeadLetters
from ..delivery import BatchSender
from ..errors import DropReason
from ..report import Reporter
from ..sender import Outcome
from ..transport import Transport
from .letters import StreamLetters
from .rate import FleetPace
from .server import Server
from .shard_buffer import ShardBuffer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..sender import Sender
    from .server import Keys
    from .settings import RelaySettings
    from .shards import Holding

_CRASH_WAIT: Final = 1.0
_SOON: Final = 0.05
_STRANGE: Final = "an entry of the stream is no record"


class LeasedSender:
    """Makes no request for a shard that may be another relay's by now. Used by one thread at a time.

    Args:
        sender: Makes the requests.
        holding: The shard.
        pause: Lets the whole fleet wait.
    """

    def __init__(self, sender: Sender, holding: Holding, pause: Callable[[float], object]) -> None:
        self.name = sender.name
        self.batch_messages = sender.batch_messages
        self.batch_bytes = sender.batch_bytes
        self._sender = sender
        self._holding = holding
        self._pause = pause

    def send(self, records: Sequence[bytes], deadline: float | None) -> Outcome:
        """Make at most one request, out of the oldest records. Raises nothing for the network or the vendor."""
        if not self._holding.is_sure:
            return Outcome(len(records), wait=_SOON)
        outcome = self._sender.send(records, deadline)
        if outcome.throttled:
            self._pause(outcome.wait)
        return outcome

    def reset(self) -> None:
        """In a forked child: forget the connections and whatever is half done."""
        self._sender.reset()

    def close(self) -> None:
        """Close the connections."""
        self._sender.close()


class Serving:
    """One shard, while this relay holds it.

    Locking: none. `stop` sets a flag in a single assignment; all else belongs to the thread, but for the figures, which
    the buffer guards.

    Args:
        holding: The shard.
        keys: The stream's keys.
        relay: The relay's name.
        settings: The relay's settings.
    """

    def __init__(self, holding: Holding, keys: Keys, relay: str, settings: RelaySettings) -> None:
        self.holding = holding
        destination = settings.destination
        server = Server(settings.url, timeout=settings.server_timeout, allow_volatile=settings.allow_volatile)
        self.buffer = ShardBuffer(server, keys, holding, relay, self._refuse)
        self._reporter = Reporter(
            destination.name,
            on_drop=settings.on_drop,
            on_delivery=settings.on_delivery,
            letters=_letters(settings, self.buffer),
        )
        pace = FleetPace(server, keys, holding, settings.max_requests_per_second, self.buffer.tell)
        transport = Transport(timeout=settings.timeout, proxy=settings.proxy, verify=settings.verify)
        compressed = bool(settings.gzip) and destination.gzip
        sender = BatchSender(destination, transport, settings.limits, settings.retry, gzip=compressed)
        self._consumer = Consumer(
            self.buffer,
            LeasedSender(sender, holding, pace.pause),
            self._reporter,
            flush_interval=settings.flush_interval,
            max_age=settings.retry.age(durable=True),
            pace=pace,
        )
        self._thread = threading.Thread(
            target=self._run, name=f"analytics-batcher:{destination.name}:{holding.shard}", daemon=True
        )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether a request may be in flight, or something be unsettled here."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Give the shard up, once nothing is in flight."""
        self.holding.leaving = True
        self.buffer.wake()

    def join(self, timeout: float) -> None:
        """Wait for the end of a serving that was stopped."""
        self._thread.join(timeout)

    def _run(self) -> None:
        holding = self.holding
        try:
            while not (holding.leaving or holding.lost):
                wait = self._step()
                if wait != 0.0 and not (holding.leaving or holding.lost):
                    self.buffer.wait(wait)
        finally:
            self.buffer.finish()
            self._consumer.close()
            self._reporter.report_refused(self.buffer)

    def _step(self) -> float | None:
        try:
            return self._consumer.step()
        except Exception as error:  # noqa: BLE001 - an error of ours must cost a wait, not the shard
            self.buffer.count_requests(0, 0, 0, self._reporter.crashed(error))
            return _CRASH_WAIT

    def _refuse(self, records: list[bytes]) -> None:
        self._reporter.drop(DropReason.INVALID, _STRANGE, len(records), records)


def _letters(settings: RelaySettings, buffer: ShardBuffer) -> DeadLetters | None:
    destination = settings.destination
    form: dict[str, Any] = {
        "id_field": destination.id_field,
        "time_field": destination.time_field,
        "native_form": destination.wire,
    }
    if settings.dead_letters is None:
        return None
    if settings.dead_letters_in_stream:
        return StreamLetters(buffer, destination.name, **form)
    return DeadLetters(settings.dead_letters, destination.name, **form)
