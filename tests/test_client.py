"""The client as an application sees it, over real connections to the local receiver."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
import time
import traceback
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pytest
from conftest import TOKEN, balanced

from analytics_batcher import (
    AnalyticsError,
    Client,
    ClientClosed,
    DropReason,
    InvalidMessage,
    MessageTooLarge,
    QueueFull,
    Retry,
    Vitally,
)
from analytics_batcher.receiver import Reply

FAST = Retry(base=0.01, cap=0.02)


def test_every_call_arrives_in_vitallys_form(make_client, receiver):
    """Each call makes the message of its kind, with every field that was given and an id and a time."""
    client = make_client()
    assert client.organization("o1", {"name": "World Cup"})
    assert client.account("a1", {"name": "Argentina"}, organization_id="o1")
    assert client.account("a2")
    assert client.identify("u1", {"email": "m@example.com"}, account_id="a1", organization_id="o1")
    assert client.identify("u2", account_id="a1")
    assert client.track("u1", "scored-goal", {"minute": 14}, account_id="a1")
    assert client.track(None, "renewed", account_id="a1")
    assert client.custom_object("c1", "2a3a47e7-459e-440e-b9d3-9fc1b11f233e", {"v": 1}, name="Q1", account_id="a1")
    assert client.unlink("u1", "a1")
    assert client.flush()
    stamped = {"messageId", "timestamp"}
    assert [{k: v for k, v in message.items() if k not in stamped} for message in receiver.messages] == [
        {"type": "organization", "organizationId": "o1", "traits": {"name": "World Cup"}},
        {"type": "account", "accountId": "a1", "organizationId": "o1", "traits": {"name": "Argentina"}},
        {"type": "account", "accountId": "a2"},
        {
            "type": "user",
            "userId": "u1",
            "traits": {"email": "m@example.com"},
            "accountId": "a1",
            "organizationId": "o1",
        },
        {"type": "user", "userId": "u2", "traits": {}, "accountId": "a1"},
        {"type": "track", "userId": "u1", "event": "scored-goal", "properties": {"minute": 14}, "accountId": "a1"},
        {"type": "track", "event": "renewed", "properties": {}, "accountId": "a1"},
        {
            "type": "customobjectinstance",
            "externalId": "c1",
            "customObjectId": "2a3a47e7-459e-440e-b9d3-9fc1b11f233e",
            "traits": {"v": 1},
            "name": "Q1",
            "accountId": "a1",
        },
        {"type": "unlink", "userId": "u1", "accountId": "a1"},
    ]
    assert all(stamped <= message.keys() for message in receiver.messages)
    assert not receiver.faults


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.identify("u1"),
        lambda c: c.identify(None, account_id="a1"),
        lambda c: c.identify("u1", "traits", account_id="a1"),
        lambda c: c.identify("", account_id="a1"),
        lambda c: c.track(None, "e"),
        lambda c: c.track("u1", ""),
        lambda c: c.track("u1", None),
        lambda c: c.track("u1", 3),
        lambda c: c.track(True, "e"),
        lambda c: c.track(1.5, "e"),
        lambda c: c.track("u1", "e", ["not", "a", "mapping"]),
        lambda c: c.track("u1", "e", timestamp="yesterday"),
        lambda c: c.track("u1", "e", timestamp=1_767_323_045_678),
        lambda c: c.track("u1", "e", timestamp=True),
        lambda c: c.track("u1", "e", timestamp=float("nan")),
        lambda c: c.track("u1", "e", message_id=""),
        lambda c: c.track("u1", "e", message_id="x" * 100),
        lambda c: c.track("u1", "e", message_id=7),
        lambda c: c.account(None),
        lambda c: c.account(""),
        lambda c: c.account("a1", 7),
        lambda c: c.organization(None),
        lambda c: c.unlink("u1", None),
        lambda c: c.unlink(None, "a1"),
        lambda c: c.custom_object(None, "k", account_id="a1"),
        lambda c: c.custom_object("c1", None, account_id="a1"),
        lambda c: c.custom_object("c1", "k"),
        lambda c: c.custom_object("c1", "k", name=7, account_id="a1"),
        lambda c: c.enqueue(["no dict"]),
    ],
)
def test_what_vitally_would_refuse_is_a_counted_drop(make_client, receiver, call):
    """A field that breaks the vendor's rules is `invalid`: counted, or raised under `strict`; nothing is sent."""
    client = make_client()
    assert call(client) is False
    assert client.stats().dropped == {"invalid": 1}
    assert client.stats().tracked == 1
    with pytest.raises(InvalidMessage) as caught:
        call(make_client(strict=True))
    assert caught.value.reason is DropReason.INVALID
    assert not receiver.requests


