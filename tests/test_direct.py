"""The direct `batch()`: one request of the vendor's own form, now, in the calling thread."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from base64 import b64encode
from contextlib import contextmanager

import pytest
from conftest import TOKEN

from analytics_batcher import (
    AnalyticsError,
    BatchResult,
    Client,
    CustomerIO,
    InvalidResponse,
    Segment,
    TransportError,
    Vitally,
)
from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply, SegmentWire, VitallyWire

SITE, KEY, WRITE_KEY = "site-of-ours", "key-of-ours", "write-key-of-ours"
OPERATIONS = [
    {"type": "person", "action": "identify", "identifiers": {"id": "u"}, "attributes": {"plan": "Gold ✓ ünlimited"}},
    {"type": "person", "action": "event", "identifiers": {"id": "u"}, "name": "paid", "attributes": {"sum": 1.5}},
    {"type": "person", "action": "delete", "identifiers": {"id": "u"}},
]
UNLINK = {
    "type": "unlink",
    "userId": "u",
    "accountId": "a",
    "messageId": "m",
    "timestamp": "2026-01-02T03:04:05Z",
}
MAKERS = {
    "vitally": lambda url: Vitally(api_token=TOKEN, base_url=url),
    "customerio": lambda url: CustomerIO(SITE, KEY, base_url=url),
    "segment": lambda url: Segment(WRITE_KEY, base_url=url),
}


@pytest.fixture
def vendors():
    """All three vendors' stand-in."""
    with Receiver(wires=[VitallyWire(TOKEN), CustomerIOWire(SITE, KEY), SegmentWire(WRITE_KEY)]) as running:
        yield running


@pytest.fixture
def client_of(vendors):
    """Makes clients of one vendor, and shuts them down at the end."""
    clients = []

    def make(name, *, url=None, **options):
        clients.append(Client(MAKERS[name](url or vendors.url), **options))
        return clients[-1]

    yield make
    for client in clients:
        client.shutdown(0)


