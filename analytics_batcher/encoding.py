"""A message becomes JSON: by orjson as it is, or else by a slower walk that mends what orjson refuses.

The fast path is `dumps(copy, None, OPTIONS)` of a `plain_copy`; for all else, and where that raises `TypeError`, there
is `mend`.
Where orjson cannot be imported (PyPy), the standard library stands in under the same names.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
from collections import UserString, abc, deque
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import partial
from itertools import islice
from operator import attrgetter, methodcaller
from typing import Any, Final, TypeVar
from uuid import UUID

Hook = abc.Callable[[Any], Any]
_Draw = abc.Callable[[abc.Iterable[Any]], list[Any]]
_T = TypeVar("_T")

dumps: abc.Callable[[Any, Hook | None, int], bytes]
"""`orjson.dumps` or its stand-in: `dumps(message, None, OPTIONS)` raises `TypeError` for what needs mending."""
loads: abc.Callable[[bytes], Any]
"""`orjson.loads` or its stand-in: raises `ValueError` for what is not JSON."""
OPTIONS: int
"""Keeps orjson from writing in its own form what `mend` writes in another."""


class Unserializable(ValueError):  # noqa: N818 - named for the message, like the errors that users see
    """A message cannot be written as JSON, not even mended."""


def mend(message: dict[str, Any], default: Hook | None) -> bytes:
    """Write `message` as JSON though it holds values that orjson refuses: one odd value never costs the message.

    - Decimal: an int if integral and within 64 bits, else the nearest float, else (`1E+400`) text; not finite: null.
    - An int beyond 64 bits: text, in hexadecimal where Python refuses the decimal digits. NaN and infinities: null.
    - Lone surrogates: U+FFFD. Bytes: text if they are UTF-8, else base64. UUID, path: text. Enum: its value.
    - datetime, date, time: ISO 8601; a datetime without a zone gets the local one. timedelta: seconds.
    - What numpy and pandas have for a missing value: null.
    - Mapping, dataclass, attrs, pydantic: an object. Set, Sequence, dict view, numpy array: an array, of at most
      250,000 values, and of fewer where the message has several that were longer. Not an iterator.
    - A subclass of what JSON knows: as its base. A key: its mended value as text; of keys that collide the last wins.
    - A circular reference, and an object or array over 200 levels below the message: null.
    - All else, and all that fails to convert: `default(value)`, mended; else `str(value)`; else null.

    Args:
        message: Neither it nor anything in it is changed. Other threads may change it meanwhile.
        default: Makes something known of a value of an unknown type. May raise.

    Returns:
        Compact JSON in UTF-8.

    Raises:
        Unserializable: Over 250,000 values, or one that other threads keep changing, or hardly any stack left.
    """
    try:
        return dumps(_Mending(message, default).opened(message, 0), None, OPTIONS)
    except (RecursionError, TypeError) as error:
        raise Unserializable(str(error)) from error


def pairs_of(mapping: abc.Mapping[Any, Any]) -> dict[Any, Any]:
    """A mapping's content. Its own code runs, and may raise.

    Raises:
        OverflowError: If there is too much of it, or no end.
    """
    pairs = list(islice(mapping.items(), _VALUES + 1))
    if len(pairs) > _VALUES:
        raise OverflowError
    return _paired(pairs)


def _paired(pairs: list[Any]) -> dict[Any, Any]:
    return {key: value for key, value in pairs}  # noqa: C416 - `dict` would read a pair that never ends to the end


_LEVELS: Final = 200  # orjson takes 254
# The largest batch that a vendor takes, 500,000 bytes, has no room for more. Without a bound, some twenty objects that
# all refer to each other would keep the caller for ever: so many are the paths through them.
_VALUES: Final = 250_000
_FEW: Final = 100
_ATTEMPTS: Final = 8
_LOWEST: Final = -(2**63)
_HIGHEST: Final = 2**64 - 1
_FAILED: Final = object()
_bases: Final = type.__dict__["__mro__"].__get__  # of the class itself, whatever its metaclass says


class _Mending:
    """One walk through one message, which builds a private tree of what orjson writes as it is."""

    def __init__(self, message: dict[str, Any], default: Hook | None) -> None:
        self._default = default
        self._left = _VALUES
        self._most = _VALUES
        self._path = {id(message)}

    def opened(self, value: Any, depth: int) -> Any:
        kind = type(value)
        reader = None if issubclass(kind, Enum) else _nearest(_READERS, kind)
        if reader is None:
            result = self._converted(value)
            # What may need another conversion counts as a level, or a hook that wraps its own result would never end.
            return self._value(result, depth if type(result) is dict or type(result) is list else depth + 1)
        items = _snapshot(reader, value)
        self._left -= len(items)
        if self._left < 0:
            raise Unserializable(f"over {_VALUES} values")
        if issubclass(kind, dict):
            return {self._key(key, depth + 1): self._value(item, depth + 1) for key, item in items}
        return [self._value(item, depth + 1) for item in items]

    def _value(self, value: Any, depth: int) -> Any:
        scalar = _SCALARS.get(id(type(value)))
        if scalar is not None:
            return scalar(value)
        identity = id(value)
        if depth > _LEVELS or identity in self._path:
            return None
        self._path.add(identity)
        try:
            return self.opened(value, depth)
        except RecursionError:  # the caller's own stack may be deep already
            return None
        finally:
            self._path.discard(identity)

    def _key(self, key: Any, depth: int) -> str:
        mended = self._value(key, depth)
        if type(mended) is str:
            return mended
        return repr(mended) if type(mended) is float else dumps(mended, None, OPTIONS).decode()

    def _converted(self, value: Any) -> Any:
        for hook in (_guarded(self._rule, type(value)), self._default, str):
            result = _FAILED if hook is None else _guarded(hook, value)
            if result is not _FAILED and result is not value:
                return result
        return None

    def _rule(self, kind: type) -> Hook | None:
        if issubclass(kind, Enum):  # before its other bases: of a `class Plan(str, Enum)` too, orjson writes the value
            return attrgetter("value")
        rule: Hook | None = _nearest(_RULES, kind)
        if rule is None:
            read = next((read for holds, read in _FOREIGN if holds(kind)), None)
            rule = read and partial(read, self._drawn)
        return rule

    def _drawn(self, values: abc.Iterable[Any]) -> list[Any]:
        items = list(islice(values, self._most + 1))
        if len(items) > self._most:  # a foreign class may count to infinity, and a message may hold many that do
            self._most = max(self._most // 2, _FEW)
            raise OverflowError
        return items


def _guarded(hook: Hook, value: Any) -> Any:
    # Only what may be a user's code runs in here: what a signal handler raises elsewhere is to reach the caller.
    try:
        return hook(value)
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a user's code may raise anything, and costs its own value only
        return _FAILED


def _snapshot(read: abc.Callable[[Any], abc.Iterable[Any]], value: Any) -> list[Any]:
    # One call in C, so that other threads wait; but not those of PyPy, nor a finalizer that it sets off on old Pythons.
    for _ in range(_ATTEMPTS):
        try:
            return list(read(value))
        except RuntimeError as error:  # noqa: PERF203 - the loop is for this very error
            if isinstance(error, RecursionError):
                raise
    raise Unserializable(f"a {type(value).__name__} kept changing while it was read")


def _text(value: str) -> str:
    text = str.__str__(value)
    # By way of UTF-16, so that two surrogates that make a pair become the character that they stand for.
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _integer(value: int) -> int | str:
    number = int.__int__(value)
    if _LOWEST <= number <= _HIGHEST:
        return number
    try:
        return str(number)
    except ValueError:  # over sys.get_int_max_str_digits()
        return hex(number)


def _decimal(_: _Draw, value: Any) -> int | float | str | None:
    if not value.is_finite():
        return None
    if _LOWEST <= value <= _HIGHEST and (whole := int(value)) == value:
        return whole
    return number if math.isfinite(number := float(value)) else str(value)


def _octets(value: bytes | bytearray) -> str:
    octets = bytes(value)
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return base64.b64encode(octets).decode()


def _datetime(value: datetime) -> str | None:
    text = _guarded(_zoned, value)
    if text is _FAILED:  # a broken zone, or the local one at an end of the calendar
        text = value.replace(tzinfo=None).isoformat()
    return None if text == "NaT" else text  # pandas' NaT is a datetime


def _zoned(value: datetime) -> str:
    if value.utcoffset() is None:
        from dateutil.tz import tzlocal  # noqa: PLC0415 - importing this package is to stay cheap

        value = value.replace(tzinfo=tzlocal())
    return value.isoformat()


def _fields(value: Any, fields: abc.Iterable[Any]) -> dict[str, Any]:
    values = {field.name: _guarded(attrgetter(field.name), value) for field in fields}
    return {name: None if item is _FAILED else item for name, item in values.items()}


def _dataclass(_: _Draw, value: Any) -> dict[str, Any]:
    kind: Any = type(value)
    if type(kind.__dataclass_fields__) is not dict:
        raise TypeError  # no dataclass: nothing says that they have an end
    return _fields(value, dataclasses.fields(kind))


def _numpy(draw: _Draw, value: Any) -> Any:
    if math.prod(side or 1 for side in draw(value.shape)) > _VALUES:  # a side of 0 ends nothing: all before it are made
        raise OverflowError  # its str() is an excerpt
    # Of these `tolist()` makes a bare count of nanoseconds, or a long double again.
    cast = {"M": str, "m": "m8[us]", "g": "d", "G": "D"}.get(value.dtype.char)
    if cast is None or value.ndim:
        return value.tolist() if cast is None else list(value)
    result = value.astype(cast).tolist()
    return None if result == "NaT" else result


def _timedelta(value: timedelta) -> float:
    seconds = value.total_seconds()
    return int(seconds) if seconds.is_integer() else seconds


def _by_id(table: dict[type, _T]) -> dict[int, _T]:
    # A class cannot always be looked up by itself: its metaclass may define `__eq__`, and with it no `__hash__`.
    return {id(kind): entry for kind, entry in table.items()}


# By exact type, not guarded: given these very types, none of the functions raises.
_SCALARS: Final[dict[int, Hook]] = _by_id(
    {
        str: _text,
        int: _integer,
        float: lambda value: float.__float__(value) if math.isfinite(value) else None,
        bool: bool,
        type(None): lambda _: None,
        bytes: _octets,
        bytearray: _octets,
        datetime: _datetime,
        date: date.isoformat,
        timedelta: _timedelta,
    }
)
# By nearest base. Unbound methods, so that no subclass's override runs.
_READERS: Final[dict[int, abc.Callable[[Any], abc.Iterable[Any]]]] = _by_id(
    {dict: dict.items, **{kind: kind.__iter__ for kind in (list, tuple, set, frozenset, deque)}}
)
# By nearest base.
_RULES: Final[dict[int, Hook]] = {
    **_SCALARS,
    **_by_id({time: methodcaller("isoformat"), memoryview: bytes, UUID: str, UserString: str}),
}
# By the first test that holds. What may go on for ever is drawn from, by the function that is given first.
_FOREIGN: Final[tuple[tuple[abc.Callable[[Any], bool], abc.Callable[[_Draw, Any], Any]], ...]] = (
    (lambda kind: any(base.__name__ == "Decimal" and base.__module__ == "decimal" for base in _bases(kind)), _decimal),
    (lambda kind: hasattr(kind, "__dataclass_fields__"), _dataclass),
    (lambda kind: hasattr(kind, "__attrs_attrs__"), lambda draw, value: _fields(value, draw(value.__attrs_attrs__))),
    (lambda kind: hasattr(kind, "model_dump"), lambda _, value: value.model_dump()),
    (lambda kind: hasattr(kind, "__fields__") and hasattr(kind, "dict"), lambda _, value: value.dict()),  # pydantic 1
    (lambda kind: str(kind.__module__).partition(".")[0] == "numpy", _numpy),
    (lambda kind: kind.__name__ == "NAType" and str(kind.__module__).startswith("pandas"), lambda *_: None),
    (lambda kind: issubclass(kind, os.PathLike), lambda _, value: os.fspath(value)),
    (lambda kind: issubclass(kind, abc.Mapping), lambda draw, value: _paired(draw(value.items()))),
    (lambda kind: issubclass(kind, (abc.Set, abc.Sequence, abc.ValuesView)), lambda draw, value: draw(value)),
)


def _nearest(table: dict[int, Any], kind: type) -> Any:
    return next((table[id(base)] for base in _bases(kind) if id(base) in table), None)


def _stdlib_dumps(message: Any, default: Hook | None, options: int) -> bytes:  # noqa: ARG001 - orjson's signature
    try:
        return json.dumps(_checked(message, 254), ensure_ascii=False, separators=(",", ":")).encode()
    except (RuntimeError, ValueError) as error:
        raise TypeError(str(error)) from error


def _checked(value: Any, levels: int) -> Any:
    kind = type(value)
    if issubclass(kind, Enum):
        return _checked(_guarded(attrgetter("value"), value), levels)
    if kind is float or kind is UUID:
        return _RULES[id(kind)](value)
    if value is None or issubclass(kind, str) or (issubclass(kind, int) and _LOWEST <= value <= _HIGHEST):
        return value
    if levels and (kind is tuple or issubclass(kind, list)):
        return [_checked(item, levels - 1) for item in _snapshot(_nearest(_READERS, kind), value)]
    if levels and issubclass(kind, dict):
        items = _snapshot(dict.items, value)
        if all(type(key) is str for key, _ in items):
            return {key: _checked(item, levels - 1) for key, item in items}
    raise TypeError(f"not JSON as it is, here and with its keys: {kind.__name__}")


def _stdlib_loads(data: bytes) -> Any:
    try:
        return json.loads(str(data, "utf-8"), parse_constant=int)  # int() refuses the likes of NaN
    except RecursionError as error:
        raise ValueError("nested too deep") from error


try:
    import orjson
except ImportError:
    dumps, loads, OPTIONS = _stdlib_dumps, _stdlib_loads, 0
else:
    dumps, loads = orjson.dumps, orjson.loads
    OPTIONS = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
