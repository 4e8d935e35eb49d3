import array
import collections
import collections.abc
import dataclasses
import enum
import importlib.util
import json
import pathlib
import subprocess
import sys
import threading
import time
import types
import typing
import uuid
from datetime import date, datetime, timedelta, timezone, tzinfo
from datetime import time as clock
from decimal import Decimal
from fractions import Fraction

import attrs
import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_batcher import encoding as with_orjson

orjson = pytest.importorskip("orjson")

UTC = timezone.utc
A_UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


def _without_orjson():
    spec = importlib.util.spec_from_file_location("encoding_without_orjson", with_orjson.__file__)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "orjson", None)
        spec.loader.exec_module(module)
    return module


without_orjson = _without_orjson()


@pytest.fixture(params=[with_orjson, without_orjson], ids=["orjson", "stdlib"])
def encoding(request):
    """The module with orjson, and the module as it is without."""
    return request.param


def _refuse(constant):
    pytest.fail(f"{constant} is not JSON")


def _strictly(body):
    """What a reader that keeps to the standard makes of `body`."""
    return json.loads(body.decode("utf-8"), parse_constant=_refuse)


def _value_of(encoding, value, default=None):
    return _strictly(encoding.mend({"v": value}, default))["v"]


class _Color(enum.Enum):
    RED = 1
    PRICE = Decimal("9.5")
    PAIR = (1, 2)


class _Plan(str, enum.Enum):
    PRO = "pro"

    def __str__(self):
        return "not the value"


class _Level(enum.IntEnum):
    HIGH = 3


class _Pair(tuple, enum.Enum):
    __slots__ = ()
    ONE = (1, 2)

    def __new__(cls, value):
        member = tuple.__new__(cls, value)
        member._value_ = "one"
        return member


class _Right(enum.Flag):
    READ = 1
    WRITE = 2


class _LyingStr(str):
    __slots__ = ()

    def __str__(self):
        return "not the text"


class _LyingInt(int):
    def __int__(self):
        return 0

    def __str__(self):
        return "0"


class _LyingFloat(float):
    def __float__(self):
        return 0.0


class _LyingDict(dict):
    def items(self):
        raise RuntimeError

    def __iter__(self):
        raise RuntimeError


class _LyingList(list):
    def __iter__(self):
        raise RuntimeError


class _LyingSet(set):
    def __iter__(self):
        raise RuntimeError


class _Point(typing.NamedTuple):
    x: int
    y: int


@dataclasses.dataclass
class _Item:
    name: str
    price: Decimal
    parts: list = dataclasses.field(default_factory=list)
    shared: typing.ClassVar[int] = 1


@dataclasses.dataclass
class _Slotted:
    __slots__ = ("there", "unset")
    there: int
    unset: int


def _half_made():
    made = _Slotted.__new__(_Slotted)
    made.there = 1
    return made


@attrs.define
class _Seat:
    row: int
    taken: set


class _Address(pydantic.BaseModel):
    city: str
    since: date


class _Customer(pydantic.BaseModel):
    address: _Address
    rate: Decimal


class _BytesPath:
    def __fspath__(self):
        return b"/tmp/caf\xc3\xa9"


class _OwnMapping(collections.abc.Mapping):
    def __init__(self, **items):
        self._items = items

    def __getitem__(self, key):
        return self._items[key]

    def __iter__(self):
        return iter(self._items)

    def __len__(self):
        return len(self._items)


class _OwnSequence(collections.abc.Sequence):
    def __getitem__(self, index):
        return (1, 2)[index]

    def __len__(self):
        return 2


class _OwnSet(collections.abc.Set):
    def __contains__(self, item):
        return item == 1

    def __iter__(self):
        return iter([1])

    def __len__(self):
        return 1


class _NaTType(datetime):
    """As pandas has it: a datetime that says so of itself."""

    def isoformat(self, *_args):
        return "NaT"


class _OffsetNone(tzinfo):
    def utcoffset(self, _when):
        return None


class _BrokenZone(tzinfo):
    def utcoffset(self, _when):
        raise LookupError


class _Opaque:
    def __str__(self):
        return "opaque \ud800"


class _StrRaises:
    def __str__(self):
        raise LookupError