@contextmanager
def raw_server(answer):
    """A server of one connection: reads a request, answers, and then waits for the client to close."""
    seen = {}
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            connection, _ = listening.accept()
            connection.settimeout(10)
            with connection, connection.makefile("rb") as lines:
                length = 0
                while (line := lines.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                seen["body"] = lines.read(length)
                connection.sendall(answer)
                seen["closed"] = lines.read(1) == b""

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", thread, seen


# What is sent


def test_vitally_gets_the_bare_array(client_of, vendors):
    """The body is the array of the messages as they are: no envelope, and nothing added."""
    messages = [UNLINK, {**UNLINK, "messageId": "n"}]
    result = client_of("vitally").batch(messages)
    assert json.loads(vendors.requests[0].body) == messages
    assert vendors.requests[0].body.startswith(b'[{"type":"unlink","userId":"u"')
    assert result == BatchResult(200, json.loads(VitallyWire(TOKEN).success))
    assert vendors.faults == ()


def test_customerio_gets_its_own_envelope(client_of, vendors):
    """The body is `{"batch": operations}` exactly: event and identify get no id and no time."""
    result = client_of("customerio").batch(OPERATIONS)
    request = vendors.requests[0]
    expected = json.dumps({"batch": OPERATIONS}, ensure_ascii=False, separators=(",", ":"))
    assert request.body.decode() == expected
    assert (result.status, result.body, result.errors, bool(result)) == (200, {}, (), True)
    assert vendors.faults == ()


def test_segment_gets_its_own_envelope(client_of, vendors):
    """The messages go out as they are, in Segment's envelope with the moment of sending."""
    message = {"type": "track", "userId": "u", "event": "paid"}
    assert client_of("segment").batch([message])
    body = json.loads(vendors.requests[0].body)
    assert body.pop("sentAt").endswith("Z")
    assert body == {"batch": [message], "writeKey": WRITE_KEY}
    assert vendors.faults == ()


def test_one_call_is_one_request_and_the_messages_stay_as_they_are(client_of, vendors):
    """A call of 100 messages makes one request, in order, and changes nothing it was given."""
    messages = [{**UNLINK, "messageId": f"m{number}"} for number in range(100)]
    before = json.dumps(messages)
    assert client_of("vitally", batch_messages=3, batch_bytes=1_000).batch(messages), "the vendor's own limits hold"
    assert [len(request.messages) for request in vendors.requests] == [100]
    assert list(vendors.messages) == messages
    assert json.dumps(messages) == before


def test_hooks_of_the_queue_are_not_asked(client_of):
    """It is pass-through: `before_send`, `on_delivery` and `on_drop` have no part in it, `default` has."""
    told = []
    options = {"before_send": told.append, "on_delivery": told.append, "on_drop": told.append}
    client = client_of("vitally", default=lambda _: "mended", **options)
    track = {"type": "track", "userId": "u", "event": "e", "messageId": "m", "timestamp": UNLINK["timestamp"]}
    assert client.batch([{**track, "properties": {"odd": object()}}])
    with pytest.raises(ValueError, match="message"):
        client.batch([7])
    assert client.shutdown()
    assert told == []


def test_gzip_is_for_those_who_take_it(client_of, vendors):
    """With `gzip=True` Segment gets a compressed body."""
    message = {"type": "track", "userId": "u", "event": "paid"}
    assert client_of("segment", gzip=True).batch([message])
    assert vendors.requests[0].headers["content-encoding"] == "gzip"
    assert json.loads(gzip.decompress(vendors.requests[0].body))["batch"] == [message]


# What is refused before anything is sent


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize(
    "messages", [(), (UNLINK,), UNLINK, None, "[]", iter([UNLINK])], ids=lambda given: type(given).__name__
)
def test_what_is_no_list_is_a_type_error(client_of, vendors, name, messages):
    """Only a list is taken, and the error says what was given."""
    with pytest.raises(TypeError, match=f"list.*{type(messages).__name__}"):
        client_of(name).batch(messages)
    assert vendors.connections == 0


@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("messages", [[], [None], [UNLINK, "text"], [[UNLINK]]], ids=repr)
def test_a_list_of_nothing_or_of_no_messages_is_a_value_error(client_of, vendors, name, messages):
    """An empty list, and what is no dict in it, are refused before anything is sent."""
    with pytest.raises(ValueError, match="message"):
        client_of(name).batch(messages)
    assert vendors.connections == 0


@pytest.mark.parametrize(
    ("name", "most", "message"), [("vitally", 100, UNLINK), ("segment", 2_500, {"type": "track", "userId": "u"})]
)
def test_more_messages_than_the_vendor_takes(client_of, vendors, name, most, message):
    """One message over the vendor's number is refused before anything is sent."""
    with pytest.raises(ValueError, match=f"{most + 1}.*{most}"):
        client_of(name).batch([message] * (most + 1))
    assert vendors.connections == 0


def padded(size, message):
    """A message of exactly so many bytes of JSON."""
    padding = size - len(json.dumps({**message, "pad": ""}, separators=(",", ":")))
    return {**message, "pad": "x" * padding}


@pytest.mark.parametrize(("name", "most"), [("vitally", 32_768), ("customerio", 32_000), ("segment", 32_000)])
def test_a_message_larger_than_the_vendor_takes(client_of, vendors, name, most):
    """The limit of a message is exact: a message of that size is sent, one of a byte more is refused unsent."""
    client = client_of(name)
    vendors.script(Reply(body=b"{}"))
    assert client.batch([padded(most, UNLINK)])
    with pytest.raises(ValueError, match=f"message 1 .*{most + 1}.*{most}"):
        client.batch([UNLINK, padded(most + 1, UNLINK)])
    assert len(vendors.requests) == 1


@pytest.mark.parametrize("name", MAKERS)
def test_a_body_larger_than_the_vendor_takes(client_of, vendors, name):
    """The limit of a body is exact, envelope and commas included; a byte more is refused unsent."""
    client = client_of(name)
    vendors.script(Reply(body=b"{}"))
    client.batch([UNLINK])
    envelope = len(vendors.requests[0].body) - len(json.dumps(UNLINK, separators=(",", ":")))
    full = [padded(31_000, UNLINK)] * 16
    room = 500_000 - envelope - len(full) - 16 * 31_000
    vendors.script(Reply(body=b"{}"))
    assert client.batch([*full, padded(room, UNLINK)])
    assert vendors.requests[1].size == 500_000
    with pytest.raises(ValueError, match="500001"):
        client.batch([*full, padded(room + 1, UNLINK)])
    assert len(vendors.requests) == 2


def test_limits_count_bytes_as_they_are_sent(client_of, vendors):
    """Multi-byte and escaped characters count as what they are on the wire."""
    with pytest.raises(ValueError, match="bytes"):
        client_of("customerio").batch([{**OPERATIONS[1], "name": "✓" * 11_000}])
    with pytest.raises(ValueError, match="bytes"):
        client_of("customerio").batch([{**OPERATIONS[1], "name": "\x00" * 6_000}])
    assert vendors.connections == 0


def test_with_several_destinations_one_is_named(vendors):
    """`to` says which; without it, or with a wrong one, it is a `ValueError`, and nobody gets anything."""
    with Client([make(vendors.url) for make in MAKERS.values()]) as client:
        for to in (None, "", "mixpanel"):
            with pytest.raises(ValueError, match="'vitally' or 'customerio' or 'segment'"):
                client.batch(OPERATIONS, to=to)
        assert vendors.connections == 0
        assert client.batch(OPERATIONS, to="customerio")
        assert client.batch([UNLINK], to="vitally")
    assert [request.wire for request in vendors.requests] == ["customerio", "vitally"]
    assert vendors.faults == ()


# What comes back


def test_a_207_is_no_success(client_of, vendors):
    """The vendor's errors come back as they are, with their indexes, and the result is falsy."""
    vendors.script(Reply(partial={1: "name: is odd"}))
    result = client_of("customerio").batch(OPERATIONS)
    error = {"batch_index": 1, "reason": "invalid", "field": "name", "message": "is odd"}
    assert (result.status, result.errors, result.body) == (207, (error,), {"errors": [error]})
    assert not result
    assert len(vendors.messages) == 2


@pytest.mark.parametrize("errors", [b"[]", b"null", b'"none"'])
def test_a_207_without_errors_is_a_success(client_of, vendors, errors):
    """What decides is what the answer lists, not its number."""
    vendors.script(Reply(207, body=b'{"errors":%b}' % errors))
    result = client_of("customerio").batch(OPERATIONS)
    assert (result.status, result.errors) == (207, ())
    assert result


def test_a_207_too_long_to_read_is_no_success(client_of, vendors):
    """Thousands of errors, more than is read of an answer, do not turn into none."""
    message = "is no valid operation, for a reason that takes its time"
    errors = [{"batch_index": n, "reason": "invalid", "field": "name", "message": message} for n in range(2_000)]
    vendors.script(Reply(207, body=json.dumps({"errors": errors}).encode()))
    result = client_of("customerio").batch([OPERATIONS[1]] * 2_000)
    assert result.status == 207
    assert not result


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"", ""), (b"OK", "OK"), (b"{}", {}), (b"[1]", [1]), (b"\xff", "\ufffd"), (b"<html>Log in", "<html>Log in")],
    ids=repr,
)
def test_any_2xx_comes_back_with_its_body(client_of, vendors, body, expected):
    """The body is what JSON it is, else its text; if it cannot be the vendor's, the result is no success."""
    vendors.script(Reply(202, body=body))
    result = client_of("vitally").batch([UNLINK])
    assert (result.status, result.body) == (202, expected)
    assert bool(result) is (body in {b"", b"{}"})
    assert bool(result.errors) is not bool(result)


