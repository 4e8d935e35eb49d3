"""One client, several destinations: each has a way of its own, and none of them harms another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from uuid import UUID

import pytest
from conftest import balanced

from analytics_batcher import (
    Client,
    ClientClosed,
    CustomerIO,
    DropReason,
    InvalidMessage,
    MessageTooLarge,
    QueueFull,
    Retry,
    Segment,
    Vitally,
)
from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply, SegmentWire, VitallyWire

FAST = Retry(base=0.01, cap=0.02)
SECRETS = ("vitally-token", "customer-site", "customer-key", "segment-key")
NAMES = ("vitally", "customerio", "segment")
HANGS = Reply(hang=True)
BOTH_WAYS = pytest.mark.parametrize("background", [True, False], ids=["threads", "inline"])
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@pytest.fixture
def vendors():
    """A stand-in for each vendor, so that each can misbehave alone."""
    token, site, key, write_key = SECRETS
    with (
        Receiver(VitallyWire(token)) as vitally,
        Receiver(CustomerIOWire(site, key)) as customerio,
        Receiver(SegmentWire(write_key)) as segment,
    ):
        yield {"vitally": vitally, "customerio": customerio, "segment": segment}


def destinations_of(urls):
    """A destination for each URL, in the order of the URLs."""
    token, site, key, write_key = SECRETS
    made = {
        "vitally": lambda url: Vitally(api_token=token, base_url=url),
        "customerio": lambda url: CustomerIO(site, key, base_url=url),
        "segment": lambda url: Segment(write_key, base_url=url),
    }
    return [made[name](url) for name, url in urls.items()]


@pytest.fixture
def fan_out(vendors):
    """Makes clients of some or all vendors, and shuts them down at the end."""
    clients = []

    def make(names=NAMES, **options):
        clients.append(Client(destinations_of({name: vendors[name].url for name in names}), **options))
        return clients[-1]

    yield make
    for client in clients:
        client.shutdown(0)


def track(client, count, start=0):
    """Track events that every vendor takes; how many were accepted."""
    return sum(client.track(f"u{number}", "happened", account_id="a") for number in range(start, start + count))


def arrived(receiver):
    """How many messages a vendor has, once it is sure that each is faultless."""
    assert receiver.faults == ()
    return len(receiver.messages)


def let_the_second_be_first(vendors):
    """Vitally answers once Customer.io, which hangs or is slow, has a request: a callback then finds it busy."""

    def decide(_):
        vendors["customerio"].wait_for(lambda r: r.requests)
        return Reply()

    vendors["vitally"].decide = decide


def bits_of_ulid(text):
    """The 128 bits of a ULID."""
    bits = 0
    for character in text:
        bits = bits * 32 + CROCKFORD.index(character)
    return bits


# What each has of its own


def test_every_destination_gets_every_message_in_its_own_form(fan_out, vendors):
    """One call reaches each vendor once, in that vendor's words."""
    client = fan_out()
    assert client.identify("u", {"plan": "gold"}, account_id="a")
    assert client.track("u", "paid", {"sum": 3}, account_id="a")
    assert client.flush()
    assert [message["type"] for message in vendors["vitally"].messages] == ["user", "track"]
    assert [message["action"] for message in vendors["customerio"].messages] == ["identify", "event"]
    assert [message["type"] for message in vendors["segment"].messages] == ["identify", "track"]
    assert [arrived(receiver) for receiver in vendors.values()] == [2, 2, 2]


def test_each_destination_has_a_thread_of_its_own(fan_out):
    """The first message starts one thread for each destination, named for it; a refused one starts none."""
    client = fan_out(flush_interval=30)
    before = {thread.ident for thread in threading.enumerate()}

    def started():
        return sorted(thread.name for thread in threading.enumerate() if thread.ident not in before)

    client.page("u", "home")
    # What Vitally refuses wakes its consumer too, to report it.
    assert set(started()) <= {f"analytics-batcher:{name}" for name in NAMES}
    assert track(client, 3) == 3
    assert started() == sorted(f"analytics-batcher:{name}" for name in NAMES)