def test_ids_may_be_numbers_and_uuids(make_client, receiver):
    """A whole number or a UUID becomes text."""
    uuid = UUID("2a3a47e7-459e-440e-b9d3-9fc1b11f233e")
    client = make_client()
    assert client.track(42, "e", account_id=uuid)
    assert client.flush()
    assert receiver.messages[0]["userId"] == "42"
    assert receiver.messages[0]["accountId"] == str(uuid)


def test_given_id_and_time_are_kept(make_client, receiver):
    """A given id goes out as it is, a given moment in UTC with milliseconds; the others are made."""
    client = make_client()
    moment = datetime(2018, 5, 15, 12, 31, 12, 123_000, tzinfo=timezone.utc)
    client.track("u", "1", message_id="mine", timestamp=moment)
    client.track("u", "2", timestamp=moment.timestamp())
    client.track("u", "3", timestamp="2018-05-15T14:31:12.123+02:00")
    client.track("u", "4", message_id="mine too")
    assert client.flush()
    assert [message["timestamp"] for message in receiver.messages[:3]] == ["2018-05-15T12:31:12.123Z"] * 3
    assert receiver.messages[0]["messageId"] == "mine"
    assert receiver.messages[3]["messageId"] == "mine too"
    assert UUID(receiver.messages[1]["messageId"]).version == 7


@pytest.mark.parametrize("content", [{"n": 1}, {"n": Decimal(1)}], ids=["plain", "to be mended"])
def test_a_given_id_and_time_are_checked_whatever_else_is_given(make_client, receiver, content):
    """An id or a time that is wrong is refused beside content of any kind, and right ones are sent as they are."""
    client = make_client(strict=True)
    moment = "2024-02-28T10:20:30Z"
    for given in (
        {"message_id": "x" * 100},
        {"message_id": ""},
        {"message_id": 5},
        {"timestamp": "2023-02-29T10:20:30Z"},
        {"timestamp": datetime(1969, 12, 31, tzinfo=timezone.utc)},
    ):
        with pytest.raises(InvalidMessage):
            client.track("u", "e", content, **{"message_id": "m", "timestamp": moment, **given})
    assert client.track("u", "e", content, message_id="x" * 99, timestamp=moment)
    assert client.track("u", "e", content, timestamp=datetime(2024, 2, 29, 1, tzinfo=timezone.utc))
    assert client.flush()
    one, two = receiver.messages
    assert (one["messageId"], one["timestamp"]) == ("x" * 99, "2024-02-28T10:20:30.000Z")
    assert (UUID(two["messageId"]).version, two["timestamp"]) == (7, "2024-02-29T01:00:00.000Z")
    assert one["properties"] == two["properties"] == {"n": 1}


def test_the_moment_is_the_calls(make_client, receiver):
    """The time on the wire is when the call was made, however late the message is sent."""
    client = make_client(background=False)
    before = time.time()
    client.track("u", "e")
    after = time.time()
    while time.time() < after + 0.2:
        pass
    assert client.flush()
    sent = datetime.fromisoformat(receiver.messages[0]["timestamp"].replace("Z", "+00:00")).timestamp()
    assert before - 0.001 <= sent <= after


def test_the_vendors_own_example_arrives_as_given(make_client, receiver):
    """Native messages with an id and a time pass through untouched."""
    example = json.loads((Path(__file__).parent / "data" / "vitally-batch.json").read_text())
    client = make_client()
    assert all(client.enqueue(message) for message in example)
    assert client.flush()
    assert list(receiver.messages) == example
    assert len(receiver.requests) == 1


def test_a_native_message_gets_a_missing_id_and_time(make_client, receiver):
    """What is missing is written, and nothing else is touched."""
    client = make_client()
    client.enqueue({"type": "unlink", "userId": "u", "accountId": "a", "messageId": "m"}, to="vitally")
    client.enqueue({"type": "unlink", "userId": "u", "accountId": "a", "timestamp": "2018-05-15T12:31:12.123Z"})
    assert client.flush()
    first, second = receiver.messages
    assert first["messageId"] == "m"
    assert "timestamp" in first
    assert UUID(second["messageId"])
    assert second["timestamp"] == "2018-05-15T12:31:12.123Z"


