import collections
import enum
import json
import math
import time
import types
import uuid
from datetime import date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from dateutil.parser import isoparse
from dateutil.tz import gettz
from hypothesis import given
from hypothesis import strategies as st

from analytics_batcher.errors import DropReason, InvalidMessage
from analytics_batcher.given import message_id, timestamp
from analytics_batcher.message import decode, encode, normalise, replace, wire, wire_bytes
from analytics_batcher.plain import plain_copy
from analytics_batcher.stamp import HEAD_BYTES, ID_GIVEN, NATIVE, TIME_GIVEN, iso_text, new_head, uuid_text

UTC = timezone.utc
A_UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")
ID_FIELDS = ["userId", "accountId", "organizationId", "anonymousId", "previousId", "externalId", "customObjectId"]
OBJECT_FIELDS = ["traits", "properties", "context", "integrations"]
TEXT_FIELDS = ["event", "name"]
LAST_MILLISECOND = 253_402_300_799_999
GIVEN = {
    0: {},
    ID_GIVEN: {"messageId": "mine"},
    TIME_GIVEN: {"timestamp": "2018-05-15T12:31:12.123Z"},
    ID_GIVEN | TIME_GIVEN: {"messageId": "mine", "timestamp": "2018-05-15T12:31:12.123Z"},
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
contents = st.dictionaries(
    st.text(max_size=8).filter(lambda name: name not in {"type", "messageId", "timestamp"}), json_values, max_size=4
)
records = st.tuples(contents, st.sampled_from(sorted(GIVEN)), st.sampled_from([0, NATIVE]))


class _Level(enum.IntEnum):
    GOLD = 7


class _Plan(str, enum.Enum):
    GOLD = "gold"


class _Chatty(int):
    def __str__(self):
        return "not the number"


class _Text(str):
    __slots__ = ()


class _Unreadable(collections.UserDict):
    def __iter__(self):
        raise RuntimeError("kept to itself")


class _BrokenZone(tzinfo):
    def utcoffset(self, _):
        raise RuntimeError("no idea")


class _ZoneWithoutOffset(tzinfo):
    def utcoffset(self, _):
        return None


def _normalised(**fields):
    normalise(fields)
    return fields


def _once(pairs):
    assert len({name for name, _ in pairs}) == len(pairs), f"a key stands twice in {pairs}"
    return dict(pairs)


def _strictly(body):
    """What a reader that keeps to the standard makes of `body`, where each key may stand but once."""
    return json.loads(body, object_pairs_hook=_once)


def _record(message, flags=0):
    return new_head(flags) + encode(message)


def _moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


# --- Fields -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ID_FIELDS)
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("u1", "u1"),
        (" ", " "),
        ("日本", "日本"),
        (_Text("u1"), "u1"),
        (0, "0"),
        (42, "42"),
        (-7, "-7"),
        (2**70, "1180591620717411303424"),
        (np.int64(42), "42"),
        (A_UUID, "12345678-1234-5678-1234-567812345678"),
    ],
)
def test_id_becomes_text(field, value, text):
    """An id may be text, a whole number or a UUID, and is text in the message."""
    message = _normalised(**{field: value})
    assert message == {field: text}
    assert isinstance(message[field], str)


@pytest.mark.parametrize(("value", "text"), [(_Level.GOLD, "7"), (_Chatty(5), "5")])
def test_id_of_a_numbers_own_class(value, text):
    """A number of the caller's own class, an enum's member too, is written by its value, as in traits."""
    message = _normalised(type="user", userId=value, traits={"same": value})
    assert message["userId"] == text
    assert _strictly(encode(message))["traits"] == {"same": int(text)}


def test_id_that_is_a_member_of_a_text_enum():
    """A member of an enum of texts is sent as its text."""
    message = _normalised(type="user", userId=_Plan.GOLD)
    assert _strictly(encode(message))["userId"] == "gold"


@pytest.mark.parametrize("field", ID_FIELDS)
@pytest.mark.parametrize(
    "value",
    ["", True, False, 1.0, math.nan, None, b"u1", Decimal(1), Fraction(1), [], {}, ("u1",), np.bool_(1), object],
    ids=repr,
)
def test_other_ids_are_invalid(field, value):
    """Anything else is no id, and neither is empty text."""
    with pytest.raises(InvalidMessage, match=f"^{field} must be ") as caught:
        _normalised(**{field: value})
    assert caught.value.reason is DropReason.INVALID