def test_figures_are_kept_for_each_destination_beside_their_sum(fan_out, vendors):
    """`stats()` is the sum of `stats().destinations`, and the law of conservation holds for each of them."""
    vendors["segment"].decide = vendors["customerio"].decide = lambda _: Reply(500)
    client = fan_out(retry=Retry(base=60, jitter="none"), flush_interval=0.01)
    assert track(client, 7) == 7
    client.page("u", "home")
    client.flush(0.5)
    stats = client.stats()
    parts = stats.destinations
    assert list(parts) == list(NAMES)
    assert all(balanced(part) for part in (stats, *parts.values()))
    assert {name: part.delivered for name, part in parts.items()} == {"vitally": 7, "customerio": 0, "segment": 0}
    assert {name: part.pending for name, part in parts.items()} == {"vitally": 0, "customerio": 8, "segment": 8}
    assert {name: dict(part.dropped) for name, part in parts.items()} == {
        "vitally": {"unsupported": 1},
        "customerio": {},
        "segment": {},
    }
    assert parts["vitally"].pending_bytes == 0
    assert parts["segment"].pending_bytes > 0
    assert parts["segment"].oldest_pending_age > 0
    assert "500" in parts["segment"].last_error
    assert parts["vitally"].last_error is None
    for figure in ("tracked", "delivered", "pending", "pending_bytes", "requests", "retries", "batches"):
        assert getattr(stats, figure) == sum(getattr(part, figure) for part in parts.values()), figure
    assert stats.tracked == 24
    assert stats.dropped == {"unsupported": 1}
    assert stats.last_error in {parts["customerio"].last_error, parts["segment"].last_error}
    assert stats.consumer_alive


def test_figures_of_one_destination_stand_under_its_name():
    """A client of one destination names it in its figures too."""
    with Receiver() as receiver:
        client = Client(Vitally(api_token="test-token", base_url=receiver.url, name="crm"))
        assert track(client, 2) == 2
        assert client.shutdown()
    assert {name: part.delivered for name, part in client.stats().destinations.items()} == {"crm": 2}


def test_figures_cannot_be_changed(fan_out):
    """The mapping of the destinations' figures is read-only."""
    destinations = fan_out().stats().destinations
    with pytest.raises(TypeError):
        destinations["vitally"] = None
    assert set(destinations) == set(NAMES)


def test_a_flush_tells_of_all_destinations_together(fan_out, vendors):
    """The result is the sum, counted since the previous flush."""
    client = fan_out()
    assert track(client, 4) == 4
    first = client.flush()
    assert (bool(first), first.delivered, first.pending, first.dropped) == (True, 12, 0, {})
    vendors["customerio"].script(Reply(partial={0: "name: is odd"}))
    assert track(client, 2) == 2
    second = client.flush()
    assert (second.delivered, second.pending, second.dropped, second.timed_out) == (5, 0, {"rejected": 1}, False)
    assert not second, "an accepted message was lost at one of them"
    assert client.flush()


def test_what_one_vendor_refuses_harms_it_alone(fan_out, vendors, wait_until):
    """A message that one vendor rejects is delivered to the others."""
    vendors["customerio"].script(Reply(partial={1: "name: is odd"}))
    told = []
    client = fan_out(on_drop=told.append, flush_interval=30)
    assert track(client, 3) == 3
    client.flush()
    parts = client.stats().destinations
    assert [parts[name].delivered for name in NAMES] == [3, 2, 3]
    assert [dict(parts[name].dropped) for name in NAMES] == [{}, {"rejected": 1}, {}]
    wait_until(lambda: told)  # the callback comes after the books: the flush may have seen these already
    assert [(drop.reason, drop.count, drop.destination) for drop in told] == [(DropReason.REJECTED, 1, "customerio")]
    assert told[0].messages[0]["userId"] == "u1"


# One that hangs


def test_one_that_hangs_delays_nobody(fan_out, vendors):
    """The two others receive 250 of 250 within 2 s, and `shutdown(1)` returns within 1.5 s and says what is left."""
    stuck = "vitally"  # the first: whoever goes through them in turn meets it before the others
    vendors[stuck].decide = lambda _: HANGS
    others = [name for name in NAMES if name != stuck]
    client = fan_out()
    begun = time.monotonic()
    assert track(client, 250) == 250
    for name in others:
        assert vendors[name].wait_for(lambda r: len(r.messages) == 250, begun + 2 - time.monotonic()), name
    closing = time.monotonic()
    result = client.shutdown(1)
    assert time.monotonic() - closing < 1.5
    assert (bool(result), result.pending, result.timed_out) == (False, 250, True)
    parts = client.stats().destinations
    assert all(balanced(part) for part in parts.values())
    assert {name: parts[name].delivered for name in NAMES} == {stuck: 0, others[0]: 250, others[1]: 250}
    assert {name: dict(parts[name].dropped) for name in NAMES} == {stuck: {"exit": 250}, others[0]: {}, others[1]: {}}
    assert [arrived(vendors[name]) for name in others] == [250, 250]


