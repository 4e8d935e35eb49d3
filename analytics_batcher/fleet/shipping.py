"""The sender of the fleet's producers: adds records to a Redis stream, from which relays deliver them."""

from __future__ import annotations

import dataclasses
import os
import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from ..errors import DropReason
from ..message import entities_of, wire_bytes
from ..retry import Retry, Schedule
from ..sender import Outcome
from ..stamp import HEAD_BYTES, NATIVE, STAMP_BYTES, flags_of
from ..stats import Delivery, Loss
from .entries import ADD, OVERHEAD
from .server import Keys, Trouble

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..before_send import BeforeSend
    from .server import Server

BATCH_MESSAGES: Final = 250
"""What costs the server least: with an append-only file, a message of 300 bytes takes it 4.5 microseconds in a batch of
100, 4.3 in one of 250, 6 in one of 500, 12 in one of 2,000. It does nothing else while it adds one."""
BATCH_BYTES: Final = 2**19
PROBE: Final = 10.0
"""Seconds between two attempts while it is the server's settings, or ours, that are wrong."""
_CAP: Final = 5.0  # the longest wait for a server that is down, or full: it is our own, and one attempt costs it little
_SHARE: Final = 4
"""Of a shard's bytes, the part that one batch may have: or it would never fit."""


@dataclass
class _Parcel:
    """What was once sent together, and may have been added although no answer came. No other record may join it."""

    number: int
    name: str
    stamps: frozenset[bytes]
    attempts: int = 0


