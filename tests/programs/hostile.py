"""Objects whose own code lies, raises, never ends, or changes what is being read: made from recipes of plain data.

A recipe is a value of JSON's kinds, or a tuple whose first item says what to make. So that a failing recipe can be
shown, and its objects, which cannot be shown, are made afresh.
"""

from __future__ import annotations

import abc
import collections
import collections.abc
import dataclasses
import enum
import itertools
import json
import os
import pathlib
import threading
import types
import typing
import uuid
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction

import attrs
import numpy as np
import orjson
import pydantic
from hypothesis import strategies as st

UTC = timezone.utc
ERRORS = (
    *(LookupError, RuntimeError, RecursionError, StopIteration, StopAsyncIteration, TypeError, AttributeError),
    *(ValueError, OSError, ReferenceError, BufferError, AssertionError, NotImplementedError, OverflowError, EOFError),
)
METHODS = (
    *("__str__", "__repr__", "__format__", "__bytes__", "__fspath__", "__index__", "__int__", "__float__", "__bool__"),
    *(
        "__iter__",
        "__next__",
        "__len__",
        "__length_hint__",
        "__getitem__",
        "__contains__",
        "__reversed__",
        "__missing__",
    ),
    *("__getattr__", "__getattribute__", "__eq__", "__hash__", "__lt__", "__le__", "__gt__", "__ge__"),
    *("__sub__", "__floordiv__", "__array__", "__reduce__", "__copy__", "__deepcopy__", "__round__", "__trunc__"),
    *("keys", "values", "items", "get", "copy", "dict", "model_dump", "_asdict", "tolist", "astype", "total_seconds"),
    *("isoformat", "utcoffset", "replace", "is_finite", "as_tuple", "decode", "encode", "timestamp", "__getstate__"),
)
ATTRIBUTES = (
    *("__class__", "__dict__", "__module__", "__dataclass_fields__", "__attrs_attrs__", "__fields__", "__name__"),
    *("value", "name", "size", "shape", "dtype", "ndim", "tzinfo", "int", "data", "__doc__", "__slots__"),
    *("_value_", "price", "row", "city"),
)
OF_CLASSES = (
    *("__getattribute__", "__getattr__", "__hash__", "__eq__", "__instancecheck__", "__bool__"),
    *("__str__", "__len__", "__iter__", "__contains__", "__prepare__"),
)


class _Zone(tzinfo):
    pass


class _Strange(type):
    def __eq__(cls, other):
        raise LookupError

    __hash__ = None


class _Stranger(metaclass=_Strange):
    """Of a class that can neither be looked up nor compared."""


class _Mapping(collections.abc.Mapping):
    def __getitem__(self, key):
        return {"a": 1, "b": {2}}[key]

    def __iter__(self):
        return iter(("a", "b"))

    def __len__(self):
        return 2


class _Sequence(collections.abc.Sequence):
    def __getitem__(self, index):
        return (1, {2})[index]

    def __len__(self):
        return 2


class _Set(collections.abc.Set):
    def __contains__(self, item):
        return item == 1

    def __iter__(self):
        return iter((1,))

    def __len__(self):
        return 1


class _Path(os.PathLike):
    def __fspath__(self):
        return "/there"


@dataclasses.dataclass
class _Item:
    name: str = "a"
    price: Decimal = Decimal("1.5")


@attrs.define(slots=False)
class _Seat:
    row: int = 1


class _Model(pydantic.BaseModel):
    city: str = "Ulm"


class _Point(typing.NamedTuple):
    x: int = 1
    y: int = 2


def _list(kind, items):
    made = list.__new__(kind)
    list.extend(made, items)
    return made


def _deque(kind, items):
    made = collections.deque.__new__(kind)
    collections.deque.extend(made, items)
    return made


def _dict(kind, items):
    made = kind.__mro__[-2].__new__(kind)
    for place, item in enumerate(items):
        dict.__setitem__(made, f"k{place}", item)
    return made


def _user_dict(kind, items):
    made = object.__new__(kind)
    object.__setattr__(made, "data", {f"k{place}": item for place, item in enumerate(items)})
    return made


def _bytearray(kind, _):
    made = bytearray.__new__(kind)
    bytearray.extend(made, b"ab\xff")
    return made


