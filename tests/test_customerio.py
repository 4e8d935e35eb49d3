from __future__ import annotations

import hashlib
import json
import struct
from base64 import b64encode
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from analytics_batcher import Client, CustomerIO, DropReason, Retry
from analytics_batcher.answer import Answer
from analytics_batcher.batch import Limits
from analytics_batcher.delivery import BatchSender
from analytics_batcher.destinations import Action
from analytics_batcher.message import encode, wire_bytes
from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply
from analytics_batcher.stamp import ID_GIVEN, NATIVE, TIME_GIVEN, new_head, uuid_text
from analytics_batcher.transport import Transport

SITE = "5ite-1d"
KEY = "Api/Key+s3cret=="
PAIR = b64encode(f"{SITE}:{KEY}".encode()).decode()
SECRETS = (SITE, KEY, PAIR)
DATA = Path(__file__).parent / "data"
OPERATIONS = json.loads((DATA / "customerio-operations.json").read_text())
SCHEMA = Draft202012Validator(json.loads((DATA / "customerio-track-v2-batch.schema.json").read_text()))
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
TYPES = {"organization": "2", "c": "33"}
PAGE = b"<!DOCTYPE html><html><body>Log in to the airport's network</body></html>"


def destination(**settings):
    """The destination with usual settings, some of them replaced."""
    return CustomerIO(settings.pop("site_id", SITE), settings.pop("api_key", KEY), **settings)


def record_of(message, flags=0):
    """The message as a buffer holds it."""
    return new_head(flags) + encode(message)


def operation_of(message, flags=0, **settings):
    """The operation that a message becomes."""
    return json.loads(destination(**settings).wire(record_of(message, flags)))


def bits_of(ulid):
    """The 128 bits of a ULID, read by the specification's own alphabet."""
    bits = 0
    for character in ulid:
        bits = bits * 32 + CROCKFORD.index(character)
    return bits


def violations(*operations):
    """What the vendor's schema has against a batch of these operations."""
    return [error.message for error in SCHEMA.iter_errors({"batch": list(operations)})]


def refusal(**settings):
    """What the error about a wrong setting says; no secret."""
    with pytest.raises(ValueError, match="allowed") as caught:
        destination(**settings)
    text = str(caught.value)
    assert not [secret for secret in SECRETS if secret in text]
    return text


@pytest.fixture
def receiver():
    """Customer.io's stand-in on loopback."""
    with Receiver(CustomerIOWire(SITE, KEY)) as running:
        yield running


@pytest.fixture
def make_client(receiver):
    """Makes clients without a thread, and shuts them down at the end."""
    with ExitStack() as stack:

        def make(*, settings=None, **options):
            options = {"background": False, "retry": Retry(base=0.001, cap=0.002), **options}
            client = Client(destination(base_url=receiver.url, **(settings or {})), **options)
            stack.callback(client.shutdown, 0)
            return client

        yield make


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        ({}, "https://track.customer.io/api/v2/batch"),
        ({"region": "us"}, "https://track.customer.io/api/v2/batch"),
        ({"region": "eu"}, "https://track-eu.customer.io/api/v2/batch"),
        ({"region": "eu", "base_url": "https://proxy.example:8443"}, "https://proxy.example:8443/api/v2/batch"),
        ({"base_url": "http://127.0.0.1:8080"}, "http://127.0.0.1:8080/api/v2/batch"),
        ({"base_url": "http://10.0.0.1", "allow_http": True}, "http://10.0.0.1/api/v2/batch"),
    ],
)
def test_address(settings, url):
    """The region makes the address, and a base URL replaces it."""
    assert destination(**settings).url == url


@pytest.mark.parametrize("region", ["", "US", "de", "us ", None, 1, True, b"us", ["us"], {"us"}, {}], ids=repr)
def test_region_that_is_none(region):
    """A region that the vendor does not have is an error that says which there are, whatever its type."""
    assert refusal(region=region) == f"region={region!r}: allowed is 'us' or 'eu'"


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "http://10.0.0.1"},
        {"base_url": "https://evil.com/path"},
        {"base_url": "ftp://evil.com"},
        {"base_url": ""},
        {"convert_dates": 1},
        {"convert_dates": None},
        {"convert_dates": "no"},
        {"object_types": [("organization", "2")]},
        {"object_types": "2"},
        {"name": ""},
        {"name": "a b"},
        *(
            {"object_type_id": wrong}
            for wrong in ("", "0", "01", "-1", "1.0", " 1", "1\n", "x", "\u0661", 0, 1.0, True)
        ),
        *({"object_type_id": wrong} for wrong in (None, b"1", ["1"], "9" * 20)),
        *({"object_types": {"organization": wrong}} for wrong in ("", "0", "x", None, True, 1.0)),
    ],
    ids=repr,
)
def test_setting_that_is_wrong(settings):
    """A wrong setting is an error that begins with its name, and shows no secret."""
    assert refusal(**settings).startswith(next(iter(settings)))


def test_password_in_a_base_url_is_not_shown():
    """A base URL that holds a password is refused without being shown."""
    assert "hunter2" not in refusal(base_url="https://user:hunter2@track.customer.io")


def test_object_type_may_be_a_number():
    """An object type may be given as a whole number, and goes out as text, as the vendor wants it."""
    operation = operation_of({"type": "account", "accountId": "a"}, object_type_id=7)
    assert operation["identifiers"] == {"object_type_id": "7", "object_id": "a"}


def test_object_types_are_copied():
    """Changing the mapping of object types after the call changes nothing."""
    types = {"organization": "2"}
    one = destination(object_types=types)
    types.clear()
    assert one.check({"type": "organization", "organizationId": "o"}) is None


@pytest.mark.parametrize("setting", ["site_id", "api_key"])
@pytest.mark.parametrize(
    "wrong", ["", " ", "hunter2\n", "hunter 2", "h\u00fcnter2", "hunter2\x00", b"hunter2", 5, None]
)
def test_secret_that_no_header_can_carry(setting, wrong):
    """A secret that a header cannot carry is an error that names the setting and does not show the value."""
    wanted = "allowed is text of visible ASCII characters, without spaces (it is not shown)"
    assert refusal(**{setting: wrong}) == f"{setting}: {wanted}"


def test_headers():
    """Site id and key go together as base64, and nothing is compressed."""
    assert destination().headers() == {"Content-Type": "application/json", "Authorization": f"Basic {PAIR}"}
    assert not destination().gzip
    vector = CustomerIO("Aladdin", "open-sesame").headers()["Authorization"]  # after the example of RFC 7617
    assert vector == "Basic QWxhZGRpbjpvcGVuLXNlc2FtZQ=="


