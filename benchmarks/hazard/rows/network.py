"""An endpoint that is down, slow, silent, or cannot be found."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from ..libraries import properties
from ..row import Row
from ..server import Recorder, Refusing, Reply, Request
from ..verdict import Cell, Seen, arrive, cell, ends, returns, tally
from .endings import slow

if TYPE_CHECKING:
    from ..case import Case

_OUTAGE = 3.0
_EVENTS = range(20)
_WAIT = 2.0
_PATIENCE = 12.0
_BLOCKS = 0.2
_NAME = "collector.invalid"


def hangs(_: Request, __: Recorder) -> Reply:
    """Requests are read and never answered."""
    return Reply(how="hang", take=False)


def _drips(_: Request, __: Recorder) -> Reply:
    return Reply(how="drip")


def _outage(_: Request, recorder: Recorder) -> Reply:
    return Reply(503 if recorder.since_first() < _OUTAGE else 200)


def _cuts(_: Request, recorder: Recorder) -> Reply:
    """The first connection is cut before the batch is taken, the second after it."""
    turn = len(recorder.requests)
    return Reply(how="cut", take=turn == 2) if turn <= 2 else Reply()


def _asks_for_patience(_: Request, recorder: Recorder) -> Reply:
    return Reply(429, headers={"Retry-After": f"{_WAIT:.0f}"}) if len(recorder.requests) == 1 else Reply()


def _flush(case: Case) -> None:
    case.track(range(5))
    case.flush()
    case.leave()


def _close(case: Case) -> None:
    case.track(range(5))
    case.close()
    case.leave()


def _slow_calls(case: Case) -> None:
    """300 calls over three seconds; the longest of them counts."""
    client, longest = case.client, 0.0
    case.at("track()")
    for index in range(300):
        began = time.monotonic()
        client.track(properties(index))
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.01)
    case.say(longest=longest)


def _longest(seen: Seen) -> Cell:
    longest = seen.facts.get("longest")
    text = "" if longest is None else f"{longest * 1e3:.0f} ms"
    return cell(longest is not None and longest <= _BLOCKS and not seen.hung(), text, seen.hung())


def _without_names(case: Case) -> None:
    """The endpoint's name is not found for three seconds: the resolver is replaced, so that no look-up leaves."""
    begun, look_up = time.monotonic(), socket.getaddrinfo

    def resolver(host: Any, *arguments: Any, **options: Any) -> Any:
        if host in {_NAME, _NAME.encode()}:
            if time.monotonic() - begun < _OUTAGE:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            host = "127.0.0.1"
        return look_up(host, *arguments, **options)

    socket.getaddrinfo = resolver
    case.url = case.url.replace("127.0.0.1", _NAME)
    case.track(_EVENTS)
    case.deliver()


def _track_and_deliver(count: int) -> Any:
    def work(case: Case) -> None:
        case.track(range(count))
        case.deliver()

    return work


def _same_ids(seen: Seen) -> Cell:
    """Each event arrives, and where one was sent again it was under its id."""
    ids: dict[int, set[str]] = {}
    for request in seen.requests:
        for index, one in zip(request.indexes, request.ids, strict=True):
            ids.setdefault(index, set()).add(one)
    there = sum(seen.arrivals()[index] > 0 for index in _EVENTS)
    same = all(len(found) == 1 for found in ids.values())
    fine = same and there == len(_EVENTS) and not seen.failed()
    return cell(fine, f"{there} of {len(_EVENTS)}", "" if same else "new ids", seen.failed())


def _patient(seen: Seen) -> Cell:
    """Each event arrives once, and none is sent again before it is time."""
    text, fine = tally(seen, _EVENTS)
    moments = [request.moment for request in seen.requests]
    early = len(moments) > 1 and moments[1] - moments[0] < _WAIT - 0.1
    asked = f"asks again after {moments[1] - moments[0]:.1f} s" if early else ""
    return cell(fine and not early and not seen.failed(), text, asked, seen.failed())


ROWS = [
    Row(
        "hang-flush",
        "the endpoint never answers: `flush()`",
        "returns within 12 s",
        _flush,
        returns(_PATIENCE),
        weather=hangs,
    ),
    Row(
        "hang-shutdown",
        "the endpoint never answers: `shutdown()`",
        "returns within 12 s",
        _close,
        returns(_PATIENCE),
        weather=hangs,
    ),
    Row(
        "hang-exit",
        "the endpoint never answers: exit",
        "the process ends within 12 s",
        lambda case: case.track(range(5)),
        ends(_PATIENCE),
        weather=hangs,
    ),
    Row(
        "down-flush",
        "the endpoint refuses connections: `flush()`",
        "returns within 12 s",
        _flush,
        returns(_PATIENCE),
        server=Refusing,
    ),
    Row(
        "drip",
        "an answer of 1 byte a second: exit",
        "the process ends within 12 s",
        lambda case: case.track(range(5)),
        ends(_PATIENCE),
        weather=_drips,
    ),
    Row(
        "slow",
        "0.3 s a request: the longest of 300 calls",
        "at most 200 ms",
        _slow_calls,
        _longest,
        weather=slow,
    ),
    Row(
        "outage",
        "HTTP 503 for 3 s, with 1,000 events",
        "all arrive once, with two `flush()` 4 s apart and a normal exit",
        _track_and_deliver(1_000),
        arrive(range(1_000)),
        weather=_outage,
        limit=40,
    ),
    Row(
        "names",
        "the endpoint's name is not found for 3 s",
        "all 20 arrive once, with two `flush()` 4 s apart and a normal exit",
        _without_names,
        arrive(_EVENTS),
        limit=40,
    ),
    Row(
        "cut",
        "the connection is cut, once before the batch is taken and once after",
        "all 20 arrive, repeats under the same id",
        _track_and_deliver(len(_EVENTS)),
        _same_ids,
        weather=_cuts,
        limit=40,
    ),
    Row(
        "patience",
        "HTTP 429 with `Retry-After: 2`",
        "all 20 arrive once, not asked again before 2 s",
        _track_and_deliver(len(_EVENTS)),
        _patient,
        weather=_asks_for_patience,
        limit=40,
    ),
]
