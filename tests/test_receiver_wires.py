from __future__ import annotations

import base64
import copy
import gzip
import json
import re
import signal
import subprocess
import sys
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply, SegmentWire, VitallyWire
from analytics_batcher.receiver.reading import element_sizes

DATA = Path(__file__).parent / "data"
EXAMPLE = json.loads((DATA / "customerio-operations.json").read_text())
SCHEMA = json.loads((DATA / "customerio-track-v2-batch.schema.json").read_text())
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
ULID = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
NOW = "2026-01-02T03:04:05.678Z"
WIRE = CustomerIOWire()
JSON = {"content-type": "application/json"}
VITALLY = {"type": "track", "userId": "u", "event": "e", "properties": {}, "messageId": "m"}


def basic(text):
    """A Basic header of base64."""
    return "Basic " + base64.b64encode(text.encode()).decode()


CREDENTIALS = {
    "/analytics/v1/batch": "Basic test-token",
    "/api/v2/batch": basic("site:key"),
    "/v1/batch": basic("write-key:"),
    "/api/public/apps/batch": "Basic write-key",
}


class Answer:
    """What a client read."""

    def __init__(self, response):
        self.status = response.status
        self.type = response.getheader("Content-Type")
        self.body = response.read()

    def json(self):
        """The body's value."""
        return json.loads(self.body)


def post(receiver, path, body, **headers):
    """Send one request with the usual headers, but for those given and those given as `...`."""
    headers = {
        "Authorization": CREDENTIALS[path],
        "Content-Type": "application/json",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    address = urlsplit(receiver.url)
    with closing(HTTPConnection(address.hostname, address.port, timeout=10)) as connection:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, content, {name: text for name, text in headers.items() if text is not ...})
        return Answer(connection.getresponse())


def operate(receiver, operations, **headers):
    """Send a batch of operations to Customer.io."""
    return post(receiver, "/api/v2/batch", {"batch": operations}, **headers)


def segment(receiver, messages, /, *, path="/v1/batch", headers=None, **envelope):
    """Send a batch of messages to Segment."""
    body = {"batch": messages, "writeKey": "write-key"} | envelope
    return post(receiver, path, {name: value for name, value in body.items() if value is not ...}, **headers or {})


def event(**changes):
    """A good event, with some fields changed, and those taken away that are changed to `...`."""
    operation = {
        "type": "person", "action": "event", "identifiers": {"id": "u1"}, "name": "signed-in", "id": ULID,
        "timestamp": 1_767_323_045, "attributes": {"plan": "pro"},
    } | changes  # fmt: skip
    return {name: value for name, value in operation.items() if value is not ...}


def message(**changes):
    """A good message, with some fields changed, and those taken away that are changed to `...`."""
    made = {
        "type": "track", "userId": "u1", "event": "signed-in", "properties": {}, "messageId": "m1", "timestamp": NOW,
        "context": {"ip": "::1"}, "integrations": {"All": True, "Mixpanel": {"x": 1}},
    } | changes  # fmt: skip
    return {name: value for name, value in made.items() if value is not ...}


def faults_of(*operations):
    """What the Customer.io wire finds in a batch."""
    return WIRE.judge(JSON, json.dumps({"batch": operations}).encode()).faults


@pytest.fixture
def customerio():
    """A running stand-in for Customer.io."""
    with Receiver(wire=CustomerIOWire(site_id="site", api_key="key")) as running:
        yield running


@pytest.fixture
def segments():
    """Makes running stand-ins for Segment and those made after it."""
    made = []

    def make(**options):
        made.append(Receiver(wire=SegmentWire(write_key="write-key", **options)))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.stop()


# --- Customer.io ----------------------------------------------------------------------------------------------------


def test_vendors_own_example_is_stored_with_one_warning(customerio):
    """The vendor's own example is taken whole, and the payload that it puts under `data` is warned of."""
    answer = operate(customerio, EXAMPLE)
    assert (answer.status, answer.body, answer.type) == (200, b"{}", "application/json")
    assert customerio.messages == customerio.messages_of("customerio") == tuple(EXAMPLE)
    warning = "batch[1].data will be lost: what belongs to an event is its attributes"
    assert (customerio.faults, customerio.warnings) == ((), (f"request 1: {warning}",))
    assert (customerio.requests[0].wire, customerio.requests[0].warnings) == ("customerio", (warning,))


def test_data_is_only_lost_on_events(customerio):
    """An operation other than a person's event, page or screen may have a field of that name."""
    delete = {"type": "person", "action": "delete", "identifiers": {"id": 1}, "data": {}}
    opened = {**FULL[-1], "data": {}}
    operate(customerio, [delete, opened, *(event(action=action, data={}) for action in ("event", "page", "screen"))])
    assert [warning.split(".")[0] for warning in customerio.warnings] == [f"request 1: batch[{n}]" for n in (2, 3, 4)]
    assert customerio.faults == ()