RULES = {
    # numbers
    "decimal": (Decimal("12.50"), "12.5"),
    "decimal, integral": (Decimal("3.0"), "3"),
    "decimal, short": (Decimal("0.1"), "0.1"),
    "decimal, 64 bits": (Decimal(2**64 - 1), "18446744073709551615"),
    "decimal, huge": (Decimal("1E+1000000"), '"1E+1000000"'),
    "decimal, tiny": (Decimal("1E-1000000"), "0.0"),
    "decimal, NaN": (Decimal("NaN"), "null"),
    "decimal, signaling NaN": (Decimal("sNaN"), "null"),
    "decimal, infinite": (Decimal("-Infinity"), "null"),
    "NaN": (float("nan"), "null"),
    "infinity": (float("inf"), "null"),
    "minus infinity": (float("-inf"), "null"),
    "int, largest": (2**64 - 1, "18446744073709551615"),
    "int, too large": (2**64, '"18446744073709551616"'),
    "int, smallest": (-(2**63), "-9223372036854775808"),
    "int, too small": (-(2**63) - 1, '"-9223372036854775809"'),
    "complex": (1 + 2j, '"(1+2j)"'),
    "fraction": (Fraction(1, 3), '"1/3"'),
    # text
    "lone surrogates": ("a\ud800b\udc00", '"a\ufffdb\ufffd"'),
    "a pair of surrogates": ("\ud83d\ude00\ud83d", '"\U0001f600\ufffd"'),
    "not ASCII": ("\u00e9\u4e2d\U0001f600", '"\u00e9\u4e2d\U0001f600"'),
    "bytes": (b"caf\xc3\xa9", '"caf\u00e9"'),
    "bytes, not UTF-8": (b"\xff\x00", '"/wA="'),
    "bytes, UTF-8 surrogates": (b"\xed\xa0\x80", '"7aCA"'),
    "bytearray": (bytearray(b"abc"), '"abc"'),
    "memoryview": (memoryview(b"abc"), '"abc"'),
    "memoryview, with gaps": (memoryview(b"abcd")[::2], '"ac"'),
    "UUID": (A_UUID, f'"{A_UUID}"'),
    "path": (pathlib.PurePosixPath("/tmp/a"), '"/tmp/a"'),  # noqa: S108 - not opened
    "path, undecodable": (pathlib.PurePosixPath("/\udcff"), '"/\ufffd"'),
    "path-like of bytes": (_BytesPath(), '"/tmp/caf\u00e9"'),
    "UserString": (collections.UserString("abc"), '"abc"'),
    # time
    "datetime": (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), '"2026-01-02T03:04:05+00:00"'),
    "datetime, microseconds": (datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC), '"2026-01-02T03:04:05.000678+00:00"'),
    "datetime, zone": (
        datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=-3.5))),
        '"2026-01-02T03:04:00-03:30"',
    ),
    "datetime, broken zone": (datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=_BrokenZone()), '"2026-01-02T03:04:05.000006"'),
    "NaT": (_NaTType(1, 1, 1), "null"),
    "date": (date(2026, 1, 2), '"2026-01-02"'),
    "time": (clock(1, 2, 3), '"01:02:03"'),
    "time, zone": (clock(1, 2, 3, tzinfo=UTC), '"01:02:03+00:00"'),
    "time, broken zone": (clock(1, 2, 3, tzinfo=_BrokenZone()), "null"),
    "timedelta": (timedelta(minutes=1, seconds=30), "90"),
    "timedelta, fraction": (timedelta(seconds=-1, milliseconds=-500), "-1.5"),
    # enumerations
    "enum": (_Color.RED, "1"),
    "enum, odd value": (_Color.PRICE, "9.5"),
    "enum, tuple": (_Color.PAIR, "[1,2]"),
    "enum of str": (_Plan.PRO, '"pro"'),
    "enum of int": (_Level.HIGH, "3"),
    "enum of tuple": (_Pair.ONE, '"one"'),
    "flag": (_Right.READ | _Right.WRITE, "3"),
    # arrays
    "set": ({1}, "[1]"),
    "frozenset": (frozenset({1}), "[1]"),
    "tuple": ((1, {2}), "[1,[2]]"),
    "named tuple": (_Point(1, 2), "[1,2]"),
    "deque": (collections.deque([1, 2]), "[1,2]"),
    "range": (range(3), "[0,1,2]"),
    "endless range": (range(10**12), '"range(0, 1000000000000)"'),
    "keys": ({"a": 1}.keys(), '["a"]'),
    "values": ({"a": 1}.values(), "[1]"),
    "items": ({"a": 1}.items(), '[["a",1]]'),
    "array": (array.array("i", [1, 2]), "[1,2]"),
    "UserList": (collections.UserList([1, {2}]), "[1,[2]]"),
    "own sequence": (_OwnSequence(), "[1,2]"),
    "own set": (_OwnSet(), "[1]"),
    # objects
    "OrderedDict": (collections.OrderedDict(b=1, a={2}), '{"b":1,"a":[2]}'),
    "UserDict": (collections.UserDict(a={1}), '{"a":[1]}'),
    "mapping proxy": (types.MappingProxyType({"a": 1}), '{"a":1}'),
    "ChainMap": (collections.ChainMap({"a": 1}), '{"a":1}'),
    "own mapping": (_OwnMapping(a={1}), '{"a":[1]}'),
    "dataclass": (
        _Item("a", Decimal("1.5"), [_Item("b", Decimal(2))]),
        '{"name":"a","price":1.5,"parts":[{"name":"b","price":2,"parts":[]}]}',
    ),
    "dataclass, half made": (_half_made(), '{"there":1,"unset":null}'),
    "attrs": (_Seat(1, {2}), '{"row":1,"taken":[2]}'),
    "pydantic": (
        _Customer(address=_Address(city="Ulm", since=date(2026, 1, 2)), rate=Decimal("1.5")),
        '{"address":{"city":"Ulm","since":"2026-01-02"},"rate":1.5}',
    ),
    # subclasses whose overrides do not count
    "subclass of str": (_LyingStr("abc"), '"abc"'),
    "subclass of int": (_LyingInt(5), "5"),
    "subclass of int, too large": (_LyingInt(2**64), '"18446744073709551616"'),
    "subclass of float": (_LyingFloat(1.5), "1.5"),
    "subclass of float, NaN": (_LyingFloat("nan"), "null"),
    "subclass of dict": (_LyingDict(a={1}), '{"a":[1]}'),
    "subclass of list": (_LyingList([1, {2}]), "[1,[2]]"),
    "subclass of set": (_LyingSet([1]), "[1]"),
    # numpy
    "numpy int": (np.int64(5), "5"),
    "numpy uint": (np.uint64(2**64 - 1), "18446744073709551615"),
    "numpy float": (np.float32(0.5), "0.5"),
    "numpy double": (np.float64(0.5), "0.5"),
    "numpy NaN": (np.float32("nan"), "null"),
    "numpy long double": (np.longdouble(1.5), "1.5"),
    "numpy long doubles": (np.array([[1.5]], dtype=np.longdouble), "[[1.5]]"),
    "numpy complex": (np.clongdouble(1 + 2j), '"(1+2j)"'),
    "numpy bool": (np.bool_(1), "true"),
    "numpy str": (np.str_("abc"), '"abc"'),
    "numpy bytes": (np.bytes_(b"abc"), '"abc"'),
    "numpy datetime": (np.datetime64("2026-01-02T03:04:05.678", "ms"), '"2026-01-02T03:04:05.678"'),
    "numpy datetime, nanoseconds": (np.datetime64(1, "ns"), '"1970-01-01T00:00:00.000000001"'),
    "numpy NaT": (np.datetime64("NaT", "s"), "null"),
    "numpy datetimes": (np.array(["2026-01-02", "NaT"], dtype="M8[D]"), '["2026-01-02",null]'),
    "numpy timedelta": (np.timedelta64(1_500_000_000, "ns"), "1.5"),
    "numpy array": (np.array([[1, 2], [3, 4]]), "[[1,2],[3,4]]"),
    "numpy array, no dimension": (np.array(5), "5"),
    "numpy array, empty": (np.array([]), "[]"),
    "numpy array, NaN": (np.array([1.5, float("nan")]), "[1.5,null]"),
    "numpy array of objects": (np.array([Decimal("1.5"), None], dtype=object), "[1.5,null]"),
    "numpy array, masked": (np.ma.array([1, 2], mask=[0, 1]), "[1,null]"),
    "numpy array, too large": (np.zeros(250_001, dtype="i1"), '"[0 0 0 ... 0 0 0]"'),
    "numpy type": (np.dtype("int32"), '"int32"'),
    # what is left
    "class": (int, "\"<class 'int'>\""),
    "class of a dataclass": (_Item, f"\"<class '{_Item.__module__}._Item'>\""),
    "class of pydantic": (_Address, f"\"<class '{_Address.__module__}._Address'>\""),
    "unknown": (_Opaque(), '"opaque \ufffd"'),
    "str() raises": (_StrRaises(), "null"),
}