@pytest.mark.parametrize("status", [302, 307, 400, 401, 403, 404, 413, 429, 500, 503])
def test_another_status_is_an_invalid_response(client_of, vendors, status):
    """It carries status and body, is one of this package's errors, and there is one attempt: no redirect, no retry."""
    headers = {"Location": f"{vendors.url}/elsewhere", "Retry-After": "0"}
    vendors.script(Reply(status, body=b'{"error":"so it is"}', headers=headers))
    with pytest.raises(InvalidResponse) as caught:
        client_of("vitally").batch([UNLINK])
    error = caught.value
    assert (error.status, error.body) == (status, '{"error":"so it is"}')
    assert isinstance(error, AnalyticsError)
    assert str(status) in str(error)
    assert len(vendors.requests) == 1


@pytest.mark.parametrize("body", [b"x" * 5_000, b"\n" * 5_000, "✓".encode() * 5_000, b"\xff" * 5_000, b"x" * 1_001])
def test_the_body_of_an_error_is_cut(client_of, vendors, body):
    """At most 1,000 characters of it are kept, escaped ones too, and what can forge a log line is escaped."""
    vendors.script(Reply(400, body=body))
    with pytest.raises(InvalidResponse) as caught:
        client_of("vitally").batch([UNLINK])
    assert 900 <= len(caught.value.body) <= 1_000
    assert caught.value.body.isprintable()


def test_a_body_of_1000_characters_is_kept_whole(client_of, vendors):
    """Nothing is cut that need not be."""
    vendors.script(Reply(400, body=b"x" * 1_000))
    with pytest.raises(InvalidResponse) as caught:
        client_of("vitally").batch([UNLINK])
    assert caught.value.body == "x" * 1_000


@pytest.mark.parametrize(
    ("name", "secrets"),
    [
        ("vitally", [TOKEN]),
        ("customerio", [KEY, b64encode(f"{SITE}:{KEY}".encode()).decode()]),
        ("segment", [WRITE_KEY, b64encode(f"{WRITE_KEY}:".encode()).decode()]),
    ],
)
def test_a_server_that_repeats_a_secret(client_of, vendors, name, secrets):
    """Secrets in an error's body are masked, in any case of letters; the rest stays."""
    said = "; ".join(f"no such key: {secret}, {secret.upper()}" for secret in secrets)
    vendors.script(Reply(401, body=said.encode()))
    with pytest.raises(InvalidResponse) as caught:
        client_of(name).batch([UNLINK])
    shown = f"{caught.value} {caught.value!r} {caught.value.body}".lower()
    assert not any(secret.lower() in shown for secret in secrets)
    assert caught.value.body.startswith("no such key: ")


