"""Sends dead letters again."""

from __future__ import annotations

import errno
import time
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .calls import segment_flags
from .claim import claimed, folder_of
from .client import Client
from .dead_letters import Letter, append, older_of, read, with_reason
from .encoding import Unserializable
from .errors import DropReason, InvalidMessage
from .given import message_id as checked_message_id
from .given import timestamp as checked_timestamp
from .lanes import drain_all
from .message import decode, encode, native_flags, normalise
from .settings import file_path, number
from .stamp import HEAD_BYTES, ID_GIVEN, STAMP_BYTES, TIME_GIVEN, flags_of, new_head
from .text import printable

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .lanes import Lane
    from .report import Letters

UNREADABLE: Final = "not a dead letter"
UNKNOWN: Final = "the client has no destination of that name"
UNFILTERED: Final = "written before a before_send, which the client does not have"
_REPORT_SECONDS: Final = 10.0


@dataclass(frozen=True)
class ReplayResult:
    """What a replay came to: `found == delivered + filtered + failed + unsent + left`. Truthy: none is left or failed.

    Attributes:
        found: Letters found, those that an earlier, interrupted replay had left included.
        delivered: Those that the vendors took, by the destination's name.
        filtered: Those that `before_send` dropped now, which are gone.
        failed: Those that failed again and stay in the file, by their new reason.
        unsent: Lines that were not sent and stay in the file as they are, by the reason.
        left: Those that it did not come to; the next replay does.
        error: What ended it early, or `None`.
    """

    found: int = 0
    delivered: Mapping[str, int] = field(default_factory=dict)
    filtered: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    unsent: Mapping[str, int] = field(default_factory=dict)
    left: int = 0
    error: str | None = None

    def __bool__(self) -> bool:
        return self.error is None and not self.left and not self.failed and not self.unsent


def replay(path: str | os.PathLike[str], client: Client | None = None, *, timeout: float = 60.0) -> ReplayResult:
    """Send dead letters again, with the ids and times they had; those that fail again stay in the file.

    Other processes may write to the file meanwhile. It may be interrupted and repeated: no letter is lost; what was in
    flight, at most one batch for each destination, is sent again with the same ids.

    Args:
        path: The file that a client had as `dead_letters`; the older one beside it is taken too.
        client: Sends them; one that nobody else uses meanwhile, not with `when_full="drop_oldest"`. `None`: one is made
            by `Client.from_env()`.
        timeout: The most seconds for a batch, repeats included; then it ends.

    Raises:
        BlockingIOError: If another replay of the file is at work.
        OSError: If the file cannot be taken.
        ValueError: If a setting is wrong.
    """
    return Replay(path, client, timeout=timeout).run()


class _Stopped(Exception):  # noqa: N818 - it ends a replay, and says why
    """The replay cannot go on."""


class _Fate(NamedTuple):
    """Why a message was dropped."""

    reason: DropReason
    detail: str
    status: int | None = None


@dataclass
class _Entry:
    """A line of a batch; `stamp` is that of the record in the client's buffer, if it came so far."""

    line: bytes
    letter: Letter | None
    lane: Lane | None = None
    unsent: str = ""
    stamp: bytes = b""
    fate: _Fate | None = None


class _Tap:
    """Hears what becomes of the messages of a replay, in the place of the client's dead letters.

    Locking: none. `fates` is filled in the consumer, and read here after it has reported.

    Args:
        before: The client's own dead letters, which get what is none of the replay's.
    """

    def __init__(self, before: Letters | None) -> None:
        self.before = before
        self.stamps: set[bytes] = set()
        self.fates: dict[bytes, _Fate] = {}

    def write(
        self, reason: DropReason, detail: str, status: int | None, records: Sequence[bytes]
    ) -> tuple[int, str] | None:
        """Hear of messages that were dropped."""
        others = []
        for record in records:
            stamp = record[:STAMP_BYTES]
            if stamp in self.stamps:
                self.fates[stamp] = _Fate(reason, detail, status)
            else:
                others.append(record)
        return self.before.write(reason, detail, status, others) if self.before is not None and others else None

    def reset(self) -> None:
        """In a forked child."""
        if self.before is not None:
            self.before.reset()