def test_operations_are_counted_by_type_action_and_id(customerio):
    """An event's id is its identity, and other operations are their own."""
    operate(customerio, [event(), event(name="other"), event(action="page"), event(id=...), event(id=...)])
    operate(customerio, [event(action="screen"), event(action="screen", name="other")])
    other = {"type": "person", "action": "delete", "identifiers": {"id": 1}, "id": "x"}
    operate(customerio, [other, {**other, "identifiers": {"id": "1"}}, dict(reversed(other.items()))])
    report = customerio.report()
    assert report.by_kind == {"person/event": 2, "person/page": 1, "person/screen": 1, "person/delete": 2}
    assert (report.messages, report.unique_messages, report.repeats) == (10, 6, 4)


@pytest.mark.parametrize(
    ("authorization", "fault"),
    [
        (..., "Authorization is missing"),
        ("Basic site:key", "Authorization is not 'Basic ' and base64 of site_id:api_key"),
        (basic("site:key").replace("Basic", "basic"), "Authorization is not 'Basic ' and base64 of site_id:api_key"),
        (basic("key:site"), "Authorization is not 'Basic ' and base64 of site_id:api_key"),
        (basic("site:key") + "=", "Authorization is not 'Basic ' and base64 of site_id:api_key"),
    ],
)
def test_customerio_compares_authorization_byte_for_byte(customerio, authorization, fault):
    """Anything but base64 of site id and key is a 401."""
    answer = operate(customerio, [event()], Authorization=authorization)
    assert (answer.status, answer.body, customerio.messages) == (401, b"", ())
    assert customerio.faults == (f"request 1: {fault}",)


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"{", "the body is not strict JSON in UTF-8: "),
        (b'{"batch": [], "batch": []}', "the body is not strict JSON in UTF-8: "),
        (b'{"batch": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "the body is not strict JSON in UTF-8: "),
        (b"[]", "the body is not an object"),
        (b"{}", "the body.batch is missing"),
        (b'{"batch": {}}', "the body.batch is not an array"),
        (b'{"batch": []}', "the body.batch has 0 elements, less than allowed"),
    ],
)
def test_customerio_wants_a_batch_in_an_object(customerio, body, fault):
    """A body without a batch that holds something is refused."""
    assert post(customerio, "/api/v2/batch", body).status == 400
    assert customerio.faults[0].startswith(f"request 1: {fault}")
    assert len(customerio.faults) == 1


def test_customerio_wants_nothing_beside_the_batch(customerio):
    """Segment's envelope is refused, and the vendor's own body of errors says where."""
    answer = post(customerio, "/api/v2/batch", {"batch": [event(name="")], "sentAt": NOW})
    assert answer.json() == {
        "errors": [
            {"reason": "invalid", "field": "", "message": "the body.sentAt does not belong there"},
            {"reason": "invalid", "field": "batch[0].name", "message": "is empty"},
        ]
    }


@pytest.mark.parametrize(
    ("headers", "fault"),
    [
        ({"Content_Type": ...}, "Content-Type is not application/json"),
        ({"Content_Type": "text/plain"}, "Content-Type is not application/json"),
        ({"Content_Encoding": "gzip"}, "Content-Encoding is not documented"),
    ],
)
def test_customerio_judges_content_headers(customerio, headers, fault):
    """The type is JSON, and no encoding is documented."""
    assert operate(customerio, [event()], **headers).status == 400
    assert customerio.requests[0].faults == (fault,)


def test_body_is_limited_to_half_a_million_bytes(customerio):
    """A body of 500,000 bytes is taken, and one byte more is a 413."""
    body = json.dumps({"batch": [event()] * 9}).encode()
    assert post(customerio, "/api/v2/batch", body.ljust(500_000)).status == 200
    assert post(customerio, "/api/v2/batch", body.ljust(500_001)).status == 413
    assert customerio.faults == ("request 2: the body has 500001 bytes, more than 500000",)
    assert len(customerio.messages) == 9


def test_operation_is_limited_to_32000_bytes_as_written(customerio):
    """An operation of 32,000 bytes is taken; one more, blanks and the bytes of each letter included, is not."""
    room = 32_000 - len(json.dumps(event(name="\u00e4"), ensure_ascii=False).encode())
    fits = json.dumps(event(name="\u00e4" + "n" * room), ensure_ascii=False).encode()
    assert post(customerio, "/api/v2/batch", b'{ "batch" : [ %b ,\n%b ] }' % (fits, fits)).status == 200
    over = fits.replace(b"{", b"{ ", 1)
    assert post(customerio, "/api/v2/batch", b'{"batch":[%b,%b]}' % (fits, over)).status == 400
    assert customerio.faults == ("request 2: batch[1] has 32001 bytes, more than 32000",)


