"""Odd values, and what becomes of the arguments; what may wait."""

from __future__ import annotations

import copy
import datetime as dt
import decimal
import time
import uuid
from typing import TYPE_CHECKING, Any

from ..case import resident
from ..libraries import properties
from ..row import Row
from ..server import properties_of
from ..verdict import Cell, Seen, arrive, cell, grows
from .endings import slow
from .network import hangs

if TYPE_CHECKING:
    from ..case import Case

_LINES = 100
_NESTED = 10_000


class _Hostile:
    def __repr__(self) -> str:
        raise LookupError("the application's own")


def _odd() -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415 - for this row alone

    return {
        "Decimal": decimal.Decimal("12.34"),
        "UUID": uuid.UUID(int=7),
        "date": dt.date(2026, 1, 2),
        "datetime": dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc),
        "numpy integer": np.int64(7),
        "numpy float": np.float64(1.5),
        "numpy array": np.arange(3),
    }


def _hostile() -> list[Any]:
    """A circle, an object without a text, depth, a huge integer, half a surrogate pair, a key that is no text."""
    circle: dict[str, Any] = {}
    circle["itself"] = circle
    deep: list[Any] = []
    for _ in range(_NESTED):
        deep = [deep]
    return [circle, _Hostile(), deep, 10**5_000, "\ud800", {(1, 2): 3}]


def _one_nan(case: Case) -> None:
    case.track(range(5), ratio=0.5)
    case.track([5], ratio=float("nan"))
    case.track(range(6, 10), ratio=0.5)
    case.deliver(1.0)


def _types(case: Case) -> None:
    raising = []
    for index, (name, value) in enumerate(_odd().items()):
        try:
            case.client.track(properties(index, value=value))
        except Exception:  # noqa: BLE001 - whatever it raises is a fact
            raising.append(name)
    case.say(raising=raising, names=list(_odd()))
    case.deliver(1.0)


def _kept(seen: Seen) -> Cell:
    """Each value arrives as something."""
    raising, names = seen.facts.get("raising", []), seen.facts.get("names", [])
    events = {properties_of(event).get("index"): event for request in seen.requests for event in request.events}
    kept = [name for index, name in enumerate(names) if properties_of(events.get(index, {})).get("value") is not None]
    gone = [name for index, name in enumerate(names) if index not in events and name not in raising]
    parts = [
        f"{len(kept)} of {len(names)} kept",
        f"{len(raising)} raise in the caller" if raising else "",
        f"{len(gone)} cost the event" if gone else "",
    ]
    return cell(bool(names) and len(kept) == len(names) and not seen.hung(), *parts, seen.hung())


def _monsters(case: Case) -> None:
    for place, value in enumerate(_hostile()):
        case.track([2 * place], value=value)
        case.track([2 * place + 1])
    case.deliver(1.0)


def _arguments(case: Case) -> None:
    given, extra = properties(0, address={"city": "Bern"}), copy.deepcopy(case.library.extra)
    before = copy.deepcopy((given, extra))
    case.client.track(given, extra=extra)
    case.say(
        changed=[
            name
            for name, now, then in zip(("properties", *case.library.extra), (given, extra), before, strict=True)
            if now != then
        ]
    )
    given["plan"] = "changed"
    given["address"]["city"] = "changed"
    case.flush()


def _unchanged(seen: Seen) -> Cell:
    changed = seen.facts.get("changed", ["?"])
    return cell(not changed and not seen.hung(), f"{changed[0]} changed" if changed else "unchanged", seen.hung())


def _as_called(seen: Seen) -> Cell:
    events = [properties_of(event) for request in seen.requests if request.taken for event in request.events]
    late = [event for event in events if "changed" in str(event)]
    text = "the later state is sent" if late else "as called" if events else "not delivered"
    return cell(bool(events) and not late and not seen.hung(), text, seen.hung())


def _fill(count: int, size: int) -> Any:
    """Track more than the endpoint takes, and measure."""

    def work(case: Case) -> None:
        case.client.track(properties(0))
        before = resident()
        case.at("track()")
        for index in range(1, count):
            try:
                case.client.track(properties(index, text=f"{index} " + "x" * size))
            except Exception as error:  # noqa: BLE001 - as above
                case.say(raised=type(error).__name__)
        case.say(grown=resident("VmHWM") - before)
        time.sleep(2.0)
        case.leave()

    return work


def _quiet(seen: Seen) -> Cell:
    lines = len(seen.log.splitlines())
    fine = "grown" in seen.facts and lines <= _LINES and not seen.hung()
    return cell(fine, f"{lines:,} line{'s' * (lines != 1)}", seen.hung())


ROWS = [
    Row("nan", "one NaN among 10 events", "all 10 arrive once, as JSON", _one_nan, arrive(range(10)), limit=30),
    Row(
        "types",
        "a Decimal, UUID, date, datetime, and numpy's integer, float, array",
        "each of the 7 arrives as something, and no call raises",
        _types,
        _kept,
        limit=30,
    ),
    Row(
        "hostile",
        "a circle, depth 10,000, 5,000 digits, a raising `__repr__`, half a surrogate, a tuple as key",
        "their 6 events and 6 plain ones arrive once, and no call raises",
        _monsters,
        arrive(range(12)),
        limit=30,
    ),
    Row("mutated", "the dicts that the caller gave, after the call", "unchanged by the call", _arguments, _unchanged),
    Row(
        "late", "the caller changes a dict after the call", "what was true at the call arrives", _arguments, _as_called
    ),
    Row(
        "memory",
        "12,000 events of 30 kB, the endpoint silent",
        "grows by at most 100 MB, and no call blocks",
        _fill(12_000, 30_000),
        grows(100),
        weather=hangs,
        limit=30,
    ),
    Row(
        "lines",
        "50,000 events in a loop, 0.3 s a request: log lines",
        f"at most {_LINES}, and no call blocks",
        _fill(50_000, 10),
        _quiet,
        weather=slow,
        limit=30,
    ),
]
