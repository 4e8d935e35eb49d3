import collections
import enum
import sys
import typing
import uuid
from datetime import datetime, timezone
from decimal import Decimal

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_batcher.plain import plain_copy

A_UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
LEVELS = 254


class _Color(enum.Enum):
    RED = 1


class _Text(str):
    __slots__ = ()


class _Point(typing.NamedTuple):
    x: int


def _half_made():
    return uuid.UUID.__new__(uuid.UUID)


def _with_number(number):
    made = _half_made()
    object.__setattr__(made, "int", number)
    return made


def _raise():
    raise LookupError


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.uuids(),
    lambda values: st.lists(values) | st.tuples(values, values) | st.dictionaries(st.text(), values),
    max_leaves=15,
)


@settings(deadline=None, max_examples=50)
@given(content=st.dictionaries(st.text(), plain))
def test_copy_is_written_as_the_content_is(content):
    """The copy of plain data is written down to the byte as orjson writes the data themselves."""
    before = repr(content)
    copy = plain_copy(content)
    assert orjson.dumps(copy) == orjson.dumps(content)
    assert repr(content) == before


def _containers(value):
    if isinstance(value, dict | list):
        yield value
        for part in value.values() if isinstance(value, dict) else value:
            yield from _containers(part)


@settings(deadline=None, max_examples=50)
@given(content=st.dictionaries(st.text(), plain))
def test_copy_is_private(content):
    """No dict and no list of the copy is one of the caller's, who may change them while the copy is written."""
    theirs = {id(container) for container in _containers(content)}
    assert not theirs & {id(container) for container in _containers(plain_copy(content))}


ODD = {
    "enum": _Color.RED,
    "decimal": Decimal(1),
    "datetime": datetime(2026, 1, 2, tzinfo=timezone.utc),
    "bytes": b"a",
    "set": {1},
    "subclass of str": _Text("a"),
    "subclass of dict": collections.OrderedDict(a=1),
    "named tuple": _Point(1),
    "object": object(),
    "UUID, half made": _half_made(),
    "UUID of text": _with_number("a"),
    "UUID of too many bits": _with_number(2**128),
    "UUID below zero": _with_number(-1),
}
PLACES = {
    "value": lambda odd: {"a": 1, "v": odd},
    "list": lambda odd: {"v": [1, odd]},
    "long list": lambda odd: {"v": [*range(200), odd]},
    "tuple": lambda odd: {"v": (odd,)},
    "dict": lambda odd: {"v": {"a": odd}},
    "list in a list": lambda odd: {"v": [[odd]]},
    "deep": lambda odd: {"v": {"a": [({"b": odd},)]}},
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_anything_else_is_not_plain(odd, place):
    """What orjson would run Python code for, or refuse, is not copied, wherever it stands."""
    assert plain_copy(place(odd)) is None
    assert plain_copy(place(A_UUID)) is not None


@pytest.mark.parametrize("value", [[1], {"a": 1}, (1,), A_UUID, [1] * 200])
@pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: {"v": inner}], ids=["on top", "below"])
def test_code_of_keys_does_not_run(value, wrap):
    """A key of the caller's own class is never looked up."""

    class Key(str):
        __slots__ = ()
        __hash__ = str.__hash__

    content = {Key("a"): value}
    Key.__hash__ = lambda _: _raise()
    assert plain_copy(wrap(content)) is None


def _nested(levels, wrap, innermost=1):
    for _ in range(levels):
        innermost = wrap(innermost)
    return innermost


WRAPS = {"list": lambda value: [value], "dict": lambda value: {"a": value}, "tuple": lambda value: (value,)}


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
def test_depth(wrap):
    """What is nested deeper than orjson takes is not plain; that it is deeper by thousands of levels is no matter."""
    assert plain_copy({"v": _nested(LEVELS, wrap)}) is not None
    for levels in (LEVELS + 1, 10_000):
        assert plain_copy({"v": _nested(levels, wrap, [[]])}) is None


def test_depth_is_bounded_whatever_pythons_limit_is():
    """The walk goes no deeper where Python's limit is high: on Python 3.10 each level takes of the real stack."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        assert plain_copy({"v": _nested(100_000, WRAPS["list"])}) is None
    finally:
        sys.setrecursionlimit(limit)


def test_caller_with_little_stack_left():
    """Where the caller's stack does not suffice, data are not plain, and no RecursionError escapes."""
    content = {"v": _nested(200, WRAPS["list"])}

    def at_depth(frames):
        return at_depth(frames - 1) if frames else plain_copy(content)

    frame, frames = sys._getframe(), 0
    while frame is not None:
        frame, frames = frame.f_back, frames + 1
    assert at_depth(sys.getrecursionlimit() - frames - 100) is None
    assert plain_copy(content) == content


@pytest.mark.parametrize(
    "double",
    [
        lambda value: [value, value],
        lambda value: (value, value),
        lambda value: {"a": value, "b": value},
        lambda value: [value] * 1_000,
    ],
    ids=["lists", "tuples", "dicts", "wide"],
)
def test_few_lists_that_make_a_tree_of_any_size(double):
    """Forty lists, each of which holds the one before it twice, are not copied 2 to the 40th times."""
    assert plain_copy({"v": _nested(40, double, [])}) is None


def test_circle():
    """What contains itself is not plain."""
    circle = []
    circle.append(circle)
    assert plain_copy({"v": circle}) is None


def test_large_data_are_plain():
    """A list of a million numbers is plain: to write it and find it too large costs less than to mend it."""
    assert len(plain_copy({"v": list(range(1_000_000))})["v"]) == 1_000_000