def test_one_bad_operation_refuses_its_whole_batch(customerio):
    """Nothing of a faulty batch is stored, not even on a scripted success."""
    customerio.script(Reply(partial={0: "x"}, store=True))
    assert operate(customerio, [event(), event(name="")]).status == 207
    assert operate(customerio, [event(), event(name="")]).status == 400
    assert (customerio.messages, [request.stored for request in customerio.requests]) == ((), [False, False])
    assert customerio.faults == ("request 1: batch[1].name is empty", "request 2: batch[1].name is empty")


def test_partial_failure_of_customerio_lists_the_refused_and_stores_the_others(customerio):
    """A partial reply becomes a 207 that names indexes, fields and messages."""
    customerio.script(Reply(partial={1: "attributes.plan: is too long: 1001", 7: "no field"}))
    answer = operate(customerio, [event(name=name) for name in "abc"])
    assert (answer.status, answer.json()) == (
        207,
        {
            "errors": [
                {
                    "batch_index": 1,
                    "reason": "invalid",
                    "field": "attributes.plan",
                    "message": "is too long: 1001",
                },
                {"batch_index": 7, "reason": "invalid", "field": "", "message": "no field"},
            ]
        },
    )
    assert [operation["name"] for operation in customerio.messages] == ["a", "c"]
    request = customerio.requests[0]
    assert (request.status, request.stored, request.refused, len(request.messages)) == (207, True, (1,), 3)
    assert customerio.faults == ()


def test_decide_can_refuse_by_what_it_sees(customerio):
    """`decide` gives a partial failure, a body of its own, or another 2xx status."""
    customerio.decide = lambda operations: Reply(
        202, partial={index: "x" for index, one in enumerate(operations) if one["name"] == "bad"}, body=b"<html>"
    )
    answer = operate(customerio, [event(name="bad"), event()])
    assert (answer.status, answer.body, customerio.messages) == (202, b"<html>", (event(),))


def test_partial_failure_does_not_go_with_failure():
    """A reply that fails as a whole cannot refuse some."""
    with pytest.raises(ValueError, match="partial must go with a 2xx status, not 500"):
        Reply(500, partial={0: "x"})


# --- Customer.io's judgement against the schema ---------------------------------------------------------------------

OBJECT = {"object_type_id": "1", "object_id": "acme"}
OBJECTS = [
    {"identifiers": OBJECT, "relationship_attributes": {"role": "admin"}},
    {"identifiers": {"cio_object_id": "c1"}},
]
PEOPLE = [{"identifiers": {"id": 7}, "relationship_attributes": {}}, {"identifiers": {"email": "a@b.c"}}]
DEVICE = {
    "token": "t", "platform": "ios", "last_used": 1_767_323_045,
    "attributes": {"device_os": "1", "push_enabled": "true", "_last_status": "", "custom": "x"},
}  # fmt: skip


def person(action, **more):
    """A person's operation."""
    return {"type": "person", "action": action, "identifiers": {"id": "u1"}, **more}


def thing(action, **more):
    """An object's operation."""
    return {"type": "object", "action": action, "identifiers": OBJECT, **more}


FULL = [
    person(
        "identify", timestamp=1_767_323_045, cio_relationships=OBJECTS,
        attributes={"_update": True, "cio_subscription_preferences": {"topics": {"topic_1": False}}, "own": None},
    ),
    person("delete"),
    event(attributes={"recipient": "a@b.c", "from_address": "a@b.c", "reply_to": "a@b.c", "own": [1]}),
    event(action="page", attributes={"url": "u", "path": "p", "referrer": "r", "search": "s", "title": "t",
                                     "keywords": ["k"], "own": {}}),
    event(action="screen"),
    person("add_relationships", cio_relationships=OBJECTS),
    person("delete_relationships", cio_relationships=OBJECTS),
    person("add_device", device=DEVICE),
    person("delete_device", device={"token": "t"}),
    {"type": "person", "action": "merge", "primary": {"id": 1}, "secondary": {"cio_id": "x"}},
    person("suppress"),
    person("unsuppress"),
    thing("identify", attributes={"name": "Acme"}, cio_relationships=PEOPLE),
    thing("identify_anonymous", attributes={}, cio_relationships=[
        {"identifiers": {"anonymous_id": "a"}, "relationship_attributes": {"x": 1}}
    ]),
    thing("delete"),
    thing("add_relationships", cio_relationships=PEOPLE),
    thing("delete_relationships", cio_relationships=PEOPLE),
    {"type": "delivery", "action": "event", "identifiers": {"id": "d"}, "name": "opened",
     "attributes": {"device_token": "t"}},
]  # fmt: skip

# What the wire refuses on purpose though the schema lets it pass; see `test_wire_is_stricter_than_the_schema`.
STRICTER = re.compile(
    r".* is empty"
    r"|batch\[0\]\.id is not a ULID"
    r"|.*(timestamp|last_used) is (not an integer|not in Unix seconds)"
    r"|.*\.phone is not a phone number in E\.164 form"
    r"|.*\.object_type_id is not an integer from 1 in a string"
    r"|.*(identifiers|primary|secondary) is not exactly one of .*"
    r"|.*identifiers (is missing|is not an object)|.*\.identifiers is missing"
    r"|.*\.identifiers does not belong there"
)


