from __future__ import annotations

import gzip
import json
import string
import time
from base64 import b64encode
from contextlib import ExitStack
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

import analytics_batcher
from analytics_batcher import Client, CustomerIO, DropReason, Retry, Segment, Vitally
from analytics_batcher.answer import Answer
from analytics_batcher.batch import Limits
from analytics_batcher.delivery import BatchSender
from analytics_batcher.destinations import Action
from analytics_batcher.message import encode, wire_bytes
from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply, SegmentWire, VitallyWire
from analytics_batcher.stamp import ID_GIVEN, NATIVE, TIME_GIVEN, iso_text, new_head, uuid_text
from analytics_batcher.transport import Transport

KEY = "Wr1te/Key:s3cret+"
ENCODED = b64encode(f"{KEY}:".encode()).decode()
LIBRARY = {"name": "analytics-batcher", "version": analytics_batcher.__version__}
PAGE = b"<!DOCTYPE html><html><body>Log in to the airport's network</body></html>"
PLANE = "https://acme.dataplane.rudderstack.com"
BASIC = {"Content-Type": "application/json", "Authorization": f"Basic {ENCODED}"}


def record_of(message, flags=0):
    """The message as a buffer holds it."""
    return new_head(flags) + encode(message)


def refusal(make=Segment, *arguments, **settings):
    """What the error about a wrong setting says; not the key."""
    with pytest.raises(ValueError, match="allowed") as caught:
        make(*(arguments or (KEY,)), **settings)
    assert KEY not in str(caught.value)
    assert ENCODED not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def receiver():
    """Segment's stand-in on loopback."""
    with Receiver(SegmentWire(KEY)) as running:
        yield running


@pytest.fixture
def make_client(receiver):
    """Makes clients without a thread, and shuts them down at the end."""
    with ExitStack() as stack:

        def make(destination=None, **options):
            options = {"background": False, "retry": Retry(base=0.001, cap=0.002), **options}
            client = Client(destination or Segment(KEY, base_url=receiver.url), **options)
            stack.callback(client.shutdown, 0)
            return client

        yield make


# --- Settings: every receiver of the family ---------------------------------------------------------------------------

FAMILY = {
    "segment": (
        Segment(KEY),
        "https://api.segment.io/v1/batch",
        BASIC,
        KEY,
    ),
    "segment_eu": (
        Segment.eu(KEY),
        "https://events.eu1.segmentapis.com/v1/batch",
        BASIC,
        KEY,
    ),
    "segment_with_the_key_in_the_body": (
        Segment(KEY, auth="body"),
        "https://api.segment.io/v1/batch",
        {"Content-Type": "application/json"},
        KEY,
    ),
    "rudderstack": (
        Segment.rudderstack(PLANE, KEY),
        "https://acme.dataplane.rudderstack.com/v1/batch",
        BASIC,
        None,
    ),
    "rudderstack_self_hosted": (
        Segment.rudderstack("http://10.0.0.1:8080", KEY, allow_http=True),
        "http://10.0.0.1:8080/v1/batch",
        BASIC,
        None,
    ),
    "customerio_pipelines": (
        Segment.customerio_pipelines(KEY),
        "https://cdp.customer.io/v1/batch",
        {**BASIC, "X-Strict-Mode": "1"},
        None,
    ),
    "customerio_pipelines_eu": (
        Segment.customerio_pipelines(KEY, region="eu", strict=False),
        "https://cdp-eu.customer.io/v1/batch",
        BASIC,
        None,
    ),
    "hightouch": (
        Segment(KEY, base_url="https://us-east-1.hightouch-events.com"),
        "https://us-east-1.hightouch-events.com/v1/batch",
        BASIC,
        KEY,
    ),
    "jitsu": (
        Segment.jitsu("https://acme.d.jitsu.com", KEY),
        "https://acme.d.jitsu.com/v1/batch",
        BASIC,
        None,
    ),
    "jitsu_by_its_other_path": (
        Segment.jitsu("https://acme.d.jitsu.com", KEY, path="/api/s/s2s/batch"),
        "https://acme.d.jitsu.com/api/s/s2s/batch",
        BASIC,
        None,
    ),
    "dittofeed": (
        Segment(KEY, base_url="https://app.dittofeed.com", path="/api/public/apps/batch", auth="raw"),
        "https://app.dittofeed.com/api/public/apps/batch",
        {"Content-Type": "application/json", "Authorization": f"Basic {KEY}"},
        None,
    ),
}


@pytest.mark.parametrize("case", FAMILY)
def test_address_and_key(case):
    """Each receiver of the family is posted to at its address, with the key where that receiver looks for it."""
    destination, url, headers, in_body = FAMILY[case]
    assert destination.url == url
    assert destination.headers() == headers
    body = json.loads(destination.body([], 0.0))
    assert body.get("writeKey") == in_body
    assert set(body) == {"batch", "sentAt"} | ({"writeKey"} if in_body else set())