@pytest.mark.parametrize(("value", "text"), RULES.values(), ids=RULES)
def test_rule(encoding, value, text):
    """Each kind of value is written by its rule, down to the byte."""
    assert encoding.mend({"v": value}, None) == f'{{"v":{text}}}'.encode()


KEYS = {
    "None": (None, "null"),
    "True": (True, "true"),
    "int": (1, "1"),
    "int, too large": (2**70, str(2**70)),
    "float": (1.5, "1.5"),
    "float, exponent": (1e100, "1e+100"),
    "float, small": (1e-7, "1e-07"),
    "NaN": (float("nan"), "null"),
    "enum": (_Color.RED, "1"),
    "enum of str": (_Plan.PRO, "pro"),
    "datetime": (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00+00:00"),
    "date": (date(2026, 1, 2), "2026-01-02"),
    "UUID": (A_UUID, str(A_UUID)),
    "decimal": (Decimal("1.5"), "1.5"),
    "bytes": (b"abc", "abc"),
    "tuple": ((1, "a"), '[1,"a"]'),
    "surrogate": ("a\ud800", "a\ufffd"),
    "subclass of str": (_LyingStr("abc"), "abc"),
    "numpy int": (np.int64(1), "1"),
    "unknown": (_Opaque(), "opaque \ufffd"),
    "str() raises": (_StrRaises(), "null"),
}


@pytest.mark.parametrize(("key", "text"), KEYS.values(), ids=KEYS)
def test_key(encoding, key, text):
    """A key becomes the text of its mended value."""
    assert list(_strictly(encoding.mend({"v": {key: 1}}, None))["v"]) == [text]


def test_keys_collide(encoding):
    """Of keys that become the same text the last one wins."""
    assert encoding.mend({1: "a", "1": "b"}, None) == b'{"1":"b"}'


@pytest.mark.parametrize("text", ["18446744073709551616", "0.3333333333333333333333", "1e-7", "1e300"])
def test_decimal_becomes_the_nearest_float(encoding, text):
    """A Decimal that is no 64-bit integer becomes the float that is nearest to it."""
    assert repr(_value_of(encoding, Decimal(text))) == repr(float(text))


def test_digits_that_python_refuses(encoding):
    """An integer of more digits than Python converts is written in hexadecimal."""
    assert _value_of(encoding, 16**5000) == "0x1" + "0" * 5000


def test_pydantic_1(encoding):
    """A model of pydantic's first version becomes an object, its parts mended."""
    v1 = pytest.importorskip("pydantic.v1")
    model = v1.create_model("Old", tags=(set, ...))
    assert encoding.mend({"v": model(tags={1})}, None) == b'{"v":{"tags":[1]}}'


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone cannot be set here")
@pytest.mark.parametrize(
    ("naive", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05-05:00"),  # noqa: DTZ001 - the point of it
        (datetime(2026, 7, 2, 3, 4, 5, 6), "2026-07-02T03:04:05.000006-04:00"),  # noqa: DTZ001 - as above
        (datetime(2026, 7, 2, tzinfo=_OffsetNone()), "2026-07-02T00:00:00-04:00"),
        (datetime.min, "0001-01-01T00:00:00"),  # noqa: DTZ901 - no zone can be computed for it
    ],
)
def test_naive_datetime_is_local(encoding, naive, text, monkeypatch):
    """A datetime without an offset gets the local one of that moment, or none where none can be computed."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert _value_of(encoding, naive) == text
    finally:
        monkeypatch.undo()
        time.tzset()


def test_dataclass_is_not_copied(encoding):
    """A dataclass may hold what cannot be copied or pickled."""
    lock = threading.Lock()
    assert _value_of(encoding, _Item("a", Decimal(1), [lock])) == {"name": "a", "price": 1, "parts": [str(lock)]}


def test_iterators_are_not_consumed(encoding):
    """A generator and an iterator are still whole afterwards."""
    generator, iterator = (number for number in (1, 2)), iter([1, 2])
    encoding.mend({"a": generator, "b": iterator}, None)
    assert [list(generator), list(iterator)] == [[1, 2], [1, 2]]


def test_released_memoryview(encoding):
    """A memoryview that was released does not cost the message."""
    view = memoryview(b"abc")
    view.release()
    assert "released" in _value_of(encoding, view)


def _cycles():
    message, array_, box, mapping = {}, [1], _Item("a", Decimal(1)), collections.UserDict()
    message["self"] = message
    array_.append({"up": array_})
    box.parts.append(box)
    mapping["up"] = mapping
    return {
        "message": (message, {"self": None}),
        "list": ({"v": array_}, {"v": [1, {"up": None}]}),
        "dataclass": ({"v": box}, {"v": {"name": "a", "price": 1, "parts": [None]}}),
        "mapping": ({"v": mapping}, {"v": {"up": None}}),
    }


@pytest.mark.parametrize(("message", "expected"), _cycles().values(), ids=_cycles())
def test_cycle(encoding, message, expected):
    """A circular reference is null where the circle closes."""
    assert _strictly(encoding.mend(message, None)) == expected


def test_same_object_twice(encoding):
    """An object that occurs twice side by side, or again after its branch was left, is written each time."""
    shared = {"a": {1}}
    assert _value_of(encoding, [shared, shared, [shared]]) == [{"a": [1]}, {"a": [1]}, [{"a": [1]}]]


def _nested(levels, wrap, innermost=1):
    for _ in range(levels):
        innermost = wrap(innermost)
    return innermost


WRAPS = {
    "list": lambda value: [value],
    "dict": lambda value: {"a": value},
    "tuple": lambda value: (value,),
    "mapping": lambda value: _OwnMapping(a=value),
    "dataclass": lambda value: _Slotted(there=value, unset=0),
    "default": lambda value: types.SimpleNamespace(v=value),
}


def _levels(value):
    levels = 0
    while isinstance(value, (list, dict)):
        levels += 1
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    return levels, value


@pytest.fixture
def recursion_limit():
    """Sets Python's limit, and resets it at the end."""
    before = sys.getrecursionlimit()
    yield sys.setrecursionlimit
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_depth(encoding, wrap, recursion_limit):
    """200 levels are kept, what is deeper is null, and 5,000 harm nothing."""
    recursion_limit(3000)
    assert _levels(_value_of(encoding, _nested(200, wrap), vars)) == (200, 1)
    assert _levels(_value_of(encoding, _nested(200, wrap, {1}), vars)) == (200, None)
    recursion_limit(1000)
    levels, innermost = _levels(_value_of(encoding, _nested(5000, wrap), vars))
    assert 100 < levels <= 200
    assert innermost is None


def test_objects_that_all_refer_to_each_other(encoding):
    """A dense web of references is refused within a moment, though the paths through it are astronomically many."""
    web = [{} for _ in range(25)]
    for node in web:
        node.update((str(index), other) for index, other in enumerate(web))
    with pytest.raises(encoding.Unserializable, match="250000"):
        encoding.mend({"web": web}, None)


def test_values_are_counted_over_the_whole_message(encoding):
    """A message of 250,000 values is written, one of more is refused."""
    half = [{1}] * 62_500
    assert len(_strictly(encoding.mend({"a": half, "b": [0] * 124_998}, None))["b"]) == 124_998
    with pytest.raises(encoding.Unserializable, match="250000"):
        encoding.mend({"a": half, "b": [0] * 124_999}, None)


def _frames():
    frame, count = sys._getframe(), 0
    while frame is not None:
        frame, count = frame.f_back, count + 1
    return count


def _at_depth(frames, call):
    return _at_depth(frames - 1, call) if frames else call()


def _with_room(frames, call):
    try:
        return _at_depth(sys.getrecursionlimit() - _frames() - frames, call)
    except RecursionError:
        return RecursionError


@pytest.mark.parametrize("room", range(30, 270, 15))
def test_caller_with_little_stack_left(encoding, room):
    """Deep in the caller's stack, what is nested deep becomes null and the rest of the message is written."""
    message = {"a": 1, "v": _nested(150, WRAPS["list"], {1}), "d": _Opaque(), "z": 2}
    written = _strictly(_with_room(room, lambda: encoding.mend(message, None)))
    assert (written["a"], written["z"]) == (1, 2)
    assert _levels(written["v"])[1] is None


def test_caller_with_no_stack_left(encoding):
    """At the end of the caller's stack a message is refused, and no RecursionError escapes from the walk."""

    def call():
        try:
            return encoding.mend({"v": [1]}, None)
        except encoding.Unserializable:
            return encoding.Unserializable

    outcomes = [_with_room(room, call) for room in range(20)]
    reached = [outcome for outcome in outcomes if outcome is not RecursionError]
    assert outcomes[-len(reached) :] == reached
    assert reached[0] is encoding.Unserializable
    assert reached[-1] == b'{"v":[1]}'


def test_default_is_mended(encoding):
    """What `default` returns is mended too, and `default` is asked again for what is unknown in it."""
    answers = {_Opaque: {"price": Decimal("1.5"), 2: 1j}, complex: {3}}
    assert _value_of(encoding, _Opaque(), lambda value: answers[type(value)]) == {"price": 1.5, "2": [3]}


def test_default_makes_keys(encoding):
    """An unknown key goes to `default` like an unknown value."""
    assert _value_of(encoding, {1j: 1}, lambda _: "key") == {"key": 1}


def test_default_is_for_the_unknown(encoding):
    """`default` is not asked for what has a rule."""
    message = {name: value for name, (value, _) in RULES.items() if isinstance(value, (Decimal, set, enum.Enum))}
    assert encoding.mend(message, lambda _: pytest.fail("asked")) == encoding.mend(message, None)


@pytest.mark.parametrize("answer", [None, False, 0, ""])
def test_default_may_answer_anything(encoding, answer):
    """An answer of `default` that is false in Python is an answer."""
    assert _value_of(encoding, _Opaque(), lambda _: answer) == answer


def _raise(error):
    raise error


@pytest.mark.parametrize("default", [lambda _: _raise(LookupError()), lambda value: value])
def test_default_without_an_answer(encoding, default):
    """Where `default` raises, or hands the value back, its str() is written."""
    assert _value_of(encoding, _Opaque(), default) == "opaque \ufffd"


def test_default_that_never_ends(encoding):
    """A `default` that makes something unknown each time is asked 200 times at most."""
    asked = []

    def default(value):
        asked.append(value)
        return _Opaque()

    assert _value_of(encoding, _Opaque(), default) is None
    assert 1 < len(asked) <= 200


def test_default_that_wraps_its_value(encoding):
    """A `default` whose answer contains the value itself closes a circle."""
    assert _value_of(encoding, _Opaque(), lambda value: {"of": value}) == {"of": None}


class _Raising(pydantic.BaseModel):
    def model_dump(self, **_options):
        raise LookupError

    def __str__(self):
        return "fallback"


class _RaisingMapping(_OwnMapping):
    def __iter__(self):
        raise RuntimeError

    def __str__(self):
        return "fallback"


class _MappingWithoutPairs(_OwnMapping):
    def items(self):
        return [1, 2]

    def __str__(self):
        return "fallback"


class _TooLargeMapping(_OwnMapping):
    def items(self):
        return ((number, number) for number in range(250_001))

    def __str__(self):
        return "fallback"


class _RaisingSequence(_OwnSequence):
    def __getitem__(self, index):
        raise LookupError

    def __str__(self):
        return "fallback"


class _EndlessSequence(_OwnSequence):
    def __getitem__(self, index):
        return index

    def __str__(self):
        return "fallback"


class _RaisingPath:
    def __fspath__(self):
        raise LookupError

    def __str__(self):
        return "fallback"


class _RaisingEnum(enum.Enum):
    MEMBER = 1

    @property
    def value(self):
        raise LookupError

    def __str__(self):
        return "fallback"


class _RaisingDatetime(datetime):
    def isoformat(self, *_args):
        raise LookupError

    def __str__(self):
        return "fallback"


class _RaisingDecimal(Decimal):
    def is_finite(self):
        raise LookupError

    def __str__(self):
        return "fallback"


class _RaisingClass:
    """As an unbound proxy does."""

    @property
    def __class__(self):
        raise RuntimeError

    def __str__(self):
        return "fallback"


class _RaisingMeta(type):
    def __getattr__(cls, name):
        raise LookupError(name)


class _RaisingLookup(metaclass=_RaisingMeta):
    def __str__(self):
        return "fallback"


RAISING = {
    "pydantic": _Raising,
    "mapping": _RaisingMapping,
    "mapping without pairs": _MappingWithoutPairs,
    "mapping, too large": _TooLargeMapping,
    "sequence": _RaisingSequence,
    "endless sequence": _EndlessSequence,
    "path": _RaisingPath,
    "enum": lambda: _RaisingEnum.MEMBER,
    "datetime": lambda: _RaisingDatetime(2026, 1, 2, tzinfo=UTC),
    "decimal": lambda: _RaisingDecimal(1),
    "class": _RaisingClass,
    "attributes of the class": _RaisingLookup,
}


@pytest.mark.parametrize("make", RAISING.values(), ids=RAISING)
def test_hook_that_raises(encoding, make):
    """A value whose own code raises goes the way of the unknown: to `default`, or to str()."""
    assert _value_of(encoding, [make(), 1]) == ["fallback", 1]
    assert _value_of(encoding, [make(), 1], lambda _: "asked") == ["asked", 1]


def test_field_that_raises(encoding):
    """A field that cannot be read is null, and the rest of its object is written."""

    @attrs.define(slots=False)
    class _Account:
        name: str
        broken: int = 0

    _Account.broken = property(lambda _self: _raise(LookupError()))
    account = _Account.__new__(_Account)
    account.name = "a"
    assert _value_of(encoding, account) == {"name": "a", "broken": None}


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_is_no_fault_of_the_value_propagates(encoding, error):
    """A KeyboardInterrupt, a SystemExit or a MemoryError in the midst of a hook reaches the caller."""
    with pytest.raises(error):
        encoding.mend({"v": [_Opaque()]}, lambda _: _raise(error()))


@pytest.mark.parametrize("where", ["_snapshot", "_nearest"])
def test_exception_thrown_into_the_walk_propagates(where, monkeypatch):
    """What a signal handler raises outside of a value's own code reaches the caller, like a task's soft time limit."""

    class SoftTimeLimit(Exception):  # noqa: N818 - as task queues name it
        pass

    monkeypatch.setattr(with_orjson, where, lambda *_: _raise(SoftTimeLimit()))
    with pytest.raises(SoftTimeLimit):
        with_orjson.mend({"v": [1, [2]]}, lambda _: None)


def test_container_that_another_thread_changes_is_read_again(encoding):
    """A read that another thread disturbs is repeated."""
    failures = [RuntimeError("changed size during iteration")] * 3

    def read(value):
        if failures:
            raise failures.pop()
        return value

    assert encoding._snapshot(read, [1, 2]) == [1, 2]


def test_container_that_never_holds_still(encoding):
    """A container that is disturbed at each read makes the message unserializable, and it says which kind."""
    with pytest.raises(encoding.Unserializable, match="dict"):
        encoding._snapshot(lambda _: _raise(RuntimeError()), {})


def test_lack_of_stack_is_no_disturbance(encoding):
    """A RecursionError while a container is read costs that container, not the message."""
    with pytest.raises(RecursionError):
        encoding._snapshot(lambda _: _raise(RecursionError()), {})


def test_other_thread_changes_what_is_written(encoding):
    """Messages that another thread changes all the while are written without an error."""
    shared, done = {"dict": {}, "list": [], "set": set(), "deque": collections.deque()}, threading.Event()

    def change():
        while not done.is_set():
            for number in range(300):
                shared["dict"][str(number)] = shared
                shared["set"].add(number)
                shared["list"].append({number})
                shared["deque"].append(number)
            for container in shared.values():
                container.clear()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            assert set(_strictly(encoding.mend({"shared": shared}, None))["shared"]) == set(shared)
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)


