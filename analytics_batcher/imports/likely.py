"""What a column of text may be meant as: told to a person, and never assumed.

A decimal comma in one country separates thousands in the next, and the second of January is the first of February.
"""

from __future__ import annotations

import re
import shlex
from datetime import datetime
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Final

from .columns import TEXT, trait_of, zone_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

COMMA_NUMBER: Final = "comma_number"
_SHARE: Final = 0.99
_DATES: Final = (
    *("%d.%m.%Y", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%Y", "%m-%d-%Y", "%d-%m-%y"),
    *("%m-%d-%y", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%Y-%m", "%d-%b-%Y", "%d-%b-%y", "%d/%b/%Y", "%d/%b/%y"),
    *("%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y"),
)
_TIMES: Final = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_FORMATS: Final = tuple(date + time for date, time in product(_DATES, _TIMES))
_MOST_CHARACTERS: Final = 40
_YEARS: Final = range(1900, 2101)
_EXACT: Final = {
    "%Y%m%d": re.compile(r"[0-9]{8}(?: .*)?"),  # strptime takes 2024011, too
    "%d.%m.%y": re.compile(r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}(?: .*)?"),  # 1.2.24 is a version as well
}
_SURE: Final = re.compile(r"-?[0-9.]+,(?:[0-9]{1,2}|[0-9]{4,})")
_GROUPS: Final = re.compile(r"-?[0-9]{1,3}(?:\.[0-9]{3})+")


def formats_in(cells: Sequence[str]) -> list[str]:
    """The formats of moments that all cells have, but for one in a hundred.

    Args:
        cells: The first of a column's cells, as text.
    """
    given = [cell for cell in cells if cell]
    if not given or not any(one.isdigit() for one in given[0]) or len(given[0]) > _MOST_CHARACTERS:
        return []
    few = given[:10]
    fitting = [one for one in _FORMATS if _share(few, partial(_is_of, one)) > 0]
    return [one for one in fitting if _share(given, partial(_is_of, one)) >= _SHARE]


def likely_in(columns: Mapping[str, tuple[str, Sequence[str]]]) -> dict[str, list[str]]:
    """What columns may be meant as, by name; those of which there is nothing to say are not there.

    Args:
        columns: The type of each, and the first of its cells.
    """
    found = {}
    for name, (kind, cells) in columns.items():
        if kind == TEXT:
            given = [cell for cell in cells if cell]
            commas = _share(given, _is_comma_number) >= _SHARE and any(map(_SURE.fullmatch, given))
            kinds = [COMMA_NUMBER] if commas else formats_in(given)
            if kinds:
                found[name] = kinds
    if any(kinds == [COMMA_NUMBER] for kinds in found.values()):  # then a point hardly is a decimal one
        for name, (kind, cells) in columns.items():
            dotted = [cell for cell in cells if "." in cell]
            if kind == "number" and dotted and all(map(_GROUPS.fullmatch, dotted)):
                found[name] = [COMMA_NUMBER]
    return found


def option_for(column: str, kinds: Sequence[str]) -> str:
    """The option that makes a column what it may be meant as, as it is typed.

    Args:
        column: The column.
        kinds: What it may be; the first stands in the option.
    """
    first, *others = kinds
    also = f", and so does {' or '.join(others)}" if others else ""
    return f"--type {shlex.quote(f'{column}={first}')} fits{also}"


def _share(cells: Sequence[str], fits: Callable[[str], bool]) -> float:
    return sum(map(fits, cells)) / len(cells) if cells else 0.0


def _is_of(form: str, cell: str) -> bool:
    exact = _EXACT.get(form[:8].rstrip())
    if exact is not None and not exact.fullmatch(cell):
        return False
    try:
        return datetime.strptime(cell, form).year in _YEARS  # noqa: DTZ007 - only its form is asked for
    except ValueError:
        return False


_TO_COMMA_NUMBER: Final = trait_of(COMMA_NUMBER, zone_of("UTC"))


def _is_comma_number(cell: str) -> bool:
    assert _TO_COMMA_NUMBER is not None  # noqa: S101 - for the type checker
    try:
        _TO_COMMA_NUMBER(cell)
    except ValueError:
        return False
    return True