class Replay:
    """One replay, whose result can be read although it was interrupted.

    Args:
        path: As for `replay`.
        client: As for `replay`.
        timeout: As for `replay`.

    Attributes:
        path: The file's absolute path.
    """

    def __init__(self, path: str | os.PathLike[str], client: Client | None = None, *, timeout: float = 60.0) -> None:
        self.path = Path(file_path("path", path)).absolute()
        self._timeout = number("timeout", timeout, above=0)
        self._client = client
        self._taps: dict[str, _Tap] = {}
        self._lanes: dict[str, Lane] = {}
        self._filters = False
        self._found = 0
        self._error: str | None = None
        self._delivered: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._unsent: Counter[str] = Counter()
        self._filtered = 0

    @property
    def result(self) -> ReplayResult:
        """What it came to so far."""
        settled = self._delivered.total() + self._failed.total() + self._unsent.total() + self._filtered
        return ReplayResult(
            found=self._found,
            delivered=dict(self._delivered),
            filtered=self._filtered,
            failed=dict(self._failed),
            unsent=dict(self._unsent),
            left=self._found - settled,
            error=self._error,
        )

    def run(self, hear: Callable[[], object] = lambda: None) -> ReplayResult:
        """Take the letters, and send them.

        Args:
            hear: Called after each batch; `result` then says how far it is.

        Raises:
            BlockingIOError: As for `replay`.
            OSError: As for `replay`.
            ValueError: As for `replay`.
        """
        with ExitStack() as stack:
            stack.enter_context(self._connected())
            if any(file.exists() for file in (self.path, older_of(self.path), folder_of(self.path))):
                claim = stack.enter_context(claimed(self.path))
                claim.take()
                self._found = sum(_lines_in(file, offset) for file, offset in claim.files())
                try:
                    for file, offset in claim.files():
                        for batch, end in self._batches(file, offset):
                            self._settle(batch)
                            claim.settle(file, end)
                            self._count(batch)
                            hear()
                        claim.remove(file)
                    claim.end()
                except _Stopped as stopped:
                    self._error = str(stopped)
                except OSError as error:
                    self._error = f"{error.strerror or type(error).__name__}: {printable(str(self.path))}"
            elif not self.path.parent.is_dir():
                raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(self.path.parent))
        return self.result

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Have a client, and hear what becomes of its messages."""
        own = self._client is None
        # Without a thread: a flush then returns when everything is reported, and Ctrl-C interrupts what it waits for.
        own_options = {"background": False, "when_full": "drop_newest", "buffer": None, "dead_letters": None}
        client = self._client or Client.from_env(**own_options)
        options, lanes = client._options, client._lanes  # noqa: SLF001 - they are for the package
        if options.when_full == "drop_oldest" or not options.enabled:
            raise ValueError('client: allowed is one that is enabled, and not with when_full="drop_oldest"')
        self._filters = options.before_send is not None
        self._lanes = {lane.destination.name: lane for lane in lanes}
        self._taps = {name: _Tap(lane.pipeline.reporter.letters) for name, lane in self._lanes.items()}
        try:
            for name, lane in self._lanes.items():
                lane.pipeline.reporter.letters = self._taps[name]
            yield
        finally:
            for name, lane in self._lanes.items():
                lane.pipeline.reporter.letters = self._taps[name].before
            if own:
                client.shutdown(0)

    def _batches(self, file: Path, offset: int) -> Iterator[tuple[list[_Entry], int]]:
        """The letters of a file, as many at once as make one request to each destination; and where each lot ends."""
        with file.open("rb") as opened:
            opened.seek(offset)
            batch: list[_Entry] = []
            counts, size = Counter[str](), 0
            for line in opened:
                entry = self._entry(line)
                if batch and entry is not None and not self._fits(entry, counts, size):
                    yield batch, offset
                    batch, counts, size = [], Counter(), 0
                offset += len(line)
                if entry is not None:
                    batch.append(entry)
                    size += len(line)
                    counts[entry.lane.destination.name if entry.lane else ""] += 1
            yield batch, offset

    def _fits(self, entry: _Entry, counts: Mapping[str, int], size: int) -> bool:
        limits = [lane.limits for lane in self._lanes.values()]
        if size + len(entry.line) > min(limit.bytes for limit in limits):
            return False
        name = entry.lane.destination.name if entry.lane else ""
        most = entry.lane.limits.messages if entry.lane else max(limit.messages for limit in limits)
        return counts[name] < most

    def _entry(self, line: bytes) -> _Entry | None:
        if not line.strip():
            return None
        if not line.endswith(b"\n"):
            line += b"\n"
        letter = read(line)
        if letter is None:
            return _Entry(line, None, unsent=UNREADABLE)
        lane = self._lanes.get(letter.destination)
        if lane is None:
            return _Entry(line, letter, unsent=UNKNOWN)
        if letter.before_send and not self._filters:
            return _Entry(line, letter, unsent=UNFILTERED)
        return _Entry(line, letter, lane)

    def _settle(self, batch: list[_Entry]) -> None:
        """Send a batch, and put back into the file what failed."""
        for entry in batch:
            if entry.lane is not None and entry.letter is not None:
                self._put(entry, entry.letter, entry.lane)
        self._flush()
        for entry in batch:
            if entry.stamp and entry.lane is not None:
                entry.fate = self._taps[entry.lane.destination.name].fates.get(entry.stamp)
        for tap in self._taps.values():
            tap.stamps.clear()
            tap.fates.clear()
        lines = b"".join(self._kept(entry) for entry in batch)
        if lines:
            append(self.path, lines)  # and nothing is moved away for them, or it might be given up

    def _kept(self, entry: _Entry) -> bytes:
        if entry.unsent:
            return entry.line
        if entry.fate is None or entry.fate.reason is DropReason.FILTERED or entry.letter is None:
            return b""
        return with_reason(entry.letter, *entry.fate)

    def _count(self, batch: list[_Entry]) -> None:
        for entry in batch:
            if entry.unsent:
                self._unsent[entry.unsent] += 1
            elif entry.fate is None and entry.lane is not None:
                self._delivered[entry.lane.destination.name] += 1
            elif entry.fate is not None and entry.fate.reason is DropReason.FILTERED:
                self._filtered += 1
            elif entry.fate is not None:
                self._failed[str(entry.fate.reason)] += 1

    def _put(self, entry: _Entry, letter: Letter, lane: Lane) -> None:
        record = _record_of(letter, lane)
        if isinstance(record, _Fate):
            entry.fate = record
            return
        entry.stamp = record[:STAMP_BYTES]
        self._taps[lane.destination.name].stamps.add(entry.stamp)
        reason = lane.buffer.put(record)
        if reason is DropReason.QUEUE_FULL:
            self._flush()
            reason = lane.buffer.put(record)
        if reason is DropReason.CLOSED:
            raise _Stopped("the client was shut down")
        if reason is not None:
            entry.stamp, entry.fate = b"", _Fate(reason, "")

    def _flush(self) -> None:
        """Wait until everything is settled, and reported."""
        deadline = time.monotonic() + self._timeout
        # Not patient: there is no waiting for an attempt that is due only later, as after a wrong token.
        late = drain_all([(lane.pipeline, deadline) for lane in self._lanes.values()], patient=False)
        for pipeline in late:
            error = printable(pipeline.stats().last_error or "none")
            why = f"{pipeline.name}: a batch was not settled, and would not be within {self._timeout:g} s"
            raise _Stopped(f"{why}; the last error: {error}")
        for lane in self._lanes.values():
            if not lane.pipeline.await_step(_REPORT_SECONDS):
                raise _Stopped("the client did not say in time what became of a batch")


def _lines_in(file: Path, offset: int) -> int:
    with file.open("rb") as opened:
        opened.seek(offset)
        return sum(1 for line in opened if line.strip())


def _record_of(letter: Letter, lane: Lane) -> bytes | _Fate:
    """The record that a call would make of the letter's message; or why none would be accepted."""
    try:
        record = _native_record(letter, lane) if letter.native else _neutral_record(letter)
        unfit = None if letter.native else lane.check(decode(record))
    except InvalidMessage as error:
        return _Fate(DropReason.INVALID, error.detail)
    except Unserializable as error:
        return _Fate(DropReason.UNSERIALIZABLE, str(error))
    except Exception as error:  # noqa: BLE001 - a letter may have been edited: a field is missing
        return _Fate(DropReason.INVALID, f"it cannot be checked: {type(error).__name__}")
    unfit = unfit or lane.excess(record[HEAD_BYTES:], flags_of(record))
    return record if unfit is None else _Fate(*unfit)


def _native_record(letter: Letter, lane: Lane) -> bytes:
    flags = native_flags(letter.message, lane.destination.id_field, lane.destination.time_field)
    return new_head(flags) + encode(letter.message)


def _neutral_record(letter: Letter) -> bytes:
    message: dict[str, Any] = {"type": "", **letter.message}
    moment, own_id = message.pop("timestamp", None), message.pop("messageId", None)
    plain = normalise(message)
    flags = segment_flags(message)
    if moment is not None:
        message["timestamp"] = checked_timestamp(moment)
        flags |= TIME_GIVEN
    if own_id is not None:
        message["messageId"] = checked_message_id(own_id)
        flags |= ID_GIVEN
    return new_head(flags) + encode(message, plain=plain)
