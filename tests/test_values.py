from __future__ import annotations

import array
import collections
import dataclasses
import decimal
import enum
import itertools
import json
import re
import sys
import time as clock
import types
import typing
import weakref
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path, PurePosixPath
from uuid import UUID

import attrs
import numpy as np
import orjson
import pydantic
import pytest
from conftest import balanced
from programs.harness import run
from programs.hostile import AFTER, FOREVER, KNOWN, PLACES, WHOLE, strictly

from analytics_batcher import Client, InvalidMessage, Vitally

UTC = timezone.utc

# What the README says


def _rows():
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    section = text.split("## What each type becomes\n")[1].split("\n## ")[0]
    table = [line.strip("| ").split(" | ", 1) for line in section.splitlines() if line.startswith("| ")]
    return dict(table[1:])


ROWS = _rows()


class _Plan(enum.Enum):
    PRO = "pro"


class _Level(enum.IntEnum):
    HIGH = 3


class _Kind(str, enum.Enum):
    NEW = "new"


@dataclasses.dataclass
class _Item:
    name: str
    price: Decimal


@attrs.define
class _Seat:
    row: int
    taken: set


class _Login(pydantic.BaseModel):
    since: date
    password: pydantic.SecretStr


class _Point(typing.NamedTuple):
    x: int
    y: int


class _Text(str):
    __slots__ = ()

    def __str__(self):
        return "not the text"


class _Broken:
    def __str__(self):
        raise LookupError


class _Lazy:
    """As Django's lazy text: not a `str`, until it is asked."""

    def __str__(self):
        return "translated"


def _circle():
    circle = [1]
    circle.append(circle)
    return circle


NAMES = {
    **{name: getattr(collections, name) for name in ("ChainMap", "Counter", "OrderedDict", "deque")},
    **{kind.__name__: kind for kind in (Decimal, Fraction, IPv4Address, UUID, Path, date, datetime, time, timedelta)},
    "UTC": UTC,
    "nan": float("nan"),
    "np": np,
    "SecretStr": pydantic.SecretStr,
    "Plan": _Plan,
    "Item": _Item,
    "Broken": _Broken,
    "circle": _circle(),
}
# Of rows that name more than they can show.
MORE = {
    "`str`": [(_Text("a"), '"a"'), ("\ud83d\ude00", '"\U0001f600"')],
    "`int`": [(-(2**63) - 1, '"-9223372036854775809"'), (16**5000, f'"0x1{"0" * 5000}"'), (2**64 - 1, str(2**64 - 1))],
    "`float`": [(1.5, "1.5"), (float("inf"), "null"), (float("-inf"), "null")],
    "`bool`, `None`": [(False, "false")],
    "`Decimal`": [(Decimal("NaN"), "null"), (Decimal("-Infinity"), "null"), (Decimal(1) / 3, "0.3333333333333333")],
    "`bytes`, `bytearray`, `memoryview`": [(bytearray(b"\xc3\xa9"), '"\u00e9"'), (memoryview(b"abc"), '"abc"')],
    "`date`, `time`": [(time(3, 4, 5, 6, tzinfo=UTC), '"03:04:05.000006+00:00"')],
    "`timedelta`": [(timedelta(milliseconds=1), "0.001"), (timedelta.max, "86399999999999.999999")],
    "`UUID`, paths, IP addresses": [(IPv6Network("::/8"), '"::/8"'), (PurePosixPath("/\udcff"), '"/\\ufffd"')],
    "`Enum`": [(_Level.HIGH, "3"), (_Kind.NEW, '"new"')],
    "`list`, `tuple`, `deque`, `range`, `array`, named tuples, any `Sequence`": [
        (collections.deque([1]), "[1]"),
        (array.array("d", [1.5]), "[1.5]"),
        (_Point(1, 2), "[1, 2]"),
        (collections.UserList([1]), "[1]"),
    ],
    "`set`, `frozenset`, views of dicts, any `Set`": [
        (frozenset({1}), "[1]"),
        ({"a": 1}.keys(), '["a"]'),
        ({"a": 1}.values(), "[1]"),
    ],
    "`dict` and its subclasses, `ChainMap`, `MappingProxyType`, any `Mapping`": [
        (collections.OrderedDict(a={1}), '{"a": [1]}'),
        (collections.defaultdict(int, a=1), '{"a": 1}'),
        (collections.ChainMap({"a": 1}, {"b": 2}), '{"a": 1, "b": 2}'),
        (types.MappingProxyType({"a": 1}), '{"a": 1}'),
        (collections.UserDict(a=1), '{"a": 1}'),
    ],
    "a key that is no text": [({1: "first", "1": "last"}, '{"1": "last"}'), ({_Plan.PRO: 1}, '{"pro": 1}')],
    "dataclasses, attrs, pydantic (1 and 2)": [
        (_Seat(1, {2}), '{"row": 1, "taken": [2]}'),
        (_Login(since=date(2026, 1, 2), password="hunter2"), '{"since": "2026-01-02", "password": "**********"}'),
    ],
    "pydantic's `SecretStr`": [({pydantic.SecretStr("hunter2"): 1}, '{"**********": 1}')],
    "numpy's numbers, `bool_`, `str_`": [
        (np.uint64(2**64 - 1), "18446744073709551615"),
        (np.float64("nan"), "null"),
        (np.bool_(1), "true"),
        (np.str_("a"), '"a"'),
        (np.longdouble(1.5), "1.5"),
        (np.complex128(1j), '"1j"'),
    ],
    "numpy's arrays": [
        (np.array([1.5, float("nan")]), "[1.5, null]"),
        (np.array(["2026-01-02", "NaT"], dtype="M8[D]"), '["2026-01-02", null]'),
        (np.zeros(250_001), '"[0. 0. 0. ... 0. 0. 0.]"'),
    ],
    "anything else: exceptions, classes, generators, Django's lazy text, pandas' Series, ...": [
        (_Lazy(), '"translated"'),
        (weakref.proxy(_LIVES := _Lazy()), '"translated"'),
        (range, "\"<class 'range'>\""),
        (len, '"<built-in function len>"'),
        (NotImplemented, '"NotImplemented"'),
        (..., '"Ellipsis"'),
        (slice(1), '"slice(None, 1, None)"'),
        (re, f'"{re}"'),
        (re.compile("a"), "\"re.compile('a')\""),
    ],
    "what raises while it is read, or has no end": [
        (weakref.proxy(_Lazy()), "null"),
        (range(10**12), '"range(0, 1000000000000)"'),
    ],
}


