from __future__ import annotations

import base64
import ipaddress
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import datetime, timedelta, timezone
from http.client import HTTPConnection, HTTPSConnection
from itertools import chain, combinations, product
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from analytics_batcher.receiver import Receiver, Reply, Report, Request
from analytics_batcher.receiver.vitally import Vitally

TOKEN = "s3cret-token"
PATH = "/analytics/v1/batch"
DATA = Path(__file__).parent / "data"
EXAMPLE = json.loads((DATA / "vitally-batch.json").read_text())
SCHEMA = json.loads((DATA / "vitally-batch.schema.json").read_text())
HEADERS = {"Authorization": f"Basic {TOKEN}", "Content-Type": "application/json"}
SUCCESS = b'{"message":"Success."}'
NOW = "2026-01-02T03:04:05.678Z"


def track(number=1, **changes):
    """A good message, with some fields changed, and those taken away that are changed to `...`."""
    message = {
        "type": "track", "userId": "u1", "event": "signed-in", "properties": {},
        "messageId": f"m{number}", "timestamp": NOW,
    } | changes  # fmt: skip
    return {name: value for name, value in message.items() if value is not ...}


ONE = json.dumps([track()]).encode()


class Answer:
    """What a client read."""

    def __init__(self, response):
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()


def connect(receiver, context=None):
    """An `http.client` connection, to be closed."""
    address = urlsplit(receiver.url)
    if context is None:
        return closing(HTTPConnection(address.hostname, address.port, timeout=10))
    return closing(HTTPSConnection(address.hostname, address.port, timeout=10, context=context))


def post(receiver, body=ONE, *, connection=None, method="POST", path=PATH, headers=HEADERS):
    """Send one request, over its own connection if none is given."""
    if connection is None:
        with connect(receiver) as own:
            return post(receiver, body, connection=own, method=method, path=path, headers=headers)
    connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body), headers)
    return Answer(connection.getresponse())


def raw(body=ONE, **headers):
    """A whole request in bytes."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in (HEADERS | headers).items() if value is not ...]
    if "Content_Length" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([f"POST {PATH} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode("latin-1") + body


def dial(receiver):
    """A plain TCP connection, to be closed."""
    address = urlsplit(receiver.url)
    return socket.create_connection((address.hostname, address.port), timeout=10)


def read_all(connection):
    """Everything up to the end of the stream."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def stop_in_time(receiver):
    """Stop the receiver, and see that within a second `stop` returns and every thread of it ends."""
    ours = [thread for thread in threading.enumerate() if "process_request_thread" in thread.name]
    deadline = time.monotonic() + 1
    receiver.stop()
    assert time.monotonic() < deadline
    for thread in ours:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not [thread for thread in ours if thread.is_alive()]
    assert "analytics-batcher-receiver" not in [thread.name for thread in threading.enumerate()]


@pytest.fixture
def receiver():
    """A running receiver."""
    with Receiver(api_token=TOKEN) as running:
        yield running


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """The paths of a self-signed certificate for 127.0.0.1 and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "receiver")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


# --- What is kept ---------------------------------------------------------------------------------------------------


def test_vendors_own_example_is_accepted_and_counted_by_type_and_id(receiver):
    """The vendor's example is stored whole, though it uses one messageId for messages of several types."""
    answer = post(receiver, EXAMPLE)
    assert (answer.status, answer.body) == (200, SUCCESS)
    assert receiver.messages == tuple(EXAMPLE)
    body = receiver.requests[0].body
    assert receiver.report() == Report(
        requests=1,
        accepted_requests=1,
        messages=5,
        unique_messages=5,
        repeats=0,
        by_kind={"organization": 1, "account": 1, "user": 1, "track": 1, "customobjectinstance": 1},
        fullest_batch=5,
        largest_body=len(body),
        faults=(),
    )
    assert json.loads(body) == EXAMPLE


def test_report_counts_repeats_refusals_and_largest(receiver):
    """Repeats, refused requests and the largest request are counted over all requests."""
    assert receiver.report() == Report(0, 0, 0, 0, 0, {}, 0, 0, ())
    post(receiver, [track(1), track(2)])
    post(receiver, [track(2), track(messageId=...), track(messageId=...), track(messageId=..., userId=2)])
    post(receiver, [track(messageId="2"), track(messageId=2)])
    refused = json.dumps([track(n, event="") for n in range(6)]).encode()
    post(receiver, refused)
    report = receiver.report()
    assert (report.requests, report.accepted_requests, report.messages) == (4, 3, 8)
    # Without a messageId the message is its own id, and a number is no text.
    assert (report.unique_messages, report.repeats, report.by_kind) == (6, 2, {"track": 6})
    assert (report.fullest_batch, report.largest_body, len(report.faults)) == (6, len(refused), 6)


def test_request_is_recorded_as_it_came(receiver):
    """A request keeps its number, moment, connection, headers, body and judgement; its repr does not tell the token."""
    before = time.monotonic()
    post(receiver, headers=HEADERS | {"X-Odd": "x" * 3000})
    request = receiver.requests[0]
    assert isinstance(request, Request)
    assert (request.number, request.connection, request.method, request.path) == (1, 1, "POST", PATH)
    assert before <= request.at <= time.monotonic()
    assert (request.headers["authorization"], request.headers["x-odd"]) == (f"Basic {TOKEN}", "x" * 3000)
    assert (request.body, request.size, request.messages) == (ONE, len(ONE), [track()])
    assert (request.faults, request.status, request.stored) == ((), 200, True)
    assert TOKEN not in repr(request)


