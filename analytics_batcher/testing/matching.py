"""Comparing what was expected with what was recorded, field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..encoding import Unserializable, loads
from ..message import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Default = Callable[[Any], Any] | None


class _Any:
    def __eq__(self, _: object) -> bool:
        return True

    def __ne__(self, _: object) -> bool:
        return False

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return "ANY"


class _Absent:
    def __repr__(self) -> str:
        return "nothing"


ANY: Final[Any] = _Any()
"""Equals everything, as that of `unittest.mock` does, which may be used as well."""
ABSENT: Final = _Absent()
"""In the place of a value that is not there."""


class Including:
    """What `including` returns."""

    def __init__(self, fields: Mapping[Any, Any]) -> None:
        self.fields = fields

    def __eq__(self, other: object) -> bool:
        return not any(differences(self, other))

    __hash__ = None  # type: ignore[assignment]  # as a dict has none

    def __repr__(self) -> str:
        return f"including({dict(self.fields)!r})"


def including(fields: Mapping[Any, Any] | None = None, /, **more: Any) -> Any:
    """Equals every mapping that has at least these fields; a plain dict must be equal as a whole.

    ```python
    recorder.assert_tracked("Signed up", properties=including(plan="pro"))
    ```

    Args:
        fields: The fields and their values, among which may be `ANY` and others of these.
        more: More of them.
    """
    return Including({**(fields or {}), **more})


class Difference(NamedTuple):
    """One place at which two values differ.

    Attributes:
        path: Where: `properties.items[2].price`.
        expected: What was expected there, or `ABSENT`.
        found: What is there, or `ABSENT`.
    """

    path: str
    expected: Any
    found: Any


def differences(expected: Any, found: Any, path: str = "", default: Default = None) -> Iterator[Difference]:
    """Every place at which a recorded value is not what was expected.

    Args:
        expected: What was expected: a value as the application gives it or as JSON has it, `ANY`, `including`, or
            anything else that knows by `==` what it equals.
        found: What was recorded, as JSON has it.
        path: Where this is.
        default: The client's, for types of the application's own.
    """
    partial = type(expected) is Including
    pairs = expected.fields if type(expected) is Including else expected
    if isinstance(pairs, Mapping) and isinstance(found, Mapping):
        yield from _of_mappings(pairs, found, path, default, partial=partial)
    elif isinstance(expected, (list, tuple)) and isinstance(found, list):
        yield from _of_sequences(expected, found, path, default)
    elif partial or not _is_same(expected, found, default):
        yield Difference(path, expected, found)


def _of_mappings(
    expected: Mapping[Any, Any], found: Mapping[str, Any], path: str, default: Default, *, partial: bool
) -> Iterator[Difference]:
    wanted = {key if type(key) is str else _key(key, default): value for key, value in expected.items()}
    for key, value in wanted.items():
        yield from _at(value, found.get(key, ABSENT), f"{path}.{key}" if path else key, default)
    if not partial:
        for key, value in found.items():
            if key not in wanted:
                yield Difference(f"{path}.{key}" if path else key, ABSENT, value)


def _of_sequences(expected: Sequence[Any], found: Sequence[Any], path: str, default: Default) -> Iterator[Difference]:
    for place in range(max(len(expected), len(found))):
        here = f"{path}[{place}]"
        if place < len(expected):
            yield from _at(expected[place], found[place] if place < len(found) else ABSENT, here, default)
        else:
            yield Difference(here, ABSENT, found[place])


def _at(expected: Any, found: Any, path: str, default: Default) -> Iterator[Difference]:
    if found is ABSENT:  # a key that is asked for is to be there, whatever its value
        yield Difference(path, expected, ABSENT)
    else:
        yield from differences(expected, found, path, default)


def equals(expected: Any, found: Any) -> bool:
    """Whether what was expected says so; not of arrays, whose answer is one for each of their values."""
    try:
        answer = expected == found
        return bool(answer) and not hasattr(answer, "__len__")
    except Exception:  # noqa: BLE001 - a foreign type's own code, such as an array's
        return False


def _is_same(expected: Any, found: Any, default: Default) -> bool:
    if isinstance(expected, bool) is not isinstance(found, bool) and isinstance(expected, (bool, int, float)):
        return False  # True is no 1 in JSON
    if equals(expected, found):
        return True
    try:
        as_json = loads(encode({"": expected}, default))[""]
    except (Unserializable, ValueError):
        return False
    if isinstance(expected, AbstractSet) and isinstance(found, list):
        return sorted(map(repr, as_json)) == sorted(map(repr, found))
    return type(as_json) is type(found) and bool(as_json == found)


def _key(key: Any, default: Default) -> str:
    try:
        text: str = next(iter(loads(encode({key: None}, default))))
    except (Unserializable, ValueError):
        return repr(key)
    return text