def _shown(row):
    """The examples that stand in the README's own row."""
    found = re.findall(r"`([^`]+)` → `([^`]+)`", ROWS[row])
    return [(eval(code, dict(NAMES)), written) for code, written in found]  # noqa: S307 - the README's own code


def test_the_table_is_short_and_whole():
    """The README's table has rows enough and not too many, and what is tried here belongs to one of them."""
    assert 20 <= len(ROWS) <= 30
    assert MORE.keys() <= ROWS.keys()


@pytest.mark.parametrize("row", ROWS)
def test_each_row_of_the_table_is_so(receiver, make_client, row):
    """What a row of the README's table shows, and what it names, arrives as it says."""
    examples = [*_shown(row), *MORE.get(row, [])]
    assert len(_shown(row)) >= 1
    client = make_client(background=False)
    for value, _ in examples:
        assert client.track("u", "happened", {"v": value}, account_id="a")
    assert client.flush()
    arrived = [message["properties"]["v"] for message in receiver.messages]
    assert arrived == [json.loads(written) for _, written in examples]


def test_naive_datetimes_get_the_local_zone(receiver, make_client):
    """A datetime without a zone arrives with the local one of its day."""
    naive = datetime(2026, 7, 2, 3, 4, 5)  # noqa: DTZ001 - the point of it
    client = make_client(background=False)
    client.track("u", "happened", {"v": naive}, account_id="a")
    client.flush()
    arrived = datetime.fromisoformat(receiver.messages[0]["properties"]["v"])
    assert arrived.utcoffset() is not None
    assert arrived.timestamp() == naive.timestamp()


