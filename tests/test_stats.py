import copy
import dataclasses
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_batcher import Delivery, Drop, DropReason, FlushResult, Stats
from analytics_batcher.stats import Dropped, Ledger, total

counts = st.dictionaries(st.sampled_from(DropReason), st.integers(0, 5))
amounts = st.integers(0, 1_000)
parts = st.builds(
    Stats,
    tracked=amounts,
    recovered=amounts,
    handed_over=amounts,
    delivered=amounts,
    dropped=counts.map(Dropped),
    pending=amounts,
    pending_bytes=amounts,
    requests=amounts,
    retries=amounts,
    batches=amounts,
    last_error=st.none() | st.sampled_from(["HTTP 500", "timeout"]),
    oldest_pending_age=st.none() | st.floats(0, 1_000),
    consumer_alive=st.booleans(),
)
SUMS = [
    *("tracked", "recovered", "handed_over", "delivered", "pending", "pending_bytes", "requests", "retries", "batches")
]
RESULTS = [
    Stats(),
    FlushResult(),
    Delivery(count=1, bytes=2, seconds=0.1, status=200, attempts=1, destination="vitally"),
    Drop(reason=DropReason.INVALID, count=1, detail="", messages=(), destination="vitally"),
]


# --- Reasons ----------------------------------------------------------------------------------------------------------


def test_reasons_are_those_of_the_contract():
    """The reasons for a drop are the twelve that users can rely on."""
    assert set(DropReason) == {
        *("invalid", "unserializable", "too_large", "queue_full", "closed", "filtered", "rejected", "expired"),
        *("unsupported", "exit", "spool_full", "spool_error"),
    }


@pytest.mark.parametrize("reason", DropReason)
def test_reason_reads_as_plain_text(reason):
    """A reason is its text, however it is written."""
    text = reason.value
    assert reason == text
    assert f"{reason} {reason!s} %s {{}}".format(reason) % reason == f"{text} {text} {text} {text}"
    assert json.loads(json.dumps({reason: reason})) == {text: text}
    assert {reason: 1}[text] == 1
    assert DropReason(text) is reason


# --- Dropped ----------------------------------------------------------------------------------------------------------


@given(counts)
def test_dropped_shows_what_occurred(given_counts):
    """Only reasons that occurred are shown, and their counts are looked up by a reason or by its text."""
    dropped = Dropped(given_counts)
    occurred = {reason.value: count for reason, count in given_counts.items() if count}
    assert dropped == occurred
    assert dict(dropped.items()) == occurred
    assert len(dropped) == len(occurred)
    assert dropped.total == sum(dropped.values()) == sum(occurred.values())
    for reason in DropReason:
        assert dropped[reason] == dropped[reason.value] == given_counts.get(reason, 0)
        assert (reason in dropped) == (reason.value in dropped) == (reason.value in occurred)


def test_dropped_answers_0_for_a_reason_that_did_not_occur():
    """A reason that did not occur counts 0; what is no reason is a `KeyError`, so that a slip shows."""
    dropped = Dropped({DropReason.INVALID: 2})
    assert dropped["queue_full"] == 0
    assert dropped.get("queue_full", 7) == 0
    assert "queue_full" not in dropped
    with pytest.raises(KeyError, match="queue-full"):
        dropped["queue-full"]
    assert dropped.get("queue-full") is None


def test_dropped_keeps_its_own_counts():
    """Later changes of what it was made of change nothing."""
    source = dict.fromkeys(DropReason, 1)
    dropped = Dropped(source)
    source[DropReason.INVALID] = 9
    assert dropped["invalid"] == 1
    with pytest.raises(TypeError):
        dropped["invalid"] = 2


def test_dropped_is_written_as_a_dict_of_text():
    """It is written with plain texts, as one would write the dict, and can be sent as JSON."""
    dropped = Dropped({DropReason.INVALID: 2, DropReason.EXIT: 0, DropReason.TOO_LARGE: 1})
    assert repr(dropped) == "{'invalid': 2, 'too_large': 1}"
    assert repr(Dropped()) == "{}"
    assert json.loads(json.dumps(dict(dropped))) == {"invalid": 2, "too_large": 1}


@given(counts, counts)
def test_dropped_adds_up(one, other):
    """A sum has each reason's counts of both, and what came since a part of it is the rest."""
    both = Dropped(one) + Dropped(other)
    assert all(both[reason] == one.get(reason, 0) + other.get(reason, 0) for reason in DropReason)
    assert both.since(Dropped(one)) == Dropped(other)
    assert both.since(both) == {}