def test_odd_values_never_cost_the_event(make_client, receiver):
    """A value that JSON does not know is mended on the caller's thread."""
    client = make_client(default=lambda value: {"made": type(value).__name__})
    odd = {"price": Decimal("9.90"), "nan": float("nan"), "who": UUID(int=1), 3: "number key", "x": object()}
    assert client.track("u", "e", odd)
    assert client.flush()
    properties = receiver.messages[0]["properties"]
    assert properties == {
        "price": 9.9,
        "nan": None,
        "who": str(UUID(int=1)),
        "3": "number key",
        "x": {"made": "object"},
    }


def test_arguments_are_neither_kept_nor_changed(make_client, receiver):
    """Later mutation of what was given changes nothing, and the call changes nothing of it."""
    client = make_client(flush_interval=30)
    properties = {"a": {"b": [1, 2]}, "d": Decimal(1)}
    native = {"type": "unlink", "userId": "u", "accountId": "a"}
    before = copy.deepcopy((properties, native))
    client.track("u", "e", properties)
    client.enqueue(native)
    assert (properties, native) == before
    properties["a"]["b"].append(3)
    native["userId"] = "changed"
    assert client.flush()
    assert receiver.messages[0]["properties"]["a"] == {"b": [1, 2]}
    assert receiver.messages[1]["userId"] == "u"