@pytest.mark.parametrize(("key", "header"), [("abc123", "Basic YWJjMTIzOg=="), ("wk", "Basic d2s6")])
def test_key_in_the_header(key, header):
    """The header is base64 of the key and a colon, as in the vendor's examples."""
    assert Segment(key).headers()["Authorization"] == header


@pytest.mark.parametrize(
    ("destination", "name"),
    [
        (Segment(KEY), "segment"),
        (Segment.eu(KEY), "segment"),
        (Segment.rudderstack(PLANE, KEY), "rudderstack"),
        (Segment.jitsu(PLANE, KEY), "jitsu"),
        (Segment.customerio_pipelines(KEY), "customerio_pipelines"),
        (Segment(KEY, name="s"), "s"),
        (Segment.eu(KEY, name="s"), "s"),
        (Segment.rudderstack(PLANE, KEY, name="s"), "s"),
        (Segment.jitsu(PLANE, KEY, name="s"), "s"),
        (Segment.customerio_pipelines(KEY, name="s"), "s"),
    ],
)
def test_name(destination, name, make_client):
    """A destination is called by its kind or as the application says, and neither it nor its client shows the key."""
    assert destination.name == name
    assert type(destination) is Segment
    assert repr(destination) == f"Segment({destination.url!r}, name={name!r})"
    client = make_client(destination)
    for shown in (str(destination), repr(client), repr(client.stats())):
        assert KEY not in shown
        assert ENCODED not in shown


@pytest.mark.parametrize(
    "settings",
    [
        *({"auth": wrong} for wrong in ("", "Basic", "none", None, True, ["basic"], {"basic"})),
        *({"path": wrong} for wrong in ("", "v1/batch", "/v1?x=1", "/v1#x", "/v 1", "/v1\n", "/\u00e9", "@evil", None)),
        *({"base_url": wrong} for wrong in ("", "api.segment.io", "https://a/b", "http://10.0.0.1", None, 5)),
        *({"name": wrong} for wrong in ("", "a b", 5)),
    ],
    ids=repr,
)
def test_setting_that_is_wrong(settings):
    """A wrong setting is an error that begins with its name, and does not show the key."""
    assert refusal(**settings).startswith(next(iter(settings)))


@pytest.mark.parametrize(
    "settings",
    [
        *({"region": wrong} for wrong in ("", "US", "de", None, ["us"], {})),
        *({"strict": wrong} for wrong in (None, 1, 0, "yes")),
    ],
    ids=repr,
)
def test_setting_of_pipelines_that_is_wrong(settings):
    """A wrong region or `strict` is an error that begins with its name."""
    assert refusal(Segment.customerio_pipelines, **settings).startswith(next(iter(settings)))


@pytest.mark.parametrize("key", ["", " ", "hunter2\n", "hunter 2", "h\u00fcnter2", "hunter2\x00", b"hunter2", 5, None])
@pytest.mark.parametrize("auth", ["basic", "body", "both", "raw"])
def test_key_that_no_header_can_carry(key, auth):
    """A key that a header cannot carry is an error that does not show it, wherever the key would go."""
    text = refusal(Segment, key, auth=auth)
    assert text == "write_key: allowed is text of visible ASCII characters, without spaces (it is not shown)"


# --- What each call becomes -------------------------------------------------------------------------------------------