def test_refusal_of_the_clean_tree(monkeypatch):
    """Should the encoder refuse the mended tree all the same, that is the one error of this module."""
    monkeypatch.setattr(with_orjson, "dumps", lambda *_: _raise(TypeError("why")))
    with pytest.raises(with_orjson.Unserializable, match="why"):
        with_orjson.mend({"v": 1}, None)


# What hypothesis makes of plain and odd values.

plain_leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text()
    | st.uuids()
    | st.sampled_from([_Color.RED, _Color.PAIR, _Plan.PRO, _Level.HIGH])
)
# They cannot be compared with what they were before.
WITHOUT_REPR = {"dataclass, half made", "subclass of set", "enum of tuple"}
odd_leaves = (
    st.integers()
    | st.decimals()
    | st.fractions()
    | st.complex_numbers()
    | st.binary()
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(_BrokenZone()))
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs", "L"]))
    | st.sampled_from(sorted(set(RULES) - WITHOUT_REPR)).map(lambda name: RULES[name][0])
    | st.sampled_from([_RaisingMapping, _RaisingSequence, _RaisingPath, _EndlessSequence]).map(lambda kind: kind())
)


def _plain(leaves):
    return st.recursive(
        leaves, lambda values: st.lists(values) | st.tuples(values) | st.dictionaries(st.text(), values)
    )