def test_id_that_cannot_be_written():
    """A number with more digits than Python writes is an invalid id, not an exception in the caller."""
    assert _normalised(userId=10**50) == {"userId": "1" + "0" * 50}
    with pytest.raises(InvalidMessage, match=r"^userId "):
        _normalised(userId=10**100_000)


@pytest.mark.parametrize("field", TEXT_FIELDS)
@pytest.mark.parametrize("value", ["", None, 1, True, b"text", ["text"], A_UUID], ids=repr)
def test_text_fields_take_text(field, value):
    """An event's or an object's name is text that is not empty."""
    assert _normalised(**{field: "signed-in"}) == {field: "signed-in"}
    with pytest.raises(InvalidMessage, match=f"^{field} must be "):
        _normalised(**{field: value})


@pytest.mark.parametrize("field", OBJECT_FIELDS)
@pytest.mark.parametrize(
    "value",
    [
        {},
        {"a": 1},
        collections.OrderedDict(a=1),
        collections.defaultdict(int, a=1),
        collections.ChainMap({"a": 1}),
        collections.UserDict(a=1),
        types.MappingProxyType({"a": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_take_mappings(field, value):
    """Traits, properties and their like may be any mapping, and become JSON objects."""
    before = dict(value)
    message = _normalised(**{field: value})
    assert _strictly(encode(message)) == {field: before}
    assert dict(value) == before


@pytest.mark.parametrize("field", OBJECT_FIELDS)
@pytest.mark.parametrize("value", [[], [("a", 1)], "a", "", 1, True, None, _Unreadable(a=1)], ids=repr)
def test_objects_take_nothing_else(field, value):
    """What is no mapping, or cannot be read, is invalid."""
    with pytest.raises(InvalidMessage, match=f"^{field} "):
        _normalised(**{field: value})


@pytest.mark.parametrize(
    ("message", "secret"),
    [({"userId": 12.75}, "12.75"), ({"event": 4711}, "4711"), ({"traits": ["hidden"]}, "hidden")],
)
def test_error_says_what_was_wrong_without_the_content(message, secret):
    """An error names the field and the kind of value, and keeps what the message says to itself."""
    with pytest.raises(InvalidMessage) as caught:
        normalise(message)
    assert secret not in str(caught.value)
    assert secret not in caught.value.detail


def test_first_wrong_field_is_named():
    """Of several wrong fields the first one is named."""
    with pytest.raises(InvalidMessage, match=r"^accountId "):
        _normalised(type="user", accountId="", userId="")


def test_callers_mapping_is_left_alone():
    """Checking a message changes nothing in the traits that the caller gave."""
    traits = {"when": datetime(2020, 1, 1, tzinfo=UTC), "nested": {"ids": {1, 2}}}
    before = {"when": datetime(2020, 1, 1, tzinfo=UTC), "nested": {"ids": {1, 2}}}
    encode(_normalised(type="user", userId=1, traits=traits))
    assert traits == before


@pytest.mark.parametrize(
    ("message", "plain"),
    [
        ({"type": "user", "userId": "u"}, True),
        ({"type": "user", "userId": 5, "accountId": A_UUID}, True),
        ({"type": "user", "traits": {"a": [1, {"b": None}]}}, True),
        ({"type": "user", "traits": collections.UserDict(a=1)}, True),
        ({"type": "user", "traits": {"a": {1}}, "properties": {}}, False),
        ({"type": "user", "traits": {}, "properties": {"a": object()}}, False),
        ({"type": "user", "traits": collections.UserDict(a=Decimal(1))}, False),
        ({"type": "user", "traits": collections.OrderedDict(a=1)}, False),
        ({"type": "user", "userId": _Text("u")}, True),
        ({"traits": {"a": {1}}, "userId": 5, "properties": collections.UserDict(a=1), "context": {}}, False),
    ],
)
def test_checking_tells_whether_a_message_is_plain(message, plain):
    """Checking a message tells what a look at all of it would: whether it is JSON as it is."""
    assert normalise(message) is plain
    assert (plain_copy(message) is not None) is plain


# --- Message ids ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["m", "x" * 99, "日" * 99, " ", _Text("m")])
def test_message_id_is_text(value):
    """A given message id of 1 to 99 characters is taken as it is."""
    assert message_id(value) == value


@pytest.mark.parametrize("value", ["", "x" * 100, 1, True, 1.5, b"m", A_UUID, None, ["m"]], ids=repr)
def test_other_message_ids_are_invalid(value):
    """Anything else is no message id."""
    with pytest.raises(InvalidMessage, match=r"^message_id .* 1 to 99 "):
        message_id(value)


# --- Timestamps -------------------------------------------------------------------------------------------------------


@pytest.fixture
def far_east(monkeypatch):
    """A machine whose local time is five and a half hours ahead of UTC."""
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change its time zone for a test")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XST-5:30")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def new_york(monkeypatch):
    """A machine with a summer time."""
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change its time zone for a test")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC), "2026-01-02T03:04:05.678Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=5.5))), "2026-01-01T21:34:05.000Z"),
        (datetime(1969, 12, 31, 23, 0, tzinfo=timezone(timedelta(hours=-2))), "1970-01-01T01:00:00.000Z"),
        (datetime(1970, 1, 1, tzinfo=UTC), "1970-01-01T00:00:00.000Z"),
        (datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC), "9999-12-31T23:59:59.999Z"),
        ("2018-05-15T12:31:12.123Z", "2018-05-15T12:31:12.123Z"),
        ("2018-05-15T12:31:12Z", "2018-05-15T12:31:12.000Z"),
        ("2018-05-15 12:31:12.123+02:00", "2018-05-15T10:31:12.123Z"),
        ("20180515T123112Z", "2018-05-15T12:31:12.000Z"),
        ("2018-05-15T24:00Z", "2018-05-16T00:00:00.000Z"),
        (_Text("2018-05-15T12:31:12.123Z"), "2018-05-15T12:31:12.123Z"),
        (0, "1970-01-01T00:00:00.000Z"),
        (1_767_323_045, "2026-01-02T03:04:05.000Z"),
        (1_767_323_045.678, "2026-01-02T03:04:05.678Z"),
        (Decimal("1767323045.678"), "2026-01-02T03:04:05.678Z"),
        (Fraction(3, 2), "1970-01-01T00:00:01.500Z"),
        (np.int64(1_767_323_045), "2026-01-02T03:04:05.000Z"),
        (np.float64(1_767_323_045.678), "2026-01-02T03:04:05.678Z"),
        (253_402_300_799, "9999-12-31T23:59:59.000Z"),
    ],
)
def test_timestamp_becomes_iso_text(value, text):
    """A datetime, a number of seconds and an ISO text are each written in UTC with milliseconds."""
    assert timestamp(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0006, "1970-01-01T00:00:00.001Z"),
        (0.0004, "1970-01-01T00:00:00.000Z"),
        (1.9996, "1970-01-01T00:00:02.000Z"),
        (1_700_000_000.001, "2023-11-14T22:13:20.001Z"),
        (Decimal("0.0006"), "1970-01-01T00:00:00.001Z"),
    ],
)
def test_numbers_are_rounded(seconds, text):
    """A number of seconds is rounded to milliseconds, not truncated."""
    assert timestamp(seconds) == text