@BOTH_WAYS
@pytest.mark.parametrize("stuck", ["vitally", "segment"])
def test_a_flush_gives_everyone_its_time_within_one_deadline(fan_out, vendors, stuck, background):
    """A flush ends the wait for company at all destinations, though one hangs, and ends in its own time."""
    vendors[stuck].decide = lambda _: HANGS
    client = fan_out(background=background, flush_interval=30)
    assert track(client, 5) == 5
    begun = time.monotonic()
    result = client.flush(0.4)
    assert time.monotonic() - begun < 0.8
    assert (bool(result), result.delivered, result.pending, result.timed_out) == (False, 10, 5, True)
    assert {name: arrived(vendors[name]) for name in NAMES if name != stuck} == dict.fromkeys({*NAMES} - {stuck}, 5)


@BOTH_WAYS
def test_several_that_hang_share_one_deadline(fan_out, vendors, background):
    """With two that hang before it, the third gets all, and flush and shutdown take no longer than for one."""
    vendors["vitally"].decide = vendors["customerio"].decide = lambda _: HANGS
    client = fan_out(background=background, flush_interval=30)
    assert track(client, 5) == 5
    begun = time.monotonic()
    flushed = client.flush(0.4)
    assert time.monotonic() - begun < 0.8
    assert (flushed.delivered, flushed.pending, flushed.timed_out) == (5, 10, True)
    assert track(client, 5, start=5) == 5
    begun = time.monotonic()
    ended = client.shutdown(0.4)
    assert time.monotonic() - begun < 0.8
    assert (bool(ended), ended.delivered, ended.pending) == (False, 5, 20)
    assert arrived(vendors["segment"]) == 10
    assert all(balanced(part) for part in client.stats().destinations.values())


def test_a_flush_in_a_callback_waits_for_no_destination(fan_out, vendors, wait_until):
    """A callback runs in one destination's consumer: its flush returns at once, or one that hangs would stop that."""
    vendors["customerio"].decide = lambda _: HANGS
    let_the_second_be_first(vendors)
    took = []

    def on_delivery(_):
        begun = time.monotonic()
        took.append((client.flush(0.8).timed_out, time.monotonic() - begun < 0.3))

    client = fan_out(("vitally", "customerio"), on_delivery=on_delivery, flush_interval=0.01)
    assert track(client, 1) == 1
    wait_until(lambda: took)
    assert took == [(True, True)]


@BOTH_WAYS
def test_a_flush_in_a_callback_at_the_end_waits_for_no_destination(fan_out, vendors, background):
    """`shutdown` tells of what it left behind in its own thread: a callback that flushes there returns at once too."""
    client, told = None, []

    def on_drop(drop):
        told.append((drop.destination, client.flush(8).timed_out))

    for vendor in vendors.values():
        vendor.decide = lambda _: HANGS
    client = fan_out(on_drop=on_drop, background=background)
    track(client, 5)
    started = time.monotonic()
    client.shutdown(0.1)
    assert time.monotonic() - started < 2.0
    assert told == [("vitally", True), ("customerio", True), ("segment", False)]


def test_a_shutdown_in_a_callback_leaves_the_others_their_messages(fan_out, vendors, wait_until):
    """A callback's shutdown returns at once, refuses what comes, and every destination still sends what it has."""
    vendors["customerio"].decide = lambda _: Reply(delay=0.6)
    let_the_second_be_first(vendors)
    took = []

    def on_delivery(delivery):
        if delivery.destination == "vitally":
            begun = time.monotonic()
            client.shutdown(0.3)
            took.append(time.monotonic() - begun < 0.2)

    client = fan_out(("vitally", "customerio"), on_delivery=on_delivery, flush_interval=0.01)
    assert track(client, 1) == 1
    wait_until(lambda: took)
    wait_until(lambda: not client.stats().pending)
    assert client.stats().dropped == {}
    assert client.track("u", "late", account_id="a") is False
    assert took == [True]


