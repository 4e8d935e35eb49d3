"""The types of columns: found by a first look at a column, never by a cell, and then held against every cell."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timezone, tzinfo
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from zoneinfo import ZoneInfo

from .problems import ImportProblem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Convert = Callable[[str], Any]
"""Makes a value of a cell; raises `ValueError` if it is not of the column's type."""

TEXT: Final = "text"
_SHARE: Final = 0.99
"""So many of the cells that are looked at must fit a type; those that do not are refused when they come."""
_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,14})")  # one of over 15 digits is a number to no vendor's JavaScript
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]{1,15})?(?:[eE][-+]?[0-9]{1,3})?")
_PADDED: Final = re.compile(r"[-+]?0[0-9]+")
_COMMA: Final = re.compile(r"-?(?:[0-9]{1,3}(?:\.[0-9]{3})+|0|[1-9][0-9]*)(?:,[0-9]+)?")
_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DATETIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?"
    r" ?(?:Z|UTC|[+-][0-9]{2}:?(?:[0-9]{2})?)?"
)
_UTC_LENGTHS: Final = (len("2026-01-02T03:04:05Z"), len("2026-01-02T03:04:05.678Z"))
_FRACTION: Final = re.compile(r"[.,]([0-9]{1,9})")
_ZONE: Final = re.compile(r" ?([+-][0-9]{2}):?([0-9]{2})?$")
_BOOLEANS: Final = {"true": True, "false": False}
_MORE_BOOLEANS: Final = {
    **_BOOLEANS,
    **dict.fromkeys(("t", "yes", "y", "1", "on"), True),
    **dict.fromkeys(("f", "no", "n", "0", "off"), False),
}
_UNITS: Final = {"epoch_s": 1, "epoch_ms": 10**3, "epoch_us": 10**6, "epoch_ns": 10**9}
_SECONDS: Final = re.compile(r"[0-9]{10}\.[0-9]{1,9}")  # as Python and Slack write Unix time
_DIGITS: Final = {10: "epoch_s", 13: "epoch_ms", 16: "epoch_us", 19: "epoch_ns"}

NAMES: Final = (TEXT, "integer", "number", "comma_number", "boolean", "date", "datetime", *_UNITS)
"""What a column can be, besides a `strptime` format, which has a `%` in it."""


class Found(NamedTuple):
    """What a first look found in a column.

    Attributes:
        kind: The type.
        fitting: How many of the cells are of it.
        cells: How many were not empty.
        example: One of them.
    """

    kind: str
    fitting: int
    cells: int
    example: str


def found_in(cells: Iterable[str]) -> Found:
    """The type of a column.

    Args:
        cells: The first of its cells, as text.
    """
    given = [cell for cell in cells if cell]
    example = given[0] if given else ""
    if not any(_PADDED.fullmatch(cell) for cell in given):  # what has leading zeros is no quantity
        for kind, fits in _TESTS:
            fitting = sum(map(fits, given))
            if fitting and fitting >= _SHARE * len(given):
                return Found(kind, fitting, len(given), example)
    return Found(TEXT, len(given), len(given), example)


def moments_in(cells: Sequence[str]) -> Found | None:
    """The type of a column of moments; `None` if it looks like no such."""
    given = [cell for cell in cells if cell]
    digits = [_DIGITS.get(len(cell)) if cell.isdecimal() else None for cell in given]
    digits += ["epoch_s" for cell in given if _SECONDS.fullmatch(cell)]
    best = [(kind, sum(one == kind for one in digits)) for kind in _UNITS]
    best.append(("datetime", sum(any(fits(cell) for fits in _MOMENTS) for cell in given)))  # a day is one, too
    kind, fitting = max(best, key=lambda one: one[1])
    return Found(kind, fitting, len(given), given[0]) if fitting > len(given) / 2 else None


def zone_of(name: str) -> tzinfo:
    """The time zone of a name.

    Raises:
        ImportProblem: If there is none.
    """
    if name.upper() == "UTC":
        return timezone.utc
    try:
        return ZoneInfo(name)
    except (OSError, ValueError):
        raise ImportProblem(
            "there is no such time zone", where="timezone", found=name, expected="a name such as Europe/Berlin"
        ) from None


def check(kind: str) -> str:
    """A type's name, if it is one.

    Raises:
        ImportProblem: If it is none.
    """
    if kind not in NAMES and "%" not in kind:
        wanted = f"{', '.join(NAMES)}, or a format such as %d/%m/%Y"
        raise ImportProblem("there is no such type", where="type", found=kind, expected=wanted)
    return kind