@given(st.integers(0, LAST_MILLISECOND))
def test_numbers_lose_no_millisecond(milliseconds):
    """A number of seconds that was made of whole milliseconds comes out as exactly those."""
    assert _moment(timestamp(milliseconds / 1000)) == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(
        milliseconds=milliseconds
    )


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.timezones()))  # noqa: DTZ001 - hypothesis wants its bounds naive
def test_datetime_keeps_its_moment(moment):
    """A datetime of any zone is written as the moment that it stands for, to the millisecond."""
    written = _moment(timestamp(moment))
    assert timedelta(0) <= moment.astimezone(UTC) - written < timedelta(milliseconds=1)


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001 - as above
def test_text_and_datetime_agree(moment):
    """The ISO text of a datetime is written as the datetime itself is."""
    assert timestamp(moment.isoformat()) == timestamp(moment)


@pytest.mark.parametrize("fraction", ["", ".678"])
@pytest.mark.parametrize("day", [f"{year}-{month:02d}" for year in (1969, 2023, 2024, 2100) for month in range(14)])
def test_utc_text_is_a_moment_or_invalid(day, fraction):
    """Text that looks like a moment in UTC is written as dateutil reads it, or refused if there is no such day."""
    clocks = ["00:00:00", "23:59:59", "24:00:00", "24:00:01", "09:60:00", "09:00:60", "2 :00:00"]
    for text in [*(f"{day}-{n:02d}T10:20:30" for n in range(33)), *(f"{day}-07T{clock}" for clock in clocks)]:
        whole = f"{text}{fraction}Z"
        try:
            moment = isoparse(whole)
            assert moment.year >= 1970
        except (ValueError, AssertionError):
            with pytest.raises(InvalidMessage):
                timestamp(whole)
        else:
            assert _moment(timestamp(whole)) == moment
            assert len(timestamp(whole)) == len("2024-02-29T10:20:30.678Z")