def test_pandas(receiver, make_client):
    """What pandas has for a moment, a duration and a missing value is written as Python's own."""
    pandas = pytest.importorskip("pandas", reason="pandas is not among the development packages: it is large")
    values = {
        "moment": (pandas.Timestamp("2026-01-02T03:04:05.123456789Z"), "2026-01-02T03:04:05.123456789+00:00"),
        "duration": (pandas.Timedelta("1.5s"), 1.5),
        "no moment": (pandas.NaT, None),
        "nothing": (pandas.NA, None),
        "period": (pandas.Period("2026-01"), "2026-01"),
        "series": (pandas.Series([1]), "0    1\ndtype: int64"),
    }
    client = make_client(background=False)
    client.track("u", "happened", {name: value for name, (value, _) in values.items()}, account_id="a")
    client.flush()
    assert receiver.messages[0]["properties"] == {name: expected for name, (_, expected) in values.items()}


# The public calls


class _RaisingClass:
    @property
    def __class__(self):
        raise LookupError


class _SaysItIsText:
    @property
    def __class__(self):
        return str

    def __bool__(self):
        raise LookupError


class _SaysItIsADict:
    @property
    def __class__(self):
        return dict


class _SaysItIsANumber:
    @property
    def __class__(self):
        return int

    def __int__(self):
        raise LookupError


class _HostileText(str):
    __slots__ = ()

    def _raise(self, *_):
        raise LookupError

    __len__ = __bool__ = __hash__ = __eq__ = __str__ = __iter__ = encode = startswith = _raise


class _HostileDict(dict):
    def _raise(self, *_):
        raise LookupError

    __len__ = __bool__ = __iter__ = __contains__ = __getitem__ = keys = values = items = get = copy = _raise


class _HostileMoment(datetime):
    def utcoffset(self):
        return timedelta(0)

    def __sub__(self, _):
        return _Broken()


class _Meta(type):
    def __eq__(cls, other):
        raise LookupError

    __hash__ = None


class _Unhashable(metaclass=_Meta):
    pass


class _Closed(type):
    def __getattribute__(cls, name):
        raise LookupError(name)


class _OfClosed(metaclass=_Closed):
    pass


class _Endless(collections.UserDict):
    def __iter__(self):
        return itertools.count()

    def __getitem__(self, _):
        return 1


_LONG_NAME = type("x" * 20_000, (), {})
_HALF_MADE = UUID.__new__(UUID)
ODD = {
    "class raises": _RaisingClass,
    "says it is text": _SaysItIsText,
    "says it is a dict": _SaysItIsADict,
    "says it is a number": _SaysItIsANumber,
    "hostile text": lambda: _HostileText("abc"),
    "hostile dict": lambda: _HostileDict(a=1),
    "hostile moment": lambda: _HostileMoment(2026, 1, 2),
    "unhashable class": _Unhashable,
    "closed class": _OfClosed,
    "long name": _LONG_NAME,
    "endless mapping": _Endless,
    "half made UUID": lambda: _HALF_MADE,
    "str() raises": _Broken,
    "dead": lambda: weakref.proxy(_Lazy()),
    "number of 5,000 digits": lambda: 10**5000,
    "surrogate": lambda: "\ud800",
    "zero": lambda: "\x00",
    **KNOWN,
}


@pytest.mark.parametrize("place", PLACES)
def test_no_argument_makes_a_call_raise(receiver, make_client, place):
    """Whatever stands at any place of a call, the call says whether it is accepted, and what it says is counted."""
    drops = []
    client = make_client(background=False, on_drop=drops.append)
    taken = {name: PLACES[place](client, make(), {"before": 1}) for name, make in ODD.items()}

    assert client.flush()
    stats = client.stats()
    assert set(taken.values()) <= {True, False}
    assert (stats.tracked, stats.delivered) == (len(ODD), sum(taken.values()))
    assert balanced(stats)
    assert set(stats.dropped) <= {"invalid"}
    assert all(len(drop.detail) < 300 for drop in drops)
    assert not receiver.faults
    if place in WHOLE:
        assert all(taken.values())
        for message in receiver.messages:
            assert (message["properties"]["before"], message["properties"]["after"]) == (1, AFTER)


