"""The fleet's settings at its producers. Redis is loaded with the first client that uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ..settings import flag, number, whole
from ..streams import address_of, checked_stream, checked_url
from ..text import seal

if TYPE_CHECKING:
    from .sqlite import SqliteBuffer

_LEAST_BYTES: Final = 2**20
_MOST_SHARDS: Final = 1_024


class RedisBuffer:
    """Ships accepted messages to a Redis stream, for relays to deliver: `Client(..., buffer=RedisBuffer(url))`.

    A call puts its message in memory, or in the file of `stage`; the consumer adds batches of them to the stream, and
    what it has added counts as delivered. While the server is down, slow, full or refuses it, messages stay where they
    are, within the client's bounds; what was accepted then goes in its order. A batch whose answer was lost is sent
    again and added once.

    The server must be Redis 6.2 or later, or Valkey, and must keep what it is given: with an append-only file and with
    `maxmemory-policy noeviction`. With `appendfsync everysec` a server that is killed may lose what it took in its last
    two seconds, as it puts off writing while the disk is busy; with `always` it loses nothing.

    How the vendor is posted to is the relays' matter, so that `batch_messages`, `batch_bytes` and `gzip` of the client
    mean nothing here.

    Args:
        url: `redis://`, `rediss://` or `unix://`, with its credentials.
        stream: The stream's name. Where a client has several destinations, each has a stream of its own, whose name is
            this one, a colon, and the destination's name.
        shards: How many parts the stream has, each served by one relay at a time. What concerns one user (or else
            account, or organization) goes to one of them. It cannot be changed while the stream is in use.
        stage: `SqliteBuffer(path)` keeps messages in a file until they are in the stream; `None`: in memory.
        max_messages: The most messages in a shard, with relays or not; beyond it they stay where they are.
        max_bytes: The most bytes of these, 32 for each message included.
        allow_volatile: Whether a server will do that forgets messages when it is killed, or drops them for others.
        timeout: Seconds for one call to the server, from connecting to the answer's end.

    Raises:
        ValueError: If a setting is wrong; it names the setting, the value and what is allowed.
    """

    _address = stream = ""  # of one that is half made, and shown with an error's variables

    def __init__(
        self,
        url: str,
        *,
        stream: str = "analytics",
        shards: int = 1,
        stage: SqliteBuffer | None = None,
        max_messages: int = 1_000_000,
        max_bytes: int = 2**30,
        allow_volatile: bool = False,
        timeout: float = 5.0,
    ) -> None:
        url = seal(url)
        self.url = checked_url(url)
        self._address = address_of(self.url)
        self.stream = checked_stream(stream)
        self.shards = whole("shards", shards, at_least=1, at_most=_MOST_SHARDS)
        self.stage: Any = stage  # whether it is one is seen where it is opened: buffers do not know each other
        self.max_messages = whole("max_messages", max_messages, at_least=1)
        self.max_bytes = whole("max_bytes", max_bytes, at_least=_LEAST_BYTES)
        self.allow_volatile = flag("allow_volatile", allow_volatile)
        self.timeout = number("timeout", timeout, above=0)

    def __repr__(self) -> str:
        return f"RedisBuffer({self._address!r}, stream={self.stream!r})"
