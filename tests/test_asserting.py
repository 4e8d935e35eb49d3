"""The recorder's assertions: what they take for the same, and what they say when it is not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timezone
from decimal import Decimal
from enum import Enum
from unittest import mock
from uuid import UUID

import numpy as np
import pytest
from conftest import TOKEN

from analytics_batcher import CustomerIO, Vitally
from analytics_batcher.testing import ANY, Recorder, including

AT = "2026-01-01T00:00:00Z"


class Plan(Enum):
    """An application's own type."""

    PRO = "pro"


@dataclass
class Item:
    """Another one."""

    name: str
    price: Decimal


@pytest.fixture
def recorder():
    """A recorder of what a sign-up says."""
    made = Recorder(at=AT)
    made.identify("u1", {"email": "peter@example.com"}, account_id="a1")
    made.track("u1", "Signed up", {"plan": "free", "colour": "red"}, account_id="a1")
    made.track("u2", "Signed up", {"plan": "pro"})
    made.account("a1", {"name": "Initech"})
    return made


def failure(assertion, *arguments, **options):
    """What a failed assertion says."""
    with pytest.raises(AssertionError) as caught:
        assertion(*arguments, **options)
    return str(caught.value)


def said(text):
    """A text of the tests, without its indentation."""
    lines = text.strip("\n").split("\n")
    indent = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[indent:] for line in lines).rstrip()


# What is the same


def test_what_is_asked_for_is_found(recorder):
    """Each assertion passes where there is such a message, and returns those that are such."""
    assert recorder.assert_tracked("Signed up") == recorder.messages[1:3]
    assert recorder.assert_tracked("Signed up", user_id="u2", times=1) == [recorder.messages[2]]
    recorder.assert_tracked("Signed up", properties={"plan": ANY})
    recorder.assert_tracked("Signed up", properties={"plan": mock.ANY, "colour": "red"}, account_id="a1")
    recorder.assert_tracked("Signed up", properties=including(colour="red"), times=1)
    recorder.assert_tracked("Signed up", properties=including({"plan": ANY}), times=2)
    recorder.assert_tracked("Signed up", user_id="u2", account_id=None, timestamp=AT)
    recorder.assert_tracked(mock.ANY, times=2)
    recorder.assert_tracked("Paid", times=0)
    recorder.assert_identified("u1", traits={"email": "peter@example.com"}, account_id="a1")
    recorder.assert_account("a1", traits={"name": "Initech"}, user_id=None)
    recorder.assert_message({"type": "account", "accountId": "a1", "traits": {"name": "Initech"}})
    recorder.assert_message(including(type="user", userId="u1"), times=1)
    recorder.assert_messages([including(userId="u1"), *recorder.messages[1:3], including(type="account")])
    recorder.assert_nothing_lost()
    Recorder().assert_nothing()
    Recorder().assert_messages([])


@pytest.mark.parametrize(
    ("properties", "asked"),
    [
        ({"plan": "pro"}, {"plan": "free"}),
        ({"plan": "pro"}, {}),
        ({"plan": "pro"}, None),
        ({"plan": "pro", "n": 1}, {"plan": "pro"}),
        ({"plan": "pro"}, {"plan": "pro", "n": 1}),
        ({"plan": "pro"}, {"plan": "pro", "n": ANY}),
        ({"plan": "pro"}, including(n=ANY)),
        ({"plan": {"name": "pro", "n": 1}}, {"plan": {"name": "pro"}}),
        ({"n": True}, {"n": 1}),
        ({"n": 1}, {"n": True}),
        ({"n": "1"}, {"n": 1}),
        ({"n": 0}, {"n": None}),
        ({"items": [1, 2]}, {"items": [1]}),
        ({"items": [1]}, {"items": [1, 2]}),
        ({"items": [1, 2]}, {"items": [2, 1]}),
        ({"items": [1, 2]}, {"items": {1, 3}}),
        ({"price": Decimal("9.90")}, {"price": Decimal("9.91")}),
        ({"items": []}, {"items": {}}),
        ({"items": [[1]]}, {"items": np.array([1])}),
        ({}, including(n=1)),
        ({"a": 1}, "a"),
    ],
)
def test_what_differs_is_not_the_same(properties, asked):
    """A value that differs, is missing, or is too much, and one of another type, is not what was asked for."""
    recorder = Recorder()
    recorder.track("u", "e", properties)
    failure(recorder.assert_tracked, "e", properties=asked)
    recorder.assert_tracked("e", properties=asked, times=0)
    failure(recorder.assert_messages, [including(type="track", properties=asked)])