def _uuid(kind, _):
    made = object.__new__(kind)
    object.__setattr__(made, "int", 5)
    return made


# Made by the bases' own constructors, so that what a class overrides does not keep it from being made.
BASES = {
    "object": (object, lambda kind, _: object.__new__(kind)),
    "str": (str, lambda kind, _: str.__new__(kind, "t\u00e9xt\ud800")),
    "int": (int, lambda kind, _: int.__new__(kind, 7)),
    "huge int": (int, lambda kind, _: int.__new__(kind, 10**5000)),
    "float": (float, lambda kind, _: float.__new__(kind, 1.5)),
    "bytes": (bytes, lambda kind, _: bytes.__new__(kind, b"ab\xff")),
    "bytearray": (bytearray, _bytearray),
    "list": (list, _list),
    "tuple": (tuple, tuple.__new__),
    "named tuple": (_Point, lambda kind, _: tuple.__new__(kind, (1, 2))),
    "set": (set, lambda kind, _: set.__new__(kind)),
    "frozenset": (frozenset, lambda kind, _: frozenset.__new__(kind, (1, "a"))),
    "deque": (collections.deque, _deque),
    "dict": (dict, _dict),
    "OrderedDict": (collections.OrderedDict, _dict),
    "Counter": (collections.Counter, _dict),
    "UserDict": (collections.UserDict, _user_dict),
    "mapping": (_Mapping, lambda kind, _: object.__new__(kind)),
    "sequence": (_Sequence, lambda kind, _: object.__new__(kind)),
    "abstract set": (_Set, lambda kind, _: object.__new__(kind)),
    "path": (_Path, lambda kind, _: object.__new__(kind)),
    "datetime": (datetime, lambda kind, _: datetime.__new__(kind, 2026, 1, 2, 3, 4, 5, 6)),
    "datetime with a zone": (datetime, lambda kind, _: datetime.__new__(kind, 2026, 1, 2, tzinfo=UTC)),
    "date": (date, lambda kind, _: date.__new__(kind, 2026, 1, 2)),
    "time": (time, lambda kind, _: time.__new__(kind, 1, 2, 3)),
    "timedelta": (timedelta, lambda kind, _: timedelta.__new__(kind, 1, 2, 3)),
    "zone": (_Zone, lambda kind, _: datetime(2026, 1, 2, tzinfo=tzinfo.__new__(kind))),
    "zone of a time": (_Zone, lambda kind, _: time(1, 2, tzinfo=tzinfo.__new__(kind))),
    "Decimal": (Decimal, lambda kind, _: Decimal.__new__(kind, "1.5")),
    "Fraction": (Fraction, lambda kind, _: Fraction.__new__(kind, 1, 3)),
    "complex": (complex, lambda kind, _: complex.__new__(kind, 1, 2)),
    "UUID": (uuid.UUID, _uuid),
    "UUID, half made": (uuid.UUID, lambda kind, _: object.__new__(kind)),
    "exception": (Exception, lambda kind, _: Exception.__new__(kind, "a")),
    "dataclass": (_Item, lambda kind, _: object.__new__(kind)),
    "attrs": (_Seat, lambda kind, _: object.__new__(kind)),
    "pydantic": (_Model, lambda kind, _: kind.model_construct()),
    "numpy float": (np.float64, lambda kind, _: np.float64.__new__(kind, 1.5)),
    "numpy array": (np.ndarray, lambda kind, _: np.arange(3).view(kind)),
    "class": (object, lambda kind, _: kind),
    "module": (types.ModuleType, lambda kind, _: types.ModuleType.__new__(kind, "a")),
}
# What is asked of each kind of value; the rest of `METHODS` is there for what nobody thought of.
ASKED = {
    **dict.fromkeys(("mapping", "UserDict"), ("items", "keys", "__iter__", "__getitem__", "__len__")),
    **dict.fromkeys(("sequence", "abstract set"), ("__iter__", "__len__", "__getitem__", "__length_hint__")),
    **dict.fromkeys(
        ("datetime", "datetime with a zone", "time", "date"), ("isoformat", "utcoffset", "replace", "tzinfo")
    ),
    **dict.fromkeys(("zone", "zone of a time"), ("utcoffset", "tzname", "dst", "fromutc")),
    **dict.fromkeys(("bytes", "bytearray"), ("__bytes__", "decode", "__len__")),
    **dict.fromkeys(("enum", "enum of str", "enum of int", "flag"), ("value", "_value_", "__getattribute__", "name")),
    **dict.fromkeys(("numpy array", "numpy float"), ("shape", "dtype", "astype", "tolist", "ndim", "__iter__")),
    **dict.fromkeys(("UUID", "UUID, half made"), ("int", "__str__", "__getattribute__")),
    "Decimal": ("is_finite", "__int__", "__float__", "__le__", "__ge__", "__eq__"),
    "timedelta": ("total_seconds",),
    "path": ("__fspath__",),
    "pydantic": ("model_dump", "__getattribute__", "city"),
    "dataclass": ("name", "price", "__dataclass_fields__", "__getattribute__"),
    "attrs": ("row", "__attrs_attrs__", "__getattribute__"),
    "object": (
        "__class__",
        "__dataclass_fields__",
        "__attrs_attrs__",
        "model_dump",
        "__fields__",
        "dict",
        "__fspath__",
    ),
}
ENUMS = {"enum": (enum.Enum,), "enum of str": (str, enum.Enum), "enum of int": (enum.IntEnum,), "flag": (enum.Flag,)}

