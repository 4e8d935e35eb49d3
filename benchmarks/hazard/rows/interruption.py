"""Calls that interrupt calls, exceptions thrown into them, callbacks that raise, threads."""

from __future__ import annotations

import gc
import random
import signal
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Any

from ..libraries import properties
from ..row import Row
from ..server import Recorder, Reply, Request
from ..verdict import Cell, Seen, arrive, cell, tally

if TYPE_CHECKING:
    from ..case import Case

_HANDLED = 1_000
_FINALIZED = 10_000
_THROWN = 2_000
_LATER = 1_000_000
_ROUND = 500
_SIGNALLED = 2_000
_PAUSE = (0.00005, 0.0005)


def _signals(case: Case) -> None:
    """Rounds of 2,000 calls and a flush, until the handler has run 1,000 times, in calls and not in a flush."""
    numbers, handled, calling, client = count(), [0], [False], case.client
    chance = random.Random(1)

    def handler(*_: Any) -> None:
        client.track(properties(next(numbers)))
        handled[0] += 1
        again()  # only now: a handler does not interrupt itself

    def again() -> None:
        if calling[0]:
            signal.setitimer(signal.ITIMER_REAL, chance.uniform(*_PAUSE))

    client.track(properties(next(numbers)))
    signal.signal(signal.SIGALRM, handler)
    case.at("track()")
    while handled[0] < _HANDLED:
        calling[0] = True
        again()
        for _ in range(_SIGNALLED):
            client.track(properties(next(numbers)))
        calling[0] = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        client.flush()
    case.say(tracked=next(numbers))
    case.flush()


class _Tracking:
    """Tracks in its finalizer. It refers to itself, so that the collector finalizes it, at any allocation."""

    def __init__(self, client: Any, numbers: Any) -> None:
        self._client, self._numbers, self._itself = client, numbers, self

    def __del__(self) -> None:
        self._client.track(properties(next(self._numbers)))


def _finalizers(case: Case) -> None:
    """10,000 calls, before each of which an object becomes garbage that tracks in `__del__`.

    The collector meets it a varied number of allocations later: mostly in a call, in this thread or in the library's.
    """
    numbers, client, chance = count(), case.client, random.Random(1)
    client.track(properties(next(numbers)))
    case.at("track()")
    for _ in range(_FINALIZED // _ROUND):
        for _ in range(_ROUND):
            _Tracking(client, numbers)
            gc.set_threshold(gc.get_count()[0] + chance.randrange(1, 50))
            client.track(properties(next(numbers)))
        client.flush()
    gc.collect()
    gc.set_threshold(700)
    case.say(tracked=next(numbers))
    case.flush()


def _all_tracked(seen: Seen) -> Cell:
    if "tracked" not in seen.facts:
        return cell(False, seen.failed() or "did not come that far")
    text, fine = tally(seen, range(seen.facts["tracked"]))
    return cell(fine and not seen.failed(), text, seen.failed())


def _thrown(case: Case) -> None:
    """A handler raises 2,000 times in the middle of calls. Then 100 more calls and a flush."""
    armed, thrown, numbers, client = [False], 0, count(), case.client

    def handler(*_: Any) -> None:
        if armed[0]:
            armed[0] = False
            raise KeyboardInterrupt

    client.track(properties(next(numbers)))
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    case.at("track()")
    while thrown < _THROWN:
        try:
            armed[0] = True
            while True:
                client.track(properties(next(numbers)))
        except KeyboardInterrupt:
            thrown += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    case.flush()
    case.track(range(_LATER, _LATER + 100))
    case.flush()


def _callback(case: Case) -> None:
    """The first 5 events are refused, and the callback that is told of it raises. Then 5 more."""

    def on_error(*_: Any) -> None:
        raise LookupError("the application's own")

    case.on_error = on_error
    case.track(range(5), poison=True)
    case.flush()
    time.sleep(1.0)
    case.track(range(100, 105))
    case.flush()


def refuses(request: Request, _: Recorder) -> Reply:
    """A batch that holds a poisonous event is refused."""
    return Reply(400 if any("poison" in str(event) for event in request.events) else 200)


def _threads(case: Case) -> None:
    """8 threads track 1,000 each while the main one flushes."""
    threads = [
        threading.Thread(target=_track, args=(case, range(first, first + 1_000))) for first in range(0, 8_000, 1_000)
    ]
    client = case.client
    case.at("flush()")
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        try:
            client.flush()
        except Exception as error:  # noqa: BLE001 - whatever it raises is a fact
            case.say(complained=type(error).__name__)
        time.sleep(0.01)
    case.flush()


def _track(case: Case, indexes: range) -> None:
    for index in indexes:
        try:
            case.client.track(properties(index))
        except Exception as error:  # noqa: BLE001 - as above
            case.say(raised=type(error).__name__)


ROWS = [
    Row(
        "signal",
        "`track()` in a signal handler that interrupts `track()`, 1,000 times",
        "nothing hangs, and every event arrives once",
        _signals,
        _all_tracked,
    ),
    Row(
        "finalizer",
        "`track()` in a `__del__` that interrupts `track()`, 10,000 times",
        "nothing hangs, and every event arrives once",
        _finalizers,
        _all_tracked,
    ),
    Row(
        "thrown",
        "an exception thrown into `track()` (Ctrl-C, a soft time limit), 2,000 times",
        "100 later calls return, and their events arrive once",
        _thrown,
        arrive(range(_LATER, _LATER + 100)),
    ),
    Row(
        "callback",
        "the error callback raises",
        "5 events tracked later arrive once, and `flush()` returns",
        _callback,
        arrive(range(100, 105)),
        weather=refuses,
        absent={"mixpanel": "no callback"},
    ),
    Row(
        "threads",
        "8 threads track 1,000 each while another flushes",
        "all 8,000 arrive once",
        _threads,
        arrive(range(8_000)),
        limit=30,
    ),
]
