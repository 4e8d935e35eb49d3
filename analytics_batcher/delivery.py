"""The vendor sender: packs a batch, posts it, and turns the destination's verdict into an outcome."""

from __future__ import annotations

import dataclasses
import gzip
import re
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from .batch import Limits, fill, fits
from .destinations import Action, Unsupported, Verdict
from .errors import DropReason, TransportError
from .message import message_id_of
from .retry import Retry, Schedule
from .sender import Outcome
from .stamp import STAMP_BYTES
from .stats import Delivery, Loss
from .text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .answer import Answer
    from .before_send import BeforeSend
    from .destinations import Destination
    from .transport import Transport

HALT_PROBE: Final = 60.0
"""Seconds between two probes while the vendor refuses the request itself."""
_UNFIT: Final = re.compile(r"[^A-Za-z0-9._-]")
_MANY: Final = 20
_REFUSED_BATCHES: Final = 2
_SUSPECTS: Final = 3
_REASON_CHARACTERS: Final = 1_000
_FORBIDDEN: Final = 403
_TOO_MANY: Final = 429
_NONE: Final = TransportError("no answer came", "request")


@dataclass(slots=True)
class Attempt:
    """One request: what it was made of, and what came of it. Used by one thread at a time."""

    records: Sequence[bytes]
    chosen: list[int]  # the positions of those that are in it
    stamps: list[bytes]  # theirs, where they were met before
    losses: list[Loss]  # what was found unfit on the way
    tried: int
    number: int  # the most attempts that one of its messages has had, this one included
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    answer: Answer | TransportError = _NONE
    seconds: float = 0.0
    requests: int = 0


class Standing:
    """What a vendor's refusals mean for all of its requests: shared by the senders of one consumer."""

    __slots__ = ("content_searched", "forbidden", "refused_batches")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.refused_batches = 0  # batches of many, in a row, of which every message was refused
        self.forbidden = False  # whether the last answer was a halt that the content may have caused
        self.content_searched = False  # such a halt is searched for a bad message once


