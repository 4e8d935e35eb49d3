"""What a stream holds and who serves it, to be printed or watched."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ..streams import checked_stream, checked_url
from .books import DELIVERED, DROPPED, REQUESTS, RETRIES, TRIMMED
from .entries import ADDED, HELD, RECORD
from .reading import Entry, age_of
from .server import GROUP, Keys, Script, Server, Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

_TIMEOUT: Final = 5.0
_FIELDS: Final = (ADDED, DELIVERED, DROPPED, TRIMMED, REQUESTS, RETRIES, HELD)

# Keys: a shard's stream, books and lease. Arguments: the group and the fields.
_LOOK: Final = Script("""\
local group = redis.pcall('XPENDING', KEYS[1], ARGV[1])
local pending = not group.err and group[1] or 0
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
local books = redis.call('HMGET', KEYS[2], unpack(ARGV, 2))
return {redis.call('XLEN', KEYS[1]), pending, first, redis.call('GET', KEYS[3]), books}
""")


@dataclass(frozen=True)
class ShardStatus:
    """One shard at one moment. The counts are those since the stream began.

    Attributes:
        shard: Its number.
        length: Entries in it.
        pending: Of these, the ones that a relay has read.
        bytes: What they count for against the producers' bound.
        oldest_age: Seconds since the oldest one was made; `None` if there is none.
        owner: The name of the relay that serves it, or `None`.
        added: Messages that producers added.
        delivered: Messages that the vendor took.
        dropped: Messages that relays gave up.
        trimmed: Messages that somebody else removed.
        requests: Requests to the vendor.
        retries: Of these, the ones that repeated messages of an earlier one.
    """

    shard: int
    length: int
    pending: int
    bytes: int
    oldest_age: float | None
    owner: str | None
    added: int
    delivered: int
    dropped: int
    trimmed: int
    requests: int
    retries: int


@dataclass(frozen=True)
class StreamStatus:
    """A stream at one moment.

    Attributes:
        shards: Each shard.
        relays: The names of those that said lately that they live.
        pause: Seconds for which no relay makes a request, as the vendor asked for it.
        dead_letters: Entries in the stream of dead letters.
        at: When, in seconds of the monotonic clock.
    """

    shards: tuple[ShardStatus, ...]
    relays: tuple[str, ...]
    pause: float
    dead_letters: int
    at: float


def stream_status(url: str, stream: str = "analytics", *, server: Server | None = None) -> StreamStatus:
    """Say what a stream holds and who serves it, and change nothing.

    Args:
        url: The Redis server.
        stream: The stream's name.
        server: A connection to it, if there is one already.

    Raises:
        ValueError: If a setting is wrong.
        OSError: If the server cannot be asked.
    """
    keys = Keys(checked_stream(stream))
    connection = server or Server(checked_url(url), timeout=_TIMEOUT, allow_volatile=True)
    try:
        number = int(connection.call("GET", keys.shards) or 0)
        shards = tuple([_shard(connection, keys, shard) for shard in range(number)])
        relays = connection.call("ZRANGE", keys.relays, 0, -1)
        pause = connection.call("PTTL", keys.pause)
        dead = connection.call("XLEN", keys.dead)
    except Trouble as trouble:
        raise ConnectionError(str(trouble)) from None
    finally:
        if server is None:
            connection.close()
    names = tuple(sorted(one.decode() for one in relays))
    return StreamStatus(shards, names, max(int(pause), 0) / 1000, int(dead), time.monotonic())


def _shard(server: Server, keys: Keys, shard: int) -> ShardStatus:
    places = [keys.stream(shard), keys.books(shard), keys.lease(shard)]
    length, pending, first, holder, books = server.run(_LOOK, places, [GROUP, *_FIELDS])
    figures: Sequence[int] = [int(float(one or 0)) for one in books]
    added, delivered, dropped, trimmed, requests, retries, held = figures
    return ShardStatus(
        shard=shard,
        length=length,
        pending=pending,
        bytes=held if length else 0,
        oldest_age=_age(first[0]) if first else None,
        owner=holder.decode().rpartition("/")[0] if holder else None,
        added=added,
        delivered=delivered,
        dropped=dropped,
        trimmed=trimmed,
        requests=requests,
        retries=retries,
    )


def _age(entry: Sequence[Any]) -> float:
    fields = dict(zip(entry[1][::2], entry[1][1::2], strict=True))
    return age_of(Entry(entry[0], fields.get(RECORD.encode(), [])))