def test_values_may_be_asked_for_as_they_were_given():
    """A value is compared as JSON has it: an application's types, their keys, sets, ids that are numbers or UUIDs."""
    given = {
        "price": Decimal("9.90"),
        "day": date(2026, 1, 2),
        "at": datetime(2026, 1, 2, tzinfo=timezone.utc),
        "plan": Plan.PRO,
        "item": Item("a", Decimal("1.5")),
        "items": (1, (2, 3)),
        "set": {0, 8},
        "array": np.array([1, 2]),
        "nan": float("nan"),
        "huge": 2**70,
        "half": "a\ud800",
        "keys": {1: "one", None: "none", date(2026, 1, 2): 3},
        "own": object,
    }
    recorder = Recorder(default=lambda value: value.__name__ if isinstance(value, type) else value)
    recorder.track(UUID(int=1), "e", given, account_id=7, timestamp=1_700_000_000, context={"ip": "::1"})
    (message,) = recorder.assert_tracked("e", user_id=UUID(int=1), account_id=7, properties=given)
    assert message["properties"]["own"] == "object"
    recorder.assert_tracked("e", properties=message["properties"])
    recorder.assert_tracked("e", properties=including(price=9.9, item=including(name="a"), items=[1, ANY]))
    recorder.assert_tracked("e", properties=including(price=pytest.approx(9.9), set={8, 0}))
    for moment in (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc), "2023-11-14T22:13:20.000Z"):
        recorder.assert_tracked("e", timestamp=moment, context={"ip": "::1"})
    failure(recorder.assert_tracked, "e", timestamp=1_700_000_001)
    failure(recorder.assert_tracked, "e", user_id=1)
    failure(recorder.assert_tracked, "e", context=None)


def test_no_properties_are_none_or_empty():
    """What was said without properties or traits is found by `None`, and by an empty dict where the form has one."""
    recorder = Recorder()
    recorder.track("u", "e")
    recorder.account("a")
    recorder.assert_tracked("e", properties=None)
    recorder.assert_tracked("e", properties={})
    recorder.assert_account("a", traits=None)


def test_parts_are_asked_for_in_so_many_words():
    """`including` is equal to what has at least its fields, also on its own, and says what it is."""
    part = including({"a": 1}, b=including(c=ANY))
    assert part == {"a": 1, "b": {"c": 2, "d": 3}, "e": 4}
    assert part != {"a": 1, "b": {}}
    assert part != 1
    assert repr(part) == "including({'a': 1, 'b': including({'c': ANY})})"
    assert {"x": ANY} == {"x": 1}
    assert (ANY != 1) is False


# What a failure says


def test_it_says_what_is_nearest(recorder):
    """A failure says what was expected, the nearest message by field, what was recorded, and what was dropped."""
    recorder.track("u1", "")
    text = failure(recorder.assert_tracked, "Signed Up", user_id="u1", properties={"plan": "pro", "at": ANY})
    assert text == said("""
        expected a message like this, found none
          type: 'track'
          event: 'Signed Up'
          userId: 'u1'
          properties: {'plan': 'pro', 'at': ANY}
        nearest is message 2:
          event: expected 'Signed Up', was 'Signed up'
          properties.plan: expected 'pro', was 'free'
          properties.at: expected ANY, is missing
          properties.colour: 'red' was not expected
        recorded: 4 messages
          1. user 'u1' account 'a1' {'email': 'peter@example.com'}
          2. track 'Signed up' user 'u1' account 'a1' {'plan': 'free', 'colour': 'red'}
          3. track 'Signed up' user 'u2' {'plan': 'pro'}
          4. account 'a1' {'name': 'Initech'}
        dropped: 1 message
          1 as invalid: event must be text that is not empty, not an empty string
            track '' user 'u1'
    """)


def test_a_misspelt_name_is_nearer_than_another_event():
    """The nearest message is the one whose event's name is most like the one that was asked for."""
    recorder = Recorder()
    for event in ("Paid", "signed_up", "Logged in"):
        recorder.track("u1", event, {"plan": "pro"})
    text = failure(recorder.assert_tracked, "Signed up", properties={"plan": "pro"})
    assert "nearest is message 2:\n  event: expected 'Signed up', was 'signed_up'\nrecorded: 3" in text


def test_it_says_how_many_there_are(recorder):
    """Too many, too few, and some where none is wanted: a failure says which they are."""
    assert failure(recorder.assert_tracked, "Signed up", times=1).startswith(
        "expected 1 message like this, found 2: messages 2 and 3\n  type: 'track'\n  event: 'Signed up'\nrecorded: 4"
    )
    few = failure(recorder.assert_tracked, "Signed up", times=3)
    assert few.startswith("expected 3 messages like this, found 2: messages 2 and 3\n")
    text = failure(recorder.assert_tracked, "Signed up", user_id="u2", times=0)
    assert text.startswith("expected no message like this, found 1: message 3\n")
    text = failure(recorder.assert_tracked, "Signed up", account_id=None, user_id="u1")
    assert "  accountId: nothing\n" in text
    assert "nearest is message 2:\n  accountId: 'a1' was not expected\nnearest is message 3:\n" in text


def test_it_says_that_another_client_may_be_used():
    """Where nothing was called at all, the failure asks for the other client; after `clear` it does not."""
    recorder = Recorder()
    text = failure(recorder.assert_identified, "u1")
    assert text == said("""
        expected a message like this, found none
          type: 'user'
          userId: 'u1'
        nothing was recorded at all: does the code use another client?
    """)
    recorder.track("u", "e")
    recorder.clear()
    assert failure(recorder.assert_identified, "u1").endswith("\nnothing was recorded since clear()")
    assert failure(recorder.assert_messages, [{"type": "user"}]).startswith(
        "expected 1 message, found 0:\n  missing: user"
    )