# What an overridden method may do. What it returns is made afresh, but for itself.
ANSWERS = {
    "None": lambda _: None,
    "itself": lambda value: value,
    "its class": type,
    "NotImplemented": lambda _: NotImplemented,
    "-1": lambda _: -1,
    "a huge number": lambda _: 10**5000,
    "NaN": lambda _: float("nan"),
    "True": lambda _: True,
    "no text": lambda _: "",
    "text": lambda _: "a\ud800\n",
    "bytes": lambda _: b"\xff",
    "a list of itself": lambda value: [value],
    "pairs of itself": lambda value: [("a", value), (value, 1)],
    "a mapping of itself": lambda value: {"a": value},
    "an object": lambda _: object(),
    "a stranger": lambda _: _Stranger(),
    "a class": lambda _: str,
    "the class of lists": lambda _: list,
    "the class of dicts": lambda _: dict,
    "no end of numbers": lambda _: itertools.count(),
    "no end of pairs": lambda value: zip(itertools.count(), itertools.repeat(value)),
    "no end of no end": lambda _: (itertools.count() for _ in itertools.count()),
    "one level more": lambda value: type(value)(),
    "a decimal": lambda _: Decimal("NaN"),
    "a moment": lambda _: datetime.max,  # noqa: DTZ901 - no zone can be computed for it
}


def _change(containers):
    for container in containers[-20:]:
        if type(container) is list:
            container.append(1)
            del container[20:]
        elif type(container) is dict:
            container[f"more{len(container) % 20}"] = container
            container.pop("k0", None)


def _acting(name, act, containers):
    """The method `name` that does what `act` says."""
    kind, what = act
    errors = [error for error in ERRORS if error.__name__ == what]

    def method(self, *arguments, **options):
        if kind == "raises":
            raise errors[0]("of its own")
        if kind == "recurses":
            return getattr(self, name)(*arguments, **options)
        if kind == "changes":  # what is being read, and then it answers
            _change(containers)
        return ANSWERS[what](self)

    return method


