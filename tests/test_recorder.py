"""The recorder: a client in everything but its network and its thread."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from random import Random
from uuid import UUID

import pytest
from conftest import TOKEN, balanced

import analytics_batcher
from analytics_batcher import Client, CustomerIO, MessageTooLarge, QueueFull, Segment, Vitally
from analytics_batcher import InvalidMessage as Invalid
from analytics_batcher.receiver import CustomerIOWire, Receiver, SegmentWire, VitallyWire
from analytics_batcher.testing import Recorder

AT = "2026-01-01T00:00:00Z"
VENDORS = {
    "vitally": lambda url: Vitally(api_token=TOKEN, base_url=url),
    "customerio": lambda url: CustomerIO(TOKEN, TOKEN, base_url=url, object_types={"organization": "2"}),
    "segment": lambda url: Segment(TOKEN, base_url=url),
}

VITALLY = {
    "type",
    "messageId",
    "timestamp",
    "userId",
    "accountId",
    "organizationId",
    "event",
    "properties",
    "traits",
} | {
    "externalId",
    "customObjectId",
    "name",
}

IDS = [*("u1", "u2", 7, UUID(int=7)), *(None, "", "u\ud800", True, 1.5)]
NAMES = [*("Paid", "Signed up", "Caf\u00e9", "line\nbreak"), *("", None, 3, "a\ud800")]
MESSAGE_IDS = [*(None, None, "own", "x" * 99), *("x" * 100, "", 3)]
MOMENTS = [
    *(None, 1_700_000_000, "2024-02-29T12:00:00.123+01:00", datetime(2026, 1, 1, tzinfo=timezone.utc)),
    *("yesterday", -1, 10**12, True, float("nan")),
]
CONTENTS = [
    *(
        None,
        {"plan": "pro", "n": 1.5},
        {"price": Decimal("9.90"), "at": date(2026, 1, 1)},
        {1: (2, {3}), "pad": "x" * 31_900},
    ),
    *({"pad": "x" * 33_000}, ["no mapping"], {"n": float("inf")}, {"pad": "x" * 31_700}),
]
OWNERS = {"account_id": IDS, "organization_id": IDS}
COMMON = {"timestamp": MOMENTS, "message_id": MESSAGE_IDS, "anonymous_id": IDS}
CALLS = {
    "identify": ((IDS, CONTENTS), OWNERS | COMMON),
    "track": ((IDS, NAMES, CONTENTS), OWNERS | COMMON),
    "account": ((IDS, CONTENTS), {"user_id": IDS} | COMMON),
    "organization": ((IDS, CONTENTS), COMMON),
    "custom_object": ((IDS, IDS, CONTENTS), OWNERS | COMMON | {"name": NAMES}),
    "unlink": ((IDS, IDS), COMMON),
    "page": ((IDS, NAMES, CONTENTS), COMMON),
    "alias": ((IDS, IDS), COMMON),
}


def calls(chance, count):
    """Calls of all kinds, whose arguments are odd now and then: of each, the first four are what most give."""

    def value(values):
        return chance.choice(values[4:] if chance.random() < 0.07 else values[:4])

    for _ in range(count):
        name = chance.choice([*CALLS, "track", "identify"])
        arguments, options = CALLS[name]
        given = [option for option in options if chance.random() < 0.4]
        yield name, [value(one) for one in arguments], {option: value(options[option]) for option in given}


def as_said(messages, only=None):
    """Messages without the ids and times that they were not given, and without the fields that a vendor does not take.

    A UUIDv7 is one that was made: none of the ids that are given here is one.
    """
    kept = []
    for message in messages:
        made = len(message.get("messageId", "")) == 36
        fields = only - {"userId"} if only and message["type"] == "account" else only
        kept.append(
            {
                field: value
                for field, value in message.items()
                if (fields is None or field in fields) and not (made and field == "messageId") and field != "timestamp"
            }
        )
    return kept


# As a client


@pytest.mark.parametrize("vendor", VENDORS)
def test_it_takes_and_refuses_what_a_client_does(vendor):
    """The same calls are accepted, refused, dropped later and counted, for the same reasons, as by a real client."""
    wires = [VitallyWire(TOKEN), CustomerIOWire(TOKEN, TOKEN), SegmentWire(TOKEN)]
    with Receiver(wires=wires) as receiver:
        destination, drops = VENDORS[vendor](receiver.url), []
        client = Client(destination, background=False, on_drop=drops.append)
        recorder = Recorder(destination)
        for number, (name, arguments, options) in enumerate(calls(Random(vendor), 600)):
            accepted = getattr(client, name)(*arguments, **options)
            assert getattr(recorder, name)(*arguments, **options) is accepted, (name, arguments, options)
            if number % 20 == 19:
                assert recorder.flush().delivered == client.flush().delivered
        assert dict(recorder.stats().dropped) == dict(client.stats().dropped)
        assert [(one.reason, one.detail, one.count) for one in recorder.dropped] == [
            (one.reason, one.detail, one.count) for one in drops
        ]
        assert [as_said(one.messages) for one in recorder.dropped] == [as_said(one.messages) for one in drops]
        assert len(recorder.messages) == len(receiver.messages) > 150
        assert len(client.stats().dropped) >= 3
        if vendor == "vitally":
            assert as_said(recorder.messages, VITALLY) == as_said(receiver.messages)
        assert balanced(recorder.stats())
        client.shutdown(0)


@pytest.mark.parametrize("vendor", VENDORS)
def test_native_messages_are_as_they_would_be_sent(vendor):
    """What is queued or sent in a vendor's own form is recorded so, with the id and the time that it lacks."""
    native = {
        "vitally": {"type": "unlink", "userId": "u", "accountId": "a"},
        "customerio": {"type": "person", "action": "event", "identifiers": {"id": "u"}, "name": "Paid"},
        "segment": {"type": "track", "userId": "u", "event": "Paid"},
    }[vendor]
    wires = [VitallyWire(TOKEN), CustomerIOWire(TOKEN, TOKEN), SegmentWire(TOKEN)]
    with Receiver(wires=wires) as receiver, Client(VENDORS[vendor](receiver.url)) as client:
        recorder = Recorder(VENDORS[vendor](receiver.url))
        assert client.enqueue(native)
        assert recorder.enqueue(native)
        assert client.flush()
        (real,), (recorded,) = receiver.messages, recorder.messages
        assert real.keys() == recorded.keys() > native.keys()
        assert {**real, **native} == {**recorded, **{key: real[key] for key in real.keys() - native.keys()}}
        result = recorder.batch([native, recorded])
        assert result
        assert result.status == 200
        assert recorder.messages == [recorded, native, recorded]
        assert len(receiver.requests) == 1
        assert recorder.stats().tracked == 1
        for wrong, error in (([], ValueError), ([{}] * 20_000, ValueError), (native, TypeError), ([1], ValueError)):
            with pytest.raises(error):
                recorder.batch(wrong)
        assert recorder.enqueue("no dict") is False
        assert [one.reason for one in recorder.dropped] == ["invalid"]