CONTEXT = {"context": {"library": LIBRARY}}
CALLS = {
    "identify": (
        lambda client: client.identify("u", {"plan": "pro", "n": {"x": [1, None]}}),
        {"type": "user", "userId": "u", "traits": {"plan": "pro", "n": {"x": [1, None]}}},
        {"type": "identify", "userId": "u", "traits": {"plan": "pro", "n": {"x": [1, None]}}, **CONTEXT},
    ),
    "identify_in_an_account": (
        lambda client: client.identify("u", account_id="a", organization_id="o"),
        {"type": "user", "userId": "u", "traits": {}, "accountId": "a", "organizationId": "o"},
        {"type": "identify", "userId": "u", "traits": {}, "context": {"library": LIBRARY, "groupId": "a"}},
    ),
    "identify_a_visitor": (
        lambda client: client.identify(None, {"plan": "pro"}, anonymous_id="x"),
        {"type": "user", "traits": {"plan": "pro"}, "anonymousId": "x"},
        {"type": "identify", "anonymousId": "x", "traits": {"plan": "pro"}, **CONTEXT},
    ),
    "identify_a_visitor_who_is_known": (
        lambda client: client.identify("u", anonymous_id="x"),
        {"type": "user", "userId": "u", "traits": {}, "anonymousId": "x"},
        {"type": "identify", "userId": "u", "anonymousId": "x", "traits": {}, **CONTEXT},
    ),
    "track": (
        lambda client: client.track("u", "purchase", {"amount": 99}),
        {"type": "track", "event": "purchase", "properties": {"amount": 99}, "userId": "u"},
        {"type": "track", "event": "purchase", "properties": {"amount": 99}, "userId": "u", **CONTEXT},
    ),
    "track_in_an_account": (
        lambda client: client.track(None, "purchase", account_id="a", anonymous_id="x"),
        {"type": "track", "event": "purchase", "properties": {}, "accountId": "a", "anonymousId": "x"},
        {
            "type": "track",
            "event": "purchase",
            "properties": {},
            "anonymousId": "x",
            "context": {"library": LIBRARY, "groupId": "a"},
        },
    ),
    "track_with_all": (
        lambda client: client.track(
            "u",
            "purchase",
            {"when": "2026-01-02T03:04:05Z"},
            account_id="a",
            context={"ip": "::1", "locale": "de"},
            integrations={"All": True, "Mixpanel": False},
        ),
        {
            "type": "track",
            "event": "purchase",
            "properties": {"when": "2026-01-02T03:04:05Z"},
            "userId": "u",
            "accountId": "a",
            "context": {"ip": "::1", "locale": "de"},
            "integrations": {"All": True, "Mixpanel": False},
        },
        {
            "type": "track",
            "event": "purchase",
            "properties": {"when": "2026-01-02T03:04:05Z"},
            "userId": "u",
            "context": {"ip": "::1", "locale": "de", "library": LIBRARY, "groupId": "a"},
            "integrations": {"All": True, "Mixpanel": False},
        },
    ),
    "track_with_a_library_and_a_group": (
        lambda client: client.track("u", "e", account_id="a", context={"library": {"name": "own"}, "groupId": "g"}),
        {
            "type": "track",
            "event": "e",
            "properties": {},
            "userId": "u",
            "accountId": "a",
            "context": {"library": {"name": "own"}, "groupId": "g"},
        },
        {
            "type": "track",
            "event": "e",
            "properties": {},
            "userId": "u",
            "context": {"library": {"name": "own"}, "groupId": "g"},
        },
    ),
    "page": (
        lambda client: client.page("u", "Pricing", {"url": "https://a.b/c"}, context={}, integrations={}),
        {
            "type": "page",
            "name": "Pricing",
            "properties": {"url": "https://a.b/c"},
            "userId": "u",
            "context": {},
            "integrations": {},
        },
        {
            "type": "page",
            "name": "Pricing",
            "properties": {"url": "https://a.b/c"},
            "userId": "u",
            "integrations": {},
            **CONTEXT,
        },
    ),
    "screen": (
        lambda client: client.screen(None, "Home", {"tab": 2}, anonymous_id="x"),
        {"type": "screen", "name": "Home", "properties": {"tab": 2}, "anonymousId": "x"},
        {"type": "screen", "name": "Home", "properties": {"tab": 2}, "anonymousId": "x", **CONTEXT},
    ),
    "account": (
        lambda client: client.account("a", {"name": "Acme"}, user_id="u", organization_id="o"),
        {"type": "account", "accountId": "a", "organizationId": "o", "traits": {"name": "Acme"}, "userId": "u"},
        {"type": "group", "groupId": "a", "userId": "u", "traits": {"name": "Acme"}, **CONTEXT},
    ),
    "account_of_a_visitor": (
        lambda client: client.account("a", anonymous_id="x"),
        {"type": "account", "accountId": "a", "anonymousId": "x"},
        {"type": "group", "groupId": "a", "anonymousId": "x", **CONTEXT},
    ),
    "alias": (
        lambda client: client.alias("old", "new"),
        {"type": "alias", "previousId": "old", "userId": "new"},
        {"type": "alias", "previousId": "old", "userId": "new", **CONTEXT},
    ),
    "alias_of_a_visitor": (
        lambda client: client.alias("old", "new", anonymous_id="x"),
        {"type": "alias", "previousId": "old", "userId": "new", "anonymousId": "x"},
        {"type": "alias", "previousId": "old", "userId": "new", "anonymousId": "x", **CONTEXT},
    ),
}


@pytest.mark.parametrize("case", CALLS)
def test_form_of_a_message(case):
    """Each neutral message becomes exactly one of Segment's, with an id and a time of the stamp."""
    _, message, expected = CALLS[case]
    before = json.dumps(message)
    destination = Segment(KEY)
    record = record_of(message)
    stamp = {"messageId": uuid_text(record), "timestamp": iso_text(record)}
    assert json.loads(destination.wire(record)) == expected | stamp
    assert destination.check(message) is None
    assert json.dumps(message) == before
    given_stamp = {"messageId": "mine", "timestamp": "2018-01-02T03:04:05.678Z"}
    record = record_of(message | given_stamp, ID_GIVEN | TIME_GIVEN)
    assert json.loads(destination.wire(record)) == expected | given_stamp
    record = record_of(message | {"messageId": "mine"}, ID_GIVEN)
    assert json.loads(destination.wire(record)) == expected | {"messageId": "mine", "timestamp": iso_text(record)}


@pytest.mark.parametrize("case", CALLS)
def test_form_of_a_call(case, make_client, receiver):
    """Each call arrives as exactly one of Segment's messages, to which the receiver has no objection."""
    call, _, expected = CALLS[case]
    before = datetime.now(timezone.utc).timestamp()
    client = make_client()
    assert call(client) is True
    assert client.flush(5)
    (message,) = receiver.messages
    assert receiver.faults == ()
    assert message == expected | {"messageId": message["messageId"], "timestamp": message["timestamp"]}
    moment = datetime.fromisoformat(message["timestamp"].replace("Z", "+00:00")).timestamp()
    assert before - 0.001 <= moment <= datetime.now(timezone.utc).timestamp()