def test_secrets_are_not_shown(make_client):
    """The destination, and a client that has it, show the address and the name and no secret."""
    one = destination(name="eu-1")
    client = make_client()
    for shown in (repr(one), str(one), repr(client), repr(client.stats())):
        assert not [secret for secret in SECRETS if secret in shown]
    assert repr(one) == "CustomerIO('https://track.customer.io/api/v2/batch', name='eu-1')"
    assert destination().name == "customerio"


# --- What each call becomes -------------------------------------------------------------------------------------------

ACME = {"identifiers": {"object_type_id": "1", "object_id": "a"}}
ORGANIZATION = {"identifiers": {"object_type_id": "2", "object_id": "o"}}

CALLS = {
    "identify": (
        lambda client: client.identify("u", {"plan": "pro", "n": {"x": [1, None]}}),
        {"type": "user", "userId": "u", "traits": {"plan": "pro", "n": {"x": [1, None]}}},
        {
            "type": "person",
            "action": "identify",
            "identifiers": {"id": "u"},
            "attributes": {"plan": "pro", "n": {"x": [1, None]}},
        },
    ),
    "identify_without_traits": (
        lambda client: client.identify("u"),
        {"type": "user", "userId": "u", "traits": {}},
        {"type": "person", "action": "identify", "identifiers": {"id": "u"}, "attributes": {}},
    ),
    "identify_in_an_account": (
        lambda client: client.identify("u", account_id="a"),
        {"type": "user", "userId": "u", "traits": {}, "accountId": "a"},
        {
            "type": "person",
            "action": "identify",
            "identifiers": {"id": "u"},
            "attributes": {},
            "cio_relationships": [ACME],
        },
    ),
    "identify_in_an_account_and_an_organization": (
        lambda client: client.identify("u", account_id="a", organization_id="o"),
        {"type": "user", "userId": "u", "traits": {}, "accountId": "a", "organizationId": "o"},
        {
            "type": "person",
            "action": "identify",
            "identifiers": {"id": "u"},
            "attributes": {},
            "cio_relationships": [ACME, ORGANIZATION],
        },
    ),
    "identify_a_visitor": (
        lambda client: client.identify("u", {"plan": "pro"}, anonymous_id="x"),
        {"type": "user", "userId": "u", "traits": {"plan": "pro"}, "anonymousId": "x"},
        {
            "type": "person",
            "action": "identify",
            "identifiers": {"id": "u"},
            "attributes": {"plan": "pro", "anonymous_id": "x"},
        },
    ),
    "identify_with_a_trait_of_that_name": (
        lambda client: client.identify("u", {"anonymous_id": "mine"}, anonymous_id="x"),
        {"type": "user", "userId": "u", "traits": {"anonymous_id": "mine"}, "anonymousId": "x"},
        {
            "type": "person",
            "action": "identify",
            "identifiers": {"id": "u"},
            "attributes": {"anonymous_id": "mine"},
        },
    ),
    "track": (
        lambda client: client.track("u", "purchase", {"amount": 99}),
        {"type": "track", "event": "purchase", "properties": {"amount": 99}, "userId": "u"},
        {
            "type": "person",
            "action": "event",
            "identifiers": {"id": "u"},
            "name": "purchase",
            "attributes": {"amount": 99},
        },
    ),
    "track_without_properties": (
        lambda client: client.track("u", "purchase"),
        {"type": "track", "event": "purchase", "properties": {}, "userId": "u"},
        {"type": "person", "action": "event", "identifiers": {"id": "u"}, "name": "purchase", "attributes": {}},
    ),
    "track_in_an_account": (
        lambda client: client.track("u", "purchase", account_id="a", context={"ip": "::1"}, integrations={"All": True}),
        {
            "type": "track",
            "event": "purchase",
            "properties": {},
            "userId": "u",
            "accountId": "a",
            "context": {"ip": "::1"},
            "integrations": {"All": True},
        },
        {"type": "person", "action": "event", "identifiers": {"id": "u"}, "name": "purchase", "attributes": {}},
    ),
    "track_a_visitor": (
        lambda client: client.track(None, "purchase", anonymous_id="x"),
        {"type": "track", "event": "purchase", "properties": {}, "anonymousId": "x"},
        {
            "type": "person",
            "action": "event",
            "identifiers": {"anonymous_id": "x"},
            "name": "purchase",
            "attributes": {},
        },
    ),
    "track_a_visitor_who_is_known": (
        lambda client: client.track("u", "purchase", anonymous_id="x"),
        {"type": "track", "event": "purchase", "properties": {}, "userId": "u", "anonymousId": "x"},
        {"type": "person", "action": "event", "identifiers": {"id": "u"}, "name": "purchase", "attributes": {}},
    ),
    "page": (
        lambda client: client.page("u", "Pricing", {"url": "https://a.b/c", "keywords": ["k"]}),
        {
            "type": "page",
            "name": "Pricing",
            "properties": {"url": "https://a.b/c", "keywords": ["k"]},
            "userId": "u",
        },
        {
            "type": "person",
            "action": "page",
            "identifiers": {"id": "u"},
            "name": "Pricing",
            "attributes": {"url": "https://a.b/c", "keywords": ["k"]},
        },
    ),
    "page_of_a_visitor": (
        lambda client: client.page(None, "Pricing", anonymous_id="x"),
        {"type": "page", "name": "Pricing", "properties": {}, "anonymousId": "x"},
        {"type": "person", "action": "page", "identifiers": {"anonymous_id": "x"}, "name": "Pricing", "attributes": {}},
    ),
    "screen": (
        lambda client: client.screen("u", "Home", {"tab": 2}),
        {"type": "screen", "name": "Home", "properties": {"tab": 2}, "userId": "u"},
        {"type": "person", "action": "screen", "identifiers": {"id": "u"}, "name": "Home", "attributes": {"tab": 2}},
    ),
    "account": (
        lambda client: client.account("a", {"name": "Acme"}),
        {"type": "account", "accountId": "a", "traits": {"name": "Acme"}},
        {"type": "object", "action": "identify", **ACME, "attributes": {"name": "Acme"}},
    ),
    "account_without_traits": (
        lambda client: client.account("a"),
        {"type": "account", "accountId": "a"},
        {"type": "object", "action": "identify", **ACME, "attributes": {}},
    ),
    "account_of_a_user": (
        lambda client: client.account("a", user_id="u", organization_id="o"),
        {"type": "account", "accountId": "a", "userId": "u", "organizationId": "o"},
        {
            "type": "object",
            "action": "identify",
            **ACME,
            "attributes": {},
            "cio_relationships": [{"identifiers": {"id": "u"}}],
        },
    ),
    "organization": (
        lambda client: client.organization("o", {"name": "Org"}),
        {"type": "organization", "organizationId": "o", "traits": {"name": "Org"}},
        {"type": "object", "action": "identify", **ORGANIZATION, "attributes": {"name": "Org"}},
    ),
    "custom_object": (
        lambda client: client.custom_object("e", "c", {"size": 3}, name="Named", account_id="a"),
        {
            "type": "customobjectinstance",
            "externalId": "e",
            "customObjectId": "c",
            "traits": {"size": 3},
            "name": "Named",
            "accountId": "a",
        },
        {
            "type": "object",
            "action": "identify",
            "identifiers": {"object_type_id": "33", "object_id": "e"},
            "attributes": {"size": 3, "name": "Named"},
        },
    ),
    "custom_object_with_a_trait_of_that_name": (
        lambda client: client.custom_object("e", "c", {"name": "mine"}, name="Named"),
        {
            "type": "customobjectinstance",
            "externalId": "e",
            "customObjectId": "c",
            "traits": {"name": "mine"},
            "name": "Named",
        },
        {
            "type": "object",
            "action": "identify",
            "identifiers": {"object_type_id": "33", "object_id": "e"},
            "attributes": {"name": "mine"},
        },
    ),
    "alias": (
        lambda client: client.alias("old", "new"),
        {"type": "alias", "previousId": "old", "userId": "new"},
        {"type": "person", "action": "merge", "primary": {"id": "new"}, "secondary": {"id": "old"}},
    ),
    "unlink": (
        lambda client: client.unlink("u", "a"),
        {"type": "unlink", "userId": "u", "accountId": "a"},
        {
            "type": "person",
            "action": "delete_relationships",
            "identifiers": {"id": "u"},
            "cio_relationships": [ACME],
        },
    ),
}
EVENTS = {"event", "page", "screen"}