def test_it_has_no_network_no_thread_and_loads_no_library():
    """A recorder opens no socket, starts no thread, writes no file, and loads neither `requests` nor `backoff`."""
    program = """
import _thread, json, os, sys
seen = []
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
def audit(event, arguments):
    if event.startswith("socket.") or (event == "open" and (arguments[2] or 0) & WRITES):
        seen.append(event)
from analytics_batcher import RedisBuffer, Retry, Vitally
from analytics_batcher.testing import Recorder
sys.addaudithook(audit)
vitally = Vitally("acme", api_token="t")
options = {"dead_letters": "letters", "buffer": RedisBuffer("redis://127.0.0.1:9"), "concurrency": 4, "timeout": 1}
with Recorder(vitally, proxy="http://127.0.0.1:9", background=True, **options) as recorder:
    recorder.track("u", "Paid", {"n": 1}, account_id="a")
    recorder.track("u", "", account_id="a")
    recorder.batch([{"type": "unlink"}])
    recorder.assert_tracked("Paid", user_id="u", properties={"n": 1})
    threads = _thread._count()
print(json.dumps([seen, threads, sorted({name.partition(".")[0] for name in sys.modules})]))
"""
    command = [sys.executable, "-B", "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    seen, threads, modules = json.loads(done.stdout)
    assert seen == []
    assert threads == 0
    assert not {*modules} & {"requests", "urllib3", "backoff", "ssl", "sqlite3", "redis", "pytest", "asyncio"}


def test_settings_are_a_clients(monkeypatch):
    """It takes the options of a client, refuses what a client refuses, and is made from the environment, too."""
    assert isinstance(Recorder(), Client)
    with pytest.raises(ValueError, match="max_queue_messages=0"):
        Recorder(max_queue_messages=0)
    with pytest.raises(ValueError, match="timeout"):
        Recorder(timeout=-1)
    with pytest.raises(ValueError, match="proxy"):
        Recorder(proxy="nowhere")
    with pytest.raises(ValueError, match="batch_messages=101"):
        Recorder(Vitally("acme", api_token=TOKEN), batch_messages=101)
    with pytest.raises(ValueError, match="destination"):
        Recorder("vitally")
    with pytest.raises(TypeError, match="no_such_option"):
        Recorder(no_such_option=1)
    for name, value in {"DESTINATION": "segment", "SEGMENT_WRITE_KEY": TOKEN, "STRICT": "1", "TIMEOUT": "3"}.items():
        monkeypatch.setenv(f"ANALYTICS_BATCHER_{name}", value)
    recorder = Recorder.from_env(at=AT)
    with pytest.raises(Invalid):
        recorder.track("u", "")
    assert repr(recorder) == "Recorder(Segment('https://api.segment.io/v1/batch', name='segment'))"
    assert repr(Recorder()) == "Recorder()"


def test_hooks_are_asked_and_told():
    """`before_send` changes and drops, `default` converts, `on_drop` and `on_delivery` are told, as by a client."""
    told, delivered = [], []

    def before_send(message):
        if message.get("event") == "secret":
            return None
        return {**message, "properties": {**message["properties"], "seen": True}}

    options = {"before_send": before_send, "on_drop": told.append, "on_delivery": delivered.append}
    recorder = Recorder(default=lambda _: "converted", **options)
    recorder.track("u", "Paid", {"of": object()})
    recorder.track("u", "secret")
    recorder.track("u", "")
    assert [one["properties"] for one in recorder.messages] == [{"of": "converted", "seen": True}]
    assert [(one.reason, one.count) for one in recorder.dropped] == [("invalid", 1), ("filtered", 1)]
    assert recorder.dropped == told
    assert [(one.count, one.status, one.destination) for one in delivered] == [(1, 200, "recorder")]
    recorder.assert_tracked("Paid", properties={"of": object(), "seen": True})


def test_a_look_within_a_hook_does_not_wait_for_itself():
    """A `before_send` that tracks, looks and flushes comes to an end, and what it tracked is recorded."""
    looks = []

    def before_send(message):
        if message["event"] == "first":
            recorder.track("u", "second")
            looks.append((recorder.messages, bool(recorder.flush(5))))
        return message

    recorder = Recorder(before_send=before_send)
    recorder.track("u", "first")
    assert recorder.flush(5).delivered == 1
    assert looks == [([], False)]
    assert [one["event"] for one in recorder.messages] == ["first", "second"]


def test_a_look_within_a_hook_is_none_at_another_destination():
    """In a `before_send` for one of several destinations, a look does not begin with the messages of the others."""
    looks = []

    def before_send(message):
        looks.append(recorder.messages_of("customerio"))
        return message

    recorder = Recorder([Vitally("acme", api_token=TOKEN), CustomerIO(TOKEN, TOKEN)], before_send=before_send)
    recorder.track("u", "first", account_id="a")
    assert len(recorder.messages) == 1
    assert looks == [[], []]


def test_the_queue_can_be_full():
    """Until somebody looks, messages wait within the bounds, so that a full queue can be had, whatever its policy."""
    recorder = Recorder(max_queue_messages=2)
    assert [recorder.track("u", str(number)) for number in range(3)] == [True, True, False]
    assert recorder.stats().pending == 2
    assert [(one.reason, one.messages[0]["event"]) for one in recorder.dropped] == [("queue_full", "2")]
    assert recorder.track("u", "3")
    assert [one["event"] for one in recorder.messages] == ["0", "1", "3"]
    with pytest.raises(QueueFull):
        [Recorder(max_queue_bytes=1_000, strict=True).track("u", "x" * 900) for _ in range(2)]
    oldest = Recorder(max_queue_messages=2, when_full="drop_oldest")
    assert all(oldest.track("u", str(number)) for number in range(3))
    assert [one["event"] for one in oldest.messages] == ["1", "2"]
    assert [(one.reason, one.messages[0]["event"]) for one in oldest.dropped] == [("queue_full", "0")]
    many = Recorder()
    assert all(many.track("u", "x") for _ in range(20_001))
    assert len(many.messages) == 20_001


def test_flush_and_shutdown_tell_the_truth():
    """A look takes nothing from the next flush's result; after the shutdown calls are refused, and can be looked at."""
    with Recorder() as recorder:
        recorder.track("u", "1")
        assert len(recorder.messages) == 1
        recorder.track("u", "2")
        result = recorder.flush()
        assert (result.delivered, result.pending, result.lost) == (2, 0, 0)
        assert asyncio.run(recorder.aflush()).delivered == 0
        recorder.track("u", "3")
    assert recorder.track("u", "late") is False
    assert [one["event"] for one in recorder.messages] == ["1", "2", "3"]
    assert [(one.reason, one.messages[0]["event"]) for one in recorder.dropped] == [("closed", "late")]
    assert asyncio.run(recorder.ashutdown())
    filtered = Recorder(before_send=lambda _: 1 / 0)
    filtered.track("u", "1")
    assert filtered.messages == []
    assert filtered.flush()


def test_it_forgets_what_is_cleared():
    """After `clear` there is nothing, and the figures go on."""
    recorder = Recorder()
    recorder.track("u", "1")
    recorder.track("u", "")
    recorder.clear()
    assert (recorder.messages, recorder.dropped) == ([], [])
    recorder.track("u", "2")
    assert [one["event"] for one in recorder.messages] == ["2"]
    assert recorder.stats().tracked == 3


def test_what_is_returned_may_be_changed():
    """The messages are fresh at each look."""
    recorder = Recorder()
    recorder.track("u", "1", {"a": {"b": 1}})
    recorder.messages[0]["properties"]["a"]["b"] = 2
    recorder.messages.clear()
    assert recorder.messages[0]["properties"] == {"a": {"b": 1}}


def test_several_destinations():
    """Each message is recorded once in its place, and once for each destination that took it; each has its drops."""
    several = [Vitally("acme", api_token=TOKEN), CustomerIO(TOKEN, TOKEN)]
    recorder = Recorder(several)
    assert recorder.page("u", "Home")  # Vitally has none
    assert recorder.track("u", "Paid", account_id="a")
    assert recorder.track(None, "Paid", account_id="a")  # Customer.io has none
    assert recorder.enqueue({"type": "unlink", "userId": "u", "accountId": "a"}, to="vitally")
    assert [one["type"] for one in recorder.messages] == ["page", "track", "track", "unlink"]
    assert [one["type"] for one in recorder.messages_of("vitally")] == ["track", "track", "unlink"]
    assert [one["type"] for one in recorder.messages_of("customerio")] == ["page", "track"]
    assert [(one.reason, one.destination) for one in recorder.dropped] == [
        ("unsupported", "vitally"),
        ("unsupported", "customerio"),
    ]
    with pytest.raises(ValueError, match="'vitally' or 'customerio'"):
        recorder.messages_of("segment")


def test_without_a_destination_it_refuses_what_no_vendor_takes():
    """A message about nobody, and one that is too large for some vendor, are refused."""
    recorder = Recorder(strict=True)
    for call in (
        lambda: recorder.track(None, "Paid"),
        lambda: recorder.identify(None, {"plan": "pro"}),
        lambda: recorder.page(None, "Home"),
        lambda: recorder.track("", "Paid"),
    ):
        with pytest.raises(Invalid):
            call()
    with pytest.raises(MessageTooLarge):
        recorder.track("u", "Paid", {"pad": "x" * 32_000})
    assert recorder.track(None, "Paid", account_id="a")
    assert recorder.identify(None, anonymous_id="n")
    assert recorder.alias("n", "u")


# The clock


def test_a_frozen_clock_and_its_ids_are_the_same_in_each_run():
    """Times stand still until they are advanced, and ids depend on the time and the seed alone, refused ones too."""

    def run(seed=None):
        recorder = Recorder(at=AT, seed=seed)
        recorder.track("u", "1")
        recorder.advance(0.25)
        recorder.track("u", "2", message_id="own", timestamp=1.7e9)
        recorder.track("u", "")
        recorder.advance(60)
        recorder.enqueue({"type": "track"})
        dropped = [message for drop in recorder.dropped for message in drop.messages]
        return [(one["timestamp"], one["messageId"]) for one in [*recorder.messages, *dropped]]

    first = run()
    assert first == run(0) != run(1)
    assert [moment for moment, _ in first] == [
        *("2026-01-01T00:00:00.000Z", "2023-11-14T22:13:20.000Z"),
        *("2026-01-01T00:01:00.250Z", "2026-01-01T00:00:00.250Z"),
    ]
    assert first[0][1] == "019b76da-a800-7831-8629-f6fbd82c07cd"
    assert first[1][1] == "own"
    assert len({name for _, name in first}) == 4
    assert UUID(first[2][1]).version == 7


def test_every_millisecond_is_written_as_it_was_given():
    """A clock that was set to a millisecond says that millisecond, whatever floats can hold."""
    recorder = Recorder(at="2026-01-01T00:00:00.001Z")
    for _ in range(2_000):
        recorder.track("u", "x")
        recorder.advance(0.001)
    assert [int(one["timestamp"][20:23]) for one in recorder.messages] == [(n + 1) % 1000 for n in range(2_000)]


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_frozen_clock_is_every_vendors(vendor):
    """With any destination, and in a fan-out, a message's id and time are those of the clock."""
    recorder = Recorder([VENDORS[vendor]("http://127.0.0.1:9"), Vitally("acme", api_token=TOKEN, name="other")])
    recorder.freeze(datetime(2026, 1, 1, tzinfo=timezone.utc))
    recorder.track("u", "1", account_id="a")
    assert recorder.messages_of("other") == recorder.messages_of(vendor)
    assert recorder.messages[0]["messageId"] == "019b76da-a800-7831-8629-f6fbd82c07cd"


def test_a_wrong_clock_is_refused():
    """A time that is none, a seed without a time, a clock that goes backwards, and one that does not stand still."""
    for at in ("yesterday", float("nan"), 10**12, True):
        with pytest.raises(ValueError, match="at="):
            Recorder(at=at)
    with pytest.raises(ValueError, match="seed=1"):
        Recorder(seed=1)
    with pytest.raises(ValueError, match="stands still"):
        Recorder().advance(1)
    with pytest.raises(ValueError, match="seconds=-1"):
        Recorder(at=AT).advance(-1)


# The default client, and the process


def test_it_is_the_default_client_for_a_while(receiver):
    """The package's functions use it within the block, blocks nest, and what they used before goes on after it."""
    client = analytics_batcher.configure(Vitally(api_token=TOKEN, base_url=receiver.url))
    try:
        outer, inner = Recorder(), Recorder()
        with outer.installed():
            analytics_batcher.track("u", "outer", account_id="a")
            with suppress(KeyError), inner.installed() as same:
                analytics_batcher.track("u", "inner", account_id="a")
                raise KeyError
            assert same is inner
            analytics_batcher.track("u", "outer again", account_id="a")
        assert analytics_batcher.track("u", "client", account_id="a")
        assert client.flush()
    finally:
        analytics_batcher.default.replace(None)
        client.shutdown(0)
    assert [one["event"] for one in inner.messages] == ["inner"]
    assert [one["event"] for one in outer.messages] == ["outer", "outer again"]
    assert [one["event"] for one in receiver.messages] == ["client"]


def test_threads_may_share_it():
    """What eight threads track while another one looks is all recorded, each thread's in its order."""
    recorder, ready = Recorder(), threading.Barrier(9)

    def track(name):
        ready.wait(10)
        for number in range(300):
            recorder.track(name, str(number))

    threads = [threading.Thread(target=track, args=(f"u{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    ready.wait(10)
    while any(thread.is_alive() for thread in threads):
        assert len(recorder.messages) <= 2_400
    for thread in threads:
        thread.join(10)
    messages = recorder.messages
    for name in (f"u{n}" for n in range(8)):
        assert [int(one["event"]) for one in messages if one["userId"] == name] == [*range(300)]
    assert recorder.stats().delivered == len(messages) == 2_400


def test_nothing_keeps_it_alive():
    """A recorder that nobody has any more is collected, its messages with it."""
    recorder = Recorder(on_drop=lambda _: None)
    recorder.track("u", "1")
    recorder.track("u", "")
    assert recorder.messages
    reference, tape = weakref.ref(recorder), weakref.ref(recorder._tape)
    del recorder
    gc.collect()
    assert reference() is None
    assert tape() is None


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_child_has_its_own():
    """In a forked child calls are recorded, and are not seen in the parent."""
    program = """
import os
from analytics_batcher.testing import Recorder
recorder = Recorder(at="2026-01-01T00:00:00Z")
recorder.track("u", "waits")
child = os.fork()
if not child:
    recorder.clear()
    recorder.track("u", "in the child")
    recorder.assert_messages([{"type": "track", "userId": "u", "event": "in the child", "properties": {}}])
    recorder.assert_nothing_lost()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
recorder.assert_messages([{"type": "track", "userId": "u", "event": "waits", "properties": {}}])
"""
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