def agree(operation):
    """Compare wire and schema; return whether both find the operation good."""
    faults, valid = faults_of(operation), VALIDATOR.is_valid({"batch": [operation]})
    if valid:
        assert all(STRICTER.fullmatch(fault) for fault in faults), (operation, faults)
    else:
        assert faults, operation
    return not faults


def places(value, path=()):
    """The path of each value in a JSON value."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def changed(value, path, new):
    """A copy of a JSON value with one place replaced, or taken away by `...`."""
    if not path:
        return new
    made = copy.deepcopy(value)
    *way, last = path
    holder = made
    for key in way:
        holder = holder[key]
    if new is ...:
        del holder[last]
    else:
        holder[last] = new
    return made


@pytest.mark.parametrize("operation", FULL, ids=lambda one: f"{one['type']}-{one['action']}")
def test_every_change_of_every_field_is_judged_as_by_the_schema(operation):
    """For each field of each operation: taken away, or with a value of every JSON type, wire and schema agree."""
    assert agree(operation)
    good = bad = 0
    for path in list(places(operation))[1:]:
        for new in (..., None, True, 0, 1.5, "", "x", "event", "person", "object", "opened", [], [0], {}, {"x": 0}):
            fine = agree(changed(operation, path, new))
            good, bad = good + fine, bad + (not fine)
    assert good
    assert bad


# A delivery and an anonymous person need no id by the schema, which is listed below.
@pytest.mark.parametrize(
    ("operation", "path"),
    [
        (operation, path)
        for operation in FULL
        for path in places(operation)
        if path
        and path[-1] in ("identifiers", "primary", "secondary")
        and operation["type"] != "delivery"
        and not (operation["action"] == "identify_anonymous" and len(path) > 1)
    ],
    ids=str,
)
def test_kinds_of_identifiers_are_judged_as_by_the_schema(operation, path):
    """For each operation and place of identifiers, wire and schema agree on which kinds belong there."""
    good = 0
    for kind in ("id", "email", "phone", "cio_id", "anonymous_id", "object_id", "cio_object_id"):
        value = {"phone": "+491234", "email": "a@b.c"}.get(kind, "x")
        new = changed(operation, path, {kind: value})
        assert (not faults_of(new)) == VALIDATOR.is_valid({"batch": [new]}), new
        good += not faults_of(new)
    assert 1 <= good <= 5


texts = st.text(min_size=1, max_size=4).filter(str.strip)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text(max_size=4)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2), max_leaves=4
)
moments = st.integers(10**9, 10**11 - 1)
ulids = st.from_regex(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", fullmatch=True)
people = {
    "id": texts | numbers,
    "email": texts,
    "phone": st.from_regex(r"\+[0-9]{1,15}", fullmatch=True),
    "cio_id": texts,
    "anonymous_id": texts | numbers,
}
LEAVES = {
    "name": texts, "id": ulids, "timestamp": moments, "last_used": moments, "own": values, "token": texts,
    "device_token": texts, "platform": st.sampled_from(["ios", "android"]), "object_id": texts, "cio_object_id": texts,
    "object_type_id": st.integers(1).map(str), "topic_1": st.booleans(), "_update": st.booleans(),
    "keywords": st.lists(st.text(max_size=3), max_size=2), "relationship_attributes": st.dictionaries(texts, values),
}  # fmt: skip


@st.composite
def good_operations(draw):
    """Operations that keep every rule."""
    operation = copy.deepcopy(draw(st.sampled_from(FULL)))
    events = operation["type"] == "person" and operation["action"] in ("event", "page", "screen")
    for path in list(places(operation)):
        leaf = path[-1] if path else None
        fixed = (leaf == "id" and len(path) > 1) or (leaf == "name" and operation["type"] == "delivery")
        if leaf in LEAVES and not fixed:
            operation = changed(operation, path, draw(LEAVES[leaf]))
    if operation["type"] == "person" and "identifiers" in operation:
        kind = draw(st.sampled_from(list(people)[: 5 if events else 4]))
        operation["identifiers"] = {kind: draw(people[kind])}
    optional = [name for name in ("id", "timestamp", "attributes") if name in operation]
    for name in draw(st.lists(st.sampled_from(optional), unique=True)) if optional else []:
        if operation["type"] != "delivery":
            del operation[name]
    return operation | draw(st.fixed_dictionaries({}, optional={"unknown": values}))


@given(st.lists(good_operations(), min_size=1, max_size=3))
@settings(max_examples=200, deadline=None)
def test_good_operations_are_faultless(operations):
    """What keeps every rule is found good by the schema and by the wire, and read as it was written."""
    assert VALIDATOR.is_valid({"batch": operations})
    assert WIRE.judge(JSON, json.dumps({"batch": operations}).encode()) == (operations, [], [], 400)


@given(good_operations(), st.data())
@settings(max_examples=300, deadline=None)
def test_changed_operations_are_judged_as_by_the_schema(operation, data):
    """Whatever is changed anywhere, the wire lets nothing pass that the schema refuses, and little else is refused."""
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(list(places(operation))))
        new = data.draw(values if not path else values | st.just(...))
        operation = changed(operation, path, new)
    agree(operation)


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        *((event(id=one), ".id is not a ULID") for one in (
            "", ULID.lower(), "8" + ULID[1:], ULID[1:], ULID + "0", ULID[:-1] + "U", ULID[:-1] + "I", ULID + "\n",
            "123e4567-e89b-12d3-a456-426614174000",
        )),
        *((event(timestamp=one), ".timestamp is not in Unix seconds") for one in (
            0, 10**9 - 1, 10**11, 1_767_323_045_678,
        )),
        (event(timestamp=1_767_323_045.0), ".timestamp is not an integer"),
        (person("delete", timestamp=NOW), ".timestamp is not an integer"),
        (thing("delete", timestamp=1), ".timestamp is not in Unix seconds"),
        (event(name=" "), ".name is empty"),
        (event(identifiers={"id": ""}), ".identifiers.id is empty"),
        (event(identifiers={"id": "u", "email": 1}),
         ".identifiers is not exactly one of id, email, cio_id, phone, anonymous_id"),
        (person("identify", identifiers={"id": "u", "anonymous_id": "a"}),
         ".identifiers is not exactly one of id, email, cio_id, phone"),
        (event(identifiers={"phone": "0123"}), ".identifiers.phone is not a phone number in E.164 form"),
        (thing("delete", identifiers={**OBJECT, "cio_object_id": 1}),
         ".identifiers is not exactly one of object_type_id with object_id, cio_object_id"),
        (thing("delete", identifiers={**OBJECT, "object_type_id": "company"}),
         ".identifiers.object_type_id is not an integer from 1 in a string"),
        ({"type": "object", "action": "delete"}, ".identifiers is missing"),
        (person("add_relationships", cio_relationships=[{}]), ".cio_relationships[0].identifiers is missing"),
        (thing("identify_anonymous", cio_relationships=[{"identifiers": {}}]),
         ".cio_relationships[0].identifiers is not exactly one of anonymous_id"),
        ({**FULL[-1], "identifiers": {}}, ".identifiers is not exactly one of id"),
        ({**FULL[9], "identifiers": {"id": 1}}, ".identifiers does not belong there"),
        (person("add_device", device={**DEVICE, "last_used": 1}), ".device.last_used is not in Unix seconds"),
    ],
)  # fmt: skip
def test_wire_is_stricter_than_the_schema(operation, fault):
    """These are refused on purpose, though the schema lets them pass."""
    assert VALIDATOR.is_valid({"batch": [operation]})
    assert faults_of(operation) == [f"batch[0]{fault}"]


@pytest.mark.parametrize(
    ("operation", "fault"),
    [
        ("text", " is not an object"),
        (event(type="relationship"), ".type is none of person, object, delivery"),
        (event(type=["person"]), ".type is none of person, object, delivery"),
        ({**FULL[-1], "action": "identify"}, ".action is none of event"),
        (thing("event"), f".action is none of {', '.join(one['action'] for one in FULL[12:17])}"),
        (event(attributes={"recipient": "x"}), ".attributes.recipient is not an email address"),
        (event(timestamp=True), ".timestamp is not an integer"),
        (event(identifiers={"id": True}), ".identifiers.id is neither a string nor a number"),
        (person("merge", primary={"id": 1}), ".secondary is missing"),
    ],
)  # fmt: skip
def test_faults_name_the_place(operation, fault):
    """A fault says where, and never what."""
    assert not VALIDATOR.is_valid({"batch": [operation]})
    assert f"batch[0]{fault}" in faults_of(operation)


@pytest.mark.parametrize("moment", [10**9, 10**11 - 1])
def test_unix_seconds_may_be_as_early_and_late(moment):
    """The first and the last moment are taken."""
    assert faults_of(event(timestamp=moment)) == []


@given(st.dictionaries(texts, values), st.lists(values, min_size=1), st.booleans(), st.sampled_from([None, 1]))
@settings(max_examples=100, deadline=None)
def test_elements_are_measured_as_written(others, elements, ascii_only, indent):
    """The bytes of each element are found whatever stands before it and however it is written."""
    body = json.dumps(others | {"batch": elements}, ensure_ascii=ascii_only, indent=indent).encode()
    sizes = element_sizes(body, "batch")
    alone = json.loads(body.decode())["batch"]
    if indent is None:
        assert sizes == [len(json.dumps(one, ensure_ascii=ascii_only).encode()) for one in alone]
    assert len(sizes) == len(elements)


# --- Segment --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("segment", 200, b'{"success":true}'),
        ("rudderstack", 200, b"OK"),
        ("customerio_pipelines", 200, b""),
        ("jitsu", 200, b'{"ok": true, "receivedEvents": 2, "okEvents": 2}'),
    ],
)
def test_each_kind_of_segment_answers_in_its_way(segments, kind, status, body):
    """The answer to a good batch is the kind's own, a scripted plain success too."""
    receiver = segments(kind=kind)
    receiver.script(Reply())
    for _ in range(2):
        answer = segment(receiver, [message(), message(messageId="m2")], sentAt=NOW, context={}, integrations={})
        assert (answer.status, answer.body) == (status, body)
    assert (answer.type.split(";")[0]) == ("text/plain" if kind == "rudderstack" else "application/json")
    assert (receiver.faults, receiver.warnings, len(receiver.messages)) == ((), (), 4)
    assert receiver.messages_of("segment") == receiver.messages
    assert receiver.report().by_kind == {"track": 2}