def test_given_id_and_time(make_client, receiver):
    """A given id goes out as it is, and a given time as the same moment."""
    client = make_client()
    client.track("u", "e", message_id="m" * 99, timestamp="2018-01-02T03:04:05+02:00")
    assert client.flush(5)
    (message,) = receiver.messages
    assert (message["messageId"], message["timestamp"]) == ("m" * 99, "2018-01-02T01:04:05.000Z")


def test_library_goes_into_a_copy(make_client, receiver):
    """The library and the account go into a copy of the context: the caller's dict stays, and may serve again."""
    context = {"ip": "::1"}
    client = make_client()
    client.track("u", "e", account_id="a", context=context)
    client.track("u", "e", account_id="b", context=context)
    assert client.flush(5)
    assert context == {"ip": "::1"}
    assert [message["context"] for message in receiver.messages] == [
        {"ip": "::1", "library": LIBRARY, "groupId": account} for account in "ab"
    ]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "organization", "organizationId": "o"},
        {"type": "customobjectinstance", "externalId": "e", "customObjectId": "c", "traits": {}, "accountId": "a"},
        {"type": "unlink", "userId": "u", "accountId": "a"},
        {"type": "user", "traits": {}},
        {"type": "user", "traits": {}, "accountId": "a"},
        {"type": "track", "event": "e", "properties": {}},
        {"type": "track", "event": "e", "properties": {}, "accountId": "a", "organizationId": "o"},
        {"type": "account", "accountId": "a", "traits": {}},
        {"type": "page", "name": "p", "properties": {}},
        {"type": "screen", "name": "s", "properties": {}},
    ],
    ids=repr,
)
def test_message_that_segment_does_not_have(message):
    """What the vendor has no form for, for want of a kind or of an id, is unsupported, with a reason in one line."""
    reason, detail = Segment(KEY).check(message)
    assert reason is DropReason.UNSUPPORTED
    assert detail
    assert detail.isprintable()


def test_unsupported_call_is_counted(make_client, receiver):
    """A call for which the vendor has no form is refused and counted, and nothing is sent for it."""
    client = make_client()
    refused = [
        client.track(None, "e", account_id="a"),
        client.account("a"),
        client.organization("o"),
        client.custom_object("e", "c", account_id="a"),
        client.unlink("u", "a"),
    ]
    assert refused == [False] * 5
    assert client.stats().dropped == {"unsupported": 5}
    assert client.flush(5)
    assert receiver.requests == ()


def test_native_message_goes_as_it_is(make_client, receiver):
    """A native message arrives as it was given, without a library, but for a missing id and time."""
    native = [
        {"type": "track", "event": "e", "userId": "u"},
        {"type": "page", "anonymousId": "x", "category": "c", "messageId": "mine"},
        {"type": "group", "groupId": "g", "userId": "u", "timestamp": "2018-01-02T03:04:05Z"},
        {"type": "alias", "userId": "u", "previousId": "p", "messageId": "m", "timestamp": "2018-01-02T03:04:05Z"},
    ]
    before = json.dumps(native)
    client = make_client()
    for message in native:
        assert client.enqueue(message)
    assert client.flush(5)
    assert json.dumps(native) == before
    for message, arrived in zip(native, receiver.messages, strict=True):
        assert arrived == arrived | message
        assert set(arrived) == set(message) | {"messageId", "timestamp"}
    assert receiver.faults == ()
    whole = encode(native[3])
    assert Segment(KEY).wire(new_head(NATIVE | ID_GIVEN | TIME_GIVEN) + whole) == whole


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: {},
        lambda message: {name: value for name, value in message.items() if name != "accountId"},
        lambda message: {**message, "context": "text"},
        lambda message: {**message, "context": 5},
    ],
    ids=["empty", "no-account", "context-text", "context-number"],
)
def test_hook_that_spoils_a_message_harms_only_it(make_client, receiver, spoil):
    """A message of which `before_send` leaves too little costs itself, and not those around it."""
    client = make_client(before_send=lambda message: spoil(message) if message["accountId"] == "bad" else message)
    for account in ("before", "bad", "after"):
        client.account(account, user_id="u")
    result = client.flush(1)
    assert (result.delivered, sum(result.dropped.values()), result.pending) == (2, 1, 0)
    assert [message["groupId"] for message in receiver.messages] == ["before", "after"]


# --- The body ---------------------------------------------------------------------------------------------------------

VISIBLE = string.ascii_letters + string.digits + string.punctuation


