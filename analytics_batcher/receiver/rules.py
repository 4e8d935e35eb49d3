"""Rules for the values in a message.

A rule is called with a value and yields what is wrong with it, each text to be put right behind the value's place.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    Rule: TypeAlias = Callable[[Any], Iterator[str]]

# RFC 3339's form. `fromisoformat` alone takes more or less of ISO 8601 depending on Python's version.
_DATE_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9])(?:\.[0-9]+)?"
    r"(Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
)


def date_time_problem(value: Any) -> str | None:
    """What keeps a value from being an ISO 8601 date-time with a zone."""
    if not isinstance(value, str):
        return "is not a string"
    if (parts := _DATE_TIME.fullmatch(value)) is None:
        return "is not an ISO 8601 date-time with a zone"
    moment, zone = parts.groups()
    try:
        datetime.fromisoformat(moment + zone.replace("Z", "+00:00"))
    except ValueError:
        return "is no date of the calendar"
    return None


def anything(_: Any) -> Iterator[str]:
    """Whatever there is."""
    yield from ()


def nothing(_: Any) -> Iterator[str]:
    """A field that must not be there."""
    yield " does not belong there"


def a_date_time(value: Any) -> Iterator[str]:
    """An ISO 8601 date-time with a zone."""
    if problem := date_time_problem(value):
        yield f" {problem}"


def a_string(value: Any) -> Iterator[str]:
    """A string."""
    if not isinstance(value, str):
        yield " is not a string"


def a_text(value: Any) -> Iterator[str]:
    """A string that holds more than blanks."""
    if not isinstance(value, str):
        yield " is not a string"
    elif not value.strip():
        yield " is empty"


def a_text_or_number(value: Any) -> Iterator[str]:
    """A number, or a string that holds more than blanks."""
    # A bool is an int in Python, and no number in JSON.
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        yield " is neither a string nor a number"
    elif isinstance(value, str):
        yield from a_text(value)


def a_bool(value: Any) -> Iterator[str]:
    """True or false."""
    if not isinstance(value, bool):
        yield " is not a boolean"


def matching(pattern: str, what: str) -> Rule:
    """Make the rule of strings that match `pattern`, named `what` in the fault."""
    compiled = re.compile(pattern)

    def rule(value: Any) -> Iterator[str]:
        if not (isinstance(value, str) and compiled.fullmatch(value)):
            yield f" is not {what}"

    return rule


def one_of(*allowed: str) -> Rule:
    """Make the rule of a few strings."""

    def rule(value: Any) -> Iterator[str]:
        if not (isinstance(value, str) and value in allowed):
            yield f" is none of {', '.join(map(repr, allowed))}"

    return rule


def array(of: Rule, least: int = 0, most: float = math.inf) -> Rule:
    """Make the rule of arrays of `least` to `most` elements that all keep `of`."""

    def rule(value: Any) -> Iterator[str]:
        if not isinstance(value, list):
            yield " is not an array"
            return
        if not least <= len(value) <= most:
            yield f" has {len(value)} elements, {'less' if len(value) < least else 'more'} than allowed"
        for index, item in enumerate(value):
            yield from (f"[{index}]{fault}" for fault in of(item))

    return rule


def fields(required: str = "", rest: Rule | None = None, /, **rules: Rule) -> Rule:
    """Make the rule of objects.

    Args:
        required: The names of the fields that must be there, with blanks between them.
        rest: The rule of all fields that have none in `rules`.
        rules: The rules of fields that are there.
    """
    names = required.split()

    def rule(value: Any) -> Iterator[str]:
        if not isinstance(value, dict):
            yield " is not an object"
            return
        yield from (f".{name} is missing" for name in names if name not in value)
        for name, item in value.items():
            if of := rules.get(name, rest):
                yield from (f".{name}{fault}" for fault in of(item))

    return rule


def exactly(*choices: Mapping[str, Rule]) -> Rule:
    """Make the rule of objects that have the fields of exactly one of `choices`, and no others."""
    allowed = {frozenset(choice): fields("", None, **choice) for choice in choices}
    names = ", ".join(" with ".join(choice) for choice in choices)

    def rule(value: Any) -> Iterator[str]:
        if not isinstance(value, dict):
            yield " is not an object"
        elif (of := allowed.get(frozenset(value))) is None:
            yield f" is not exactly one of {names}"
        else:
            yield from of(value)

    return rule