def test_dittofeed_has_rules_and_answers_of_its_own(segments):
    """Dittofeed answers 204 under its own path, takes the key as it is, wants a messageId and knows no alias."""
    receiver = segments(kind="dittofeed")
    path = "/api/public/apps/batch"
    assert segment(receiver, [message()], path=path, writeKey=...).status == 204
    alias = {"type": "alias", "userId": "a", "previousId": "b"}
    assert segment(receiver, [message(messageId=...), alias], path=path).status == 400
    assert receiver.requests[1].faults == (
        "batch[0].messageId is missing",
        "batch[1].messageId is missing",
        "batch[1].type is none of identify, track, page, screen, group",
    )
    receiver.script(Reply(202))
    assert segment(receiver, [message()], path=path).status == 202


def test_jitsu_tells_of_partial_failure_in_a_200(segments):
    """Jitsu's 200 counts and names what it refused, and the others are stored."""
    receiver = segments(kind="jitsu")
    receiver.script(Reply(partial={1: "no such stream", 5: "nowhere", -1: "before"}))
    answer = segment(receiver, [message(messageId=name) for name in "abc"])
    assert (answer.status, answer.json()) == (
        200,
        {
            "ok": False,
            "receivedEvents": 3,
            "okEvents": 2,
            "errors": ["Message ID: b: no such stream", "Message ID: : nowhere", "Message ID: : before"],
        },
    )
    assert [one["messageId"] for one in receiver.messages] == ["a", "c"]
    assert receiver.requests[0].refused == (1,)
    assert segment(receiver, [message(messageId="m" * 65)]).status == 400
    assert receiver.requests[1].faults == ("batch[0].messageId is not 1 to 64 of the characters A-Za-z0-9._-",)