@pytest.mark.parametrize("name", ODD)
def test_nothing_makes_enqueue_raise(receiver, make_client, name):
    """A native message may be anything, and hold anything: what is no dict is invalid, and nothing raises."""
    client = make_client(background=False)
    odd = ODD[name]()
    native = {"type": "track", "event": "e", "userId": "u", "properties": {"v": odd, "after": AFTER}}
    assert client.enqueue(odd) is issubclass(type(odd), dict)
    assert client.enqueue(native)
    assert client.enqueue(collections.OrderedDict(native))
    client.flush()
    assert [message["properties"]["after"] for message in receiver.messages] == [AFTER, AFTER]
    assert balanced(client.stats())


def test_keys_of_a_native_message_are_not_asked(receiver, make_client):
    """A key whose own code raises when it is compared does not make `enqueue` raise."""

    class Key(str):
        __slots__ = ()

        def __hash__(self):
            return hash("messageId")

        def __eq__(self, other):
            raise LookupError

    client = make_client(background=False)
    assert client.enqueue({Key("mine"): 1, "type": "track", "event": "e", "userId": "u", "properties": {}})
    assert client.flush()
    assert receiver.messages[0]["mine"] == 1


def test_text_of_ones_own_is_its_content(receiver, make_client):
    """Of a subclass of `str` the content is sent, as id, event and message id, whatever its methods say."""
    client = make_client(background=False)
    assert client.track(_HostileText("u"), _Text("e"), account_id=_Kind.NEW, message_id=_Kind.NEW)
    assert client.flush()
    (message,) = receiver.messages
    assert [message[field] for field in ("userId", "event", "accountId", "messageId")] == ["u", "e", "new", "new"]


class _Proxy:
    """As wrapt's or werkzeug's proxies: says that it is of the class of what it stands for."""

    def __init__(self, value):
        self._value = value

    @property
    def __class__(self):
        return type(self._value)

    def __getattr__(self, name):
        return getattr(self._value, name)

    def __str__(self):
        return str(self._value)

    def __int__(self):
        return int(self._value)


def test_proxies_stand_for_what_they_say(receiver, make_client):
    """A proxy of a text, a number or a dict is taken as what it stands for."""
    client = make_client(background=False)
    assert client.track(_Proxy("u"), _Proxy("e"), _Proxy({"a": {1}}), account_id=_Proxy(7))
    assert client.flush()
    (message,) = receiver.messages
    assert [message[field] for field in ("userId", "event", "properties", "accountId")] == ["u", "e", {"a": [1]}, "7"]


def test_a_strict_client_says_what_was_wrong(receiver):
    """With `strict` an argument whose own code raises is an `InvalidMessage` as any other, of a short text."""
    with Client(Vitally(api_token="test-token", base_url=receiver.url), strict=True, background=False) as client:
        for odd in (_RaisingClass(), _OfClosed(), _LONG_NAME(), _HALF_MADE):
            with pytest.raises(InvalidMessage) as caught:
                client.track(odd, "e", account_id="a")
            assert len(str(caught.value)) < 300


class _Stop(BaseException):
    pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit, _Stop, MemoryError])
@pytest.mark.parametrize("place", ["a value", "a key", "properties", "user_id", "timestamp"])
def test_what_is_no_fault_of_a_value_reaches_the_caller(receiver, make_client, error, place):
    """A KeyboardInterrupt and its like come through from a value's own code; nothing is counted, nothing is held."""

    class Interrupting(collections.UserDict):
        def __iter__(self):
            raise error

        items = keys = __str__ = __iter__

        def __hash__(self):
            return 1

    class Number(Fraction):
        def __float__(self):
            raise error

    class Id(UUID):
        def __str__(self):
            raise error

    odd = {"user_id": Id(int=1), "timestamp": Number(1)}.get(place) or Interrupting(a=1)
    client = make_client(background=False)
    if error is MemoryError and place in {"properties", "user_id", "timestamp"}:
        assert PLACES[place](client, odd, {}) is False  # the argument alone could not be read
    else:
        with pytest.raises(error):
            PLACES[place](client, odd, {})
        assert client.stats().tracked == 0
    assert client.track("u", "after", account_id="a")
    assert client.flush()
    assert [message["event"] for message in receiver.messages] == ["after"]