def test_bodies_can_be_forgotten():
    """Without `keep_bodies` the raw bodies go, and their sizes stay."""
    with Receiver(api_token=TOKEN, keep_bodies=False) as receiver:
        post(receiver)
        assert receiver.requests[0].body == b""
        assert receiver.report().largest_body == len(ONE)
        assert receiver.messages == (track(),)


def test_connection_is_kept_alive(receiver):
    """Requests over one connection share its number, and another connection has its own."""
    with connect(receiver) as connection:
        assert [post(receiver, connection=connection).status for _ in range(3)] == [200, 200, 200]
        assert receiver.connections == 1
        post(receiver)
    assert receiver.connections == 2
    assert [request.connection for request in receiver.requests] == [1, 1, 1, 2]


def test_many_clients_at_once_lose_nothing(receiver):
    """Messages of many simultaneous connections are all stored, under gapless request numbers."""

    def client(which):
        with connect(receiver) as connection:
            for n in range(25):
                assert post(receiver, [track(f"{which}-{n}")], connection=connection).status == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(client, range(8)))
    assert [request.number for request in receiver.requests] == list(range(1, 201))
    assert receiver.report().unique_messages == 200
    for which in range(8):
        own = [m["messageId"] for m in receiver.messages if m["messageId"].startswith(f"m{which}-")]
        assert own == [f"m{which}-{n}" for n in range(25)]


# --- What is refused ------------------------------------------------------------------------------------------------

COI = {
    "type": "customobjectinstance", "externalId": "x", "customObjectId": "c", "traits": {}, "accountId": "a",
    "messageId": "m", "timestamp": NOW,
}  # fmt: skip
NO_KIND = "type is none of organization, account, user, track, customobjectinstance, unlink"


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("text", "is not an object"),
        (track(type=...), NO_KIND),
        (track(type="page"), NO_KIND),
        (track(type=["track"]), NO_KIND),
        (track(messageId=..., timestamp=...), "neither messageId nor timestamp is there"),
        (track(messageId=None), "messageId is neither a string nor a number"),
        (track(timestamp=1525000000), "timestamp is not a string"),
        (track(timestamp="2018-05-15 12:31:12Z"), "timestamp is not an ISO 8601 date-time with a zone"),
        (track(timestamp="2018-05-15T12:31:12"), "timestamp is not an ISO 8601 date-time with a zone"),
        (track(timestamp="2018-02-30T12:31:12Z"), "timestamp is no date of the calendar"),
        (track(userId=True), "userId is neither a string nor a number"),
        (track(userId=""), "userId is empty"),
        (track(userId=...), "none of userId, accountId, organizationId is there"),
        (track(event=...), "event is missing"),
        (track(event=""), "event is empty"),
        (track(event=7), "event is not a string"),
        (track(properties=...), "properties is missing"),
        (track(properties=[]), "properties is not an object"),
        (track(type="user", traits={}), "none of accountId, organizationId is there"),
        (track(type="user", accountId="a"), "traits is missing"),
        (track(type="user", accountId="a", traits=None), "traits is not an object"),
        (track(type="account"), "accountId is missing"),
        (track(type="account", accountId="a", organizationId={}), "organizationId is neither a string nor a number"),
        (track(type="organization"), "organizationId is missing"),
        (track(type="unlink"), "accountId is missing"),
        ({**COI, "name": 3}, "name is not a string"),
        ({**COI, "customObjectId": 3}, "customObjectId is not a string"),
        ({**COI, "externalId": []}, "externalId is neither a string nor a number"),
    ],
)
def test_one_bad_message_refuses_its_whole_batch(receiver, message, fault):
    """A message against the rules is named by its index, and nothing of its batch is stored."""
    answer = post(receiver, [track(0), message, track(2)])
    assert (answer.status, json.loads(answer.body)) == (400, {"error": f"message[1]: {fault}"})
    assert receiver.faults == (f"request 1: message[1]: {fault}",)
    assert receiver.messages == ()
    request = receiver.requests[0]
    assert (request.status, request.stored, request.faults) == (400, False, (f"message[1]: {fault}",))


@pytest.mark.parametrize(
    "message",
    [
        track(userId=0, messageId=..., timestamp="2018-05-15T12:31:12+02:00"),
        track(userId=1.5, messageId=7, timestamp=...),
        track(userId=..., accountId="a", properties={"deep": [None, {"x": True}]}),
        {"type": "unlink", "userId": "u", "accountId": 3, "messageId": "m"},
        {"type": "account", "accountId": "a", "messageId": "m", "userId": None},
        COI,
    ],
)
def test_unusual_but_documented_messages_are_accepted(receiver, message):
    """Numbers as ids, one of messageId and timestamp, any zone, and unknown fields are all right."""
    assert post(receiver, [message]).status == 200
    assert (receiver.faults, receiver.messages) == ((), (message,))


