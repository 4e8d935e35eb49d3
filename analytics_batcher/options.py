"""A client's settings, checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from .batch import Limits
from .retry import Retry
from .settings import allowed, file_path, flag, hook, number, shown, whole

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from .buffers.redis import RedisBuffer
    from .buffers.sqlite import SqliteBuffer
    from .destinations import Destination
    from .stats import Delivery, Drop

_LEAST_QUEUE_BYTES: Final = 1_000
_LEAST_BATCH_BYTES: Final = 1_000
_LEAST_MESSAGE_BYTES: Final = 200
_MOST_CONCURRENCY: Final = 64


@dataclass(frozen=True)
class Options:
    """What `Client` documents. `timeout`, `proxy` and `verify` are checked by the transport.

    Raises:
        ValueError: If a setting is wrong; it names the setting, the value and what is allowed.
    """

    max_queue_messages: int
    max_queue_bytes: int
    when_full: str
    block_timeout: float
    flush_interval: float
    concurrency: int
    max_requests_per_second: float | None
    retry: Retry
    timeout: float | tuple[float, float]
    shutdown_timeout: float
    gzip: bool | None
    proxy: str | None
    verify: bool | str
    before_send: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None
    on_drop: Callable[[Drop], object] | None
    on_delivery: Callable[[Delivery], object] | None
    dead_letters: str | os.PathLike[str] | None
    default: Callable[[Any], Any] | None
    strict: bool
    background: bool
    enabled: bool
    buffer: SqliteBuffer | RedisBuffer | None = None

    def __post_init__(self) -> None:
        whole("max_queue_messages", self.max_queue_messages, at_least=1)
        whole("max_queue_bytes", self.max_queue_bytes, at_least=_LEAST_QUEUE_BYTES)
        allowed("when_full", self.when_full, ("drop_newest", "drop_oldest", "block"))
        for name in ("block_timeout", "flush_interval", "shutdown_timeout"):
            number(name, getattr(self, name), at_least=0)
        whole("concurrency", self.concurrency, at_least=1, at_most=_MOST_CONCURRENCY, why="each is a thread")
        if self.max_requests_per_second is not None:
            number("max_requests_per_second", self.max_requests_per_second, above=0)
        if not isinstance(self.retry, Retry):
            raise ValueError(f"retry={shown(self.retry)}: allowed is Retry(...)")  # noqa: TRY004 - as all settings
        for name in ("before_send", "on_drop", "on_delivery", "default"):
            hook(name, getattr(self, name))
        if self.dead_letters is not None:
            file_path("dead_letters", self.dead_letters)
        for name in ("strict", "background", "enabled"):
            flag(name, getattr(self, name))
        if self.gzip is not None:
            flag("gzip", self.gzip)


def limits_of(
    destination: Destination, batch_messages: int | None, batch_bytes: int | None, message_bytes: int | None
) -> Limits:
    """A destination's limits, as far as the application lowers them.

    Args:
        destination: Whose own limits are the most.
        batch_messages: As for `Client`.
        batch_bytes: As for `Client`.
        message_bytes: As for `Client`.

    Raises:
        ValueError: If one of them is out of range.
    """
    own = destination.limits
    why = f"the limit of {destination.name}"
    messages = own.messages if batch_messages is None else batch_messages
    whole("batch_messages", messages, at_least=1, at_most=own.messages, why=why)
    size = own.bytes if batch_bytes is None else batch_bytes
    whole("batch_bytes", size, at_least=_LEAST_BATCH_BYTES, at_most=own.bytes, why=why)
    most = min(own.message_bytes, size - destination.envelope)
    one = most if message_bytes is None else message_bytes
    whole("message_bytes", one, at_least=_LEAST_MESSAGE_BYTES, at_most=most, why=f"{why}, and it must fit a batch")
    return Limits(messages, size, one)