# What only some of them take


def test_what_one_has_no_message_for_is_counted_there_alone(fan_out, vendors):
    """A page is `unsupported` at Vitally, and the call is True because the others took it; no flush calls it lost."""
    told = []
    client = fan_out(on_drop=told.append)
    assert client.page("u", "home") is True
    assert client.flush()
    parts = client.stats().destinations
    assert {name: dict(part.dropped) for name, part in parts.items()} == {
        "vitally": {"unsupported": 1},
        "customerio": {},
        "segment": {},
    }
    assert [arrived(vendors[name]) for name in NAMES] == [0, 1, 1]
    assert vendors["vitally"].requests == ()
    client.shutdown()
    assert [(drop.reason, drop.destination, drop.messages[0]["name"]) for drop in told] == [
        (DropReason.UNSUPPORTED, "vitally", "home")
    ]


@pytest.mark.parametrize(
    ("call", "taken"),
    [
        (lambda c: c.organization("o"), {"vitally"}),
        (lambda c: c.unlink("u", "a"), {"vitally", "customerio"}),
        (lambda c: c.account("a"), {"vitally", "customerio"}),
        (lambda c: c.account("a", user_id="u"), set(NAMES)),
        (lambda c: c.alias("old", "new"), {"customerio", "segment"}),
        (lambda c: c.screen("u", "home"), {"customerio", "segment"}),
        (lambda c: c.identify("u"), {"customerio", "segment"}),
        (lambda c: c.track(None, "e", account_id="a"), {"vitally"}),
        (lambda c: c.page(None, "p", anonymous_id="x"), {"customerio", "segment"}),
    ],
)
def test_each_destination_decides_for_itself(fan_out, vendors, call, taken):
    """Whoever can take a message gets it, whoever cannot counts it, and `strict` has nothing to say of it."""
    for client in (fan_out(), fan_out(strict=True)):
        assert call(client) is True
        assert client.flush()
        parts = client.stats().destinations
        assert {name for name in NAMES if parts[name].delivered == 1} == taken
        assert {name for name in NAMES if sum(parts[name].dropped.values()) == 1} == set(NAMES) - taken
        assert all(balanced(part) and part.tracked == 1 for part in parts.values())
    assert {name for name in NAMES if arrived(vendors[name]) == 2} == taken


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (lambda c: c.page(None, "p"), DropReason.UNSUPPORTED),
        (lambda c: c.identify(1.5), DropReason.INVALID),
        (lambda c: c.track("u", "e", message_id=""), DropReason.INVALID),
        (lambda c: c.track("u", "e", {"pad": "x" * 33_000}), DropReason.TOO_LARGE),
    ],
)
def test_what_nobody_takes_is_refused(fan_out, vendors, call, reason):
    """The call is False and counted once at each destination, and only then `strict` raises."""
    client = fan_out()
    assert call(client) is False
    parts = client.stats().destinations
    assert {name: (part.tracked, dict(part.dropped)) for name, part in parts.items()} == {
        name: (1, {reason: 1}) for name in NAMES
    }
    assert all(map(balanced, parts.values()))
    with pytest.raises(MessageTooLarge if reason is DropReason.TOO_LARGE else InvalidMessage) as caught:
        call(fan_out(strict=True))
    assert caught.value.reason is reason
    assert not any(receiver.requests for receiver in vendors.values())


def test_each_destination_has_its_own_limit_of_a_message(fan_out, vendors):
    """What is over one vendor's limit, and under another's, reaches the other."""
    client = fan_out(strict=True)
    assert client.track("u", "e", {"pad": "x" * 32_300}, account_id="a")
    assert client.flush()
    parts = client.stats().destinations
    assert [dict(parts[name].dropped) for name in NAMES] == [{}, {"too_large": 1}, {"too_large": 1}]
    assert [arrived(vendors[name]) for name in NAMES] == [1, 0, 0]