@pytest.mark.usefixtures("far_east")
@pytest.mark.parametrize(
    "value",
    [
        datetime(2026, 1, 2, 3, 4, 5, 678_000),  # noqa: DTZ001 - naive is what is tested
        datetime(2026, 1, 2, 3, 4, 5, 678_000, _ZoneWithoutOffset()),
        "2026-01-02T03:04:05.678",
    ],
)
def test_naive_datetimes_are_local_time(value):
    """A datetime or a text without a zone is local time."""
    assert timestamp(value) == "2026-01-01T21:34:05.678Z"


@pytest.mark.usefixtures("far_east")
def test_date_in_text_begins_at_local_midnight():
    """A text that has only a date is that day's beginning, here."""
    assert timestamp("2026-01-02") == "2026-01-01T18:30:00.000Z"


@pytest.mark.usefixtures("new_york")
@pytest.mark.parametrize(("month", "hour"), [(1, 17), (7, 16)])
def test_naive_datetimes_keep_summer_time(month, hour):
    """Local time is that of the day in question, not that of today."""
    assert timestamp(datetime(2025, month, 2, 12)) == f"2025-{month:02d}-02T{hour}:00:00.000Z"  # noqa: DTZ001 - as above


@pytest.mark.usefixtures("far_east")
def test_zone_of_the_value_beats_the_machines():
    """What has a zone is not taken for local time."""
    assert timestamp(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00.000Z"
    assert timestamp(datetime(2026, 7, 2, tzinfo=gettz("UTC"))) == "2026-07-02T00:00:00.000Z"
    assert timestamp("2026-01-02T00:00:00Z") == "2026-01-02T00:00:00.000Z"
    assert timestamp(1_767_312_000) == "2026-01-02T00:00:00.000Z"


@pytest.mark.parametrize(
    "value",
    [
        True,
        False,
        np.bool_(1),
        math.nan,
        math.inf,
        -math.inf,
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        1_767_323_045_678,
        1_767_323_045_678.0,
        -1,
        -0.001,
        253_402_300_800,
        1e300,
        10**400,
        date(2026, 1, 2),
        datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC),
        datetime(1970, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=timezone(timedelta(hours=-1))),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(2026, 1, 2, tzinfo=_BrokenZone()),
        timedelta(1),
        "",
        " ",
        "yesterday",
        "1767323045",
        "1767323045678",
        "2026-13-01T00:00:00Z",
        "2026-01-02T03:04:05.678Z\n",
        "1969-12-31T23:59:59Z",
        "٢٠٢٦-01-02T03:04:05Z",
        b"2026-01-02T03:04:05Z",
        None,
        [],
        1j,
        object(),
    ],
)
def test_other_timestamps_are_invalid(value):
    """Bools, dates, milliseconds, what is not finite, what is outside 1970 to 9999 and all the rest are invalid."""
    with pytest.raises(InvalidMessage, match=r"^timestamp must be .* from 1970 to 9999"):
        timestamp(value)


@given(
    st.one_of(
        st.floats(), st.integers(), st.text(), st.binary(), st.decimals(), st.dates(), st.datetimes(), st.timedeltas()
    )
)
def test_timestamp_is_written_or_invalid(value):
    """Whatever is given is written in one form, as a moment from 1970 to 9999, or is invalid."""
    try:
        text = timestamp(value)
    except InvalidMessage:
        return
    assert len(text) == len("2026-01-02T03:04:05.678Z")
    assert 1970 <= _moment(text).year <= 9999


# --- On the wire ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("native", [0, NATIVE])
@pytest.mark.parametrize("flags", GIVEN)
@pytest.mark.parametrize("content", [{}, {"a": 1}, {"traits": {}}, {"messageid": 1, "b": [{}]}])
def test_wire_adds_what_was_not_given(content, flags, native):
    """On the wire a message has the id and the time that were given, and the stamp's where none were."""
    message = {**GIVEN[flags], **content}
    record = _record(message, flags | native)
    stamped = {"messageId": uuid_text(record), "timestamp": iso_text(record)}
    assert _strictly(wire(record)) == {**stamped, **message}


