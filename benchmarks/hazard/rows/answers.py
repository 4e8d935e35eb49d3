"""Answers that are no plain 200."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..case import resident
from ..row import Row
from ..server import Recorder, Reply, Request, bomb
from ..verdict import Cell, Seen, arrive, cell, grows, leaks, tally
from .interruption import refuses

if TYPE_CHECKING:
    from ..case import Case

_EVENTS = range(20)
_LIMIT = 25
_PORTAL = 3.0
_PAGE = b"<!DOCTYPE html><html><body>Please accept the terms of this network.</body></html>"
_GUILTY = 30


def _portal(_: Request, recorder: Recorder) -> Reply:
    """For three seconds every request gets a page, with 200."""
    if recorder.since_first() < _PORTAL:
        return Reply(200, _PAGE, {"Content-Type": "text/html"}, take=False)
    return Reply()


def _limited(request: Request, _: Recorder) -> Reply:
    return Reply(413 if len(request.events) > _LIMIT else 200)


def _empty(status: int) -> Any:
    return lambda _, __: Reply(status, b"", take=True)


def _redirects(status: int) -> Any:
    return lambda _, recorder: Reply(status, b"", {"Location": f"{recorder.elsewhere}/v1/batch"})


def _bomb(_: Request, __: Recorder) -> Reply:
    return Reply(200, bomb(), {"Content-Encoding": "gzip"})


def _one_bad(case: Case) -> None:
    case.track(range(_GUILTY))
    case.track([_GUILTY], poison=True)
    case.track(range(_GUILTY + 1, 60))
    case.deliver(1.0)


def _many(case: Case) -> None:
    case.track(range(100))
    case.deliver(0.5, 8)  # amplitude comes down to the limit by small steps, one at each flush


def _deliver(case: Case) -> None:
    case.track(_EVENTS)
    case.deliver()


def _flush(case: Case) -> None:
    case.track(_EVENTS)
    case.flush()


def _bounded(case: Case) -> None:
    case.track([0])
    before = resident()
    case.flush()
    case.say(grown=resident("VmHWM") - before)
    case.leave()


def _kept_at_home(seen: Seen) -> Cell:
    """Nothing reaches the other host, and somebody is told that nothing was delivered."""
    found = leaks(seen.elsewhere)
    told = bool(seen.log.strip()) or "complained" in seen.facts or "raised" in seen.facts
    sent = f"{' and '.join(found)} sent to the other host" if found else ""
    if seen.elsewhere and not found:
        sent = f"an empty {seen.elsewhere[0].method} there"
    silent = "" if told else "taken for delivered"
    fine = bool(seen.requests) and not seen.elsewhere and told and not seen.hung()
    return cell(fine, sent or ("nothing sent there, said" if fine else ""), silent, seen.hung())


def _once(seen: Seen) -> Cell:
    """Each event arrives exactly once; whether the call raises does not matter here."""
    text, fine = tally(seen, _EVENTS)
    return cell(fine and not seen.hung(), text, seen.hung())


ROWS = [
    Row(
        "one-bad",
        "one bad message among 60: HTTP 400 for a batch that holds it",
        "the other 59 arrive once",
        _one_bad,
        arrive([index for index in range(60) if index != _GUILTY]),
        weather=refuses,
        limit=30,
    ),
    Row(
        "too-large",
        "HTTP 413 for batches of more than 25, with 100 events",
        "all 100 arrive once, with eight `flush()` half a second apart",
        _many,
        arrive(range(100)),
        weather=_limited,
        limit=30,
    ),
    Row(
        "portal",
        "HTTP 200 with an HTML page for 3 s (a captive portal)",
        "all 20 arrive once, with two `flush()` 4 s apart and a normal exit",
        _deliver,
        arrive(_EVENTS),
        weather=_portal,
        limit=40,
    ),
    Row("202", "HTTP 202 without a body", "all 20 are sent once", _flush, _once, weather=_empty(202)),
    Row("204", "HTTP 204", "all 20 are sent once", _flush, _once, weather=_empty(204)),
    *(
        Row(
            str(status),
            f"HTTP {status} to another host",
            "no request goes there, and the log or an exception says that it failed",
            _flush,
            _kept_at_home,
            weather=_redirects(status),
            limit=25,
        )
        for status in (302, 307)
    ),
    Row(
        "bomb",
        "an answer of 400 kB that unpacks to 400 MB",
        "grows by at most 100 MB",
        _bounded,
        grows(100),
        weather=_bomb,
        limit=30,
    ),
]