def test_each_call_is_tracked_once_per_destination(fan_out):
    """Accepted or refused, a call counts one in each destination's books; a native one in that destination's alone."""
    client = fan_out(background=False)
    track(client, 3)
    client.page("u", "home")
    client.track("u", "")
    client.track("u", "e", {"pad": "x" * 33_000})
    client.enqueue({"type": "track", "event": "e", "userId": "u"}, to="segment")
    client.enqueue(["no dict"], to="vitally")
    assert {name: part.tracked for name, part in client.stats().destinations.items()} == {
        "vitally": 7,
        "customerio": 6,
        "segment": 7,
    }
    assert client.stats().tracked == 20


def test_a_full_queue_of_one_is_its_own_trouble(fan_out, vendors, wait_until):
    """Calls stay True, and raise nothing under `strict`, while the others have room; the full one counts its loss."""
    vendors["vitally"].decide = lambda _: HANGS
    client = fan_out(max_queue_messages=5, flush_interval=0.01, strict=True)
    for start in (0, 4, 8):
        assert track(client, 4, start=start) == 4
        wait_until(lambda: all(not client.stats().destinations[name].pending for name in NAMES[1:]))
    parts = client.stats().destinations
    assert [(part.delivered, part.pending, dict(part.dropped)) for part in parts.values()] == [
        (0, 5, {"queue_full": 7}),
        (12, 0, {}),
        (12, 0, {}),
    ]
    assert all(map(balanced, parts.values()))


def test_queues_that_are_all_full_refuse(fan_out):
    """The call is False, or raises under `strict`, once no destination has room."""
    client = fan_out(background=False, max_queue_messages=2)
    assert track(client, 5) == 2
    assert [dict(part.dropped) for part in client.stats().destinations.values()] == [{"queue_full": 3}] * 3
    strict = fan_out(background=False, max_queue_messages=2, strict=True)
    assert track(strict, 2) == 2
    with pytest.raises(QueueFull):
        track(strict, 1)


def test_a_call_blocks_once_for_all_full_queues(fan_out, vendors):
    """`when_full="block"`: a call waits at most `block_timeout`, however many queues are full."""
    for receiver in vendors.values():
        receiver.decide = lambda _: HANGS
    client = fan_out(max_queue_messages=1, when_full="block", block_timeout=0.3, flush_interval=0.01)
    assert track(client, 1) == 1
    begun = time.monotonic()
    assert track(client, 1) == 0
    assert 0.25 < time.monotonic() - begun < 0.55


def test_a_callback_never_blocks_for_another_destination(fan_out, vendors, wait_until):
    """In any consumer's thread `block` acts as `drop_newest`, for the queue of a destination that hangs too."""
    vendors["customerio"].decide = lambda _: HANGS
    let_the_second_be_first(vendors)
    took = []

    def on_delivery(_):
        if not took:
            begun = time.monotonic()
            track(client, 1)
            took.append(time.monotonic() - begun)

    client = fan_out(
        ("vitally", "customerio"),
        max_queue_messages=1,
        when_full="block",
        block_timeout=0.8,
        flush_interval=0.01,
        on_delivery=on_delivery,
    )
    assert track(client, 1) == 1
    wait_until(lambda: took)
    assert took[0] < 0.3


def test_a_closed_client_refuses_for_every_destination(fan_out):
    """After a shutdown each call is False and `closed` once at each destination, and raises under `strict`."""
    client = fan_out()
    assert client.shutdown()
    assert track(client, 2) == 0
    assert [dict(part.dropped) for part in client.stats().destinations.values()] == [{"closed": 2}] * 3
    strict = fan_out(strict=True)
    strict.shutdown()
    with pytest.raises(ClientClosed):
        track(strict, 1)


# Callbacks


def test_callbacks_name_the_destination(fan_out, vendors):
    """Each `Delivery` and each `Drop` says which destination it is about."""
    delivered, dropped = [], []
    vendors["segment"].decide = lambda _: HANGS
    client = fan_out(on_delivery=delivered.append, on_drop=dropped.append)
    assert track(client, 5) == 5
    client.alias("old", "new")
    client.shutdown(0.5)
    assert Counter(told.destination for told in delivered) == {"vitally": 1, "customerio": 1}
    assert {told.destination: told.count for told in delivered} == {"vitally": 5, "customerio": 6}
    told = Counter()
    for drop in dropped:
        told[drop.destination, drop.reason] += drop.count
    assert told == {("vitally", "unsupported"): 1, ("segment", "exit"): 6}