def trait_of(kind: str, zone: tzinfo) -> Convert | None:
    """What makes a trait's value of a cell; `None` where it stays as it is.

    Args:
        kind: The column's type.
        zone: The time zone of moments that say none.
    """
    if kind in _TRAITS:
        return _TRAITS[kind]
    moment = moment_of(kind, zone)
    return lambda cell: iso(moment(cell))


def moment_of(kind: str, zone: tzinfo) -> Callable[[str], datetime]:
    """What makes a moment of a cell, as for `trait_of`."""
    if kind in _UNITS:
        unit = _UNITS[kind]
        units = _seconds if unit == 1 else _integer
        return lambda cell: datetime.fromtimestamp(units(cell) / unit, timezone.utc)
    if "%" in kind:
        return lambda cell: _zoned(datetime.strptime(cell, kind), zone)  # noqa: DTZ007 - the zone is put in
    return lambda cell: _zoned(_parsed(cell), zone)


def moment_given_of(kind: str, zone: tzinfo) -> Callable[[str], str]:
    """What makes a moment to be given to a call, as for `trait_of`: text that the call reads itself is not read."""
    convert = moment_of(kind, zone)
    if kind != "datetime":
        return lambda cell: iso(convert(cell))

    def moment(cell: str) -> str:
        if len(cell) in _UTC_LENGTHS and cell[10] == "T" and cell[-1] == "Z":
            return cell if len(cell) == _UTC_LENGTHS[1] else f"{cell[:-1]}.000Z"  # as the call writes it
        return iso(convert(cell))

    return moment


def iso(moment: datetime) -> str:
    """A moment in UTC, in ISO 8601 with milliseconds."""
    return moment.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _zoned(moment: datetime, zone: tzinfo) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def _parsed(cell: str) -> datetime:
    try:
        # What Python 3.11 reads of itself; 3.10 takes neither a Z nor every number of digits.
        return datetime.fromisoformat(cell)
    except ValueError:
        if not _DATETIME.fullmatch(cell) and not _DATE.fullmatch(cell):
            raise
        text = cell.replace(" UTC", "Z").replace("Z", "+00:00").replace("T", " ")
        day, _, rest = text.partition(" ")
        rest = _FRACTION.sub(lambda found: f".{found[1][:6].ljust(6, '0')}", rest)
        rest = _ZONE.sub(lambda found: f"{found[1]}:{found[2] or '00'}", rest)
        return datetime.fromisoformat(f"{day} {rest}".strip())


def _seconds(cell: str) -> float:
    return float(cell) if _SECONDS.fullmatch(cell) else _integer(cell)


def _integer(cell: str) -> int:
    value = int(cell)
    if str(value) == cell:
        return value
    if _INTEGER.fullmatch(cell.strip()):
        return value
    raise ValueError(cell)


def _number(cell: str) -> float | int:
    if _NUMBER.fullmatch(cell) or _NUMBER.fullmatch(cell := cell.strip()):
        return float(cell)
    raise ValueError(cell)


def _comma_number(cell: str) -> float | int:
    if _COMMA.fullmatch(cell := cell.strip()):
        text = cell.replace(".", "").replace(",", ".")
        return float(text) if "." in text else int(text)
    raise ValueError(cell)


def _boolean(cell: str) -> bool:
    value = _MORE_BOOLEANS.get(cell)
    try:
        return _MORE_BOOLEANS[cell.strip().lower()] if value is None else value
    except KeyError:
        raise ValueError(cell) from None


def _date(cell: str) -> str:
    if _DATE.fullmatch(cell := cell.strip()):
        datetime.fromisoformat(cell)
        return cell
    raise ValueError(cell)


def _is_a(convert: Convert, form: re.Pattern[str]) -> Callable[[str], bool]:
    def fits(cell: str) -> bool:
        if not form.fullmatch(cell):
            return False
        try:
            convert(cell)
        except ValueError:
            return False
        return True

    return fits


_TESTS: Final[tuple[tuple[str, Callable[[str], bool]], ...]] = (
    ("integer", _is_a(_integer, _INTEGER)),
    ("number", _is_a(_number, _NUMBER)),
    ("boolean", lambda cell: cell.lower() in _BOOLEANS),
    ("date", _is_a(_date, _DATE)),
    ("datetime", _is_a(_parsed, _DATETIME)),
)
_MOMENTS: Final = tuple(fits for kind, fits in _TESTS if kind in {"date", "datetime"})
_TRAITS: Final[dict[str, Convert | None]] = {
    TEXT: None,
    "integer": _integer,
    "number": _number,
    "comma_number": _comma_number,
    "boolean": _boolean,
    "date": _date,
}