def timed(operation):
    """Whether the vendor has a time for an operation that we make."""
    return operation["action"] in EVENTS or (operation["type"], operation["action"]) == ("person", "identify")


@pytest.mark.parametrize("case", CALLS)
def test_operation_of_a_message(case):
    """Each neutral message becomes exactly one operation, which the schema takes; events have an id and a time."""
    _, message, expected = CALLS[case]
    one = destination(object_types=TYPES)
    record = record_of(message)
    operation = json.loads(one.wire(record))
    if expected["action"] in EVENTS:
        ulid = operation["id"]
        assert bits_of(ulid) == UUID(uuid_text(record)).int
        assert len(ulid) == 26
        expected = {**expected, "id": ulid}
    if timed(expected):
        expected = {**expected, "timestamp": (UUID(uuid_text(record)).int >> 80) // 1000}
        assert type(operation["timestamp"]) is int
    assert operation == expected
    assert violations(operation) == []
    assert one.check(message) is None


@pytest.mark.parametrize("case", CALLS)
def test_operation_of_a_call(case, make_client, receiver):
    """Each call arrives as exactly one operation, to which neither the schema nor the receiver has an objection."""
    call, _, expected = CALLS[case]
    before = datetime.now(timezone.utc)
    client = make_client(settings={"object_types": TYPES})
    assert call(client) is True
    assert client.flush(5)
    (operation,) = receiver.messages
    assert violations(operation) == []
    assert (receiver.faults, receiver.warnings) == ((), ())
    added = {}
    if expected["action"] in EVENTS:
        made = (bits_of(operation["id"]) >> 80) / 1000
        assert before.timestamp() - 0.001 <= made <= datetime.now(timezone.utc).timestamp()
        added["id"] = operation["id"]
    if timed(expected):
        assert int(before.timestamp()) <= operation["timestamp"] <= datetime.now(timezone.utc).timestamp()
        added["timestamp"] = operation["timestamp"]
    assert operation == expected | added


def test_all_operations_make_one_batch():
    """All operations together are one batch that the schema takes, as are the vendor's own examples."""
    one = destination(object_types=TYPES)
    wires = [one.wire(record_of(message)) for _, message, _ in CALLS.values()]
    batch = json.loads(one.body(wires, 0.0))["batch"]
    assert len(batch) == len(CALLS)
    assert violations(*batch, *OPERATIONS) == []


def test_numbers_and_uuids_as_ids(make_client, receiver):
    """An id that is a whole number or a UUID arrives as text."""
    client = make_client()
    client.identify(42, account_id=UUID(int=7))
    assert client.flush(5)
    (operation,) = receiver.messages
    assert operation["identifiers"] == {"id": "42"}
    assert operation["cio_relationships"][0]["identifiers"]["object_id"] == str(UUID(int=7))


def test_call_leaves_its_arguments_alone(make_client, receiver):
    """Neither a call nor the mapping changes what was given, and later changes to it do not arrive."""
    traits = {"when": "2026-01-02T03:04:05Z", "deep": [{"when": "2026-01-02T03:04:05Z"}]}
    before = json.dumps(traits)
    client = make_client()
    client.identify("u", traits, anonymous_id="x")
    assert json.dumps(traits) == before
    traits["deep"].clear()
    assert client.flush(5)
    assert json.dumps(traits) == '{"when": "2026-01-02T03:04:05Z", "deep": []}'
    assert receiver.messages[0]["attributes"]["deep"] == [{"when": 1767323045}]


@pytest.mark.parametrize(
    "message",
    [
        {"type": "track", "event": "e", "properties": {}},
        {"type": "track", "event": "e", "properties": {}, "accountId": "a"},
        {"type": "track", "event": "e", "properties": {}, "organizationId": "o"},
        {"type": "page", "name": "p", "properties": {}},
        {"type": "screen", "name": "s", "properties": {}},
        {"type": "user", "traits": {}},
        {"type": "user", "traits": {}, "anonymousId": "x"},
        {"type": "user", "traits": {}, "accountId": "a"},
        {"type": "alias", "previousId": "p", "userId": "u", "anonymousId": "x"},
        {"type": "organization", "organizationId": "o"},
        {"type": "customobjectinstance", "externalId": "e", "customObjectId": "c", "traits": {}},
    ],
    ids=repr,
)
def test_message_that_customerio_does_not_have(message):
    """What the vendor has no form for is unsupported, with a reason in one line, and is not changed."""
    before = json.dumps(message)
    reason, detail = destination(object_types={"other": "4"}).check(message)
    assert reason is DropReason.UNSUPPORTED
    assert detail
    assert detail.isprintable()
    assert json.dumps(message) == before


def test_unsupported_call_is_counted(make_client, receiver):
    """A call for which the vendor has no form is refused and counted, and nothing is sent for it."""
    client = make_client()
    assert client.track(None, "e", account_id="a") is False
    assert client.organization("o") is False
    assert client.custom_object("e", "c") is False
    assert client.alias("x", "u", anonymous_id="x") is False
    assert client.stats().dropped == {"unsupported": 4}
    assert client.flush(5)
    assert receiver.requests == ()


# --- Ids and times ----------------------------------------------------------------------------------------------------


@given(st.floats(0, 2**48 / 1000 - 1), st.integers(0, 2**60 - 1))
def test_ulid_is_the_uuid(wall, rest):
    """For any stamp the ULID holds the bits of the UUIDv7, and so its millisecond; the time is that in seconds."""
    body = b'{"type":"track","event":"e","properties":{},"userId":"u"}'
    record = struct.pack(">dQd", wall, rest, 0.0) + body
    operation = json.loads(destination().wire(record))
    assert bits_of(operation["id"]) == UUID(uuid_text(record)).int
    assert bits_of(operation["id"]) >> 80 == int(wall * 1000)
    assert operation["timestamp"] == int(wall * 1000) // 1000
    assert operation["id"][0] in "01234567"


@pytest.mark.parametrize(
    ("given_id", "ulid"),
    [
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("01arz3ndektsv4rrffq69g5fav", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("01563e3a-b5d3-d676-4c61-efb99302bd5b", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("01563E3A-B5D3-D676-4C61-EFB99302BD5B", "01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        ("00000000-0000-0000-0000-000000000000", "0" * 26),
        ("ffffffff-ffff-ffff-ffff-ffffffffffff", "7" + "Z" * 25),
        ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"),
    ],
)
def test_given_id_that_is_a_ulid_or_a_uuid(given_id, ulid):
    """A given ULID stays, and a given UUID keeps its bits."""
    message = CALLS["track"][1] | {"messageId": given_id}
    assert operation_of(message, ID_GIVEN)["id"] == ulid


@pytest.mark.parametrize(
    "given_id",
    [
        "order-7",
        "x",
        "x" * 99,
        "\u00e9\U0001f600",
        "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "01ARZ3NDEKTSV4RRFFQ69G5FAU",
        "01ARZ3NDEKTSV4RRFFQ69G5FA",
        "01ARZ3NDEKTSV4RRFFQ69G5FAV\n",
        "01563e3a-b5d3-d676-4c61-efb99302bd5",
    ],
)
def test_given_id_of_another_kind(given_id):
    """Any other given id becomes the first 128 bits of its SHA-256, the same ones each time."""
    operation = operation_of(CALLS["page"][1] | {"messageId": given_id}, ID_GIVEN)
    digest = hashlib.sha256(given_id.encode()).digest()
    assert bits_of(operation["id"]) == int.from_bytes(digest[:16], "big")
    assert len(operation["id"]) == 26
    assert operation_of(CALLS["track"][1] | {"messageId": given_id}, ID_GIVEN)["id"] == operation["id"]


def test_given_id_of_what_has_none(make_client, receiver):
    """A given id goes nowhere where the vendor has no place for it."""
    client = make_client(settings={"object_types": TYPES})
    client.identify("u", message_id="m")
    client.account("a", message_id="m")
    client.alias("p", "u", message_id="m")
    client.unlink("u", "a", message_id="m")
    assert client.flush(5)
    assert [sorted(operation) for operation in receiver.messages] == [
        ["action", "attributes", "identifiers", "timestamp", "type"],
        ["action", "attributes", "identifiers", "type"],
        ["action", "primary", "secondary", "type"],
        ["action", "cio_relationships", "identifiers", "type"],
    ]


@pytest.mark.parametrize(
    ("moment", "seconds"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, 999_999, timezone.utc), 1767323045),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))), 1767315845),
        (1767323045, 1767323045),
        (1767323045.5, 1767323045),
        (1767323045.9996, 1767323046),
        ("2026-01-02T03:04:05.678Z", 1767323045),
        ("2026-01-02T03:04:05-05:00", 1767341045),
        ("2001-09-09T01:46:40Z", 1_000_000_000),
    ],
    ids=str,
)
@pytest.mark.parametrize("case", ["identify", "track", "page", "screen"])
def test_given_time(make_client, receiver, case, moment, seconds):
    """A given time goes out as whole Unix seconds, and the id is still made at the call."""
    client = make_client()
    call = {
        "identify": lambda: client.identify("u", timestamp=moment),
        "track": lambda: client.track("u", "e", timestamp=moment),
        "page": lambda: client.page("u", "p", timestamp=moment),
        "screen": lambda: client.screen("u", "s", timestamp=moment),
    }[case]
    assert call()
    assert client.flush(5)
    (operation,) = receiver.messages
    assert operation["timestamp"] == seconds
    assert type(operation["timestamp"]) is int
    assert receiver.faults == ()
    if case != "identify":
        age = datetime.now(timezone.utc).timestamp() - (bits_of(operation["id"]) >> 80) / 1000
        assert -1 < age < 60