class Maker:
    """Makes the objects of one recipe.

    Args:
        containers: Containers that methods may change; those of the recipe are added.
    """

    def __init__(self, containers=()):
        self._containers = list(containers)

    def make(self, recipe):
        """The object of a recipe."""
        if type(recipe) is not tuple:
            return recipe
        return getattr(self, f"_{recipe[0]}")(*recipe[1:])

    def _list(self, parts):
        made = []
        self._containers.append(made)
        made.extend([self.make(part) for part in parts])
        return made

    def _tuple(self, parts):
        return tuple(self.make(part) for part in parts)

    def _dict(self, pairs):
        made = {}
        self._containers.append(made)
        for key, value in pairs:
            self.put(made, self.make(key), self.make(value))
        return made

    @staticmethod
    def put(container, key, value):
        """Put a value where its key, or what becomes of it, allows."""
        try:
            container[key] = value
        except Exception:  # noqa: BLE001 - what cannot be a key
            container["k0"] = [key, value]

    def _set(self, parts):
        made = set()
        for part in parts:
            with suppress(Exception):  # what cannot be in a set
                made.add(self.make(part))
        return made

    def _wrapped(self, kind, part):
        return WRAPS[kind](self.make(part))

    def _nested(self, kind, depth, part):
        made = self.make(part)
        for _ in range(depth):
            made = [made] if kind == "list" else {"a": made} if kind == "dict" else (made,)
        return made

    def _circle(self, parts):
        made = self._list(parts)
        made.append({"up": made})
        return made

    def _known(self, name):
        return KNOWN[name]()

    def _hostile(self, base, overrides, of_class, parts):
        items = [self.make(part) for part in parts]
        space = {}
        for name, act in overrides:
            method = _acting(name, act, self._containers)
            space[name] = property(method) if name in ATTRIBUTES else method
        meta_space = {name: _acting(name, act, self._containers) for name, act in of_class}
        try:
            return self._instance(base, space, meta_space, items)
        except Exception:  # noqa: BLE001 - some classes cannot be made
            return object()

    def _instance(self, base, space, meta_space, items):
        if base in ENUMS:

            def body(namespace):
                namespace.update(space)
                namespace["A"] = "a" if str in ENUMS[base] else 1

            return next(iter(types.new_class("Hostile", ENUMS[base], exec_body=body).__members__.values()))
        parent, make = BASES[base]
        meta = type(parent)
        if meta_space:
            meta = type("HostileMeta", (meta,), meta_space)
        return make(meta("Hostile", (parent,), {"__hash__": parent.__hash__, **space}), items)


def _array_of(value):
    array = np.empty(1, dtype=object)
    array[0] = value
    return array


WRAPS = {
    "mapping proxy": lambda value: types.MappingProxyType({"a": value}),
    "ChainMap": lambda value: collections.ChainMap({"a": value}, {"b": value}),
    "default": lambda value: collections.defaultdict(list, a=value),
    "values": lambda value: {"a": value}.values(),
    "generator": lambda value: (one for one in [value]),
    "namespace": lambda value: types.SimpleNamespace(a=value),
    "dataclass": lambda value: _Item(value, value),
    "deque": lambda value: collections.deque([value]),
    "array of objects": _array_of,
}


def _released():
    view = memoryview(b"abc")
    view.release()
    return view


def _array_of_itself():
    array = _array_of(None)
    array[0] = array
    return array


KNOWN = {
    "number of 5,000 digits": lambda: 10**5000,
    "stranger": _Stranger,
    "lock": threading.Lock,
    "reentrant lock": threading.RLock,
    "thread": threading.current_thread,
    "module": lambda: os,
    "function": lambda: _released,
    "built-in function": lambda: len,
    "abstract class": lambda: abc.ABC,
    "class": lambda: dict,
    "alias": lambda: list[int],
    "generator": lambda: (number for number in (1, 2)),
    "count": itertools.count,
    "range": lambda: range(10**12),
    "ellipsis": lambda: ...,
    "slice": lambda: slice(1),
    "frame": lambda: types.SimpleNamespace(code=_released.__code__),
    "memoryview, released": _released,
    "path": lambda: pathlib.PurePosixPath("/\udcff"),
    "array of itself": _array_of_itself,
    "array without an end": lambda: np.empty((10**9, 0)),
    "longdouble": lambda: np.longdouble("1.5"),
    "NaT": lambda: np.datetime64("NaT", "s"),
    "secret": lambda: pydantic.SecretStr("hidden"),
    "endless sequence": type("_Endless", (_Sequence,), {"__getitem__": lambda _, index: index}),
}


class _Counting(_Mapping):
    def __iter__(self):
        return itertools.count()

    def __getitem__(self, _):
        return 1


FOREVER = {
    "a mapping": _Counting,
    "pairs": type("Pairs", (_Mapping,), {"items": lambda _: iter([itertools.count()])}),
    "fields": type("Fields", (), {"__dataclass_fields__": property(lambda _: itertools.count())}),
    "names of fields": type("Names", (), {"__dataclass_fields__": _Counting()}),
    "attributes": type("Attributes", (), {"__attrs_attrs__": itertools.count()}),
    "a shape": type("Shaped", (), {"__module__": "numpy", "shape": itertools.count()}),
    "sides of 0": lambda: np.empty((10**9, 0)),
}
"""What goes on for ever, or for as long as memory lasts."""