@given(
    key=st.text(VISIBLE, min_size=1, max_size=40),
    auth=st.sampled_from(["basic", "body", "both", "raw"]),
    messages=st.lists(st.sampled_from([message for _, message, _ in CALLS.values()]), max_size=30),
    now=st.floats(0, 4e9),
)
def test_envelope(key, auth, messages, now):
    """A body is its envelope, the messages and the commas, to the byte, for any key, and holds all in order."""
    destination = Segment(key, auth=auth)
    wires = [destination.wire(record_of(message)) for message in messages]
    body = destination.body(wires, now)
    assert len(body) == destination.envelope + sum(map(len, wires)) + max(len(wires) - 1, 0)
    read = json.loads(body)
    assert read["batch"] == [json.loads(wire) for wire in wires]
    assert read.get("writeKey") == (key if auth in {"body", "both"} else None)
    sent = datetime.fromisoformat(read["sentAt"].replace("Z", "+00:00")).timestamp()
    assert abs(sent - now) < 0.0011


def test_limits():
    """A message may have 32,000 bytes, a request 500,000 and 2,500 messages."""
    destination = Segment(KEY)
    assert destination.limits == Limits(messages=2_500, bytes=500_000, message_bytes=32_000)
    assert (destination.id_field, destination.time_field) == ("messageId", "timestamp")
    assert destination.gzip


def test_moment_of_sending_is_each_attempts_own(receiver):
    """`sentAt` is the attempt's moment, and the messages with their ids and times are the same each time."""
    receiver.script(Reply(500, delay=0.02), Reply(503, delay=0.02), Reply(reset="after", delay=0.02))
    transport = Transport(timeout=5.0)
    destination = Segment(KEY, base_url=receiver.url)
    sender = BatchSender(destination, transport, destination.limits, Retry(base=0.001, cap=0.002))
    records = [record_of(message) for _, message, _ in CALLS.values()]
    before = time.time()
    try:
        for _ in range(10):
            if sender.send(records, None).delivered:
                break
    finally:
        transport.close()
    after = time.time()
    bodies = [json.loads(request.body) for request in receiver.requests]
    assert len(bodies) >= 4
    assert all(body["batch"] == bodies[0]["batch"] for body in bodies)
    attempts = [datetime.fromisoformat(body["sentAt"].replace("Z", "+00:00")).timestamp() for body in bodies]
    assert before - 0.001 <= attempts[0] < attempts[1] < attempts[2] <= attempts[-1] <= after
    assert {len(request.body) for request in receiver.requests} == {len(receiver.requests[0].body)}
    assert [message["messageId"] for message in bodies[-1]["batch"]] == [uuid_text(record) for record in records]


def padded(size):
    """A message of that many bytes in the vendor's form."""
    message = {"type": "track", "event": "e", "properties": {"pad": ""}, "userId": "u"}
    message["properties"]["pad"] = "x" * (size - len(Segment(KEY).wire(record_of(message))))
    return message


def test_message_at_its_limit(make_client, receiver):
    """A message of exactly 32,000 bytes arrives; one more byte, which only the mapping shows, is too large."""
    assert wire_bytes(encode(padded(32_001)), 0) <= 32_000
    client = make_client()
    for size in (32_000, 32_001, 500):
        assert client.track("u", "e", padded(size)["properties"])
    result = client.flush(5)
    assert (result.delivered, dict(result.dropped), result.pending) == (2, {"too_large": 1}, 0)
    assert receiver.faults == ()
    assert [len(encode(message)) for message in receiver.messages] == [32_000, 500]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_request_at_its_limit(receiver, packed):
    """A request is filled to 500,000 bytes before compression, envelope and commas included, and not a byte further."""
    destination = Segment(KEY, base_url=receiver.url)
    transport = Transport(timeout=5.0)
    sender = BatchSender(destination, transport, destination.limits, Retry(), gzip=packed)
    rest = 500_000 - destination.envelope - 16 * 30_001
    try:
        for last in (rest, rest + 1):
            records = [record_of(padded(size)) for size in (*(16 * [30_000]), last)]
            assert len(sender.send(records, None).delivered) == (17 if last == rest else 16)
    finally:
        transport.close()
    bodies = [gzip.decompress(request.body) if packed else request.body for request in receiver.requests]
    assert [len(body) for body in bodies] == [500_000, 500_000 - rest - 1]
    assert receiver.faults == ()


def test_request_takes_2500_messages(make_client, receiver):
    """A request takes 2,500 messages and no more, as Segment drops the rest in silence."""
    client = make_client()
    for number in range(2_501):
        client.enqueue({"type": "page", "userId": "u", "messageId": f"m{number}", "timestamp": "2026-01-02T03:04:05Z"})
    assert client.flush(10)
    assert [len(request.messages) for request in receiver.requests] == [2_500, 1]
    assert receiver.faults == ()


def test_compressed(make_client, receiver):
    """With `gzip=True` a body goes compressed and says so, and inflated it is the usual one."""
    client = make_client(gzip=True)
    for number in range(100):
        client.track("u", "e", {"n": number})
    assert client.flush(5)
    (request,) = receiver.requests
    assert request.headers["content-encoding"] == "gzip"
    body = json.loads(gzip.decompress(request.body))
    assert [message["properties"]["n"] for message in body["batch"]] == list(range(100))
    assert body["writeKey"] == KEY
    assert request.size < 5_000
    assert receiver.faults == ()