# No answer


def test_nobody_there_is_a_transport_error(client_of):
    """Where nothing listens, the error says what failed."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with pytest.raises(TransportError) as caught:
        client_of("vitally", url=url).batch([UNLINK])
    assert caught.value.kind == "connect"
    assert isinstance(caught.value, AnalyticsError)


@pytest.mark.parametrize("reply", [Reply(hang=True), Reply(drip=0.1)], ids=["hangs", "drips"])
def test_a_server_that_never_answers_is_a_transport_error(client_of, vendors, reply):
    """The client's `timeout` bounds the whole request."""
    vendors.script(reply)
    begun = time.monotonic()
    with pytest.raises(TransportError) as caught:
        client_of("vitally", timeout=0.3).batch([UNLINK])
    assert 0.2 < time.monotonic() - begun < 0.9
    assert caught.value.kind == "timeout"
    assert len(vendors.requests) == 1


@pytest.mark.parametrize("reset", ["before", "after"])
def test_a_broken_connection_is_a_transport_error(client_of, vendors, reset):
    """A reset costs the one attempt, as it may have been taken."""
    vendors.script(Reply(reset=reset))
    with pytest.raises(TransportError) as caught:
        client_of("vitally").batch([UNLINK])
    assert caught.value.kind == "reset"
    assert len(vendors.requests) == 1


# Beside the queue


def test_each_call_has_a_connection_of_its_own_and_closes_it(client_of):
    """The connection ends with the call, though the server would keep it, and the queue's is not used."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    with raw_server(answer) as (url, thread, seen):
        assert client_of("vitally", url=url).batch([UNLINK])
        thread.join(5)
    assert seen == {"body": json.dumps([UNLINK], separators=(",", ":")).encode(), "closed": True}


def test_the_connection_is_closed_after_an_error_too(client_of):
    """An answer that is an error leaves no connection open."""
    answer = b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}"
    with raw_server(answer) as (url, thread, seen):
        with pytest.raises(InvalidResponse) as caught:
            client_of("vitally", url=url).batch([UNLINK])
        thread.join(5)
        # While the error's traceback lives, no collector closes anything.
        assert seen.get("closed")
    assert caught.value.status == 500


def test_it_is_outside_the_figures(client_of, vendors):
    """Neither success nor failure changes any figure, or what a flush tells; the queue has another connection."""
    client = client_of("vitally")
    assert client.unlink("u", "a")
    assert client.flush()
    before = client.stats()
    assert client.batch([UNLINK])
    vendors.script(Reply(500))
    with pytest.raises(InvalidResponse):
        client.batch([UNLINK])
    assert client.stats() == before
    assert client.flush().delivered == 0
    assert vendors.connections == 3
    assert [request.connection for request in vendors.requests] == [1, 2, 3]


def test_it_starts_no_thread_and_runs_in_the_calling_one(client_of):
    """The call is synchronous: no consumer comes to life for it."""
    before = threading.enumerate()
    client = client_of("vitally", default=lambda _: threading.current_thread().name)
    with pytest.raises(InvalidResponse):
        client.batch([{"odd": object()}])
    names = {thread.name for thread in threading.enumerate() if thread not in before}
    assert not {name for name in names if name.startswith("analytics-batcher:")}


def test_a_closed_client_can_still_do_it(client_of, vendors):
    """After `shutdown`, where calls are refused, a direct batch goes out."""
    client = client_of("vitally")
    assert client.shutdown()
    assert client.unlink("u", "a") is False
    assert client.batch([UNLINK])
    assert list(vendors.messages) == [UNLINK]


def test_a_halted_queue_does_not_hold_it_up(client_of, vendors):
    """What the queue waits for is no matter to a direct batch."""
    vendors.script(Reply(429, headers={"Retry-After": "60"}))
    client = client_of("vitally", flush_interval=0)
    assert client.unlink("u", "a")
    assert vendors.wait_for(lambda r: r.requests)
    assert client.batch([UNLINK])
    assert client.stats().pending == 1


def test_a_disabled_client_sends_no_batch(vendors):
    """`enabled=False` holds for the direct batch too: nothing is sent, and the result is no success."""
    client = Client(Vitally(api_token="sesame", base_url=vendors.url), enabled=False)
    result = client.batch([UNLINK])
    assert not result
    assert not vendors.requests