@pytest.mark.parametrize(("count", "status"), [(0, 400), (1, 200), (100, 200), (101, 400)])
def test_batch_holds_one_to_a_hundred_messages(receiver, count, status):
    """An empty batch and one of 101 messages are refused."""
    assert post(receiver, [track(n) for n in range(count)]).status == status
    assert len(receiver.messages) == (count if status == 200 else 0)
    expected = () if status == 200 else (f"request 1: the batch holds {count} messages, not 1 to 100",)
    assert receiver.faults == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[",
        ONE + b",",
        b"\xef\xbb\xbf" + ONE,
        ONE.replace(b"signed-in", b"\xff"),
        ONE.replace(b"signed-in", b"\n"),
        ONE.replace(b"{}", b'{"x": NaN}'),
        ONE.replace(b"{}", b'{"x": -Infinity}'),
        ONE.replace(b"{}", b'{"x": 1, "x": 1}'),
        ONE.replace(b'"type"', b'"userId": "u1", "type"'),
        ONE.replace(b"{}", b'{"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        ONE.decode().encode("utf-16"),
    ],
)
def test_body_must_be_strict_json(receiver, body):
    """What is no JSON in UTF-8 is refused, also what Python's own parser lets pass."""
    assert post(receiver, body).status == 400
    (fault,) = receiver.faults
    assert fault.startswith("request 1: the body is not strict JSON in UTF-8: ")
    assert receiver.messages == ()


def test_body_must_be_an_array(receiver):
    """The envelope that other vendors want is refused."""
    assert post(receiver, {"batch": [track()]}).status == 400
    assert receiver.faults == ("request 1: the body is not an array",)


@pytest.mark.parametrize(
    ("authorization", "fault"),
    [
        (None, "Authorization is missing"),
        (TOKEN, "Authorization is not 'Basic ' and the raw token"),
        (f"basic {TOKEN}", "Authorization is not 'Basic ' and the raw token"),
        (f"Basic {TOKEN}x", "Authorization is not 'Basic ' and the raw token"),
        (f"Basic  {TOKEN}", "Authorization is not 'Basic ' and the raw token"),
        ("Basic " + base64.b64encode(f"{TOKEN}:".encode()).decode(), "Authorization is not 'Basic ' and the raw token"),
    ],
)
def test_authorization_is_compared_byte_for_byte(receiver, authorization, fault):
    """Anything but `Basic` and the raw token is a 401, and no fault and no answer repeats the token."""
    headers = {name: value for name, value in HEADERS.items() if name != "Authorization"}
    answer = post(receiver, headers=headers if authorization is None else headers | {"Authorization": authorization})
    assert (answer.status, receiver.faults, receiver.messages) == (401, (f"request 1: {fault}",), ())
    assert TOKEN not in f"{receiver.faults}{answer.body}"


@pytest.mark.parametrize(
    ("headers", "faults"),
    [
        ({"Content-Type": "application/json; charset=UTF-8"}, []),
        ({"Content-Type": "APPLICATION/JSON"}, []),
        ({"Content-Type": "application/json; charset=latin-1"}, ["Content-Type is not application/json"]),
        ({"Content-Type": "text/plain"}, ["Content-Type is not application/json"]),
        ({"Content-Encoding": "gzip"}, ["Content-Encoding is not documented"]),
    ],
)
def test_content_headers_are_judged(receiver, headers, faults):
    """The type is JSON in UTF-8, and no encoding is documented."""
    assert post(receiver, headers=HEADERS | headers).status == (400 if faults else 200)
    assert list(receiver.requests[0].faults) == faults


def test_missing_content_type_is_a_fault(receiver):
    """A body without its type is refused."""
    assert post(receiver, headers={"Authorization": f"Basic {TOKEN}"}).status == 400
    assert receiver.requests[0].faults == ("Content-Type is not application/json",)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Length": ...},
        {"Content_Length": "-1"},
        {"Content_Length": "5, 5"},
        {"Content_Length": "\xb2"},
        {"Content_Length": ..., "Transfer_Encoding": "chunked"},
        {"Content_Length": str(len(ONE)), "Transfer_Encoding": "chunked"},
    ],
)
def test_body_needs_a_plain_length(receiver, headers):
    """A request that does not say where it ends is refused, and its connection is closed."""
    request = raw(b"", **headers)
    with dial(receiver) as connection:
        connection.sendall(request)
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert b"Connection: close" in answer
    assert receiver.faults == ("request 1: the body has no plain Content-Length",)


@pytest.mark.parametrize("length", [str(2**26 + 1), "9" * 18, "9" * 6_000], ids=len)
def test_a_body_has_a_bound(receiver, length):
    """A request that announces more than any vendor takes is refused before its body is read, and no thread fails."""
    with dial(receiver) as connection:
        connection.sendall(raw(b"", Content_Length=length))
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert receiver.faults == ("request 1: the body has more than 67108864 bytes",)


def test_other_paths_and_methods_are_not_found(receiver):
    """Only POST to the exact path is served; what else comes is answered in full on a connection that lives on."""
    with connect(receiver) as connection:
        for path in (PATH + "/", PATH + "?x=1", "/", PATH.upper()):
            assert post(receiver, connection=connection, path=path).status == 404
        for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"):
            assert post(receiver, connection=connection, method=method).status == 404
        assert post(receiver, connection=connection).status == 200
    assert receiver.connections == 1
    assert receiver.messages == (track(),)
    expected = [f"the path is not {PATH}"] * 4 + ["the method is not POST"] * 6
    assert [fault.split(": ", 1)[1] for fault in receiver.faults] == expected