def test_not_compressed_unless_asked(make_client, receiver):
    """Without the option nothing is compressed."""
    for options in ({}, {"gzip": None}, {"gzip": False}):
        client = make_client(**options)
        client.track("u", "e")
        assert client.flush(5)
    assert len(receiver.requests) == 3
    assert not [request for request in receiver.requests if "content-encoding" in request.headers]


def test_compressed_only_where_the_vendor_takes_it():
    """In a fan-out with `gzip=True` only Segment's bodies are compressed: the others do not document it."""
    with Receiver(wires=[VitallyWire("t"), CustomerIOWire("s", "k"), SegmentWire(KEY)]) as running:
        to = {"base_url": running.url}
        client = Client(
            [Vitally(api_token="t", **to), CustomerIO("s", "k", **to), Segment(KEY, **to)], background=False, gzip=True
        )
        try:
            client.track("u", "e")
            assert client.flush(5)
        finally:
            client.shutdown(0)
        encodings = {request.wire: request.headers.get("content-encoding") for request in running.requests}
        assert running.faults == ()
    assert encodings == {"vitally": None, "customerio": None, "segment": "gzip"}


# --- What an answer means ---------------------------------------------------------------------------------------------

RETRIED = {408, 410, 425, 429, 460, *range(500, 600)} - {501, 505}


def meaning(status):
    """The verdicts of the design."""
    if 200 <= status < 300:
        return Action.DELIVERED
    if status in RETRIED:
        return Action.RETRY
    if status in {400, 422}:
        return Action.REJECTED
    return Action.SPLIT if status == 413 else Action.HALT


def jitsu_body(**fields):
    """An answer of Jitsu's that says that something was refused."""
    return json.dumps({"ok": False, **fields}).encode()


@pytest.mark.parametrize("status", range(100, 600))
def test_status(status):
    """Each status is delivered, retried, bisected, split, or halts, and no body but a page changes that."""
    for body in (b"", b"OK", b'{"success":true}', b'{"message":"m"}', PAGE):
        expected = Action.RETRY if 200 <= status < 300 and body is PAGE else meaning(status)
        verdict = Segment(KEY).verdict(Answer(status, {}, body))
        assert verdict.action is expected
        assert f"HTTP {status}" in verdict.detail
        assert not verdict.rejected
        assert not verdict.rejected_ids
    assert Segment(KEY).verdict(Answer(status, {"retry-after": "7"})).wait == (7 if status in RETRIED else None)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 299])
@pytest.mark.parametrize(
    ("headers", "body", "truncated"),
    [
        ({"content-type": "application/json"}, b'{"success":true}', False),
        ({"content-type": "text/plain; charset=utf-8"}, b"OK", False),
        ({}, b"OK", False),
        ({}, b"ok\n", False),
        ({}, b"", False),
        ({}, b" \r\n", False),
        ({}, b'{"ok":true,"receivedEvents":2,"okEvents":2}', False),
        ({}, b'{"ok":null}', False),
        ({}, b'{"status":"Ok"}', False),
        ({}, b"[]", False),
        ({}, b"true", False),
        ({}, b"1", False),
        ({}, b'{"success":', False),
        ({}, b"\xff\xfe", False),
        ({}, b"x" * 65_536, True),
        ({"content-encoding": "gzip"}, b"\x1f\x8b\x08", False),
        ({"content-type": "text/html"}, b"", False),
        ({"content-type": "text/html; charset=UTF-8"}, b'{"success":true}', False),
    ],
    ids=repr,
)
def test_success(status, headers, body, truncated):
    """Any 2xx is a delivery, whether its body is JSON, text or empty, whatever type the server gives it."""
    verdict = Segment(KEY).verdict(Answer(status, headers, body, truncated))
    assert verdict.action is Action.DELIVERED
    assert not verdict.rejected
    assert not verdict.rejected_ids


@pytest.mark.parametrize("status", [200, 202, 204])
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, PAGE),
        ({"content-type": "text/html; charset=utf-8"}, PAGE),
        ({"content-type": "application/json"}, PAGE),
        ({"content-type": "TEXT/HTML"}, b"Please log in at the airport"),
        ({"content-type": "application/xhtml+xml"}, b'<?xml version="1.0"?><html>airport'),
        ({"content-type": "text/html", "content-encoding": "gzip"}, b"\x1f\x8b\x08"),
        ({}, b"\n\n  <!doctype HTML>airport"),
        ({}, b"<HTML><HEAD>airport"),
        ({}, b"<head><title>airport"),
        ({}, b"\xef\xbb\xbf<html>airport"),
        ({}, b"<!-- airport --><html></html>"),
        ({}, b"<body>airport</body>"),
        ({}, b"<meta http-equiv=refresh content='0; url=https://airport'>"),
    ],
    ids=repr,
)
def test_success_with_a_page(status, headers, body):
    """A 2xx with a page of HTML, as a captive portal's, is no delivery: it is retried, and not quoted."""
    for truncated in (False, True):
        verdict = Segment(KEY).verdict(Answer(status, headers, body, truncated))
        assert verdict.action is Action.RETRY
        assert verdict.detail.startswith(f"unexpected_response: HTTP {status}")
        assert "airport" not in verdict.detail


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"code":"c","message":"bad"}', ": bad"),
        (b'{"error":"one"}', ": one"),
        (b'{"message":"a\\nERROR forged"}', ": a\\nERROR forged"),
        (b'{"message":"' + b"x" * 5_000 + b'"}', ": " + "x" * 200 + "..."),
        (b'{"message":{"a":1}}', ""),
        (b"failed to read writekey from header", ""),
        (b"[]", ""),
        (b"", ""),
    ],
)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 429, 500])
def test_detail_repeats_what_the_error_says(status, body, said):
    """The vendor's own words stand in the detail, escaped and cut, if they can be read."""
    assert Segment(KEY).verdict(Answer(status, {}, body)).detail == f"HTTP {status}{said}"