# Recipes


_acts = st.one_of(
    st.tuples(st.just("raises"), st.sampled_from([error.__name__ for error in ERRORS])),
    st.tuples(st.just("returns"), st.sampled_from(sorted(ANSWERS))),
    st.tuples(st.just("changes"), st.sampled_from(sorted(ANSWERS))),
    st.tuples(st.just("recurses"), st.none()),
)
_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.binary(max_size=20)
    | st.tuples(st.just("known"), st.sampled_from(sorted(KNOWN)))
)


def _overrides(base):
    asked = st.sampled_from((*ASKED.get(base, ()), "__str__", "__class__"))
    return st.lists(st.tuples(asked | asked | st.sampled_from(METHODS + ATTRIBUTES), _acts), min_size=1, max_size=4)


def _larger(parts):
    hostile = st.sampled_from(sorted([*BASES, *ENUMS])).flatmap(
        lambda base: st.tuples(
            st.just("hostile"),
            st.just(base),
            _overrides(base),
            st.just([]) | st.just([]) | st.lists(st.tuples(st.sampled_from(OF_CLASSES), _acts), max_size=2),
            st.lists(parts, max_size=2),
        )
    )
    return (
        hostile
        | hostile
        | st.tuples(st.sampled_from(["list", "tuple", "set", "circle"]), st.lists(parts, max_size=3))
        | st.tuples(st.just("dict"), st.lists(st.tuples(parts, parts), max_size=3))
        | st.tuples(st.just("wrapped"), st.sampled_from(sorted(WRAPS)), parts)
        | st.tuples(st.just("nested"), st.sampled_from(["list", "dict", "tuple"]), st.sampled_from([3, 250]), parts)
    )


recipes = st.recursive(_leaves, _larger, max_leaves=6)
"""Recipes of anything at all."""


# Where it goes, and what comes of it


AFTER = {"x": [1, "\u00e9", {"y": None}]}
"""What stands beside an odd value."""


def refuse(constant):
    """JSON has no NaN."""
    raise AssertionError(f"{constant} is not JSON")


def once(pairs):
    """An object in which a key stands twice is read differently by each reader."""
    assert len({key for key, _ in pairs}) == len(pairs), "a key stands twice"
    return dict(pairs)


def strictly(body):
    """What readers that keep to the standard make of `body`, all the same."""
    read = json.loads(body.decode("utf-8"), parse_constant=refuse, object_pairs_hook=once)
    assert orjson.loads(body) == read
    return read


def in_properties(client, odd, properties):
    """As a value of an event that has others."""
    properties |= {"odd": odd, "after": AFTER}
    return client.track("u", "odd", properties, account_id="a")


def as_key(client, odd, properties):
    """As a key of an event that has others."""
    properties["after"] = AFTER
    Maker.put(properties, odd, 1)
    return client.track("u", "odd", properties, account_id="a")


PLACES = {
    "a value": in_properties,
    "a key": as_key,
    "properties": lambda client, odd, _: client.track("u", "odd", odd, account_id="a"),
    "traits": lambda client, odd, _: client.identify("u", odd, account_id="a"),
    "context": lambda client, odd, _: client.track("u", "odd", account_id="a", context=odd),
    "user_id": lambda client, odd, _: client.track(odd, "odd", account_id="a"),
    "account_id": lambda client, odd, _: client.account(odd),
    "event": lambda client, odd, _: client.track("u", odd, account_id="a"),
    "custom_object_id": lambda client, odd, _: client.custom_object("o", odd, account_id="a"),
    "name": lambda client, odd, _: client.custom_object("o", "c", name=odd, account_id="a"),
    "timestamp": lambda client, odd, _: client.track("u", "odd", account_id="a", timestamp=odd),
    "message_id": lambda client, odd, _: client.track("u", "odd", account_id="a", message_id=odd),
}
WHOLE = {"a value", "a key"}
"""Where an odd value costs at most itself; elsewhere it is what the message is about, and may be invalid."""