# --- Dates among attributes -------------------------------------------------------------------------------------------

DATES = {
    "2026-01-02T03:04:05Z": 1767323045,
    "2026-01-02T03:04:05+00:00": 1767323045,
    "2026-01-02T03:04:05.678Z": 1767323045,
    "2026-01-02T03:04:05.999999+02:00": 1767315845,
    "2026-01-02T03:04:05.123456789-05:30": 1767342845,
    "1970-01-01T00:00:00Z": 0,
    "1969-12-31T23:59:59Z": -1,
    "2024-02-29T12:00:00Z": 1709208000,
}
NO_DATES = [
    *("2026-01-02", "2026-01-02T03:04:05", "2026-01-02T03:04Z", "2026-01-02 03:04:05Z", "20260102T030405Z"),
    *("2026-01-02T03:04:05z", "2026-01-02t03:04:05Z", "2026-01-02T03:04:05+0000", "2026-01-02T03:04:05+00"),
    *(" 2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z ", "2026-01-02T03:04:05Z\n", "on 2026-01-02T03:04:05Z"),
    *("2026-01-02T03:04:05.Z", "2026-01-02T03:04:05.1234567890Z", "2026-01-02T03:04:05,678Z"),
    *("2026-02-31T03:04:05Z", "2025-02-29T03:04:05Z", "2026-13-01T03:04:05Z", "2026-00-01T03:04:05Z"),
    *("2026-01-02T25:04:05Z", "2026-01-02T03:60:05Z", "2026-01-02T03:04:60Z", "0000-01-01T00:00:00Z"),
    *("2026-01-02T03:04:05+24:00", "2026-01-02T03:04:05+05:99", "12026-01-02T03:04:05Z", "1767323045", ""),
    "\u0662\u0660\u0662\u0666-01-02T03:04:05Z",
]