@pytest.mark.parametrize("status", [200, 302, 400, 401, 403, 413, 429, 500])
@pytest.mark.parametrize("secret", [KEY, ENCODED])
def test_key_that_is_echoed_is_not_shown(status, secret):
    """A server that repeats the key does not get it into a log line, in any form, not even in part."""
    for text in (secret, f"bad {secret}, {secret}!", "x" * 195 + secret, secret.upper()):
        for body in (
            json.dumps({"message": text}).encode(),
            json.dumps({"error": text}).encode(),
            jitsu_body(okEvents=1, receivedEvents=2, errors=[f"Message ID: m: {text}"]),
        ):
            shown = repr(Segment(KEY).verdict(Answer(status, {}, body)))
            assert secret.lower() not in shown.lower()
            assert secret[:6].lower() not in shown.lower()


def test_jitsu_names_what_it_refused():
    """Of Jitsu's `ok:false` with some events taken, only the messages named by their ids are rejected."""
    body = jitsu_body(
        receivedEvents=4,
        okEvents=1,
        errors=["Message ID: a-1: unknown type: x", "Message ID: b.2:", "Message ID: c_3: two\nlines", "odd", 5, None],
    )
    verdict = Segment(KEY).verdict(Answer(200, {"content-type": "application/json"}, body))
    assert verdict.action is Action.DELIVERED
    assert dict(verdict.rejected_ids) == {"a-1": "unknown type: x", "b.2": "refused", "c_3": "two\\nlines"}


@pytest.mark.parametrize(
    "fields",
    [{"okEvents": 0, "receivedEvents": 3}, {}, {"okEvents": None}, {"okEvents": 0, "errors": ["Message ID: m: x"]}],
)
def test_jitsu_took_nothing(fields):
    """Of Jitsu's `ok:false` with no event taken, all are rejected, to be bisected."""
    verdict = Segment(KEY).verdict(Answer(200, {}, jitsu_body(**fields)))
    assert verdict.action is Action.REJECTED


def test_jitsu_answer_that_is_longer_than_what_is_read():
    """Of an `ok:false` that is cut off at 64 KiB, at least what could be read is not called delivered."""
    errors = [f"Message ID: m{number}: unknown stream, or some other long reason" for number in range(2_000)]
    body = jitsu_body(receivedEvents=2_500, okEvents=500, errors=errors)[: 64 * 1024]
    listed = body.count(b'", "')
    verdict = Segment(KEY).verdict(Answer(200, {}, body, truncated=True))
    assert listed > 500
    assert verdict.action is not Action.DELIVERED or len(verdict.rejected_ids) >= listed


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
LINE = st.text(max_size=20).map("Message ID: {}".format) | st.text(max_size=20).map("Message ID: m: {}".format)
SAID = st.fixed_dictionaries(
    {"ok": st.just(value=False) | JSON},
    optional={"okEvents": JSON, "errors": JSON | st.lists(LINE | JSON, max_size=4), "message": JSON, "error": JSON},
)


@given(
    status=st.integers(100, 999),
    headers=st.dictionaries(
        st.sampled_from(["location", "retry-after", "content-type", "content-encoding"]), st.text(max_size=60)
    ),
    body=st.binary(max_size=60) | (JSON | SAID).map(lambda value: json.dumps(value).encode()),
    cut=st.integers(0, 200),
    truncated=st.booleans(),
)
def test_any_answer_has_a_meaning(status, headers, body, cut, truncated):
    """Whatever a server answers has a meaning, told in printable lines without the key."""
    verdict = Segment(KEY).verdict(Answer(status, headers, body[:cut] if truncated else body, truncated))
    assert verdict.action in Action
    for detail in (verdict.detail, *verdict.rejected_ids.values()):
        assert detail.isprintable()
        assert len(detail) < 3_000
        assert KEY not in detail
    assert all(type(name) is str for name in verdict.rejected_ids)


# --- End to end -------------------------------------------------------------------------------------------------------