@pytest.mark.parametrize("wire", [SegmentWire(), VitallyWire("test-token")], ids=["segment", "vitally"])
def test_wires_without_partial_failures_say_so(wire, capfd):
    """A partial reply where the vendor has none is an error of the test, which is printed, and no answer."""
    with Receiver(wire=wire) as receiver:
        receiver.script(Reply(partial={0: "x"}))
        with pytest.raises((ConnectionError, HTTPException)):
            post(receiver, wire.path, {"batch": [message()], "writeKey": "write-key"})
        assert receiver.requests == ()
    assert f"ValueError: partial: {wire.name} has no answer that refuses some messages" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("auth", "header", "key", "status"),
    [
        ("both", basic("write-key:"), "write-key", 200),
        ("both", basic("write-key:"), ..., 401),
        ("both", basic("write-key:"), "other", 401),
        ("both", basic("write-key"), "write-key", 401),
        ("both", ..., "write-key", 401),
        ("basic", basic("write-key:"), ..., 200),
        ("basic", basic("other:"), "write-key", 401),
        ("basic", "Basic write-key", ..., 401),
        ("body", ..., "write-key", 200),
        ("body", basic("write-key:"), ..., 401),
        ("body", ..., ["write-key"], 401),
        ("raw", "Basic write-key", ..., 200),
        ("raw", basic("write-key:"), "write-key", 401),
        ("raw", "write-key", ..., 401),
    ],
)
def test_write_key_must_be_where_it_belongs(segments, auth, header, key, status):
    """Each way of authorization asks for the key in its places, and no fault repeats it."""
    receiver = segments(auth=auth)
    assert segment(receiver, [message()], headers={"Authorization": header}, writeKey=key).status == status
    assert len(receiver.messages) == len(receiver.requests[0].messages) * (status == 200)
    assert len(receiver.faults) == (status == 401)
    assert "write-key" not in str(receiver.faults)