def test_answer_to_head_has_no_body(receiver):
    """HEAD gets the head of the answer alone."""
    with dial(receiver) as connection:
        connection.sendall(raw(b"", Connection="close").replace(b"POST", b"HEAD"))
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert answer.endswith(b"\r\n\r\n")


def test_repeated_header_is_joined(receiver):
    """Two tokens are none, and both can be seen."""
    with dial(receiver) as connection:
        connection.sendall(raw(authorization="Basic other", Connection="close"))
        assert read_all(connection).startswith(b"HTTP/1.1 401 ")
    assert receiver.requests[0].headers["authorization"] == f"Basic {TOKEN}, Basic other"


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (f"BREW /{TOKEN} HTTP/1.1\r\n\r\n".encode(), 501),
        (f"{TOKEN}\r\n\r\n".encode(), 400),
        (b"POST " + PATH.encode() + b" HTTP/1.x\r\n\r\n", 400),
        (b"POST /".ljust(65_537, b"x"), 414),
        (b"POST / HTTP/1.1\r\n" + b"X: ".ljust(65_537, b"x"), 431),
    ],
)
def test_unreadable_http_is_a_fault(receiver, request_bytes, status):
    """What is no HTTP request is answered and recorded, without repeating what was sent."""
    with dial(receiver) as connection:
        connection.sendall(request_bytes)
        answer = connection.recv(65536)
    assert f" {status} ".encode() in answer.split(b"\r\n")[0]
    assert (receiver.requests[0].status, receiver.faults) == (status, ("request 1: the request is not readable HTTP",))
    assert TOKEN.encode() not in answer