@given(records)
def test_wire_is_json_of_the_right_content(parts):
    """Any message is valid JSON on the wire, each key once, and says what it said with an id and a time."""
    content, flags, native = parts
    message = {**content, **GIVEN[flags]}
    record = _record(message, flags | native)
    stamped = {"messageId": uuid_text(record), "timestamp": iso_text(record)}
    assert _strictly(wire(record)) == {**stamped, **message}
    assert wire(record) == wire(record)
    assert decode(record) == (message if native else {**stamped, **message})


@given(records)
def test_size_on_the_wire_is_known_beforehand(parts):
    """The size that is checked at the call is that on the wire; only an empty object takes a comma less."""
    content, flags, native = parts
    message = {**content, **GIVEN[flags]}
    record = _record(message, flags | native)
    size = len(wire(record))
    assert wire_bytes(record[HEAD_BYTES:], flags | native) == (size if message else size + 1)


def test_decoded_message_is_fresh():
    """What a callback does to a decoded message changes no other copy."""
    record = _record({"type": "user", "traits": {"a": [1]}})
    decode(record)["traits"]["a"].append(2)
    assert decode(record)["traits"] == {"a": [1]}


# --- Replaced by `before_send` ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", GIVEN)
def test_replacing_keeps_type_id_and_time(flags):
    """Whatever a hook makes of a message, its type, its id and its time stay, and all else is the hook's."""
    record = _record({"type": "user", "userId": "u1", **GIVEN[flags]}, flags)
    before = decode(record)
    changed = replace(record, {"type": "track", "messageId": "other", "timestamp": "never", "event": "e"})
    kept = {field: before[field] for field in ("type", "messageId", "timestamp")}
    assert _strictly(wire(changed)) == {**kept, "event": "e"}
    assert changed[:HEAD_BYTES] == record[:HEAD_BYTES]


@pytest.mark.parametrize("flags", GIVEN)
def test_replacing_restores_what_was_left_out(flags):
    """A hook that leaves out the type, the id or the time does not remove them."""
    record = _record({"type": "user", "userId": "u1", **GIVEN[flags]}, flags)
    before = decode(record)
    kept = {field: before[field] for field in ("type", "messageId", "timestamp")}
    assert _strictly(wire(replace(record, {}))) == kept
    assert decode(replace(record, before)) == before


def test_replacing_adds_no_type():
    """A native message without a type does not get one from a hook."""
    record = _record({"event": "e"}, NATIVE)
    assert "type" not in decode(replace(record, {"type": "user", "event": "f"}))


def test_replacing_mends_odd_values():
    """A hook may return what JSON does not know, and its mapping is not changed."""
    record = _record({"type": "user"})
    content = types.MappingProxyType({"type": "user", "sum": Decimal(3), "odd": object, "nan": math.nan})
    message = decode(replace(record, content, default=lambda _: "by default"))
    assert (message["sum"], message["odd"], message["nan"]) == (3, "by default", None)


def test_replacing_leaves_the_record_alone():
    """The record that was stored stays as it is, for what was not sent may be filtered anew."""
    record = _record({"type": "user", "userId": "u1"})
    before = bytes(record)
    replace(record, {"userId": "u2"})
    assert record == before


# --- Encoding ---------------------------------------------------------------------------------------------------------


def test_encode_mends_what_json_does_not_know():
    """A value that JSON does not know is mended, and `default` is asked for what nobody knows."""
    message = {"when": datetime(2026, 1, 2, tzinfo=UTC), "odd": 1j, "plain": [1, "a"]}
    body = _strictly(encode(message, default=lambda value: {"real": value.real}))
    assert body == {"when": "2026-01-02T00:00:00+00:00", "odd": {"real": 0}, "plain": [1, "a"]}


@given(contents)
def test_encode_takes_a_word_for_it(content):
    """A message is written alike whether it was known to be plain, was said not to be, or was looked at."""
    assert encode(content) == encode(content, plain=True)
    assert _strictly(encode(content, plain=False)) == _strictly(encode(content))


def test_encode_mends_what_was_taken_for_plain():
    """What turns out to be more than JSON knows, though its types are plain, is mended."""
    message = {"huge": 2**70, "half": "\ud800", 5: "key"}
    assert _strictly(encode(message, plain=True)) == {"huge": str(2**70), "half": "\ufffd", "5": "key"}