class ShippingSender:
    """Adds records to a stream. Used by one thread at a time.

    A batch goes to all of its shards in one step, or to none, and only once, though its answer may have been lost:
    until it is known what came of it, it alone is sent again.

    Args:
        name: The destination's name.
        server: Where the stream is.
        stream: The stream's name.
        retry: The waits between attempts; none is longer than five seconds.
        shards: How many shards the stream has.
        max_messages: The most entries of a shard.
        max_bytes: The most bytes of a shard, each entry's overhead included.
        message_bytes: The most bytes of a message that `before_send` has changed.
        before_send: May change or drop each message, once.
    """

    def __init__(
        self,
        name: str,
        server: Server,
        stream: str,
        retry: Retry,
        *,
        shards: int,
        max_messages: int,
        max_bytes: int,
        message_bytes: int,
        before_send: BeforeSend | None = None,
    ) -> None:
        self.name = name
        self.batch_messages = min(BATCH_MESSAGES, max_messages)
        self.batch_bytes = min(BATCH_BYTES, max_bytes // _SHARE)
        self._server = server
        self._stream = stream
        self._keys = Keys(stream)
        self._schedule = Schedule(dataclasses.replace(retry, cap=min(retry.cap, _CAP)))
        self._shards = shards
        self._bounds = max_messages, max_bytes
        self._message_bytes = message_bytes
        self._before_send = before_send
        self._begin()

    def _begin(self) -> None:
        self._schedule.reset()
        if self._before_send is not None:
            self._before_send.reset()
        self._parcel: _Parcel | None = None
        self._introduce()

    def _introduce(self) -> None:
        """Take a name that nobody has, a copy of this process among them."""
        self._sent = self._keys.sent(os.urandom(8).hex())
        self._number = 0

    def reset(self) -> None:
        """In a forked child: forget the connection, whatever is half done, and the parent's name."""
        self._server.reset()
        self._begin()

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def send(self, records: Sequence[bytes], deadline: float | None) -> Outcome:
        """Add the oldest records, in one call. Raises nothing for the server or the network."""
        losses: list[Loss] = []
        chosen = self._chosen(records, losses)
        if not chosen:
            return Outcome(len(records), losses=losses)
        parcel = self._parcel
        if parcel is None:
            self._number += 1
            stamps = frozenset(records[place][:STAMP_BYTES] for place in chosen)
            name = records[next(iter(chosen))][:STAMP_BYTES].hex()  # no other record has its stamp
            parcel = self._parcel = _Parcel(self._number, name, stamps)
        keys, arguments, size = self._packed(parcel, [*chosen.values()])
        parcel.attempts += 1
        started = time.monotonic()
        try:
            answer = self._server.run(ADD, keys, arguments, deadline=deadline)
            error, lasts = self._read(answer)
        except Trouble as trouble:
            answer, error, lasts = [b""], str(trouble), trouble.lasts
        arrived = answer[0] in {b"ADDED", b"AGAIN"}
        if arrived:
            self._parcel = None
            self._schedule.reset()
        seconds = time.monotonic() - started
        return Outcome(
            tried=max(chosen) + 1 if parcel.attempts > 1 else len(records),
            delivered=tuple(chosen) if arrived else (),
            losses=losses,
            wait=0.0 if error is None else PROBE if lasts else self._schedule.next(),
            requests=1,
            retries=int(parcel.attempts > 1),
            error=error and f"Redis {error}",
            halted=lasts,
            receipt=Delivery(len(chosen), size, seconds, 0, parcel.attempts, self.name) if arrived else None,
        )

    def _chosen(self, records: Sequence[bytes], losses: list[Loss]) -> dict[int, bytes]:
        """The records to add, by their positions: those of the last batch, as long as it is not known to be there."""
        if self._before_send is not None:
            self._before_send.keep({record[:STAMP_BYTES] for record in records})
        places: Sequence[int] = range(len(records))
        if self._parcel is not None:
            stamps = self._parcel.stamps
            of_parcel = [place for place in places if records[place][:STAMP_BYTES] in stamps]
            if not of_parcel:
                self._parcel = None  # they expired, or were abandoned
            places = of_parcel or places
        chosen = {}
        for place in places:
            wanted = self._wanted(records[place])
            if isinstance(wanted, bytes):
                chosen[place] = wanted
            else:
                losses.append(Loss(wanted[0], wanted[1], (place,)))
        return chosen

    def _wanted(self, record: bytes) -> bytes | tuple[DropReason, str]:
        if self._before_send is None:
            return record
        wanted = self._before_send.apply(record)
        if not isinstance(wanted, bytes):
            return wanted
        flags, body = flags_of(wanted), wanted[HEAD_BYTES:]
        size = len(body) if flags & NATIVE else wire_bytes(body, flags)
        if size > self._message_bytes:
            return DropReason.TOO_LARGE, f"{size} bytes; allowed are {self._message_bytes}"
        return wanted

    def _packed(self, parcel: _Parcel, records: Sequence[bytes]) -> tuple[list[str], list[bytes | str | int], int]:
        """The keys and the arguments of the call, and the bytes of what it adds."""
        by_shard: dict[int, list[bytes]] = {}
        if self._shards == 1:
            by_shard[0] = [*records]
        else:
            for record in records:
                by_shard.setdefault(shard_of(record, self._shards), []).append(record)
        keys = [self._keys.shards, self._sent]
        arguments: list[bytes | str | int] = [self._shards, parcel.number, parcel.name, *self._bounds]
        total = 0
        for shard, own in by_shard.items():
            size = sum(map(len, own))
            total += size
            keys += [self._keys.stream(shard), self._keys.books(shard)]
            arguments += [len(own), size + OVERHEAD * len(own), *own]
        return keys, arguments, total

    def _read(self, answer: Sequence[bytes | int]) -> tuple[str | None, bool]:
        """What was wrong, by the script's answer, and whether it lasts."""
        if answer[0] == b"STALE":
            self._introduce()
            if self._parcel is not None:
                self._number = self._parcel.number = 1
        elif answer[0] == b"FULL":
            key, entries, size = _text(answer[1]), answer[2], answer[3]
            most, most_bytes = self._bounds
            held = f"{entries!r} entries, {size!r} bytes"
            return f"stream full: {key} has {held}; allowed are {most} and {most_bytes}", False
        elif answer[0] == b"SHARDS":
            return f"shards={self._shards}: the stream {self._stream!r} has {_text(answer[1])} shards", True
        return None, False


def shard_of(record: bytes, shards: int) -> int:
    """The shard of what a message is about, the same in every process; an alias goes with the first of the two.

    Args:
        record: The message's.
        shards: How many there are.
    """
    about = entities_of(record)[0].encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(about, digest_size=8).digest(), "big") % shards


def _text(value: bytes | int) -> str:
    return str(value, "ascii", "replace") if isinstance(value, bytes) else f"{value}"
