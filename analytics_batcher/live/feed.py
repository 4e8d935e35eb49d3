"""What is kept of what came in, and how browsers hear of it: each from a position of its own."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .rows import FAULTY, WARNED, take_apart
from .seconds import Seconds

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from ..receiver import Reply, Request
    from .rows import Facts
    from .weather import Weather

MOST_MESSAGES: Final = 100_000
MOST_BYTES: Final = 128 * 2**20
MOST_BROWSERS: Final = 20
_BATCH: Final = 2_000
_PAUSE: Final = 0.1  # seconds: ten batches a second look alive, and cost little
_OVERHEAD: Final = 400  # bytes of the objects around an entry's texts, measured on 64 bits
# The places of a row's cells.
_KIND, _USER, _ACCOUNT, _EVENT, _VENDOR, _MARK = 2, 3, 4, 5, 10, 11


class Entry(NamedTuple):
    """One kept message.

    Attributes:
        number: 1 for the first; there are no gaps among those that are kept.
        row: Its row as JSON: number, milliseconds, the cells of `rows.Row`, and how many times its id has come.
        text: As it was sent.
        facts: Its request's.
        faults: What the vendor objects to in it.
        warnings: What the vendor will not do.
        key: What makes it the same as another one.
        cost: Bytes that it is counted with.
    """

    number: int
    row: bytes
    text: bytes
    facts: Facts
    faults: Sequence[str]
    warnings: Sequence[str]
    key: int | None
    cost: int


class Filter(NamedTuple):
    """Which messages are wanted; an empty text wants all. Letters match in either case.

    Attributes:
        kind: The whole kind.
        user: A part of the user or the account.
        event: A part of the event.
        text: A part of the message as it was sent.
        vendor: The whole vendor.
        faults: Only what a vendor objects to.
    """

    kind: str = ""
    user: str = ""
    event: str = ""
    text: str = ""
    vendor: str = ""
    faults: bool = False

    def wants(self, entry: Entry) -> bool:
        """Whether an entry is wanted."""
        row = json.loads(entry.row)
        return (
            self.kind in ("", row[_KIND])
            and self.vendor in ("", row[_VENDOR])
            and (not self.faults or bool(row[_MARK] & (FAULTY | WARNED)))
            and _within(self.user, row[_USER], row[_ACCOUNT])
            and _within(self.event, row[_EVENT])
            and _within(self.text, entry.text.decode())
        )


def _within(part: str, *texts: str) -> bool:
    return not part or any(part.lower() in text.lower() for text in texts)


class Feed:
    """The newest messages, within bounds, and the figures of the last seconds.

    Args:
        most_messages: Messages that are kept.
        most_bytes: Bytes that these may take, with what is around them.
    """

    def __init__(self, most_messages: int = MOST_MESSAGES, most_bytes: int = MOST_BYTES) -> None:
        self._most_messages = most_messages
        self._most_bytes = most_bytes
        self._run = secrets.token_hex(4)
        self._closed = threading.Event()
        # Guards all that follows, and tells of what is new.
        self._change = threading.Condition()
        self._entries: deque[Entry] = deque()
        self._bytes = 0
        self._last = 0
        self._cleared = 0
        self._seen: Counter[int] = Counter()
        self._seconds = Seconds()
        self._browsers = 0

    def add(self, request: Request, answer: Reply) -> None:
        """Keep a request's messages, and let the oldest go.

        Args:
            request: The request, with its body.
            answer: What it was answered.
        """
        at = time.time_ns() // 1_000_000
        facts, rows = take_apart(request, answer, at)
        of_request = sum(map(len, (*facts.faults, *facts.warnings, *facts.headers.values(), facts.answer)))
        with self._change:
            repeats = 0
            for place, row in enumerate(rows, 1):
                nth = 1 if row.key is None else self._seen[row.key] + 1
                if row.key is not None:
                    self._seen[row.key] = nth
                repeats += nth > 1
                number = self._last = self._last + 1
                text = json.dumps((number, at, *row.cells, nth), separators=(",", ":")).encode()
                said = sum(map(len, (*row.faults, *row.warnings)))
                # What belongs to the request goes with its last message.
                cost = len(text) + len(row.text) + said + _OVERHEAD + (of_request if place == len(rows) else 0)
                self._bytes += cost
                entry = Entry(number, text, row.text, facts, row.faults, row.warnings, row.key, cost)
                self._entries.append(entry)
            while len(self._entries) > self._most_messages or (self._entries and self._bytes > self._most_bytes):
                self._let_go(self._entries.popleft())
            self._seconds.count(facts, repeats)
            self._change.notify_all()

    def _let_go(self, entry: Entry) -> None:
        self._bytes -= entry.cost
        if entry.key is not None:
            self._seen[entry.key] -= 1
            if not self._seen[entry.key]:
                del self._seen[entry.key]

    def clear(self) -> None:
        """Forget everything that is kept; numbers go on."""
        with self._change:
            self._entries.clear()
            self._seen.clear()
            self._seconds.clear()
            self._bytes = 0
            self._cleared += 1
            self._change.notify_all()

    def close(self) -> None:
        """End every stream."""
        self._closed.set()
        with self._change:
            self._change.notify_all()

    def wake(self) -> None:
        """Let every stream look again."""
        with self._change:
            self._change.notify_all()

    @property
    def size(self) -> tuple[int, int]:
        """Messages that are kept, and the bytes that they are counted with."""
        with self._change:
            return len(self._entries), self._bytes

    def entry(self, number: int) -> Entry | None:
        """A kept message.

        Args:
            number: Its number.
        """
        with self._change:
            index = number - self._entries[0].number if self._entries else -1
            return self._entries[index] if 0 <= index < len(self._entries) else None

    def same(self, entry: Entry) -> list[int]:
        """The numbers of the kept messages with the same id, itself included."""
        if entry.key is None:
            return [entry.number]
        return [one.number for one in self._snapshot() if one.key == entry.key]

    def matching(self, wanted: Filter, after: int = 0) -> Generator[Entry, None, None]:
        """The kept messages that are wanted, oldest first.

        Args:
            wanted: Which.
            after: Only those behind this number.
        """
        for entry in self._snapshot():
            if entry.number > after and wanted.wants(entry):
                yield entry

    def holding(self, text: str, after: int = 0) -> tuple[list[int], int]:
        """Which kept messages hold a text, in either case of letters.

        Args:
            text: The text.
            after: Only those behind this number.

        Returns:
            Their numbers, and the number up to which was looked.
        """
        part = text.lower()
        kept = self._snapshot()
        found = [one.number for one in kept if one.number > after and part in one.text.decode().lower()]
        return found, kept[-1].number if kept else after

    def _snapshot(self) -> list[Entry]:
        with self._change:
            return list(self._entries)

    def stream(self, position: str, weather: Weather) -> Generator[bytes, None, None]:
        """Server-sent events, without end: rows as they come, the seconds' figures, and the weather.

        The stream knows only how far its browser is. One that reads slowly gets more at once, and of what has been let
        go meanwhile nothing.

        Args:
            position: The id of the last event that the browser has; empty if none.
            weather: What is told along.
        """
        with self._change:
            crowded = self._browsers >= MOST_BROWSERS
            self._browsers += not crowded
        if crowded:
            # Who is told so does not come again at once.
            yield b"retry: 30000\nevent: crowded\ndata: {}\n\n"
            return
        try:
            yield from self._events(position, weather)
        finally:
            with self._change:
                self._browsers -= 1

    def _events(self, position: str, weather: Weather) -> Generator[bytes, None, None]:
        cleared, after = self._read_position(position)
        if cleared is None:
            yield b"retry: 500\nevent: reset\ndata: {}\n\n"
        told: Mapping[str, Any] = {}
        next_figures = 0.0
        while not self._closed.is_set():
            rows, now_cleared = self._news(after)
            if now_cleared != cleared and cleared is not None:
                yield b"event: reset\ndata: {}\n\n"
            cleared = now_cleared
            if rows:
                after = rows[-1].number
                data = b",".join([entry.row for entry in rows])
                yield b"id: %s.%d.%d\ndata: [%b]\n\n" % (self._run.encode(), cleared, after, data)
            state = weather.state()
            if state != told or time.monotonic() >= next_figures:
                next_figures, told = time.monotonic() + 1.0, state
                yield _event("state", {**self._state(), "weather": state})
            if len(rows) < _BATCH:
                self._closed.wait(_PAUSE)
                self._wait(after, cleared, weather)

    def _read_position(self, position: str) -> tuple[int | None, int]:
        """How often had been cleared when the browser got its last event, and the number in it."""
        run, _, rest = position.partition(".")
        cleared, _, number = rest.partition(".")
        if run != self._run or not (cleared.isascii() and cleared.isdigit() and number.isascii() and number.isdigit()):
            return None, 0
        return int(cleared), int(number)

    def _news(self, after: int) -> tuple[list[Entry], int]:
        """The next entries, and how often was cleared."""
        with self._change:
            new = max(0, min(len(self._entries), self._last - after))
            start = len(self._entries) - new
            # Not a slice: that would walk over all that is older.
            return [self._entries[at] for at in range(start, start + min(new, _BATCH))], self._cleared

    def _state(self) -> dict[str, Any]:
        with self._change:
            first = self._entries[0].number if self._entries else self._last + 1
            kept = {"first": first, "last": self._last, "bytes": self._bytes}
            return {"kept": kept, "figures": self._seconds.figures()}

    def _wait(self, after: int, cleared: int, weather: Weather) -> None:
        """Wait for something new, at most until the next second's figures."""
        name = weather.now()[0]
        with self._change:
            self._change.wait_for(
                lambda: (
                    self._last > after or self._cleared != cleared or self._closed.is_set() or weather.now()[0] != name
                ),
                1.0 - _PAUSE,
            )


def _event(name: str, data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