@pytest.mark.parametrize("character", ["x", "\u00e9", "\u6f22"], ids=["1 byte", "2 bytes", "3 bytes"])
def test_a_message_over_the_limit_is_too_large(make_client, receiver, character):
    """The limit is exact, in bytes, id and time included, and `strict` raises."""
    client = make_client()
    assert client.track("u", "e", {"pad": ""})
    assert client.flush()
    overhead = len(receiver.requests[0].body) - len("[]")
    room = 32_768 - overhead
    most = character * (room // len(character.encode()))
    most += "x" * (room - len(most.encode()))
    assert client.track("u", "e", {"pad": most})
    assert not client.track("u", "e", {"pad": most + "x"})
    assert client.flush()
    assert client.stats().dropped == {"too_large": 1}
    assert len(receiver.requests[1].body) == 32_768 + len("[]")
    with pytest.raises(MessageTooLarge):
        make_client(strict=True, message_bytes=300).track("u", "e", {"pad": "x" * 300})


def test_a_disabled_client_does_nothing(make_client, receiver):
    """Every call returns False, nothing is counted or sent, and no thread starts."""
    client = make_client(enabled=False)
    before = threading.active_count()
    assert client.track("u", "e") is False
    assert client.enqueue({}) is False
    assert client.identify("u") is False
    assert client.flush()
    assert client.stats().tracked == 0
    assert threading.active_count() == before
    assert client.shutdown()
    assert not receiver.requests


def test_a_full_queue_refuses_the_newest(make_client, receiver):
    """`drop_newest`: what was accepted first is delivered, the rest is counted."""
    client = make_client(background=False, max_queue_messages=5)
    assert [client.track("u", str(n)) for n in range(8)] == [True] * 5 + [False] * 3
    assert client.flush()
    assert [message["event"] for message in receiver.messages] == list("01234")
    assert client.stats().dropped == {"queue_full": 3}
    assert balanced(client.stats())


def test_a_full_queue_gives_up_the_oldest(make_client, receiver):
    """`drop_oldest`: the last ones are delivered; the flush says that accepted messages were lost."""
    client = make_client(background=False, max_queue_messages=5, when_full="drop_oldest")
    assert all(client.track("u", str(n)) for n in range(8))
    result = client.flush()
    assert not result
    assert (result.lost, result.delivered, result.dropped) == (3, 5, {"queue_full": 3})
    assert [message["event"] for message in receiver.messages] == list("34567")
    assert balanced(client.stats())


def test_a_full_queue_blocks_for_a_while(make_client, receiver):
    """`block`: a call waits for room at most `block_timeout`, and is accepted when there is some."""
    receiver.script(Reply(delay=0.3))
    client = make_client(max_queue_messages=5, batch_messages=5, when_full="block", block_timeout=5, flush_interval=0)
    assert all(client.track("u", str(n)) for n in range(20))
    assert client.flush()
    assert sorted(int(message["event"]) for message in receiver.messages) == list(range(20))

    stuck = make_client(url="http://127.0.0.1:9", max_queue_messages=1, when_full="block", block_timeout=0.2)
    assert stuck.track("u", "fits")
    started = time.monotonic()
    assert stuck.track("u", "does not") is False
    assert 0.15 < time.monotonic() - started < 1.0
    assert stuck.stats().dropped == {"queue_full": 1}


def test_a_call_does_not_wait_for_room_that_can_never_be(make_client):
    """`block`: a message larger than the whole queue is refused at once, without turning on the spot for its time."""
    client = make_client(max_queue_bytes=5_000, when_full="block", block_timeout=30)
    started = time.monotonic()
    assert client.track("u", "e", {"pad": "x" * 10_000}) is False
    assert time.monotonic() - started < 1.0
    assert client.stats().dropped == {"queue_full": 1}


@pytest.mark.parametrize("strict", [False, True])
def test_a_full_queue_whose_thread_died_gets_another_one(receiver, monkeypatch, wait_until, strict):
    """Calls that find no room start a thread too where there is none: nothing else would ever make room."""
    deaths = []
    monkeypatch.setattr(threading, "excepthook", deaths.append)

    class Deadly(Vitally):
        def wires(self, records):
            if not deaths:
                raise KeyboardInterrupt
            return super().wires(records)

    def track(event):
        try:
            return client.track("u", event)
        except QueueFull:
            return not strict

    with Client(Deadly(api_token=TOKEN, base_url=receiver.url), max_queue_messages=3, strict=strict) as client:
        for number in range(6):
            assert track(str(number)) is (number < 3)
        wait_until(lambda: deaths)
        wait_until(lambda: not client.stats().consumer_alive)
        assert track("refused") is False
        assert receiver.wait_for(lambda r: len(r.messages) == 3)
    assert [message["event"] for message in receiver.messages] == ["0", "1", "2"]


def test_shutdown_releases_a_blocked_call(make_client, wait_until):
    """A call that waits for room ends as `closed` when the client shuts down."""
    client = make_client(url="http://127.0.0.1:9", max_queue_messages=1, when_full="block", block_timeout=30)
    client.track("u", "fits")
    results = []
    caller = threading.Thread(target=lambda: results.append(client.track("u", "waits")))
    caller.start()
    wait_until(lambda: client._lanes[0].buffer._gates)
    client.shutdown(0)
    caller.join(5)
    assert results == [False]
    assert client.stats().dropped["closed"] == 1


def test_strict_raises_what_would_have_been_a_drop(make_client):
    """Each refusal has its error, all under one root, and none of them is counted."""
    client = make_client(background=False, strict=True, max_queue_messages=1)
    client.track("u", "e")
    with pytest.raises(QueueFull):
        client.track("u", "e")
    client.shutdown()
    with pytest.raises(ClientClosed):
        client.track("u", "e")
    assert issubclass(ClientClosed, AnalyticsError)
    assert client.stats().tracked == 1
    assert not client.stats().dropped


def test_flush_against_a_hanging_endpoint_returns_in_time(make_client, receiver):
    """`flush(1)` and `shutdown(1)` keep their deadline and say what is left."""
    receiver.script(*[Reply(hang=True)] * 5)
    client = make_client(timeout=30)
    for number in range(500):
        client.track("u", str(number))
    for end in (client.flush, client.shutdown):
        started = time.monotonic()
        result = end(1)
        assert time.monotonic() - started < 1.2
        assert (result.pending, result.timed_out, bool(result)) == (500, True, False)
    stats = client.stats()
    assert (stats.pending, stats.dropped) == (0, {"exit": 500})
    assert balanced(stats)
    started = time.monotonic()
    assert client.flush()
    assert client.track("u", "late") is False
    assert time.monotonic() - started < 0.2
    assert client.stats().dropped["closed"] == 1
    assert balanced(client.stats())


def test_shutdown_refuses_before_it_drains(make_client, receiver):
    """What is tracked while a shutdown still delivers is refused as `closed`, and does not keep it from its end."""
    late = []
    receiver.decide = lambda _: late.append(client.track("u", "late"))
    client = make_client(flush_interval=30)
    assert client.track("u", "e")
    assert client.shutdown()
    assert late == [False]
    assert client.stats().dropped == {"closed": 1}
    assert balanced(client.stats())


def test_shutdown_does_not_wait_for_an_attempt_beyond_its_deadline(make_client, receiver):
    """If the next attempt is due only after the deadline, waiting would change nothing."""
    receiver.decide = lambda _: Reply(503, headers={"Retry-After": "60"})
    client = make_client()
    client.track("u", "e")
    receiver.wait_for(lambda r: r.requests)
    started = time.monotonic()
    assert client.shutdown(20).pending == 1
    assert time.monotonic() - started < 5


def test_flush_waits_only_for_what_was_accepted_before_it(make_client, receiver):
    """Under constant traffic a flush ends, and everything tracked before it has arrived."""
    client = make_client()
    stop = threading.Event()

    def track():
        while not stop.wait(0.0002):
            client.track("busy", "e")

    thread = threading.Thread(target=track)
    thread.start()
    try:
        for number in range(3):
            client.track("u", f"before {number}")
            assert not client.flush(20).timed_out
            assert f"before {number}" in {message["event"] for message in receiver.messages}
    finally:
        stop.set()
        thread.join()


def test_flush_results_count_since_the_previous_one(make_client):
    """Each result tells what came since the last, not since the beginning."""
    client = make_client()
    client.track("u", "1")
    client.track("", "bad")
    first, second = client.flush(), client.flush()
    assert (first.delivered, first.dropped) == (1, {"invalid": 1})
    assert (second.delivered, second.dropped, bool(second)) == (0, {}, True)


@pytest.mark.parametrize("timeout", [-1, "1", None, float("nan"), True])
def test_a_bad_timeout_of_flush_is_named(make_client, timeout):
    """It is a ValueError that names the setting and the value."""
    with pytest.raises(ValueError, match="timeout="):
        make_client().flush(timeout)


def test_without_a_thread_flush_sends(make_client, receiver):
    """`background=False`: nothing is sent and no thread runs until a flush, which sends in the calling thread."""
    client = make_client(background=False)
    before = threading.active_count()
    for number in range(250):
        client.track("u", str(number))
    assert threading.active_count() == before
    assert not receiver.requests
    receiver.script(Reply(500))
    quick = make_client(background=False, retry=FAST)
    quick.track("u", "retried in the flush")
    assert quick.flush()
    assert client.flush().delivered == 250
    assert receiver.connections == 2


def test_without_a_thread_a_hanging_endpoint_ends_with_the_flush(make_client, receiver):
    """The deadline bounds the request itself where the calling thread makes it."""
    receiver.script(Reply(hang=True))
    client = make_client(background=False)
    client.track("u", "e")
    started = time.monotonic()
    result = client.flush(0.5)
    assert time.monotonic() - started < 0.9
    assert (result.pending, result.timed_out) == (1, True)


def test_the_context_manager_shuts_down(receiver):
    """Leaving the block delivers what was tracked in it."""
    with Client(Vitally(api_token=TOKEN, base_url=receiver.url)) as client:
        client.track("u", "e")
    assert len(receiver.messages) == 1
    assert client.track("u", "late") is False


def test_the_awaitables_do_not_block_the_loop(make_client, receiver):
    """`aflush` and `ashutdown` give the same results while the loop goes on."""
    receiver.script(Reply(delay=0.3))
    client = make_client()
    client.track("u", "e")

    async def main():
        flushing = asyncio.ensure_future(client.aflush(10))
        turns = 0
        while not flushing.done():
            await asyncio.sleep(0)
            turns += 1
        return turns, await flushing, await client.ashutdown()

    turns, flushed, shut = asyncio.run(main())
    assert turns > 100
    assert flushed.delivered == 1
    assert shut


def test_the_queue_recovers_when_the_endpoint_does(make_client, receiver):
    """5xx for a while: callers notice nothing, nothing is lost, and it goes on by itself."""
    receiver.decide = lambda _: Reply(503)
    client = make_client(retry=FAST)
    for number in range(300):
        assert client.track("u", str(number))
    receiver.wait_for(lambda r: len(r.requests) > 5)
    assert client.stats().pending == 300
    assert "503" in client.stats().last_error
    receiver.decide = None
    assert client.flush()
    assert [message["event"] for message in receiver.messages] == [str(number) for number in range(300)]
    assert client.stats().retries > 4


def test_the_idle_client_has_no_thread_and_the_busy_one_has_one(make_client, wait_until):
    """The thread starts with the first accepted message, is a daemon, has a name, and ends with the client."""

    def ours():
        return [thread for thread in threading.enumerate() if thread.name == "analytics-batcher:vitally"]

    client = make_client()
    assert not ours()
    assert client.stats().consumer_alive
    client.track("u", "e")
    wait_until(ours)
    (thread,) = ours()
    assert thread.daemon
    client.shutdown()
    wait_until(lambda: not ours())
    assert client.stats().consumer_alive


def test_stats_tell_what_is_pending(make_client):
    """Pending messages, their bytes with overhead, and the oldest one's age."""
    client = make_client(background=False)
    assert client.stats().oldest_pending_age is None
    client.track("u", "e", {"pad": "x" * 1_000})
    stats = client.stats()
    assert stats.pending == 1
    assert 1_100 < stats.pending_bytes < 1_300
    assert 0 <= stats.oldest_pending_age < 5
    assert stats.destinations["vitally"].pending == 1


def test_keep_alive_uses_one_connection(make_client, receiver):
    """All batches go over one connection."""
    client = make_client()
    for number in range(1_000):
        client.track("u", str(number))
    assert client.flush()
    assert receiver.connections == 1


def test_a_stale_connection_costs_no_attempt(make_client, receiver):
    """A kept connection that the server has closed is replaced at once, within the same attempt."""
    receiver.script(Reply(drop_idle=True))
    deliveries = []
    client = make_client(on_delivery=deliveries.append)
    client.track("u", "1")
    assert client.flush()
    client.track("u", "2")
    assert client.flush()
    assert [delivery.attempts for delivery in deliveries] == [1, 1]
    assert receiver.connections == 2


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(make_client, receiver, status):
    """A redirect halts; the error names the host, and nothing is sent there."""
    receiver.decide = lambda _: Reply(status, headers={"Location": "https://elsewhere.example/x?y"})
    client = make_client()
    client.track("u", "e")
    client.flush(0.3)
    assert len(receiver.requests) == 1
    assert "elsewhere.example" in client.stats().last_error
    assert client.stats().pending == 1


def test_the_token_is_nowhere_to_be_seen(make_client, receiver):
    """It stands in no repr, figure or error, even when the server repeats it."""
    receiver.decide = lambda _: Reply(401, body=json.dumps({"error": f"bad token {TOKEN}"}).encode())
    client = make_client()
    client.track("u", "e")
    result = client.flush(0.3)
    said = [repr(client), str(client), repr(client.stats()), repr(result), repr(client._lanes[0].destination)]
    try:
        Vitally("acme", api_token=f"{TOKEN}\n")
    except ValueError as error:
        said.append("".join(traceback.format_exception(error)))
    assert len(said) == 6
    assert not [text for text in said if TOKEN in text]


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("max_queue_messages", 0, "at least 1"),
        ("max_queue_messages", True, "whole number"),
        ("max_queue_bytes", 10, "at least 1000"),
        ("when_full", "panic", "'drop_newest' or 'drop_oldest' or 'block'"),
        ("block_timeout", -1, "at least 0"),
        ("batch_messages", 101, "from 1 to 100"),
        ("batch_messages", 0, "from 1 to 100"),
        ("batch_bytes", 500_001, "to 500000"),
        ("message_bytes", 40_000, "to 32768"),
        ("flush_interval", -0.1, "at least 0"),
        ("flush_interval", "fast", "number"),
        ("timeout", 0, "timeout"),
        ("timeout", (1, 2, 3), "timeout"),
        ("shutdown_timeout", float("inf"), "at least 0"),
        ("proxy", "ftp://x", "proxy"),
        ("verify", "/nowhere.pem", "verify"),
        ("before_send", 3, "a function"),
        ("on_drop", "x", "a function"),
        ("on_delivery", 1, "a function"),
        ("default", 1, "a function"),
        ("strict", 1, "True or False"),
        ("background", None, "True or False"),
        ("enabled", "yes", "True or False"),
        ("retry", 3, "Retry"),
    ],
)
def test_a_wrong_option_is_named(option, value, allowed):
    """A wrong setting is a ValueError that names it, its value and what is allowed."""
    with pytest.raises(ValueError, match=option) as caught:
        Client(Vitally("acme", api_token="t"), **{option: value})
    assert allowed in str(caught.value)
    assert "/nowhere.pem" in str(caught.value) if value == "/nowhere.pem" else str(value)[:5] in str(caught.value)