ENDS = {
    "segment": (SegmentWire(KEY), lambda url: Segment(KEY, base_url=url)),
    "segment_by_header": (SegmentWire(KEY, auth="basic"), lambda url: Segment(KEY, base_url=url, auth="basic")),
    "segment_by_body": (SegmentWire(KEY, auth="body"), lambda url: Segment(KEY, base_url=url, auth="body")),
    "rudderstack": (SegmentWire(KEY, kind="rudderstack"), lambda url: Segment.rudderstack(url, KEY)),
    "jitsu": (SegmentWire(KEY, kind="jitsu", auth="basic"), lambda url: Segment.jitsu(url, KEY)),
    "customerio_pipelines": (
        SegmentWire(KEY, kind="customerio_pipelines"),
        lambda url: Segment.customerio_pipelines(KEY, base_url=url),
    ),
    "dittofeed": (
        SegmentWire(KEY, kind="dittofeed"),
        lambda url: Segment(KEY, base_url=url, path="/api/public/apps/batch", auth="raw"),
    ),
}


@pytest.mark.parametrize("case", ENDS)
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "gzip"])
def test_family_takes_it(make_client, case, compressed):
    """Each receiver of the family takes all kinds of messages, and its own kind of answer counts as a delivery."""
    wire, destination = ENDS[case]
    with Receiver(wire) as running:
        client = make_client(destination(running.url), gzip=compressed)
        calls = [call for name, (call, _, _) in CALLS.items() if case != "dittofeed" or "alias" not in name]
        assert [call(client) for call in calls] == [True] * len(calls)
        result = client.flush(5)
        assert (running.faults, len(running.requests)) == ((), 1)
        strict = running.requests[0].headers.get("x-strict-mode")
    assert (result.delivered, dict(result.dropped), result.pending) == (len(calls), {}, 0)
    assert strict == ("1" if case == "customerio_pipelines" else None)


def test_jitsu_partial_failure(make_client):
    """Of three messages of which Jitsu refuses the second, two are delivered and one is rejected, in one request."""
    drops = []
    with Receiver(ENDS["jitsu"][0]) as running:
        running.script(Reply(partial={1: "no such table"}))
        client = make_client(ENDS["jitsu"][1](running.url), on_drop=drops.append)
        for number in range(3):
            client.track("u", f"e{number}")
        result = client.flush(5)
        assert [message["event"] for message in running.messages] == ["e0", "e2"]
        assert len(running.requests) == 1
    assert (result.delivered, dict(result.dropped), result.pending) == (2, {"rejected": 1}, 0)
    ((drop,),) = [drops]
    assert (drop.detail, drop.messages[0]["event"]) == ("no such table", "e1")


def test_jitsu_cuts_ids(make_client, receiver):
    """A refused message is found by the id that Jitsu made of a given one: cut to 64 characters, some replaced."""
    drops = []
    client = make_client(on_drop=drops.append)
    for given_id in ("a b/c:d", "x" * 80, "fine"):
        client.track("u", "e", message_id=given_id)
    errors = ["Message ID: a_b_c_d: one", f"Message ID: {'x' * 64}: two", "Message ID: nobody: three"]
    receiver.script(Reply(body=jitsu_body(receivedEvents=3, okEvents=1, errors=errors)))
    result = client.flush(5)
    assert (result.delivered, dict(result.dropped)) == (1, {"rejected": 2})
    assert {drop.messages[0]["messageId"]: drop.detail for drop in drops} == {"a b/c:d": "one", "x" * 80: "two"}


def test_jitsu_takes_nothing_of_one(make_client, receiver):
    """Where Jitsu takes none of a batch, it is bisected, and only what is refused alone is rejected."""

    def decide(messages):
        bad = [message for message in messages if message["event"] == "bad"]
        return Reply(body=jitsu_body(receivedEvents=len(messages), okEvents=0), store=False) if bad else None

    receiver.decide = decide
    client = make_client()
    for event in ("e0", "bad", "e2", "e3"):
        client.track("u", event)
    result = client.flush(5)
    assert (result.delivered, dict(result.dropped), result.pending) == (3, {"rejected": 1}, 0)
    assert [message["event"] for message in receiver.messages] == ["e0", "e2", "e3"]


def test_page_is_retried(make_client, receiver):
    """A captive portal's page is no delivery: the message arrives with the next attempt."""
    receiver.script(Reply(200, body=PAGE, headers={"Content-Type": "text/html"}, store=False))
    client = make_client()
    client.track("u", "e")
    result = client.flush(5)
    assert (result.delivered, result.pending, len(receiver.requests)) == (1, 0, 2)
    assert len(receiver.messages) == 1


def test_jitsu_that_does_not_say_for_which_is_searched():
    """If the errors name fewer messages than were refused, none of them is taken for delivered unseen."""
    said = {"ok": False, "receivedEvents": 3, "okEvents": 1, "errors": ["Message ID: m1: bad", "something else"]}
    verdict = Segment.jitsu("https://jitsu.example", "id:secret").verdict(Answer(200, body=json.dumps(said).encode()))
    assert verdict.action is Action.REJECTED
    assert not verdict.rejected_ids