def test_numbers_whatever_the_decimal_context_traps(receiver, make_client):
    """An application may make its decimal context as strict as it likes: durations and decimals still arrive."""
    client = make_client(background=False)
    with decimal.localcontext() as context:
        for trap in context.traps:
            context.traps[trap] = True
        context.prec = 1
        values = [timedelta(seconds=1.5), timedelta(days=1), Decimal("1.25"), Decimal(2**64), Decimal("NaN")]
        assert client.track("u", "happened", {"v": values}, account_id="a")
    client.flush()
    assert receiver.messages[0]["properties"]["v"] == [1.5, 86_400, 1.25, float(2**64), None]


def test_before_send_may_return_anything(receiver, make_client):
    """What `before_send` makes is mended too, and a mapping without an end costs its message alone."""
    answers = [{"event": "odd", "userId": "u", "properties": {"v": _Unhashable(), "after": AFTER}}, _Endless()]
    client = make_client(background=False, before_send=lambda message: answers.pop(0) if answers else message)
    for number in range(3):
        client.track("u", f"{number}", account_id="a")
    client.flush()
    assert [message["event"] for message in receiver.messages] == ["odd", "2"]
    assert receiver.messages[0]["properties"]["after"] == AFTER
    assert client.stats().dropped == {"filtered": 1}


# Bounds


DEEP = 10_000


def _nested(wrap):
    made = 1
    for _ in range(DEEP):
        made = wrap(made)
    return made


@pytest.mark.parametrize(
    "wrap",
    [
        lambda value: [value],
        lambda value: {"a": value},
        lambda value: (value,),
        lambda value: {1: value},
        lambda value: collections.UserDict(a=value),
        lambda value: _Item("a", value),
        lambda value: types.MappingProxyType({"a": value}),
    ],
    ids=["list", "dict", "tuple", "keyed by numbers", "mapping", "dataclass", "mapping proxy"],
)
def test_ten_thousand_levels(receiver, make_client, wrap):
    """What is nested 10,000 levels deep is cut, and what stands beside it arrives."""
    client = make_client(background=False)
    assert client.track("u", "happened", {"before": 1, "odd": _nested(wrap), "after": AFTER}, account_id="a")
    assert client.flush()
    properties = receiver.messages[0]["properties"]
    assert (properties["before"], properties["after"]) == (1, AFTER)


class _Counting(collections.abc.Sequence):
    def __init__(self, drawn):
        self._drawn = drawn

    def __getitem__(self, index):
        self._drawn.append(index)
        return index

    def __len__(self):
        return 1


def test_what_never_ends_is_read_to_a_bound_that_many_share(receiver, make_client):
    """A thousand values without an end are not each read to the bound of one, and what stands beside them arrives."""
    drawn = []
    endless = [_Counting(drawn) for _ in range(1_000)]
    client = make_client(background=False)
    assert client.track("u", "happened", {"odd": [*endless[:300], range(50)], "v": {1}}, account_id="a")
    assert len(drawn) < 600_000
    assert client.flush()
    properties = receiver.messages[0]["properties"]
    assert properties["odd"][300] == list(range(50))
    assert properties["v"] == [1]


@pytest.mark.parametrize("name", FOREVER)
def test_what_never_ends_has_an_end(receiver, name):
    """What a class says about its own parts may go on for ever; the call does not, nor does it take all memory."""
    ended = run("values", "forever", receiver.url, name)
    assert (ended.status, ended.errors) == (0, "")
    assert ended.facts["taken"]
    assert [message["properties"]["after"] for message in receiver.messages] == [AFTER]


def _double(wrap):
    made = []
    for _ in range(40):
        made = wrap(made)
    return made