def test_before_send_gets_a_fresh_copy_for_each_destination(fan_out, vendors):
    """It runs once per message and destination, and what it does for one is not seen at another."""
    seen = []

    def before_send(message):
        seen.append(message["properties"]["path"].copy())
        message["properties"]["path"].append(threading.current_thread().name.partition(":")[2])
        return message

    client = fan_out(before_send=before_send, retry=FAST)
    vendors["vitally"].script(Reply(500))
    assert client.track("u", "e", {"path": ["start"]}, account_id="a")
    assert client.flush()
    assert seen == [["start"]] * 3
    assert vendors["vitally"].messages[0]["properties"]["path"] == ["start", "vitally"]
    assert vendors["customerio"].messages[0]["attributes"]["path"] == ["start", "customerio"]
    assert vendors["segment"].messages[0]["properties"]["path"] == ["start", "segment"]


# One message


def test_a_message_has_the_same_id_and_moment_everywhere(fan_out, vendors):
    """Vitally and Segment get one UUID and one time, Customer.io the same 128 bits as a ULID and the same second."""
    client = fan_out()
    assert track(client, 20) == 20
    assert client.flush()
    ids = [message["messageId"] for message in vendors["vitally"].messages]
    assert len(set(ids)) == 20
    assert ids == [message["messageId"] for message in vendors["segment"].messages]
    assert [UUID(one).int for one in ids] == [bits_of_ulid(message["id"]) for message in vendors["customerio"].messages]
    moments = [message["timestamp"] for message in vendors["vitally"].messages]
    assert moments == [message["timestamp"] for message in vendors["segment"].messages]
    seconds = [message["timestamp"] for message in vendors["customerio"].messages]
    assert seconds == [UUID(one).int // 2**80 // 1000 for one in ids]


@pytest.mark.parametrize(
    ("given", "bits"),
    [
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", bits_of_ulid("01ARZ3NDEKTSV4RRFFQ69G5FAV")),
        ("2a3a47e7-459e-440e-b9d3-9fc1b11f233e", UUID("2a3a47e7-459e-440e-b9d3-9fc1b11f233e").int),
        ("order-17", 0x72A90EA3DA8B5DD01BDE2F27314E02E2),
    ],
)
def test_a_given_id_is_the_same_everywhere(fan_out, vendors, given, bits):
    """A given `message_id` goes out as it is; Customer.io's form depends on it alone."""
    client = fan_out()
    assert client.track("u", "e", account_id="a", message_id=given, timestamp="2026-01-02T03:04:05.678Z")
    assert client.flush()
    assert [vendors[name].messages[0]["messageId"] for name in ("vitally", "segment")] == [given] * 2
    assert bits_of_ulid(vendors["customerio"].messages[0]["id"]) == bits
    assert [vendors[name].messages[0]["timestamp"] for name in NAMES] == [
        "2026-01-02T03:04:05.678Z",
        1_767_323_045,
        "2026-01-02T03:04:05.678Z",
    ]


def test_an_id_survives_one_destinations_retries(fan_out, vendors):
    """What one vendor gets at the third attempt has the id that the others got at the first."""
    vendors["customerio"].script(Reply(500), Reply(reset="before"))
    client = fan_out(retry=FAST)
    assert track(client, 1) == 1
    assert client.flush()
    first = UUID(vendors["vitally"].messages[0]["messageId"]).int
    sent = [bits_of_ulid(request.messages[0]["id"]) for request in vendors["customerio"].requests]
    assert sent[:1] * len(sent) == sent
    assert len(sent) >= 3
    assert sent[0] == first
    assert [len(vendors[name].requests) for name in ("vitally", "segment")] == [1, 1]


def test_json_is_written_once_for_all_destinations(fan_out, vendors):
    """The `default` hook is asked once for one odd value, on the caller's thread, though three vendors get it."""
    asked = []

    def default(value):
        asked.append((type(value), threading.get_ident()))
        return "mended"

    class Odd:
        pass

    client = fan_out(default=default)
    assert client.track("u", "e", {"odd": Odd()}, account_id="a")
    assert client.flush()
    assert asked == [(Odd, threading.get_ident())]
    assert vendors["vitally"].messages[0]["properties"] == {"odd": "mended"}
    assert vendors["customerio"].messages[0]["attributes"] == {"odd": "mended"}
    assert vendors["segment"].messages[0]["properties"] == {"odd": "mended"}


def test_order_is_kept_at_each_destination(fan_out, vendors):
    """What one thread tracked arrives in that order everywhere, over the retries of one of them too."""
    vendors["segment"].script(Reply(500), Reply(503))
    client = fan_out(retry=FAST, batch_messages=7)
    assert track(client, 50) == 50
    assert client.flush()
    users = [f"u{number}" for number in range(50)]
    assert [message["userId"] for message in vendors["vitally"].messages] == users
    assert [message["identifiers"]["id"] for message in vendors["customerio"].messages] == users
    assert [message["userId"] for message in vendors["segment"].messages] == users


# Native messages


def test_a_native_message_goes_to_the_one_it_is_named_for(fan_out, vendors):
    """`enqueue(..., to=...)` reaches that destination alone, and is counted there alone."""
    operation = {"type": "person", "action": "delete", "identifiers": {"id": "u"}}
    client = fan_out()
    assert client.enqueue(operation, to="customerio") is True
    assert client.flush()
    assert list(vendors["customerio"].messages) == [operation]
    assert [part.tracked for part in client.stats().destinations.values()] == [0, 1, 0]
    assert not vendors["vitally"].requests + vendors["segment"].requests


@pytest.mark.parametrize("to", [None, "", "Vitally", "mixpanel", 0, ["vitally"]])
def test_a_native_message_for_nobody_is_an_error_of_the_program(fan_out, to):
    """Without `to`, or with one that names no destination, `enqueue` raises, names those there are, counts nothing."""
    client = fan_out()
    with pytest.raises(ValueError, match=r"'vitally' or 'customerio' or 'segment'"):
        client.enqueue({"type": "track"}, to=to)
    assert client.stats().tracked == 0


def test_a_single_destination_may_be_named(fan_out, vendors):
    """With one destination `to` may be left out; a wrong one is still an error."""
    message = {"type": "unlink", "userId": "u", "accountId": "a", "messageId": "m", "timestamp": "2026-01-02T03:04:05Z"}
    client = fan_out(("vitally",))
    assert client.enqueue(message)
    assert client.enqueue(message, to="vitally")
    with pytest.raises(ValueError, match="'vitally'"):
        client.enqueue(message, to="segment")
    assert client.flush()
    assert list(vendors["vitally"].messages) == [message] * 2


# The destinations themselves


def test_names_must_be_unique():
    """Two destinations of one name are a `ValueError` that says what to do; with names of their own they are two."""
    one, other = Vitally("acme", api_token="t"), Vitally("beta", api_token="t")
    with pytest.raises(ValueError, match="name="):
        Client([one, other])
    named = Client([one, Vitally("beta", api_token="t", name="beta")])
    assert list(named.stats().destinations) == ["vitally", "beta"]
    named.shutdown(0)


def test_two_of_one_vendor_are_two_destinations(vendors):
    """Names tell two accounts at one vendor apart, in figures and in `to`."""
    token = SECRETS[0]
    url = vendors["vitally"].url
    with Client([Vitally(api_token=token, base_url=url, name=name) for name in ("a", "b")]) as client:
        assert track(client, 2) == 2
        assert client.enqueue({"type": "unlink", "userId": "u", "accountId": "a"}, to="b")
        assert client.flush()
        assert {name: part.delivered for name, part in client.stats().destinations.items()} == {"a": 2, "b": 3}
    assert arrived(vendors["vitally"]) == 5
    assert vendors["vitally"].connections == 2, "each has a session of its own"


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [],
        (),
        "vitally",
        b"vitally",
        7,
        Vitally,
        [Vitally],
        [Vitally("acme", api_token="t"), None],
        [Vitally("acme", api_token="t"), "segment"],
        [[Vitally("acme", api_token="t")]],
        {"vitally": {"api_token": "sesame"}},
        [{"api_token": "sesame"}],
    ],
    ids=str,
)
def test_what_is_no_destination_is_refused(bad):
    """A wrong destination is a `ValueError` that names the setting, and shows no secret that it may hold."""
    with pytest.raises(ValueError, match="destination") as caught:
        Client(bad)
    assert "sesame" not in str(caught.value)


