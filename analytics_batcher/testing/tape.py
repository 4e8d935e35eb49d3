"""What a recorder records, and the far end of its client, where another client has a network."""

from __future__ import annotations

import time
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from ..answer import Answer
from ..batch import Limits
from ..before_send import BeforeSend
from ..delivery import BatchSender
from ..destinations import Action, Verdict
from ..encoding import loads
from ..errors import DropReason
from ..message import wire
from ..stamp import NATIVE, STAMP_BYTES, accepted_at, flags_of, head_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..destinations import Destination
    from ..options import Options
    from ..sender import Outcome
    from ..stats import Drop
    from ..transport import Transport

_RANDOM_BITS: Final = 60
_SOMEBODY: Final = {
    "track": ("userId", "accountId", "organizationId", "anonymousId"),
    **dict.fromkeys(("user", "page", "screen"), ("userId", "anonymousId")),
}


class Entry(NamedTuple):
    """A message that was delivered.

    Attributes:
        accepted: When its call was made, in seconds of the monotonic clock.
        stamp: What tells it from every other one.
        destination: Where it went.
        text: Its JSON: in neutral form, or native as it is sent; with its id and time.
    """

    accepted: float
    stamp: bytes
    destination: str
    text: bytes


class Tape:
    """What was delivered, and what was dropped. Each list is added to by one C call, so threads may share them."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.drops: list[Drop] = []

    def messages(self, destination: str | None = None) -> list[dict[str, Any]]:
        """The messages in the order of their calls, each once; fresh ones, that may be changed.

        Args:
            destination: Only those that went there.
        """
        chosen: dict[bytes, Entry] = {}
        for entry in tuple(self.entries):
            if destination is None or entry.destination == destination:
                chosen.setdefault(entry.stamp, entry)
        return [loads(entry.text) for entry in sorted(chosen.values(), key=lambda entry: entry.accepted)]


class Clock:
    """A clock that stands still until it is told to go on, and ids that are the same in each run.

    `now` is replaced as a whole; the generator's methods are one C call each.

    Args:
        now: Where it stands, in Unix milliseconds.
        seed: What the ids are made of.
    """

    def __init__(self, now: int, seed: int) -> None:
        self.now = now
        self._bits = Random(seed).getrandbits  # noqa: S311 - these ids are to be foreseen

    def stamped(self, record: bytes) -> bytes:
        """A record with a stamp of this clock. Its age is the real one."""
        head = head_of(self.now, self._bits(_RANDOM_BITS), accepted_at(record), flags_of(record))
        return head + record[len(head) :]


class Anywhere:
    """A destination that takes what any vendor takes, up to the sizes that all of them take."""

    name = "recorder"
    url = ""
    limits = Limits(messages=100, bytes=500_000, message_bytes=32_000)
    envelope = len("[]")
    id_field = "messageId"
    time_field = "timestamp"
    gzip = True
    secrets: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return ""  # as nobody gave it

    def headers(self) -> Mapping[str, str]:
        """None: nothing is sent."""
        return {}

    def check(self, message: Mapping[str, Any]) -> tuple[DropReason, str] | None:
        """Why a neutral message cannot be sent to any vendor."""
        kind = message["type"]
        owners = _SOMEBODY.get(kind)
        if owners is None or any(field in message for field in owners):
            return None
        return DropReason.INVALID, f"a {kind} needs a {' or '.join(owners)}"

    def wire(self, record: bytes) -> bytes:
        """A record in neutral form; a native one is neutral, too, where there is no vendor."""
        return wire(record)

    def body(self, wires: Sequence[bytes], _: float, /) -> bytes:
        """What would be a request's body."""
        return b"[%b]" % b",".join(wires)

    def verdict(self, _: Answer) -> Verdict:
        """Everything is delivered."""
        return Verdict(Action.DELIVERED)


class _NoNetwork:
    """A transport that posts nothing, and has a vendor's answer to everything."""

    requests = 0

    def post(self, *_: object) -> Answer:
        self.requests += 1
        return Answer(200, {"content-type": "application/json"}, b"{}")

    def reopen(self) -> None:
        pass

    def close(self) -> None:
        pass


def no_network(_: Options | None = None) -> Transport:
    """What takes a transport's place."""
    return cast("Transport", _NoNetwork())  # of which it has all that anybody uses


class RecordingSender:
    """The sender that every client has, without a network, and with a tape of what it delivers.

    Args:
        destination: The vendor.
        limits: Its own limits, or lower ones.
        options: The client's settings.
        tape: Where to record.
    """

    def __init__(self, destination: Destination, limits: Limits, options: Options, tape: Tape) -> None:
        hook = options.before_send
        self._before_send = hook and BeforeSend(hook, destination.check, options.default)
        self._sender = BatchSender(
            destination,
            no_network(),
            limits,
            options.retry,
            before_send=self._before_send,
            gzip=bool(options.gzip) and destination.gzip,
        )
        self._destination = destination
        self._tape = tape
        self.name = destination.name
        self.batch_messages = limits.messages
        self.batch_bytes = limits.bytes

    def send(self, records: Sequence[bytes], deadline: float | None) -> Outcome:
        """Deliver to nobody, and record it."""
        outcome = self._sender.send(records, deadline)
        for place in outcome.delivered:
            record = records[place]
            sent = record if self._before_send is None else self._before_send.apply(record)  # it remembers what it said
            if isinstance(sent, bytes):
                self._tape.entries.append(self._entry(sent))
        return outcome

    def _entry(self, record: bytes) -> Entry:
        write = self._destination.wire if flags_of(record) & NATIVE else wire
        return Entry(accepted_at(record), record[:STAMP_BYTES], self.name, write(record))

    def reset(self) -> None:
        """In a forked child: forget whatever is half done."""
        self._sender.reset()

    def close(self) -> None:
        """There is nothing to close."""


def direct_entry(name: str, position: int, text: bytes) -> Entry:
    """What is recorded of a message of a direct `batch()`, which has no stamp.

    Args:
        name: The destination's.
        position: How many were recorded before it.
        text: Its JSON.
    """
    return Entry(time.monotonic(), b"direct %d" % position, name, text)