HUGE = {
    "text": lambda: "x" * 50_000_000,
    "text that is not ASCII": lambda: "\u4e2d" * 10_000_000,
    "text of surrogates": lambda: "\ud800" * 3_000_000,
    "bytes": lambda: b"x" * 50_000_000,
    "bytes that are no text": lambda: b"\xff" * 50_000_000,
    "numbers": lambda: [7] * 1_000_000,
    "arrays": lambda: [[7] * 1_000] * 1_000,
    "objects": lambda: [{"a": 7}] * 50_000,
}
TOO_MANY = {
    "a tree of few lists": lambda: _double(lambda value: [value, value]),
    "a tree of few dicts": lambda: _double(lambda value: {"a": value, "b": value, "c": Decimal(1)}),
    "a tree of few tuples": lambda: _double(lambda value: (value, value)),
    "sets": lambda: [{1, 2, 3}] * 100_000,
    "numpy arrays": lambda: [np.zeros(100_000), np.zeros(100_000), np.zeros(100_000)],
}


@pytest.mark.parametrize(
    ("make", "reason"),
    [*((make, "too_large") for make in HUGE.values()), *((make, "unserializable") for make in TOO_MANY.values())],
    ids=[*HUGE, *TOO_MANY],
)
def test_what_is_huge_is_refused_soon(receiver, make_client, make, reason):
    """A value of a size that no vendor takes costs its event, for a reason, and seconds at most, not minutes."""
    client = make_client(background=False)
    odd = make()
    started = clock.process_time()
    assert client.track("u", "happened", {"odd": odd}, account_id="a") is False
    assert clock.process_time() - started < 10
    assert client.track("u", "after", account_id="a")
    assert client.flush()
    assert client.stats().dropped == {reason: 1}
    assert [message["event"] for message in receiver.messages] == ["after"]


def test_digits(receiver, make_client):
    """Integers of thousands of digits arrive as text, and as ids they are invalid where Python does not write them."""
    client = make_client(background=False)
    limit = sys.get_int_max_str_digits()
    numbers = [10**5000, -(10**5000), 10 ** (limit - 1)]
    assert client.track("u", "happened", {"v": numbers, 10**5000: 1}, account_id="a")
    assert not client.track(10**5000, "happened")
    assert client.flush()
    properties = receiver.messages[0]["properties"]
    assert properties["v"] == [hex(10**5000), hex(-(10**5000)), str(10 ** (limit - 1))]
    assert properties[hex(10**5000)] == 1


# In processes of their own: they may crash


def test_anything_at_all():
    """Objects that lie, raise, never end or change what is read: no call raises, and their neighbours arrive."""
    ended = run("values", "fuzz", 60, seconds=120)
    assert (ended.status, ended.errors) == (0, "")
    assert ended.facts["delivered"] > 120


def test_anything_at_all_is_written():
    """Whatever trees of such objects there are, what is written of them is strict JSON, and quickly so."""
    ended = run("values", "fuzz_writing", 200, seconds=120)
    assert (ended.status, ended.errors) == (0, "")
    assert ended.facts["longest"] < 10


def test_what_crashes_the_encoder_does_not_reach_it(receiver):
    """Enums whose value raises and UUIDs that were never finished do not end the process, wherever they stand."""
    ended = run("values", "crashers", receiver.url)
    assert (ended.status, ended.errors) == (0, "")
    facts = ended.facts
    assert all(facts["taken"])
    assert facts["sent"] == 200
    assert facts["tracked"] == len(facts["taken"]) + len(facts["refused"])
    assert facts["delivered"] == len(facts["taken"]) + sum(facts["refused"])
    assert facts["dropped"] == {"invalid": facts["refused"].count(False)}
    for request in receiver.requests:
        strictly(request.body)


@pytest.mark.parametrize("case", ["another_thread_puts_odd_values", "another_thread_changes_the_size"])
def test_another_thread_changes_what_is_tracked(receiver, case):
    """While another thread changes the properties, calls neither raise nor crash, and each one is counted."""
    ended = run("values", case, receiver.url, seconds=60)
    assert (ended.status, ended.errors) == (0, "")
    facts = ended.facts
    assert facts["calls"] == facts["tracked"] > facts["taken"] > 100
    assert facts["taken"] == facts["delivered"] == receiver.report().unique_messages
    assert facts["dropped"] == {"queue_full": facts["calls"] - facts["taken"]}
    for request in receiver.requests:
        assert orjson.loads(request.body) == strictly(request.body)