@pytest.mark.parametrize(("text", "seconds"), DATES.items())
def test_dates_become_seconds(text, seconds):
    """A date-time with a zone becomes whole Unix seconds, as deep as it lies, among traits and properties."""
    content = {"when": text, "deep": {"list": [text, [text], {"when": text, "n": 1}]}}
    expected = {"when": seconds, "deep": {"list": [seconds, [seconds], {"when": seconds, "n": 1}]}}
    for case in ("identify", "account", "organization", "custom_object_with_a_trait_of_that_name"):
        message = CALLS[case][1] | {"traits": content}
        made = operation_of(message, object_types=TYPES)["attributes"]
        assert {name: made[name] for name in content} == expected
    for case in ("track", "page", "screen"):
        message = CALLS[case][1] | {"properties": content}
        assert operation_of(message)["attributes"] == expected


@pytest.mark.parametrize("text", NO_DATES)
def test_what_is_not_exactly_a_date(text):
    """Text that is not exactly a possible date-time with a zone stays what it is."""
    attributes = operation_of(CALLS["identify"][1] | {"traits": {"when": text, "deep": [text]}})["attributes"]
    assert attributes == {"when": text, "deep": [text]}


@pytest.mark.parametrize("text", [*DATES, *NO_DATES])
def test_dates_are_left_if_so_asked(text):
    """With `convert_dates=False` no attribute is changed."""
    content = {"when": text, "deep": [{"when": text}]}
    assert operation_of(CALLS["track"][1] | {"properties": content}, convert_dates=False)["attributes"] == content


def test_dates_elsewhere_stay():
    """Ids, names and keys that look like dates stay text."""
    text = next(iter(DATES))
    event = operation_of({"type": "track", "event": text, "properties": {text: 1}, "userId": text})
    assert (event["name"], event["identifiers"], event["attributes"]) == (text, {"id": text}, {text: 1})
    account = operation_of({"type": "account", "accountId": text, "userId": text})
    assert account["identifiers"]["object_id"] == text
    assert account["cio_relationships"] == [{"identifiers": {"id": text}}]


def test_datetime_among_traits(make_client, receiver):
    """A datetime given among traits arrives in Unix seconds, in whatever zone it was given."""
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=-5)))
    client = make_client()
    client.identify("u", {"createdAt": moment, "seen": [moment], "day": moment.date()})
    assert client.flush(5)
    assert receiver.messages[0]["attributes"] == {
        "createdAt": int(moment.timestamp()),
        "seen": [int(moment.timestamp())],
        "day": "2026-01-02",
    }


# --- Native operations ------------------------------------------------------------------------------------------------


def test_vendors_own_operations(make_client, receiver):
    """The vendor's examples arrive unchanged, but for an id and a time on the event and a time on the identify."""
    client = make_client()
    before = json.dumps(OPERATIONS)
    for operation in OPERATIONS:
        assert client.enqueue(operation)
    assert client.flush(5)
    assert json.dumps(OPERATIONS) == before
    (request,) = receiver.requests
    person, event, gone, company = json.loads(request.body)["batch"]
    assert person == OPERATIONS[0] | {"timestamp": person["timestamp"]}
    assert event == OPERATIONS[1] | {"timestamp": event["timestamp"], "id": event["id"]}
    assert event["data"] == {"amount": 99}
    assert bits_of(event["id"]) >> 80 >= event["timestamp"] * 1000
    assert type(person["timestamp"]) is type(event["timestamp"]) is int
    assert (gone, company) == tuple(OPERATIONS[2:])
    assert b"," + encode(OPERATIONS[2]) + b"," + encode(OPERATIONS[3]) + b"]}" in request.body
    assert violations(person, event, gone, company) == []
    assert receiver.faults == ()
    assert receiver.warnings == ("request 1: batch[1].data will be lost: what belongs to an event is its attributes",)


U = {"type": "person", "identifiers": {"id": "u"}}


@pytest.mark.parametrize(
    ("native", "added"),
    [
        (U | {"action": "event", "name": "e"}, {"id", "timestamp"}),
        (U | {"action": "page", "name": "p"}, {"id", "timestamp"}),
        (U | {"action": "screen", "name": "s"}, {"id", "timestamp"}),
        (U | {"action": "event", "name": "e", "id": "mine"}, {"timestamp"}),
        (U | {"action": "event", "name": "e", "timestamp": 1}, {"id"}),
        (U | {"action": "event", "name": "e", "id": None, "timestamp": "soon"}, set()),
        (U | {"action": "identify"}, {"timestamp"}),
        (U | {"action": "identify", "id": "mine"}, {"timestamp"}),
        (U | {"action": "identify", "timestamp": None}, set()),
        (U | {"action": "delete"}, set()),
        (U | {"action": "add_relationships", "cio_relationships": [ACME]}, set()),
        (U | {"action": "delete_relationships", "cio_relationships": [ACME]}, set()),
        (U | {"action": "add_device", "device": {"token": "t", "platform": "ios"}}, set()),
        (U | {"action": "delete_device", "device": {"token": "t"}}, set()),
        (U | {"action": "suppress"}, set()),
        (U | {"action": "unsuppress"}, set()),
        ({"type": "person", "action": "merge", "primary": {"id": "a"}, "secondary": {"id": "b"}}, set()),
        ({"type": "object", "action": "identify", **ACME}, set()),
        ({"type": "object", "action": "identify_anonymous", **ACME}, set()),
        ({"type": "object", "action": "delete", **ACME}, set()),
        ({"type": "object", "action": "add_relationships", **ACME, "cio_relationships": []}, set()),
        ({"type": "object", "action": "event", **ACME}, set()),
        ({"type": "delivery", "action": "event", "identifiers": {"id": "d"}, "name": "opened"}, set()),
        ({}, set()),
        ({"type": "person"}, set()),
        ({"action": "event"}, set()),
        ({"type": None, "action": None}, set()),
        ({"type": "person", "action": 5}, set()),
        ({"type": "person", "action": ["event"]}, set()),
        ({"type": "person", "action": {"event": 1}}, set()),
        ({"type": ["person"], "action": "event"}, set()),
        (
            U
            | {"action": "event", "name": "caf\u00e9 \U0001f600 \u2028", "zero": -0.0, "when": "2026-01-02T03:04:05Z"},
            {"id", "timestamp"},
        ),
    ],
    ids=lambda given: str(sorted(given) if isinstance(given, set) else given),
)
def test_native_operation_goes_as_it_is(native, added):
    """A native operation goes out byte for byte, but for the id and the time that it lacks where they have a place."""
    flags = NATIVE | (ID_GIVEN if "id" in native else 0) | (TIME_GIVEN if "timestamp" in native else 0)
    record = record_of(native, flags)
    wire = destination().wire(record)
    assert wire.endswith(encode(native)[1:])
    assert set(json.loads(wire)) - set(native) == added
    assert len(json.loads(wire, object_pairs_hook=list)) == len(native) + len(added)  # no field twice
    assert json.loads(wire) == json.loads(wire) | native
    if not added:
        assert wire == encode(native)
    if "id" in added:
        assert bits_of(json.loads(wire)["id"]) == UUID(uuid_text(record)).int
    if "timestamp" in added:
        assert json.loads(wire)["timestamp"] == (UUID(uuid_text(record)).int >> 80) // 1000