def test_it_says_what_was_not_to_be(recorder):
    """`assert_nothing` lists what there is, and what was dropped."""
    text = failure(recorder.assert_nothing)
    assert text.startswith(
        "expected no message, found 4:\n  1. user 'u1' account 'a1' {'email': 'peter@example.com'}\n"
    )
    refused = Recorder()
    refused.track(None, "Paid")
    assert failure(refused.assert_nothing) == said("""
        expected no message, found 0
        dropped: 1 message
          1 as invalid: a track needs a userId or accountId or organizationId or anonymousId
            track 'Paid'
    """)
    silent = Recorder(before_send=lambda _: None)
    silent.track("u", "Paid")
    silent.assert_nothing()
    silent.assert_nothing_lost()


def test_it_says_what_was_lost():
    """`assert_nothing_lost` says how many, why, for which destination, and which messages."""
    recorder = Recorder([Vitally("acme", api_token=TOKEN), CustomerIO(TOKEN, TOKEN)])
    for number in range(5):
        recorder.page("u1", f"Page {number}")
    recorder.track("u1", "Paid", {"pad": "x" * 33_000})
    assert failure(recorder.assert_nothing_lost) == said("""
        7 messages dropped:
          1 as too_large, for vitally: 33159 bytes; allowed are 32768
            track 'Paid' user 'u1' {'pad': 'XXX…
          5 as unsupported, for vitally: Vitally has no page message
            page 'Page 0' user 'u1'
            page 'Page 1' user 'u1'
            page 'Page 2' user 'u1'
            and 2 more
          1 as too_large, for customerio: 33159 bytes; allowed are 32000
            track 'Paid' user 'u1' {'pad': 'XXX…
    """).replace("XXX", "x" * 77)


def test_it_says_where_two_sequences_differ(recorder):
    """`assert_messages` sets what was recorded beside what was expected: the same, different, missing, too many."""
    text = failure(
        recorder.assert_messages,
        [
            {"type": "user", "userId": "u1", "accountId": "a2", "traits": {"email": "peter@example.com"}},
            including(type="track", userId="u2"),
            {"type": "unlink", "userId": "u1", "accountId": "a1"},
            including(type="account"),
        ],
    )
    assert text == said("""
        expected 4 messages, found 4:
          1. user 'u1' account 'a1' {'email': 'peter@example.com'}, but:
               accountId: expected 'a2', was 'a1'
          2. not expected: track 'Signed up' user 'u1' account 'a1' {'plan': 'free', 'colour': 'red'}
          3. track 'Signed up' user 'u2' {'plan': 'pro'}
          missing: unlink user 'u1' account 'a1'
          4. account 'a1' {'name': 'Initech'}
    """)
    text = failure(recorder.assert_messages, [including(type="account"), including(type="user")])
    assert re.findall(r"^  (?:\d\. not expected|missing|\d\. account|\d\. user)", text, re.MULTILINE)
    assert "missing: " in text


def test_long_values_are_cut_where_they_differ():
    """Of long texts a failure shows the place at which they differ, and of many messages the last ones."""
    recorder = Recorder()
    for number in range(30):
        recorder.track("u", f"other {number}")
    recorder.track("u", "Paid", {"url": "https://example.com/" + "a" * 400 + "b" + "c" * 400})
    expected = "https://example.com/" + "a" * 400 + "X" + "c" * 400
    text = failure(recorder.assert_tracked, "Paid", properties={"url": expected})
    assert "  properties.url:\n    expected 400 characters, then 'aaaaaaaaaaaaaaaaaaaaXccc" in text
    assert "    was      400 characters, then 'aaaaaaaaaaaaaaaaaaaabccc" in text
    assert "recorded: 31 messages\n  (19 earlier messages)\n  20. track 'other 19' user 'u'\n" in text
    assert max(map(len, text.splitlines())) < 300
    assert len(text.splitlines()) < 40


def test_a_message_cannot_break_the_lines_of_a_failure():
    """A name or a value with line breaks stays in its line."""
    recorder = Recorder()
    recorder.track("u\n1", "a\nforged: line", {"\x1b[31m": "\n\n"})
    text = failure(recorder.assert_nothing)
    assert text.count("\n") == 1
    assert "\x1b" not in text


def test_a_value_whose_code_raises_is_compared_all_the_same():
    """What raises when it is compared or written is different, and does not hide the failure."""

    class Broken:
        def __eq__(self, _):
            raise RuntimeError

        __hash__ = object.__hash__

        def __repr__(self):
            raise RuntimeError

    recorder = Recorder()
    recorder.track("u", "e", {"n": 1})
    text = failure(recorder.assert_tracked, "e", properties={"n": Broken()})
    assert "expected <Broken>, was 1" in text
