import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_batcher.batch import Limits, fill

ENVELOPE = len("[]")


def _limits(messages=100, size=500_000):
    return Limits(messages=messages, bytes=size, message_bytes=32_768)


def _body_of(wires):
    return b"[" + b",".join(wires) + b"]"


def _wires_of(*sizes):
    return [b"x" * size for size in sizes]


def _counted(wires, read):
    for wire in wires:
        read.append(wire)
        yield wire


@given(
    wires=st.lists(st.binary(max_size=40), max_size=30),
    messages=st.integers(1, 30),
    size=st.integers(2, 400),
)
def test_batch_is_as_full_as_its_limits_let_it(wires, messages, size):
    """A batch is the longest head of the line whose body, brackets and commas included, keeps both limits."""
    taken = fill(wires, _limits(messages, size), ENVELOPE)
    assert taken == wires[: len(taken)]
    assert len(taken) <= messages
    assert len(_body_of(taken)) <= size
    if len(taken) < min(messages, len(wires)):
        assert len(_body_of(wires[: len(taken) + 1])) > size


@given(
    wires=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=30),
    head=st.binary(max_size=50),
    slack=st.integers(-3, 3),
)
def test_envelope_is_counted_to_the_byte(wires, head, slack):
    """All go together if their body has room for exactly them, and not if it is a byte too small."""
    whole = len(head + b"[" + b",".join(wires) + b"]}")
    taken = fill(wires, _limits(size=whole + slack), len(head) + len("[]}"))
    assert (taken == wires) == (slack >= 0)


@pytest.mark.parametrize(
    ("sizes", "messages", "size", "taken"),
    [
        ((), 10, 100, 0),
        ((98,), 10, 100, 1),
        ((99,), 10, 100, 0),
        ((48, 49), 10, 100, 2),
        ((48, 50), 10, 100, 1),
        ((31, 31, 34), 10, 100, 3),
        ((31, 31, 35), 10, 100, 2),
        ((1, 1, 1), 2, 100, 2),
        ((1, 1, 1), 3, 100, 3),
        ((1, 1, 1), 1, 100, 1),
        ((1, 200, 1), 10, 100, 1),
        ((200, 1), 10, 100, 0),
        ((0, 0, 0), 10, 4, 3),
    ],
)
def test_limits_hold_to_the_byte(sizes, messages, size, taken):
    """A limit may be reached and is never passed; what does not fit is not passed over for what comes after it."""
    assert fill(_wires_of(*sizes), _limits(messages, size), ENVELOPE) == _wires_of(*sizes)[:taken]


@pytest.mark.parametrize(
    ("sizes", "messages", "read"),
    [
        ((10, 10, 10), 2, 2),
        ((10, 10, 200, 10), 10, 3),
        ((200, 10), 10, 1),
        ((10, 10), 10, 2),
    ],
)
def test_nothing_is_read_that_cannot_be_needed(sizes, messages, read):
    """The line is read to the first message that does not fit and no further: each may cost a mapping."""
    seen = []
    fill(_counted(_wires_of(*sizes), seen), _limits(messages, 100), ENVELOPE)
    assert len(seen) == read


def test_line_may_be_any_iterable():
    """A generator does as well as a list."""
    assert fill(iter(_wires_of(1, 2, 3)), _limits(), ENVELOPE) == _wires_of(1, 2, 3)