class BatchSender:
    """Sends to one destination. Used by one thread at a time, as all senders of one consumer are.

    Args:
        destination: The vendor.
        transport: Makes the requests.
        limits: The destination's own limits, or lower ones.
        retry: The waits between attempts.
        before_send: May change or drop each message, once; this sender's own.
        gzip: Whether bodies are compressed.
        standing: That of the consumer's other senders, if it has any.
    """

    def __init__(
        self,
        destination: Destination,
        transport: Transport,
        limits: Limits,
        retry: Retry,
        *,
        before_send: BeforeSend | None = None,
        gzip: bool = False,
        standing: Standing | None = None,
    ) -> None:
        self.name = destination.name
        self.batch_messages = limits.messages
        self.batch_bytes = limits.bytes
        self._destination = destination
        self._write = getattr(destination, "wires", lambda records: [*map(destination.wire, records)])
        self._transport = transport
        self._limits = limits
        self._before_send = before_send
        self._gzip = gzip
        self._schedule = Schedule(retry)
        self._standing = Standing() if standing is None else standing
        self._begin()

    def _begin(self) -> None:
        self._schedule.reset()
        # Groups of stamps that are to be tried apart, in order, because they were refused together.
        self._plan: list[list[bytes]] = []
        self._attempts: dict[bytes, int] = {}  # by stamp, of messages sent and not settled
        self._unjudged: Sequence[bytes] = ()  # records sent for the first time, until their answer is judged
        if self._before_send is not None:
            self._before_send.reset()
        self._ahead = b""  # the stamp of the last one read that did not fit, which goes back to the buffer meanwhile
        self._searching = 0  # how many messages the search for a bad one began with
        self._found_good = False  # whether that search delivered anything
        self._standing.reset()
        self._suspects: list[bytes] = []

    @property
    def searching(self) -> bool:
        """Whether it tries the messages of a refused batch apart."""
        return bool(self._plan)

    def reset(self) -> None:
        """In a forked child: forget the connections and whatever is half done."""
        self._transport.reopen()
        self._begin()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def send(self, records: Sequence[bytes], deadline: float | None) -> Outcome:
        """Make at most one request, out of the oldest records. Raises nothing for the network or the vendor."""
        attempt = self.prepare(records)
        if isinstance(attempt, Outcome):
            return attempt
        self.post(attempt, deadline)
        return self.conclude(attempt)

    def prepare(self, records: Sequence[bytes]) -> Attempt | Outcome:
        """Pack a request out of the oldest records; an outcome, if none of them can be sent."""
        chosen: list[int] = []
        losses: list[Loss] = []
        stamps: list[bytes] = []
        number, tried = 1, len(records)
        self._count_unjudged()  # something interrupted that attempt
        batch = self._whole(records)
        if batch is not None:
            chosen = [*range(tried)]
            self._unjudged = records
        else:
            candidates = self._candidates(records)
            batch = fill(self._wires(records, candidates, chosen, losses), self._limits, self._destination.envelope)
            if chosen[len(batch) :]:  # the last one read may not have fitted
                self._ahead = records[chosen.pop()][:STAMP_BYTES]
            lost = [place for loss in losses for place in loss.positions]
            tried = len(records) if self._plan else max([*chosen[-1:], *lost]) + 1
            if not batch:
                return Outcome(tried, losses=losses)
            stamps = [records[place][:STAMP_BYTES] for place in chosen]
            number = self._count_attempts(stamps)
        body, headers = self._destination.body(batch, time.time()), self._destination.headers()
        if self._gzip:
            body, headers = gzip.compress(body, mtime=0), {**headers, "Content-Encoding": "gzip"}
        return Attempt(records, chosen, stamps, losses, tried, number, headers, body)

    def _whole(self, records: Sequence[bytes]) -> list[bytes] | None:
        """All of the records as one batch, where nothing is known of any and all of them fit: most batches are so."""
        if self._attempts or self._plan or self._before_send is not None:
            return None
        try:
            wires: list[bytes] = self._write(records)
            return wires if fits(wires, self._limits, self._destination.envelope) else None
        except Exception:  # noqa: BLE001 - one by one it will be seen whose it is
            return None

    def post(self, attempt: Attempt, deadline: float | None) -> None:
        """Make the request; another thread may, while this sender is left alone."""
        before, started = self._transport.requests, time.monotonic()
        try:
            attempt.answer = self._transport.post(self._destination.url, attempt.headers, attempt.body, deadline)
        except TransportError as error:
            attempt.answer = error.with_traceback(None)  # whose frames would hold the body
        attempt.seconds = time.monotonic() - started
        attempt.requests = self._transport.requests - before

    def conclude(self, attempt: Attempt) -> Outcome:
        """Judge the answer."""
        records, chosen, stamps, requests = attempt.records, attempt.chosen, attempt.stamps, attempt.requests
        verdict = self._read(attempt.answer)
        if verdict.action is Action.DELIVERED:
            self._unjudged = ()
        elif not stamps:  # they will be met again
            stamps = self._count_unjudged()
        if verdict.rejected_ids:
            verdict = _with_positions(verdict, [records[place] for place in chosen])
        delivered, more, wait = self._judge(verdict, chosen, stamps)
        if not isinstance(attempt.answer, TransportError):
            more = [loss._replace(status=attempt.answer.status) for loss in more]
        if len(delivered) == len(self._attempts):  # the rule: nothing is left of which to remember them
            self._attempts = {}
        return Outcome(
            tried=attempt.tried,
            delivered=delivered,
            losses=self._with_suspects(attempt.losses + more, records),
            wait=wait,
            requests=requests,
            retries=requests if attempt.number > 1 else max(requests - 1, 0),  # the transport's, on a new connection
            error=None if verdict.action is Action.DELIVERED else verdict.detail,
            halted=wait == HALT_PROBE and verdict.action is not Action.RETRY,
            throttled=not isinstance(attempt.answer, TransportError) and attempt.answer.status == _TOO_MANY,
            receipt=self._receipt(attempt, len(delivered)) if delivered else None,
        )

    def _candidates(self, records: Sequence[bytes]) -> Sequence[int]:
        """The positions to try, in their order; drops what is remembered of messages settled, evicted or expired."""
        if not (self._attempts or self._before_send or self._plan):
            return range(len(records))
        places = {record[:STAMP_BYTES]: place for place, record in enumerate(records)}
        known = {*places, self._ahead}
        for stamp in self._attempts.keys() - known:
            del self._attempts[stamp]
        if self._before_send is not None:
            self._before_send.keep(known)
        groups = ([stamp for stamp in group if stamp in places] for group in self._plan)
        self._plan = [group for group in groups if group]
        # Without a search there are no suspects: all are tried together again.
        self._suspects = [stamp for stamp in self._suspects if stamp in places] if self._plan else []
        return [places[stamp] for stamp in self._plan[0]] if self._plan else range(len(records))

    def _wires(
        self, records: Sequence[bytes], candidates: Sequence[int], chosen: list[int], losses: list[Loss]
    ) -> Iterator[bytes]:
        for place in candidates:
            wire = self._wire(records[place])
            if isinstance(wire, bytes):
                chosen.append(place)
                yield wire
            else:
                losses.append(Loss(wire[0], wire[1], (place,)))

    def _count_attempts(self, stamps: list[bytes]) -> int:
        """Count one more attempt for each message of a batch.

        Returns:
            The most that one of them has had.
        """
        known = self._attempts
        if not known:
            self._attempts = dict.fromkeys(stamps, 1)
            return 1
        for stamp in stamps:
            known[stamp] = known.get(stamp, 0) + 1
        return max(map(known.__getitem__, stamps))

    def _count_unjudged(self) -> list[bytes]:
        stamps = [record[:STAMP_BYTES] for record in self._unjudged]
        self._unjudged = ()
        if stamps:
            self._count_attempts(stamps)
        return stamps

    def _wire(self, record: bytes) -> bytes | tuple[DropReason, str]:
        if self._before_send is not None:
            wanted = self._before_send.apply(record)
            if not isinstance(wanted, bytes):
                return wanted
            record = wanted
        try:
            wire = self._destination.wire(record)
        except Unsupported as error:
            return DropReason.UNSUPPORTED, str(error)
        except Exception as error:  # noqa: BLE001 - one message that cannot be mapped must not hold up the others
            return DropReason.INVALID, f"no form could be made of it: {type(error).__name__}"
        if len(wire) > self._limits.message_bytes:
            return DropReason.TOO_LARGE, f"{len(wire)} bytes; allowed are {self._limits.message_bytes}"
        return wire

    def _receipt(self, attempt: Attempt, count: int) -> Delivery:
        status = cast("Answer", attempt.answer).status
        return Delivery(count, len(attempt.body), attempt.seconds, status, attempt.number, self.name)

    def _read(self, answer: Answer | TransportError) -> Verdict:
        if isinstance(answer, TransportError):
            return Verdict(Action.RETRY, f"{answer.kind}: {answer}")
        verdict = self._destination.verdict(answer)
        if verdict.action is Action.DELIVERED and not (verdict.rejected or verdict.rejected_ids):
            return verdict  # there is nothing to say
        # A destination escapes and masks what it quotes; one that an application brings along may not.
        show = partial(printable, limit=_REASON_CHARACTERS, hide=self._destination.secrets)
        return dataclasses.replace(
            verdict,
            detail=show(verdict.detail),
            rejected={place: show(why) for place, why in verdict.rejected.items()},
            rejected_ids={name: show(why) for name, why in verdict.rejected_ids.items()},
        )

    def _judge(
        self, verdict: Verdict, chosen: Sequence[int], stamps: list[bytes]
    ) -> tuple[Sequence[int], list[Loss], float]:
        """What was delivered, what is lost, and how long to wait."""
        if verdict.action is Action.DELIVERED:
            return self._delivered(verdict, chosen, stamps)
        if verdict.action is Action.RETRY:
            return (), [], verdict.wait if verdict.wait is not None else self._schedule.next()
        if verdict.action is Action.SPLIT:
            if len(chosen) > 1:
                return self._split(stamps)
            self._done(stamps)
            return (), [Loss(DropReason.TOO_LARGE, verdict.detail, chosen)], 0.0
        if verdict.action is Action.REJECTED:
            return self._rejected(verdict, chosen, stamps)
        return self._halted(verdict, stamps)

    def _delivered(
        self, verdict: Verdict, chosen: Sequence[int], stamps: list[bytes]
    ) -> tuple[Sequence[int], list[Loss], float]:
        rejected = {chosen[index]: why for index, why in verdict.rejected.items() if 0 <= index < len(chosen)}
        delivered = [place for place in chosen if place not in rejected] if rejected else chosen
        if delivered:
            self._standing.refused_batches = 0
            self._found_good = True
            self._standing.forbidden = self._standing.content_searched = False
        self._schedule.reset()
        self._done(stamps)
        return delivered, [Loss(DropReason.REJECTED, why, (place,)) for place, why in rejected.items()], 0.0

    def _rejected(
        self, verdict: Verdict, chosen: Sequence[int], stamps: list[bytes]
    ) -> tuple[Sequence[int], list[Loss], float]:
        many = len(chosen) >= _MANY
        if not self._plan and many and self._standing.refused_batches >= _REFUSED_BATCHES:
            return (), [], HALT_PROBE
        if len(chosen) > 1:
            return self._split(stamps)
        self._done(stamps)
        return (), [Loss(DropReason.REJECTED, verdict.detail, chosen)], 0.0

    def _halted(self, verdict: Verdict, stamps: list[bytes]) -> tuple[Sequence[int], list[Loss], float]:
        first = not self._standing.forbidden
        self._standing.forbidden = verdict.by_content
        if not verdict.by_content or (first and not self._plan) or self._standing.content_searched:
            return (), [], HALT_PROBE
        if len(stamps) > 1:
            return self._split(stamps)
        self._suspects += stamps
        if not self._found_good and (len(self._suspects) >= _SUSPECTS or len(self._plan) <= 1):
            # It is not one message that is disliked.
            self._plan.clear()
            self._suspects.clear()
            self._standing.content_searched = True
            return (), [], HALT_PROBE
        self._done(stamps)
        return (), [], 0.0

    def _split(self, stamps: list[bytes]) -> tuple[Sequence[int], list[Loss], float]:
        if not self._plan:
            self._searching = len(stamps)
            self._found_good = False
        middle = len(stamps) // 2
        rest = [stamp for stamp in self._plan[0] if stamp not in stamps] if self._plan else []
        self._plan[:1] = [group for group in (stamps[:middle], stamps[middle:], rest) if group]
        return (), [], 0.0

    def _done(self, stamps: Sequence[bytes]) -> None:
        """Take a group off the plan; count the search's result with the last one."""
        if not self._plan:
            return
        rest = [stamp for stamp in self._plan[0] if stamp not in stamps]
        self._plan[:1] = [rest] if rest else []
        if not self._plan and not self._found_good and self._searching >= _MANY:
            self._standing.refused_batches += 1

    def _with_suspects(self, losses: list[Loss], records: Sequence[bytes]) -> list[Loss]:
        """Once the rest of a forbidden batch went through, those that never did were the reason."""
        if self._plan or not self._suspects:
            return losses
        places = {record[:STAMP_BYTES]: place for place, record in enumerate(records)}
        positions = [places[stamp] for stamp in self._suspects]
        self._suspects = []
        if not self._found_good:
            return losses  # they stay, and are tried again
        return [*losses, Loss(DropReason.REJECTED, "HTTP 403, while others were taken", positions, _FORBIDDEN)]


def _with_positions(verdict: Verdict, records: Sequence[bytes]) -> Verdict:
    """Where the vendor named messages by their ids, cut to 64 of few characters as Jitsu does, find their positions."""
    known = {_UNFIT.sub("_", message_id_of(record)[:64]): place for place, record in enumerate(records)}
    found = {known[name]: why for name, why in verdict.rejected_ids.items() if name in known}
    return dataclasses.replace(verdict, rejected={**verdict.rejected, **found})