def test_native_event_keeps_its_own_id_and_time(make_client, receiver):
    """A native operation that has an id and a time of its own arrives byte for byte, each of them once."""
    client = make_client()
    native = U | {"action": "event", "name": "e", "id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "timestamp": 1_700_000_000}
    assert client.enqueue(native)
    assert client.flush(5)
    (request,) = receiver.requests
    assert request.body == b'{"batch":[' + encode(native) + b"]}"
    assert receiver.faults == ()


def test_odd_native_operation_harms_only_itself(make_client, receiver):
    """An operation that makes no sense is the vendor's to refuse; those around it arrive."""
    client = make_client()
    assert client.track("u", "before")
    assert client.enqueue({"type": "person", "action": ["event"]})
    assert client.track("u", "after")
    result = client.flush(1)
    assert (result.delivered, dict(result.dropped), result.pending) == (2, {"rejected": 1}, 0)
    assert [operation["name"] for operation in receiver.messages] == ["before", "after"]


def test_dropped_native_operation_is_shown_as_given(make_client, receiver):
    """What a callback is shown of a dropped native operation has no field of another vendor's form."""
    drops = []
    client = make_client(on_drop=drops.append)
    native = U | {"action": "event", "name": "e"}
    client.enqueue(native)
    receiver.script(Reply(partial={0: "name: bad"}))
    client.flush(5)
    ((shown,),) = [drop.messages for drop in drops]
    assert {name: shown[name] for name in native} == native
    assert "messageId" not in shown
    assert type(shown.get("timestamp", 0)) is int


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


def errors_body(*errors):
    """A body as the vendor lists errors in."""
    return json.dumps({"errors": list(errors)}).encode()


@pytest.mark.parametrize("status", range(100, 600))
def test_status(status):
    """Each status is delivered, retried, bisected, split, or halts, whatever errors the body lists."""
    for body in (b"", b"{}", errors_body(), errors_body({"reason": "r", "field": "f", "message": "m"})):
        verdict = destination().verdict(Answer(status, {}, body))
        assert verdict.action is meaning(status)
        assert verdict.detail.startswith(f"HTTP {status}")
        assert not verdict.rejected
        assert verdict.wait is None
    assert destination().verdict(Answer(status, {"retry-after": "7"})).wait == (7 if status in RETRIED else None)


@pytest.mark.parametrize("status", range(300, 400))
def test_redirect_names_the_region(status):
    """A redirect halts, and its detail names the host and says that the region may be wrong."""
    verdict = destination().verdict(Answer(status, {"location": "https://track-eu.customer.io/api/v2/batch"}))
    assert verdict.action is Action.HALT
    assert "track-eu.customer.io" in verdict.detail
    assert "region" in verdict.detail


@pytest.mark.parametrize("status", [200, 201, 204, 207])
@pytest.mark.parametrize("body", [PAGE, b"OK", b"[]", b"null", b'{"errors":', b"\xff", b'"x"'], ids=repr)
def test_success_with_a_body_that_is_not_the_vendors(status, body):
    """A 2xx whose body cannot be the vendor's is no delivery: it is retried."""
    verdict = destination().verdict(Answer(status, {}, body))
    assert verdict.action is Action.RETRY
    assert verdict.detail.startswith("unexpected_response")
    assert "airport" not in verdict.detail


def test_partial_failure():
    """A 207 rejects the operations that it lists, each with reason, field and message."""
    body = errors_body(
        {"batch_index": 1, "reason": "invalid", "field": "attributes.plan", "message": "too long"},
        {"batch_index": 4, "reason": "required", "field": "name"},
    )
    verdict = destination().verdict(Answer(207, {"content-type": "application/json"}, body))
    assert verdict.action is Action.DELIVERED
    assert dict(verdict.rejected) == {1: "invalid: attributes.plan: too long", 4: "required: name"}


def test_partial_failure_that_is_longer_than_what_is_read():
    """Of a 207 whose list is cut off at 64 KiB, at least what could be read is not called delivered."""
    errors = [
        {"batch_index": index, "reason": "invalid", "field": "name", "message": "must not be empty " * 4}
        for index in range(2_000)
    ]
    body = errors_body(*errors)[: 64 * 1024]
    verdict = destination().verdict(Answer(207, {}, body, truncated=True))
    listed = body.count(b'"}')
    assert listed > 400
    assert verdict.action is not Action.DELIVERED or len(verdict.rejected) >= listed


@pytest.mark.parametrize("index", [None, "1", 1.0, True, False, [], {}, [1], "x", ...], ids=repr)
def test_error_without_a_proper_index(index):
    """An error whose index is missing or no whole number rejects nothing."""
    error = {"batch_index": index, "reason": "invalid"} if index is not ... else {"reason": "invalid"}
    verdict = destination().verdict(Answer(207, {}, errors_body(error, {"batch_index": 2, "reason": "r"})))
    assert verdict.action is Action.DELIVERED
    assert dict(verdict.rejected) == {2: "r"}


@pytest.mark.parametrize("errors", [None, {}, "x", 5, [None], [[]], ["x"], [5], [[{"batch_index": 0}]]], ids=repr)
def test_errors_of_another_form(errors):
    """Errors that are no list of objects reject nothing, and stop nothing."""
    body = json.dumps({"errors": errors}).encode()
    verdict = destination().verdict(Answer(207, {}, body))
    assert verdict.action is Action.DELIVERED
    assert not verdict.rejected
    assert destination().verdict(Answer(400, {}, body)).detail == "HTTP 400"


def test_detail_repeats_what_the_errors_say():
    """The first errors' own words stand in the detail, escaped and cut."""
    errors = [{"reason": "invalid", "field": f"f{number}", "message": "a\nb"} for number in range(5)]
    detail = destination().verdict(Answer(400, {}, errors_body(*errors))).detail
    assert detail == "HTTP 400: invalid: f0: a\\nb; invalid: f1: a\\nb; invalid: f2: a\\nb"
    long = destination().verdict(Answer(400, {}, errors_body({"reason": "x" * 5_000}))).detail
    assert long == "HTTP 400: " + "x" * 200 + "..."


@pytest.mark.parametrize("status", [200, 207, 302, 400, 401, 403, 404, 413, 429, 500])
@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("field", ["reason", "field", "message"])
def test_secret_that_is_echoed_is_not_shown(status, secret, field):
    """A server that repeats a secret in an error does not get it into a log line, in any form, not even in part."""
    for text in (secret, f"bad {secret}, {secret}!", "x" * 195 + secret, secret.upper()):
        body = errors_body({"batch_index": 0, field: text})
        shown = repr(destination().verdict(Answer(status, {}, body)))
        assert secret.lower() not in shown.lower()
        assert secret[:5].lower() not in shown.lower()


def test_secret_in_a_redirect_is_not_shown():
    """A server that repeats a secret in the host it redirects to does not get it into a log line."""
    one = CustomerIO("hunter1", "hunter2")
    for secret in ("hunter1", "hunter2", b64encode(b"hunter1:hunter2").decode()):
        detail = one.verdict(Answer(307, {"location": f"https://{secret}.evil.example/"})).detail
        assert secret.lower() not in detail.lower()
        assert "evil.example" in detail


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ERROR = st.fixed_dictionaries(
    {}, optional={"batch_index": JSON | st.integers(-3, 3), "reason": JSON, "field": JSON, "message": JSON}
)
BODY = (
    st.binary(max_size=60)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries({"errors": JSON | st.lists(ERROR | JSON, max_size=5)}).map(
        lambda it: json.dumps(it).encode()
    )
)


@given(
    status=st.integers(100, 999),
    headers=st.dictionaries(
        st.sampled_from(["location", "retry-after", "content-type", "content-encoding"]), st.text(max_size=60)
    ),
    body=BODY,
    cut=st.integers(0, 200),
    truncated=st.booleans(),
)
def test_any_answer_has_a_meaning(status, headers, body, cut, truncated):
    """Whatever a server answers has a meaning; what is rejected is known by a whole number, in printable lines."""
    verdict = destination().verdict(Answer(status, headers, body[:cut] if truncated else body, truncated))
    assert verdict.action in Action
    for detail in (verdict.detail, *verdict.rejected.values()):
        assert detail.isprintable()
        assert len(detail) < 7_000
        assert KEY not in detail
    assert all(type(index) is int for index in verdict.rejected)
    assert not verdict.rejected or verdict.action is Action.DELIVERED


# --- End to end -------------------------------------------------------------------------------------------------------


def test_207_rejects_only_what_it_lists(make_client, receiver):
    """A 207 for index 1 of 3: two are delivered, one is rejected with the vendor's words, and there is one request."""
    drops = []
    client = make_client(on_drop=drops.append)
    receiver.script(Reply(partial={1: "attributes.plan: property value cannot be longer than 1000 bytes"}))
    for number in range(3):
        client.track("u", f"e{number}")
    result = client.flush(5)
    assert (result.delivered, dict(result.dropped), result.pending) == (2, {"rejected": 1}, 0)
    assert not result
    assert [request.status for request in receiver.requests] == [207]
    assert [operation["name"] for operation in receiver.messages] == ["e0", "e2"]
    ((drop,),) = [drops]
    assert (drop.reason, drop.count, drop.messages[0]["event"]) == (DropReason.REJECTED, 1, "e1")
    assert "attributes.plan" in drop.detail
    assert "cannot be longer than 1000 bytes" in drop.detail


@pytest.mark.parametrize("index", [3, 7, -1, -3, 10**30, None, "1", 1.0, True])
def test_207_with_an_index_of_no_operation(make_client, receiver, index):
    """An index of no operation in the request harms nothing: all are delivered, once."""
    client = make_client()
    receiver.script(Reply(207, body=errors_body({"batch_index": index, "reason": "invalid"})))
    for number in range(3):
        client.track("u", f"e{number}")
    result = client.flush(5)
    assert (result.delivered, result.pending, len(receiver.requests)) == (3, 0, 1)


def test_400_is_bisected(make_client, receiver):
    """A 400 without indexes is bisected down to the bad operation, which alone is rejected."""
    receiver.decide = lambda batch: Reply(400) if any(one["name"] == "e5" for one in batch) else None
    client = make_client()
    for number in range(8):
        client.track("u", f"e{number}")
    result = client.flush(5)
    assert (result.delivered, dict(result.dropped)) == (7, {"rejected": 1})
    assert [operation["name"] for operation in receiver.messages] == ["e0", "e1", "e2", "e3", "e4", "e6", "e7"]


def test_redirect_is_not_followed(make_client, receiver):
    """A redirect keeps everything, and the last error names the region."""
    receiver.script(Reply(301, headers={"Location": "https://track-eu.customer.io/api/v2/batch"}))
    client = make_client()
    client.track("u", "e")
    result = client.flush(0.5)
    assert (result.pending, len(receiver.requests)) == (1, 1)
    assert "region" in client.stats().last_error


def test_same_id_over_retries(receiver):
    """Over failed attempts and a lost answer each message keeps its id and its time, and so its bytes."""
    receiver.script(Reply(500), Reply(503), Reply(429), Reply(reset="after"), Reply(500), Reply(200, body=PAGE))
    transport = Transport(timeout=5.0)
    one = destination(base_url=receiver.url)
    sender = BatchSender(one, transport, one.limits, Retry(base=0.001, cap=0.002))
    records = [record_of(CALLS[case][1]) for case in ("track", "identify", "page", "screen")]
    try:
        for _ in range(20):
            outcome = sender.send(records, None)
            if outcome.delivered:
                break
    finally:
        transport.close()
    assert list(outcome.delivered) == [0, 1, 2, 3]
    assert len(receiver.requests) >= 7
    assert len({request.body for request in receiver.requests}) == 1
    sent = receiver.requests[-1].messages
    assert [bits_of(sent[place]["id"]) for place in (0, 2, 3)] == [
        UUID(uuid_text(records[place])).int for place in (0, 2, 3)
    ]
    assert receiver.report().repeats >= 4  # the receiver knows a repeated id as such


@pytest.mark.parametrize(
    "spoil",
    [
        lambda _: {},
        lambda message: {**message, "properties": "text"},
        lambda message: {name: value for name, value in message.items() if name != "event"},
        lambda message: {name: value for name, value in message.items() if name != "userId"},
    ],
    ids=["empty", "no-object", "no-event", "no-user"],
)
def test_hook_that_spoils_a_message_harms_only_it(make_client, receiver, spoil):
    """A message of which `before_send` leaves too little costs itself, and not those behind it."""
    client = make_client(before_send=lambda message: spoil(message) if message["event"] == "bad" else message)
    for event in ("before", "bad", "after"):
        client.track("u", event, {"n": 1})
    result = client.flush(1)
    assert result.pending == 0
    assert [operation["name"] for operation in receiver.messages if "name" in operation] == ["before", "after"]


# --- Sizes ------------------------------------------------------------------------------------------------------------


def test_limits():
    """An operation may have 32,000 bytes and a request 500,000; their number is bound by no hundred."""
    one = destination()
    assert (one.limits.bytes, one.limits.message_bytes) == (500_000, 32_000)
    assert one.limits.messages >= 5_000
    assert (one.id_field, one.time_field) == ("id", "timestamp")


@given(st.lists(st.sampled_from([message for _, message, _ in CALLS.values()]), max_size=30))
def test_envelope(messages):
    """A body is its envelope, the operations and the commas between them, to the byte, and holds them in order."""
    one = destination(object_types=TYPES)
    wires = [one.wire(record_of(message)) for message in messages]
    body = one.body(wires, 0.0)
    assert len(body) == one.envelope + sum(map(len, wires)) + max(len(wires) - 1, 0)
    assert json.loads(body) == {"batch": [json.loads(wire) for wire in wires]}


def padded(size):
    """An identify of that many bytes in the vendor's form."""
    message = {"type": "user", "traits": {"pad": ""}, "userId": "u", "accountId": "a"}
    message["traits"]["pad"] = "x" * (size - len(destination().wire(record_of(message))))
    return message


def test_operation_at_its_limit(make_client, receiver):
    """An operation of exactly 32,000 bytes arrives; one more byte, which only the mapping shows, is too large."""
    fits, too_large = padded(32_000), padded(32_001)
    assert wire_bytes(encode(too_large), 0) <= 32_000
    client = make_client()
    for message in (fits, too_large, padded(500)):
        assert client.identify("u", message["traits"], account_id="a")
    result = client.flush(5)
    assert (result.delivered, dict(result.dropped), result.pending) == (2, {"too_large": 1}, 0)
    assert not result
    assert receiver.faults == ()
    assert [len(encode(operation)) for operation in receiver.messages] == [32_000, 500]


def test_request_at_its_limit(receiver):
    """A request is filled to 500,000 bytes, the envelope and the commas included, and not a byte further."""
    one = destination(base_url=receiver.url)
    transport = Transport(timeout=5.0)
    sender = BatchSender(one, transport, one.limits, Retry())
    rest = 500_000 - one.envelope - 16 * 30_001
    try:
        for last in (rest, rest + 1):
            records = [record_of(padded(size)) for size in (*(16 * [30_000]), last)]
            assert len(sender.send(records, None).delivered) == (17 if last == rest else 16)
    finally:
        transport.close()
    assert [request.size for request in receiver.requests] == [500_000, 500_000 - rest - 1]
    assert receiver.faults == ()


def test_requests_are_not_cut_at_a_hundred(make_client, receiver):
    """Thousands of small events make one request, as long as they fit."""
    client = make_client()
    for number in range(2_500):
        client.track("u", "e", {"n": number})
    assert client.flush(10)
    assert len(receiver.requests) == 1
    assert [operation["attributes"]["n"] for operation in receiver.messages] == list(range(2_500))


def test_lower_limits(receiver):
    """Limits that an application lowers hold for the operations and for the body."""
    one = destination(base_url=receiver.url)
    transport = Transport(timeout=5.0)
    sender = BatchSender(one, transport, Limits(messages=3, bytes=2_000, message_bytes=600), Retry())
    try:
        outcome = sender.send([record_of(padded(size)) for size in (500, 601, 500, 500, 500)], None)
    finally:
        transport.close()
    assert list(outcome.delivered) == [0, 2, 3]
    assert [(loss.reason, list(loss.positions)) for loss in outcome.losses] == [(DropReason.TOO_LARGE, [1])]


def test_two_errors_of_one_operation_are_both_told():
    """A 207 may name an operation twice, or give no reason: neither is lost."""
    errors = [
        {"batch_index": 0, "field": "a", "message": "first"},
        {"batch_index": 0, "field": "b", "message": "second"},
        {"batch_index": 2},
    ]
    verdict = CustomerIO("site", "key").verdict(Answer(207, body=json.dumps({"errors": errors}).encode()))
    assert verdict.rejected == {0: "a: first; b: second", 2: "refused"}


def test_object_types_of_numbered_custom_objects():
    """A custom object's id may be a number in the mapping, as it may be in the call."""
    destination = CustomerIO("site", "key", object_types={3: "4"})
    assert destination.check({"type": "customobjectinstance", "externalId": "x", "customObjectId": "3"}) is None


def test_a_colon_in_the_site_id_is_refused():
    """It would end the site id within the header; the error does not show it."""
    with pytest.raises(ValueError, match="site_id") as caught:
        CustomerIO("sesame:open", "key")
    assert "sesame" not in str(caught.value)


def test_a_native_operation_is_measured_as_it_is():
    """An operation that gets neither id nor time may use the whole limit."""
    operation = {"type": "person", "action": "delete", "identifiers": {"id": ""}}
    room = 32_000 - len(json.dumps(operation, separators=(",", ":")))
    with Client(CustomerIO("site", "key", base_url="http://127.0.0.1:9"), background=False) as client:
        assert client.enqueue({**operation, "identifiers": {"id": "x" * room}})
        assert not client.enqueue({**operation, "identifiers": {"id": "x" * (room + 1)}})
        assert client.stats().dropped == {"too_large": 1}
        assert client.flush(0.1).pending == 1