def test_documented_vector_of_the_header():
    """The key `abc123` makes the header that the vendor's documentation shows."""
    wire = SegmentWire("abc123")
    assert wire.authorize({"authorization": "Basic YWJjMTIzOg=="}) == []
    assert wire.authorize({"authorization": "Basic YWJjMTIz"}) != []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kind": "posthog"}, "kind must be one of segment, rudderstack, .*, not 'posthog'"),
        ({"auth": "bearer"}, "auth must be 'both', 'basic', 'body' or 'raw', not 'bearer'"),
        ({"kind": "rudderstack", "auth": "body"}, "auth must be 'basic' for RudderStack, not 'body'"),
    ],
)
def test_impossible_segment_is_refused(options, words):
    """A kind or way that there is not is an error where it is asked for."""
    with pytest.raises(ValueError, match=words):
        SegmentWire(**options)


@pytest.mark.parametrize(
    "good",
    [
        {"type": "identify", "anonymousId": "a", "traits": {"email": None}},
        {"type": "page", "userId": "u"},
        {"type": "screen", "userId": "u", "name": "", "category": "c", "messageId": "m" * 99},
        {"type": "group", "groupId": "g", "anonymousId": "a", "timestamp": "2018-05-15T12:31:12+02:00"},
        {"type": "alias", "userId": "u", "previousId": "p"},
        message(unknown=1, sentAt=1),
        # As the vendor's Python client writes what it was not given.
        message(anonymousId=None),
        message(type="page", userId=None, anonymousId="a", name=None, category=None),
    ],
)
def test_good_messages_are_stored(segments, good):
    """The least that each type needs is enough, and unknown fields and some nulls are taken."""
    receiver = segments()
    assert segment(receiver, [good]).status == 200
    assert (receiver.messages, receiver.faults) == ((good,), ())


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        ("text", " is not an object"),
        (message(type=...), ".type is none of identify, track, page, screen, group, alias"),
        (message(type=["track"]), ".type is none of identify, track, page, screen, group, alias"),
        (message(userId=...), " has neither userId nor anonymousId"),
        (message(userId=7), ".userId is not a string"),
        (message(userId=""), ".userId is empty"),
        (message(userId=None, anonymousId=None), " has neither userId nor anonymousId"),
        (message(anonymousId=""), ".anonymousId is empty"),
        (message(type="alias", previousId="p", userId=None), ".userId is missing"),
        (message(event=...), ".event is missing"),
        (message(event=" "), ".event is empty"),
        (message(type="group"), ".groupId is missing"),
        (message(type="group", groupId=1), ".groupId is not a string"),
        (message(type="alias"), ".previousId is missing"),
        (message(type="alias", previousId="p", userId=..., anonymousId="a"), ".userId is missing"),
        (message(type="alias", previousId=""), ".previousId is empty"),
        (message(messageId=""), ".messageId is not a string of 1 to 99 characters"),
        (message(messageId="m" * 100), ".messageId is not a string of 1 to 99 characters"),
        (message(messageId=1), ".messageId is not a string of 1 to 99 characters"),
        (message(timestamp="2026-01-02T03:04:05"), ".timestamp is not an ISO 8601 date-time with a zone"),
        (message(timestamp=1_767_323_045), ".timestamp is not a string"),
        (message(context=[]), ".context is not an object"),
        (message(traits=None), ".traits is not an object"),
        (message(properties="x"), ".properties is not an object"),
        (message(integrations={"All": "yes"}), ".integrations.All is neither a boolean nor an object"),
        (message(type="page", name=1), ".name is not a string"),
        (message(type="page", category=1), ".category is not a string"),
    ],
)
def test_one_bad_message_refuses_its_whole_batch(segments, bad, fault):
    """What Segment would drop in silence is a 400 here, and nothing is stored."""
    receiver = segments()
    answer = segment(receiver, [message(), bad])
    assert (answer.status, answer.json()) == (400, {"error": f"batch[1]{fault}"})
    assert (receiver.requests[0].faults, receiver.messages) == ((f"batch[1]{fault}",), ())


@pytest.mark.parametrize(
    ("envelope", "fault"),
    [
        ({"sentAt": "now"}, ".sentAt is not an ISO 8601 date-time with a zone"),
        ({"context": []}, ".context is not an object"),
        ({"integrations": {"All": 1}}, ".integrations.All is neither a boolean nor an object"),
        ({"messages": []}, ".messages does not belong there"),
        ({"batch": ...}, ".batch is missing"),
        ({"batch": {}}, ".batch is not an array"),
        ({"batch": []}, ".batch has 0 elements, less than allowed"),
        ({"batch": [{"type": "page", "userId": "u"}] * 2501}, ".batch has 2501 elements, more than allowed"),
    ],
)
def test_envelope_is_judged(segments, envelope, fault):
    """The object around the batch has rules too."""
    receiver = segments()
    assert segment(receiver, [message()], **envelope).status == 400
    assert receiver.faults == (f"request 1: the body{fault}",)


def test_batch_may_hold_2500_messages(segments):
    """As many messages as Segment takes are taken."""
    receiver = segments()
    assert segment(receiver, [{"type": "page", "userId": "u"}] * 2500).status == 200
    assert len(receiver.messages) == 2500