def test_the_limits_of_each_destination_hold_for_the_options():
    """An option above the limit of one of the destinations is refused, and the error names that one."""
    both = [CustomerIO("s", "k"), Vitally("acme", api_token="t")]
    with pytest.raises(ValueError, match=r"batch_messages=101.*vitally"):
        Client(both, batch_messages=101)
    with pytest.raises(ValueError, match=r"message_bytes=32500.*customerio"):
        Client(both, message_bytes=32_500)


def test_no_secret_stands_in_a_repr(fan_out):
    """A client's `repr` shows every destination, and no secret of any."""
    text = repr(fan_out())
    assert all(kind in text for kind in ("Vitally", "CustomerIO", "Segment"))
    assert not any(secret in text for secret in SECRETS)


def test_a_sequence_is_read_once_and_not_kept(vendors):
    """What becomes of the list after the client was made changes nothing."""
    several = destinations_of({name: vendors[name].url for name in NAMES})
    with Client(several) as client:
        several.clear()
        assert track(client, 1) == 1
        assert client.flush().delivered == 3


# The end of the process


PROGRAM = """
import json, logging, os, sys

from analytics_batcher import Client, CustomerIO, Segment, Vitally

logging.basicConfig(format="%(message)s")

urls, options, how = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
token, site, key, write_key = sys.argv[4:]
client = Client(
    [
        Vitally(api_token=token, base_url=urls["vitally"]),
        CustomerIO(site, key, base_url=urls["customerio"]),
        Segment(write_key, base_url=urls["segment"]),
    ],
    **options,
)


def track(user, count):
    assert all(client.track(f"{user}-{number}", "happened", account_id="a") for number in range(count))


track("parent", 120)
if how == "fork":
    child = os.fork()
    track("child" if child == 0 else "parent-too", 5)
    if child == 0:
        result = client.flush(10)
        stats = client.stats()
        well = result.delivered == stats.delivered == stats.tracked == 15
        os._exit(0 if well and all(one.delivered == 5 for one in stats.destinations.values()) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
if how == "collected":
    del client
"""


