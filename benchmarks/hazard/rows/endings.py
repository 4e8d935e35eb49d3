"""How a process ends, and what it does with what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..libraries import properties
from ..row import Row
from ..server import Recorder, Refusing, Reply, Request
from ..verdict import Cell, Seen, accounted, arrive, cell

if TYPE_CHECKING:
    from ..case import Case


def slow(_: Request, __: Recorder) -> Reply:
    """Every answer takes 0.3 seconds."""
    return Reply(delay=0.3)


def _closed(case: Case) -> None:
    case.track([0])
    case.close()
    case.at("track()")
    try:
        case.say(accepted=case.client.track(properties(1)))
    except Exception as error:  # noqa: BLE001 - whatever it raises is a fact
        case.say(raised=type(error).__name__)
    case.flush()


def _refused_or_delivered(seen: Seen) -> Cell:
    accepted, delivered = seen.facts.get("accepted"), seen.arrivals()[1] == 1
    said = {True: "says True", False: "refused", None: "ignored"}[accepted]
    fine = "accepted" in seen.facts and (delivered or accepted is not True)
    return cell(fine and not seen.failed(), "delivered" if delivered else said, seen.failed())


ROWS = [
    Row(
        "exit",
        "normal exit after 1,030 calls in a loop, a fast endpoint",
        "all 1,030 arrive once, without a `flush()` in the application",
        lambda case: case.track(range(1_030)),
        arrive(range(1_030)),
        limit=20,
    ),
    Row(
        "exit-slow",
        "normal exit after 2,000 calls in a loop, 0.3 s a request",
        "all 2,000 arrive once, or the log says how many did not",
        lambda case: case.track(range(2_000)),
        accounted(2_000),
        weather=slow,
        limit=20,
    ),
    Row(
        "exit-down",
        "normal exit after 30 calls, the endpoint refuses connections",
        "the log says that 30 did not arrive",
        lambda case: case.track(range(30)),
        accounted(30),
        server=Refusing,
    ),
    Row(
        "closed",
        "`track()` after `shutdown()`, then `flush()`",
        "the event arrives, or the call does not say that it will; `flush()` returns",
        _closed,
        _refused_or_delivered,
    ),
]