def test_request_broken_off_is_none(receiver, capfd):
    """A client that leaves in the middle of its body has sent no request, and does not make the receiver talk."""
    with dial(receiver) as connection:
        connection.sendall(raw()[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b""
    assert (receiver.requests, receiver.faults, receiver.connections) == ((), (), 1)
    assert post(receiver).status == 200
    assert capfd.readouterr() == ("", "")


# --- Scripted answers -----------------------------------------------------------------------------------------------


def test_script_is_answered_in_order_and_then_normal_service_follows(receiver):
    """Scripted replies answer the next requests in order; they are no faults, and only a 2xx stores."""
    receiver.script(Reply(500), Reply(429, headers={"Retry-After": "1"}))
    receiver.script(Reply(202))
    with connect(receiver) as connection:
        answers = [post(receiver, [track(n)], connection=connection) for n in range(4)]
    assert [answer.status for answer in answers] == [500, 429, 202, 200]
    assert answers[0].body == b'{"error": "Internal Server Error"}'
    assert (answers[1].headers["retry-after"], answers[2].body) == ("1", SUCCESS)
    assert [request.stored for request in receiver.requests] == [False, False, True, True]
    assert receiver.messages == (track(2), track(3))
    assert receiver.faults == ()


def test_reply_can_replace_body_and_headers(receiver):
    """A reply's body and headers stand in the place of the usual ones, in whatever case they are written."""
    receiver.script(Reply(200, body=b"<html>", headers={"content-type": "text/html", "X-Odd": "1"}))
    with dial(receiver) as connection:
        connection.sendall(raw(Connection="close"))
        head, body = read_all(connection).split(b"\r\n\r\n")
    assert body == b"<html>"
    assert sorted(head.split(b"\r\n")) == [
        b"Connection: close",
        b"Content-Length: 6",
        b"HTTP/1.1 200 OK",
        b"X-Odd: 1",
        b"content-type: text/html",
    ]


@pytest.mark.parametrize("status", [204, 304])
def test_bodiless_statuses_have_no_body(receiver, status):
    """A 204 and a 304 carry no body, and so the connection stays usable."""
    receiver.script(Reply(status))
    with connect(receiver) as connection:
        answer = post(receiver, connection=connection)
        assert (answer.status, answer.body, answer.headers) == (status, b"", {})
        assert post(receiver, connection=connection).status == 200
    assert receiver.connections == 1


def test_status_unknown_to_python_is_answered(receiver):
    """A load balancer's own status is sent like any other."""
    receiver.script(Reply(460, close=True))
    with dial(receiver) as connection:
        connection.sendall(raw())
        assert read_all(connection).startswith(b"HTTP/1.1 460 Unnamed\r\n")


@pytest.mark.parametrize(("options", "stored"), [({"status": 500, "store": True}, True), ({"store": False}, False)])
def test_store_overrules_the_status(receiver, options, stored):
    """`store` decides whether the messages are kept, whatever the status says."""
    receiver.script(Reply(**options))
    post(receiver)
    assert (receiver.requests[0].stored, len(receiver.messages)) == (stored, int(stored))


def test_faulty_batch_is_never_stored(receiver):
    """A scripted success answers a faulty batch too, but does not hide it."""
    receiver.script(Reply(200, store=True))
    assert post(receiver, [track(event="")]).status == 200
    assert (receiver.messages, receiver.faults) == ((), ("request 1: message[0]: event is empty",))


@pytest.mark.parametrize("wrong", [{"status": 199}, {"status": 1000}, {"reset": "during"}])
def test_impossible_reply_is_refused(wrong):
    """A reply that cannot be given is an error where it is made."""
    with pytest.raises(ValueError, match="must be"):
        Reply(**wrong)


@pytest.mark.parametrize(("when", "stored"), [("before", ()), ("after", (track(),))])
def test_reset_ends_the_connection_without_an_answer(receiver, when, stored, capfd):
    """The client sees a reset, before or after its messages were stored, and the receiver lives on in silence."""
    receiver.script(Reply(reset=when))
    with dial(receiver) as connection:
        connection.sendall(raw())
        with pytest.raises(ConnectionResetError):
            connection.recv(1)
    assert receiver.messages == stored
    assert (receiver.requests[0].status, receiver.faults) == (None, ())
    assert post(receiver).status == 200
    assert capfd.readouterr() == ("", "")


def test_hang_ends_with_stop(receiver):
    """A hanging request is recorded, neither answered nor stored, and ends when the receiver is stopped."""
    receiver.script(Reply(hang=True))
    with dial(receiver) as connection:
        connection.sendall(raw())
        assert receiver.wait_for(lambda r: r.requests)
        assert (receiver.requests[0].status, receiver.messages) == (None, ())
        assert post(receiver).status == 200
        stop_in_time(receiver)
        assert read_all(connection) == b""


def test_drip_sends_the_answer_byte_by_byte(receiver):
    """Every byte of a dripping answer, the status line's too, takes its time."""
    receiver.script(Reply(200, drip=0.002))
    with dial(receiver) as connection:
        start = time.monotonic()
        connection.sendall(raw(Connection="close"))
        answer = read_all(connection)
        elapsed = time.monotonic() - start
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(SUCCESS)
    assert elapsed >= len(answer) * 0.002


@pytest.mark.parametrize(("options", "sent"), [({"drip": 600.0}, b"H"), ({"delay": 600.0}, b"")])
def test_slow_replies_end_with_stop(receiver, options, sent):
    """A stop interrupts a delay and a drip."""
    receiver.script(Reply(**options))
    with dial(receiver) as connection:
        connection.sendall(raw())
        assert receiver.wait_for(lambda r: r.messages)
        started = connection.recv(1) if sent else b""
        stop_in_time(receiver)
        assert started + read_all(connection) == sent


def test_delay_comes_before_the_answer(receiver):
    """A delayed answer comes after its delay."""
    receiver.script(Reply(delay=0.1))
    start = time.monotonic()
    assert post(receiver).status == 200
    assert time.monotonic() - start >= 0.1


def test_latency_holds_for_normal_answers_only():
    """Normal answers take the receiver's latency; scripted ones have their own delay."""
    with Receiver(api_token=TOKEN, latency=0.3) as receiver:
        receiver.script(Reply(200))
        start = time.monotonic()
        post(receiver)
        scripted = time.monotonic() - start
        post(receiver)
        assert scripted < 0.3 <= time.monotonic() - start - scripted


def test_close_is_announced_and_done(receiver):
    """`close` says so in the answer, and the connection ends."""
    receiver.script(Reply(200, close=True))
    with dial(receiver) as connection:
        connection.sendall(raw())
        answer = read_all(connection)
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(SUCCESS)


def test_drop_idle_leaves_the_client_a_stale_connection(receiver):
    """`drop_idle` gives a complete keep-alive answer, and then the connection is gone without a word."""
    receiver.script(Reply(200, drop_idle=True))
    with dial(receiver) as connection:
        connection.sendall(raw())
        answer = read_all(connection)
    assert b"connection: close" not in answer.lower()
    assert answer.endswith(SUCCESS)
    assert receiver.messages == (track(),)


def test_client_that_asks_for_a_close_gets_one(receiver):
    """A request with `Connection: close` is answered alike."""
    with dial(receiver) as connection:
        connection.sendall(raw(Connection="close"))
        assert b"\r\nConnection: close\r\n" in read_all(connection)


# --- Decided answers ------------------------------------------------------------------------------------------------


def test_decide_answers_by_the_messages(receiver):
    """`decide` sees the messages of every faultless request for which no script is left, and None means normal."""
    seen = []

    def decide(messages):
        seen.append([message["messageId"] for message in messages])
        return Reply(422) if any(message["event"] == "bad" for message in messages) else None

    receiver.decide = decide
    receiver.script(Reply(500))
    batches = [track(0)], [track(1), track(2, event="bad")], [track(3)], [track(4, event="")]
    assert [post(receiver, batch).status for batch in batches] == [500, 422, 200, 400]
    assert seen == [["m1", "m2"], ["m3"]]
    assert receiver.messages == (track(3),)


def test_decide_runs_under_no_lock(receiver):
    """Two requests can be decided at the same moment."""
    both = threading.Barrier(2, timeout=10)

    def decide(_):
        both.wait()

    receiver.decide = decide
    with ThreadPoolExecutor(2) as pool:
        assert [answer.status for answer in pool.map(post, [receiver] * 2)] == [200, 200]


def test_failing_decide_is_printed(receiver, capfd):
    """An error in a test's own `decide` is not swallowed."""
    receiver.decide = lambda messages: messages[0]["no such field"]
    with dial(receiver) as connection:
        connection.sendall(raw())
        assert read_all(connection) == b""
    assert "KeyError: 'no such field'" in capfd.readouterr().err


# --- Waiting, starting, stopping ------------------------------------------------------------------------------------


def test_wait_for_says_whether_it_came_true(receiver):
    """A wait ends with its time, or with the request that makes it true."""
    assert not receiver.wait_for(lambda r: r.messages, timeout=0.01)
    looked = threading.Event()

    def predicate(r):
        looked.set()
        return len(r.messages) == 2

    with connect(receiver) as connection, ThreadPoolExecutor(1) as pool:
        post(receiver, [track(1)], connection=connection)
        waiting = pool.submit(receiver.wait_for, predicate)
        assert looked.wait(5)
        post(receiver, [track(2)], connection=connection)
        assert waiting.result(timeout=5)


def test_wait_for_is_woken_by_a_connection(receiver):
    """A connection without a request ends a wait for it."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(receiver.wait_for, lambda r: r.connections == 1, 60)
        with dial(receiver):
            assert waiting.result(timeout=5)


def test_predicate_runs_under_no_lock(receiver):
    """A predicate may itself wait for a request to be answered."""
    assert receiver.wait_for(lambda r: post(r).status == 200)


def test_predicate_that_is_busy_cannot_outlast_the_time(receiver):
    """Requests that never make it true do not prolong a wait."""
    start = time.monotonic()
    assert not receiver.wait_for(lambda r: post(r).status == 500, timeout=0.1)
    assert time.monotonic() - start < 5


def test_stop_closes_idle_connections_and_keeps_the_records(receiver):
    """A stop ends idle and half-sent requests at once, can be repeated, and what came in stays readable."""
    with connect(receiver) as idle, dial(receiver) as half:
        post(receiver, connection=idle)
        half.sendall(raw()[:50])
        assert receiver.wait_for(lambda r: r.connections == 2)
        stop_in_time(receiver)
        assert idle.sock.recv(1) == b""
        assert half.recv(1) == b""
    receiver.stop()
    assert receiver.messages == (track(),)
    with pytest.raises(ConnectionRefusedError):
        dial(receiver)


def test_stop_waits_for_what_is_about_to_end(receiver):
    """A handler that needs a moment more is done when `stop` returns."""
    entered, never, done = threading.Event(), threading.Event(), threading.Event()

    def decide(_):
        entered.set()
        never.wait(0.1)
        done.set()

    receiver.decide = decide
    with dial(receiver) as connection:
        connection.sendall(raw())
        assert entered.wait(5)
        receiver.stop()
        assert done.is_set()


def test_answers_are_not_held_back(receiver):
    """The sockets send small answers at once, without Nagle's algorithm."""
    with connect(receiver) as connection:
        post(receiver, connection=connection)
        (served,) = receiver._server._open
        assert served.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_receiver_starts_once_and_has_a_url_only_then():
    """There is no URL before the start, and no second start."""
    receiver = Receiver(api_token=TOKEN)
    with pytest.raises(RuntimeError, match="URL"):
        _ = receiver.url
    receiver.stop()
    receiver.start()
    try:
        with pytest.raises(RuntimeError, match="once"):
            receiver.start()
        assert post(receiver).status == 200
    finally:
        receiver.stop()


def test_port_can_be_chosen_and_is_exclusive(receiver):
    """A port in use is an error, and one just left can be taken at once."""
    port = urlsplit(receiver.url).port
    with pytest.raises(OSError, match=r"in use|only one usage"):
        Receiver(api_token=TOKEN, port=port).start()
    with connect(receiver) as connection:
        post(receiver, connection=connection)
        receiver.stop()
    with Receiver(api_token=TOKEN, port=port) as second:
        assert second.url == receiver.url
        # A second stop of the first one must not touch what is on its port now.
        receiver.stop()
        assert post(second).status == 200
        assert second.connections == 1


# --- TLS ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def secure(certificate):
    """A running receiver with TLS."""
    with Receiver(api_token=TOKEN, tls=certificate) as running:
        yield running


@pytest.fixture
def trust(certificate):
    """A client's context that trusts the certificate."""
    return ssl.create_default_context(cafile=certificate[0])


def test_tls_serves_https(secure, trust):
    """The certificate is shown, verified, and requests share the connection."""
    assert secure.url.startswith("https://127.0.0.1:")
    with connect(secure, trust) as connection:
        assert [post(secure, connection=connection).status for _ in range(2)] == [200, 200]
    assert (secure.connections, secure.faults, len(secure.messages)) == (1, (), 2)


def test_silent_and_foreign_clients_do_not_hold_up_tls(secure, trust, capfd):
    """Neither a client that says nothing, nor one without TLS, nor one without trust disturbs another."""
    with dial(secure), dial(secure) as plain, connect(secure, ssl.create_default_context()) as doubting:
        plain.sendall(raw())
        with pytest.raises(ssl.SSLCertVerificationError):
            post(secure, connection=doubting)
        with connect(secure, trust) as connection:
            assert post(secure, connection=connection).status == 200
        stop_in_time(secure)
    assert (secure.connections, len(secure.requests)) == (4, 1)
    assert capfd.readouterr() == ("", "")


def tls_dial(receiver, context):
    """A TLS connection, to be closed, to which a stream without a proper end is an error."""
    address = urlsplit(receiver.url)
    return context.wrap_socket(dial(receiver), server_hostname=address.hostname, suppress_ragged_eofs=False)


def test_tls_connection_is_closed_properly(secure, trust):
    """A close under TLS is announced, and the TCP connection goes without waiting for the client."""
    secure.script(Reply(drop_idle=True))
    with tls_dial(secure, trust) as connection:
        connection.sendall(raw())
        assert read_all(connection).endswith(SUCCESS)
        assert socket.socket.recv(connection, 1) == b""


def test_tls_connection_is_reset(secure, trust):
    """A reset is an error under TLS too."""
    secure.script(Reply(reset="after"))
    with tls_dial(secure, trust) as connection:
        connection.sendall(raw())
        # Python before 3.11.9 and 3.12.3 calls a reset an EOF.
        with pytest.raises((ConnectionResetError, ssl.SSLEOFError)):
            read_all(connection)
    assert secure.messages == (track(),)


def test_stop_releases_hanging_tls(secure, trust):
    """A stop ends a hanging TLS connection."""
    secure.script(Reply(hang=True))
    with tls_dial(secure, trust) as connection:
        connection.sendall(raw())
        assert secure.wait_for(lambda r: r.requests)
        stop_in_time(secure)
        # Whether there is still time for a proper end is open.
        with suppress(ssl.SSLEOFError):
            assert read_all(connection) == b""


# --- Other vendors, other ways in -----------------------------------------------------------------------------------


class Lines:
    """A made-up vendor that takes lines of text."""

    path = "/lines"
    success = b"ok"

    def authorize(self, headers):
        """Ask for the key."""
        return [] if headers.get("x-key") == "k" else ["X-Key is wrong"]

    def judge(self, headers, body):
        """Take text."""
        lines = [{"line": line} for line in body.decode().splitlines()]
        return lines, [] if headers.get("content-type") == "text/plain" else ["not text"]

    def key(self, message):
        """A line is its own id."""
        return "line", message["line"]


def test_wire_makes_it_another_vendor():
    """Path, credentials, judgement, success body and identity are all the wire's."""
    headers = {"X-Key": "k", "Content-Type": "text/plain"}
    with Receiver(Lines()) as receiver:
        answer = post(receiver, b"a\nb\na", path="/lines", headers=headers)
        assert (answer.status, answer.body) == (200, b"ok")
        assert post(receiver, b"a", path="/lines", headers=headers | {"X-Key": "other"}).status == 401
        assert post(receiver, b"a", path="/lines", headers={"X-Key": "k"}).status == 400
        assert post(receiver).status == 404
        report = receiver.report()
    assert (report.messages, report.unique_messages, report.by_kind) == (3, 2, {"line": 2})


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl-C to one process")
def test_command_serves_and_tells_of_each_request():
    """`python -m analytics_batcher.receiver` prints a line for each request and ends in silence at Ctrl-C."""
    command = [sys.executable, "-m", "analytics_batcher.receiver", "--token", TOKEN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("listening on http://127.0.0.1:")
            port = urlsplit(line.split()[-1]).port
            for body in (ONE, b"{}"):
                with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
                    post(None, body, connection=connection)
            assert process.stdout.readline() == "1: 1 messages, status 200, no faults\n"
            assert process.stdout.readline() == "2: 0 messages, status 400, the body is not an array\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=10) == ("", "")
            assert process.returncode == 0
        finally:
            process.kill()


def test_receiver_needs_the_standard_library_only():
    """Importing the receiver loads no other package, and no other part of this one."""
    code = (
        "import sys, analytics_batcher; before = set(sys.modules); import analytics_batcher.receiver;"
        "print(*{name for name in set(sys.modules) - before if name.split('.')[0] not in sys.stdlib_module_names"
        " and not name.startswith('analytics_batcher.receiver')})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# --- The judgement against the schema -------------------------------------------------------------------------------

FORMATS = Draft202012Validator.FORMAT_CHECKER
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=FORMATS)
WIRE = Vitally(TOKEN)
WIRE_HEADERS = {"content-type": "application/json"}

FIELDS = [
    "type", "messageId", "timestamp", "userId", "accountId", "organizationId", "externalId", "customObjectId", "name",
    "event", "properties", "traits", "other",
]  # fmt: skip
KINDS = ["organization", "account", "user", "track", "customobjectinstance", "unlink"]

texts = st.text(max_size=4)
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values = scalars | st.lists(scalars, max_size=2) | st.dictionaries(texts, scalars, max_size=2)
ids = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(min_size=1, max_size=4)
objects = st.dictionaries(texts, values, max_size=2)
moments = st.datetimes(timezones=st.timezones() | st.none()).map(datetime.isoformat) | st.from_regex(
    r"(0000|2000|2023)-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{0,7})?(Z|[+-][0-2][0-9]:[0-6][0-9])?",
    fullmatch=True,
)
good_moments = st.datetimes(timezones=st.just(timezone.utc)).map(
    lambda moment: moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
)


@st.composite
def good_messages(draw):
    """Messages that keep every rule, with fields that other types have."""
    common = {"messageId": ids, "timestamp": good_moments, "userId": ids, "accountId": ids, "organizationId": ids}
    own = {
        "externalId": ids,
        "customObjectId": st.text(min_size=1, max_size=4),
        "event": st.text(min_size=1, max_size=4),
    }
    rest = {"name": texts, "properties": objects, "traits": objects, "other": values}
    return {"type": draw(st.sampled_from(KINDS)), **draw(st.fixed_dictionaries(common | own | rest))}


@st.composite
def changed_messages(draw):
    """Good messages of which some fields were taken away or replaced, or something else altogether."""
    if draw(st.integers(0, 20)) == 0:
        return draw(values)
    message = draw(good_messages())
    for field in draw(st.lists(st.sampled_from(FIELDS), max_size=4)):
        message.pop(field, None)
    if draw(st.booleans()):
        field = draw(st.sampled_from(FIELDS))
        message[field] = draw(moments if field == "timestamp" else values)
    return message


def is_stricter(message):
    """Whether the receiver refuses on purpose what the schema lets pass; see `test_receiver_is_stricter`."""
    return isinstance(message, dict) and (message.get("messageId") == "" or message.get("customObjectId") == "")


def test_schema_checks_timestamps():
    """The comparison is worth something only if the schema's formats are checked: `jsonschema[format-nongpl]`."""
    assert "date-time" in FORMATS.checkers, "pip install 'jsonschema[format-nongpl]'"


@given(st.lists(good_messages(), min_size=1, max_size=3))
@settings(max_examples=50, deadline=None)
def test_good_batches_are_faultless(batch):
    """What keeps every rule is accepted by the schema and by the receiver, and read as it was written."""
    assert VALIDATOR.is_valid(batch)
    assert WIRE.judge(WIRE_HEADERS, json.dumps(batch).encode()) == (batch, [])


@given(st.lists(changed_messages(), max_size=2))
@settings(max_examples=300, deadline=None)
def test_judgement_agrees_with_the_schema(batch):
    """Receiver and schema find the same batches good."""
    assume(not any(map(is_stricter, batch)))
    _, faults = WIRE.judge(WIRE_HEADERS, json.dumps(batch).encode())
    assert (not faults) == VALIDATOR.is_valid(batch), faults


@given(moments)
@example("2000-01-01T24:00:00Z")
@example("2000-01-01T00:60:00Z")
@example("2000-01-01T00:00:60Z")
@example("2000-01-01T00:00:00+24:00")
@example("2000-01-01T00:00:00+01:60")
@example("2000-01-01T00:00:00.Z")
@example("2000-01-01T00:00:00.1234567Z")
@example("2000-01-01T00:00Z")
@example("20000101T000000Z")
@example("0000-01-01T00:00:00Z")
@example("\u0662000-01-01T00:00:00Z")
@settings(max_examples=300, deadline=None)
def test_timestamps_agree_with_the_schema(moment):
    """Receiver and schema find the same moments good, on every version of Python."""
    batch = [track(timestamp=moment)]
    _, faults = WIRE.judge(WIRE_HEADERS, json.dumps(batch).encode())
    assert (not faults) == VALIDATOR.is_valid(batch), faults


@pytest.mark.parametrize("kind", KINDS)
def test_presence_of_fields_agrees_with_the_schema(kind):
    """For every type and every choice of fields, receiver and schema agree."""
    names = "userId", "accountId", "organizationId", "externalId", "customObjectId", "event"
    fields = [*((name, "x") for name in names), ("properties", {}), ("traits", {})]
    good = 0
    for choice in chain.from_iterable(combinations(fields, count) for count in range(len(fields) + 1)):
        batch = [{"type": kind, "messageId": "m", **dict(choice)}]
        _, faults = WIRE.judge(WIRE_HEADERS, json.dumps(batch).encode())
        assert (not faults) == VALIDATOR.is_valid(batch), (batch, faults)
        good += not faults
    assert 0 < good < 256


@pytest.mark.parametrize("kind", KINDS)
def test_values_of_fields_agree_with_the_schema(kind):
    """For every type and field, receiver and schema agree on a value of every JSON type, empty ones too."""
    full = {"type": kind, "messageId": "m", "timestamp": NOW, "event": "e", "properties": {}, "traits": {}}
    full |= dict.fromkeys(("userId", "accountId", "organizationId", "externalId", "customObjectId"), "x")
    for field, value in product(FIELDS, (None, True, 0, 1.5, "", "x", [], {})):
        batch = [full | {field: value}]
        _, faults = WIRE.judge(WIRE_HEADERS, json.dumps(batch).encode())
        if not is_stricter(batch[0]):
            assert (not faults) == VALIDATOR.is_valid(batch), (batch, faults)


@pytest.mark.parametrize("stamp", [{}, {"messageId": "m"}, {"timestamp": NOW}, {"messageId": "m", "timestamp": NOW}])
def test_need_of_a_stamp_agrees_with_the_schema(stamp):
    """Receiver and schema ask for a messageId or a timestamp."""
    batch = [{"type": "account", "accountId": "a"} | stamp]
    assert WIRE.judge(WIRE_HEADERS, json.dumps(batch).encode())[1] == (
        [] if stamp else ["message[0]: neither messageId nor timestamp is there"]
    )
    assert VALIDATOR.is_valid(batch) == bool(stamp)


@pytest.mark.parametrize(
    "message",
    [
        # An empty messageId would make all messages repeats of one; an empty customObjectId is no id.
        track(messageId=""),
        {**COI, "customObjectId": ""},
        # RFC 3339 allows small letters, the vendor's ISO 8601 examples have none; the checker overlooks a line's end.
        track(timestamp="2018-05-15t12:31:12Z"),
        track(timestamp="2018-05-15T12:31:12z"),
        track(timestamp="2018-05-15T12:31:12Z\n"),
    ],
)
def test_receiver_is_stricter(message):
    """These are refused on purpose, though the schema lets them pass; repeated keys and NaN are tested above."""
    assert VALIDATOR.is_valid([message])
    _, faults = WIRE.judge(WIRE_HEADERS, json.dumps([message]).encode())
    assert len(faults) == 1