def run(vendors, how, **options):
    """Run the program to its end; its standard error, and the seconds it took."""
    urls = {name: receiver.url for name, receiver in vendors.items()}
    command = [sys.executable, "-c", PROGRAM, json.dumps(urls), json.dumps(options), how, *SECRETS]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    begun = time.monotonic()
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, "Traceback" in ended.stderr) == (0, False), ended.stderr
    return ended.stderr, time.monotonic() - begun


@BOTH_WAYS
@pytest.mark.parametrize("how", ["return", "collected"])
def test_the_exit_delivers_to_every_destination(vendors, how, background):
    """A program that just ends has delivered everything to everyone."""
    errors, _ = run(vendors, how, background=background)
    assert errors == ""
    assert {name: arrived(receiver) for name, receiver in vendors.items()} == dict.fromkeys(NAMES, 120)


@BOTH_WAYS
def test_one_that_hangs_at_the_exit_takes_nobodys_time(vendors, background):
    """The exit ends in its time, delivers to all but the first one, which hangs, and says what it leaves."""
    vendors["vitally"].decide = lambda _: HANGS
    errors, seconds = run(vendors, "return", background=background, shutdown_timeout=0.7, flush_interval=30)
    assert seconds < 0.7 + 2.0  # the interpreter's start among them
    assert (arrived(vendors["customerio"]), arrived(vendors["segment"])) == (120, 120)
    left = [line.partition(" were ")[0] for line in errors.splitlines() if "left behind" in line]
    assert left == ["vitally: 120 messages"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@BOTH_WAYS
def test_a_forked_child_delivers_its_own_to_every_destination(vendors, background):
    """Both sides of a fork deliver what is theirs, once, to everyone."""
    run(vendors, "fork", background=background, flush_interval=30)
    for name, receiver in vendors.items():
        assert arrived(receiver) == 130, name
        users = [message.get("userId") or message["identifiers"]["id"] for message in receiver.messages]
        assert len(set(users)) == 130, name
        assert Counter(user.rpartition("-")[0] for user in users) == {"parent": 120, "parent-too": 5, "child": 5}