@pytest.mark.parametrize("packed", [False, True])
def test_sizes_of_segment_are_those_before_compression(segments, packed):
    """A message of 32,000 bytes and a body of 500,000 are taken, compressed or not, and one more of either is not."""
    receiver = segments()
    headers = {"Content_Encoding": "gzip"} if packed else {}
    pack = gzip.compress if packed else bytes
    room = 32_000 - len(json.dumps(message(event="")))

    def send(more, size):
        batch = [message(), message(event="e" * (room + more))]
        body = json.dumps({"writeKey": "write-key", "context": {"batch": [1]}, "batch": batch}).encode()
        return post(receiver, "/v1/batch", pack(body.ljust(size)), **headers).status

    assert [send(0, 500_000), send(1, 0), send(0, 500_001), send(0, 5_000_000)] == [200, 400, 413, 413]
    assert [fault.split(": ")[1] for fault in receiver.faults] == [
        "batch[1] has 32001 bytes, more than 32000",
        "the body has more than 500000 bytes",
        "the body has more than 500000 bytes",
    ]
    assert len(receiver.messages) == 2


PACKED = gzip.compress(json.dumps({"batch": [message()], "writeKey": "write-key"}).encode())


@pytest.mark.parametrize(
    ("body", "encoding", "fault"),
    [
        (PACKED[:-1], "gzip", "the body is not one whole gzip stream"),
        (PACKED + b"x", "gzip", "the body is not one whole gzip stream"),
        (PACKED + PACKED, "gzip", "the body is not one whole gzip stream"),
        (b"{}", "gzip", "the body is not gzip"),
        (PACKED[:-5] + b"xxxxx", "gzip", "the body is not gzip"),
        (b"", "gzip", "the body is not one whole gzip stream"),
        (PACKED, "br", "Content-Encoding is not gzip"),
    ],
)
def test_compression_must_be_whole(segments, body, encoding, fault):
    """Half a stream, two streams, another compression, or none are refused."""
    receiver = segments()
    assert post(receiver, "/v1/batch", body, Content_Encoding=encoding).status == 400
    assert receiver.requests[0].faults[0] == fault


# --- Several wires at once ------------------------------------------------------------------------------------------


def test_one_receiver_serves_several_wires_by_path():
    """Each path has its vendor's credentials, judgement and answers, and what is stored stays apart."""
    with Receiver(wires=[VitallyWire("test-token"), CustomerIOWire(), SegmentWire()]) as receiver:
        segment(receiver, [message(messageId="m")])
        assert post(receiver, "/analytics/v1/batch", [VITALLY]).body == b'{"message":"Success."}'
        receiver.script(Reply(partial={0: "name: x"}))
        assert operate(receiver, [event(name="bad"), event()]).status == 207
        assert segment(receiver, [message()], headers={"Authorization": "Basic test-token"}).status == 401
        assert [request.wire for request in receiver.requests] == ["segment", "vitally", "customerio", "segment"]
        assert receiver.messages == (message(messageId="m"), VITALLY, event())
        assert receiver.messages_of("vitally") == (VITALLY,)
        assert receiver.messages_of("customerio") == (event(),)
        assert receiver.messages_of("other") == ()
        report = receiver.report()
        # The same type and id at two vendors is two messages.
        assert (report.unique_messages, report.by_kind) == (3, {"track": 2, "person/event": 1})


def test_path_of_no_wire_is_not_found():
    """What comes in under another path is refused, and belongs to no wire."""
    with Receiver(wires=[CustomerIOWire(), SegmentWire()]) as receiver:
        assert post(receiver, "/analytics/v1/batch", [VITALLY]).status == 404
        assert receiver.faults == ("request 1: the path is not /api/v2/batch or /v1/batch",)
        assert receiver.requests[0].wire == ""


def test_wires_must_differ_in_path():
    """Two wires under one path, or wires in two places, are an error where they are given."""
    with pytest.raises(ValueError, match="two wires have the same path"):
        Receiver(wires=[SegmentWire(), SegmentWire(kind="jitsu")])
    with pytest.raises(ValueError, match="wire and wires exclude each other"):
        Receiver(SegmentWire(), wires=[CustomerIOWire()])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to one process")
def test_command_serves_all_wires():
    """`python -m analytics_batcher.receiver` takes all three vendors' requests, and tells of warnings."""
    command = [sys.executable, "-m", "analytics_batcher.receiver"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            served = SimpleNamespace(url=process.stdout.readline().split()[-1])
            assert post(served, "/analytics/v1/batch", [VITALLY]).status == 200
            assert operate(served, EXAMPLE).status == 200
            assert segment(served, [message()]).status == 200
            assert process.stdout.readline() == "1: 1 messages, status 200, no faults\n"
            warned = process.stdout.readline()
            assert warned.startswith("2: 4 messages, status 200, no faults; but batch[1].data will be lost")
            assert process.stdout.readline() == "3: 1 messages, status 200, no faults\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=10) == ("", "")
        finally:
            process.kill()