odd_keys = st.text() | st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.binary() | st.uuids()
odd_values = st.recursive(
    plain_leaves | odd_leaves,
    lambda values: (
        st.lists(values)
        | st.tuples(values, values)
        | st.dictionaries(odd_keys, values)
        | st.sets(odd_keys)
        | st.builds(_Item, st.text(), st.decimals(), st.lists(values))
        | st.builds(collections.deque, st.lists(values))
        | st.builds(collections.UserDict, st.dictionaries(odd_keys, values))
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(message=st.dictionaries(odd_keys, odd_values, max_size=5))
def test_anything_becomes_json(message):
    """Whatever a message holds, it becomes JSON by the standard and by orjson, and is itself unchanged."""
    before = repr(message)
    body = with_orjson.mend(message, None)
    assert repr(message) == before
    assert isinstance(_strictly(body), dict)
    assert with_orjson.dumps(with_orjson.loads(body), None, with_orjson.OPTIONS)
    assert _strictly(without_orjson.mend(message, None)) == _strictly(body)


@settings(deadline=None)
@given(message=st.dictionaries(st.text(), _plain(plain_leaves), max_size=5))
def test_mending_leaves_alone_what_is_sound(message):
    """What needs no mending comes out of `mend` as it comes from orjson."""
    assert with_orjson.mend(message, None) == with_orjson.dumps(message, None, with_orjson.OPTIONS)


def _same_digits(number):
    return orjson.dumps(number) == repr(number).encode() or orjson.dumps(number) == b"null"


@settings(deadline=None)
@given(value=_plain(plain_leaves.filter(lambda value: not isinstance(value, float) or _same_digits(value))))
def test_stand_in_writes_the_same_bytes(value):
    """The stand-in writes plain data byte for byte as orjson does, floats of the same notation provided."""
    assert without_orjson.dumps(value, None, 0) == with_orjson.dumps(value, None, with_orjson.OPTIONS)


@settings(deadline=None)
@given(value=_plain(st.floats()))
def test_stand_in_writes_the_same_numbers(value):
    """Where the stand-in writes an exponent differently, it is the same number."""
    assert _strictly(without_orjson.dumps(value, None, 0)) == _strictly(orjson.dumps(value))


def _written(dumps, value, options=0):
    try:
        return _strictly(dumps(value, None, options))
    except TypeError:
        return TypeError


@settings(deadline=None)
@given(value=plain_leaves | odd_values)
def test_stand_in_refuses_the_same(value):
    """The stand-in raises TypeError exactly where orjson does, so that the same values are mended."""
    assert _written(without_orjson.dumps, value) == _written(with_orjson.dumps, value, with_orjson.OPTIONS)


def _circle():
    circle = []
    circle.append(circle)
    return circle


REFUSED = {
    "datetime": datetime(2026, 1, 2, tzinfo=UTC),
    "dataclass": _Slotted(1, 2),
    "int, too large": 2**64,
    "int, too small": -(2**63) - 1,
    "key": {1: 2},
    "key, subclass of str": {_LyingStr("a"): 1},
    "surrogate": "\ud800",
    "surrogate in a key": {"\ud800": 1},
    "subclass of float": _LyingFloat(1.5),
    "named tuple": _Point(1, 2),
    "enum, odd value": _Color.PRICE,
    "depth of lists": _nested(300, WRAPS["list"]),
    "depth of dicts": _nested(300, WRAPS["dict"]),
    "circle": _circle(),
}


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED)
def test_dumps_refuses(encoding, value):
    """What needs mending is a TypeError, in the stand-in as in orjson."""
    with pytest.raises(TypeError):
        encoding.dumps(value, None, encoding.OPTIONS)


ACCEPTED = {
    "NaN": (float("nan"), b"null"),
    "UUID": (A_UUID, f'"{A_UUID}"'.encode()),
    "enum of str": (_Plan.PRO, b'"pro"'),
    "enum of tuple": (_Pair.ONE, b'"one"'),
    "subclass of str": (_LyingStr("abc"), b'"abc"'),
    "subclass of dict": (_LyingDict(a=1), b'{"a":1}'),
    "subclass of list": (_LyingList([1]), b"[1]"),
    "depth of lists": (_nested(254, WRAPS["list"]), b"[" * 254 + b"1" + b"]" * 254),
    "escapes": ('\x00\x1f\x7f\u2028"\\/\b\f\n\r\t', b'"\\u0000\\u001f\x7f\xe2\x80\xa8\\"\\\\/\\b\\f\\n\\r\\t"'),
}


@pytest.mark.parametrize(("value", "body"), ACCEPTED.values(), ids=ACCEPTED)
def test_dumps_accepts(encoding, value, body):
    """What orjson writes by itself needs no mending, in the stand-in as in orjson."""
    assert encoding.dumps(value, None, encoding.OPTIONS) == body


def test_stand_in_has_the_limit_of_orjson():
    """The stand-in refuses the 255th level, so that what it writes orjson would write too."""
    with pytest.raises(TypeError):
        without_orjson.dumps(_nested(255, WRAPS["list"]), None, 0)


def test_stand_in_with_an_enum_whose_value_raises():
    """An Enum whose value cannot be read is a TypeError in the stand-in, and goes on to be mended."""
    with pytest.raises(TypeError):
        without_orjson.dumps({"v": _RaisingEnum.MEMBER}, None, 0)


def test_stand_in_with_a_container_that_never_holds_still(monkeypatch):
    """A container that is disturbed at each read is a TypeError in the stand-in: the caller expects no other error."""
    monkeypatch.setattr(without_orjson, "_snapshot", lambda *_: _raise(without_orjson.Unserializable("why")))
    with pytest.raises(TypeError, match="why"):
        without_orjson.dumps({}, None, 0)


def test_stand_in_with_little_stack_left():
    """Where the caller's stack does not suffice the stand-in raises a TypeError: the caller expects no other error."""
    with pytest.raises(TypeError, match="recursion"):
        _at_depth(
            sys.getrecursionlimit() - _frames() - 100,
            lambda: without_orjson.dumps(_nested(250, WRAPS["list"]), None, 0),
        )


def test_loads(encoding):
    """`loads` reads UTF-8 JSON."""
    assert encoding.loads('{"a":[1,2.5,null,true,"\u00e9"]}'.encode()) == {"a": [1, 2.5, None, True, "\u00e9"]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{'a':1}",
        b"[1,]",
        b'"\xff"',
        b"NaN",
        b"[-Infinity]",
        b"\xef\xbb\xbf1",
        '"a"'.encode("utf-16"),
        b"[" * 100_000,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_loads_refuses(encoding, data):
    """What is not JSON is a ValueError, not a RecursionError or another."""
    with pytest.raises(ValueError):  # noqa: PT011 - the two libraries have their own words
        encoding.loads(data)


def test_orjson_itself_where_it_is():
    """Where orjson can be imported, the fast path is orjson with no Python function between."""
    assert (with_orjson.dumps, with_orjson.loads) == (orjson.dumps, orjson.loads)


def test_stand_in_where_orjson_is_not():
    """Where orjson cannot be imported, the stand-ins bear its names."""
    names = without_orjson.dumps.__module__, without_orjson.loads.__module__
    assert names == (without_orjson.__name__, without_orjson.__name__)


def test_import_is_cheap():
    """Importing the module imports none of the libraries whose values it knows."""
    code = (
        "import sys, analytics_batcher.encoding as _; print({'attr', 'dateutil', 'numpy', 'pydantic'} & {*sys.modules})"
    )
    root = pathlib.Path(with_orjson.__file__).parents[1]
    assert subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True) == "set()\n"