# --- The books --------------------------------------------------------------------------------------------------------


def test_books_begin_empty():
    """New books have every count at 0, with all reasons there from the start."""
    ledger = Ledger()
    assert list(ledger.dropped) == list(ledger.refused) == list(DropReason)
    assert not any([*ledger.dropped.values(), *ledger.refused.values()])
    assert {getattr(ledger, name) for name in Ledger.__slots__ if name not in {"full", "lost", "refused"}} == {0, None}


def test_copy_of_the_books_stays_as_it_is():
    """A copy has every figure of the books, and nothing that is booked later."""
    ledger = Ledger()
    for place, name in enumerate(Ledger.__slots__):
        value = getattr(ledger, name)
        setattr(ledger, name, {**value, DropReason.EXIT: place} if isinstance(value, dict) else place)
    taken = ledger.copy()
    before = {name: copy.deepcopy(getattr(ledger, name)) for name in Ledger.__slots__}
    for name in Ledger.__slots__:
        if isinstance(getattr(ledger, name), dict):
            getattr(ledger, name)[DropReason.EXIT] += 100
        else:
            setattr(ledger, name, 100)
    assert {name: getattr(taken, name) for name in Ledger.__slots__} == before


@given(refused=counts, accepted=counts)
def test_lost_is_what_had_been_accepted(refused, accepted):
    """What was refused at the call is not lost, and neither is what `before_send` took out."""
    ledger = Ledger()
    for reason, count in refused.items():
        if reason is not DropReason.FILTERED:  # a call refuses nothing for that reason
            ledger.refused[reason] += count
    for reason, count in accepted.items():
        ledger.lost[reason] += count
    ledger.evicted = 3
    lost = sum(count for reason, count in accepted.items() if reason is not DropReason.FILTERED)
    assert ledger.accepted_and_lost() == lost + 3
    assert sum(ledger.dropped.values()) == sum(ledger.refused.values()) + sum(ledger.lost.values()) + 3


# --- A client's figures -----------------------------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from(["vitally", "customerio", "segment"]), parts))
def test_total_adds_up_the_destinations(figures):
    """A client's figures are the sums of its destinations', its age the greatest, and it lives if all of them do."""
    whole = total(figures)
    for name in SUMS:
        assert getattr(whole, name) == sum(getattr(part, name) for part in figures.values())
    for reason in DropReason:
        assert whole.dropped[reason] == sum(part.dropped[reason] for part in figures.values())
    ages = [part.oldest_pending_age for part in figures.values() if part.oldest_pending_age is not None]
    assert whole.oldest_pending_age == max(ages, default=None)
    assert whole.consumer_alive == all(part.consumer_alive for part in figures.values())
    errors = {part.last_error for part in figures.values()} - {None}
    assert whole.last_error in (errors or {None})
    assert whole.destinations == figures


def test_total_cannot_be_changed():
    """The figures are a picture of one moment: neither they nor the map of destinations can be changed."""
    source = {"vitally": Stats(tracked=1)}
    whole = total(source)
    source["segment"] = Stats()
    assert list(whole.destinations) == ["vitally"]
    with pytest.raises(TypeError):
        whole.destinations["segment"] = Stats()
    with pytest.raises(TypeError):
        Stats().destinations["segment"] = Stats()


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_results_cannot_be_changed(result):
    """What a client tells is frozen, field by field."""
    for field in dataclasses.fields(result):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, field.name, None)


@pytest.mark.parametrize("result", [*RESULTS, total({"vitally": RESULTS[0]})], ids=lambda result: type(result).__name__)
def test_results_can_be_sent_to_another_process(result):
    """A result can be pickled, as a task queue does with what a task returns."""
    assert pickle.loads(pickle.dumps(result)) == result  # noqa: S301 - we wrote it ourselves


# --- What a flush came to ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "truth"),
    [
        (FlushResult(), True),
        (FlushResult(delivered=5), True),
        (FlushResult(delivered=5, pending=1), False),
        (FlushResult(delivered=5, pending=1, timed_out=True), False),
        (FlushResult(dropped=Dropped({DropReason.REJECTED: 1}), lost=1), False),
        (FlushResult(dropped=Dropped({DropReason.FILTERED: 1})), True),
        (FlushResult(dropped=Dropped({DropReason.INVALID: 1})), True),
    ],
)
def test_flush_is_true_if_nothing_is_pending_or_lost(result, truth):
    """`if not client.flush()` says the truth: something is still there, or something accepted was lost."""
    assert bool(result) is truth
