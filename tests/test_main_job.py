"""The main job, whole: what is tracked arrives, once, in order, in few requests, whatever the endpoint does."""

from __future__ import annotations

import collections
import random
import threading

from conftest import balanced

from analytics_batcher import DropReason, Retry
from analytics_batcher.receiver import Reply

FAST = Retry(base=0.01, cap=0.05)


def per_thread(messages):
    """The numbers that arrived of each thread, first arrivals only, in their order of arrival."""
    seen, arrived = set(), collections.defaultdict(list)
    for message in messages:
        if message["messageId"] not in seen:
            seen.add(message["messageId"])
            arrived[message["userId"]].append(message["properties"]["n"])
    return arrived


def test_eight_threads_through_sixty_faults(make_client, receiver):
    """8,000 messages arrive through 60 faults, in each thread's order; repeats carry the same id and time."""
    chance = random.Random(60)
    faults = [
        Reply(500),
        Reply(429, headers={"Retry-After": "0"}),
        Reply(503, headers={"Retry-After": "0.02"}),
        Reply(reset="before"),
        Reply(reset="after"),
        Reply(200, body=b"<html>captive portal</html>", store=False),
        Reply(delay=0.05),
        Reply(408),
    ]
    script = []
    for _ in range(60):
        script += [chance.choice(faults)] + [Reply()] * chance.choice([0, 0, 1])
    receiver.script(*script)
    client = make_client(retry=FAST, max_queue_messages=20_000)

    def track(thread):
        for number in range(1_000):
            assert client.track(f"thread-{thread}", "e", {"n": number})

    threads = [threading.Thread(target=track, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    result = client.flush(60)
    stats = client.stats()
    assert result
    assert stats.tracked == stats.delivered == 8_000
    assert stats.pending == 0
    assert stats.retries >= 40
    assert per_thread(receiver.messages) == {f"thread-{number}": list(range(1_000)) for number in range(8)}
    report = receiver.report()
    assert report.unique_messages == 8_000
    assert report.repeats > 0
    assert not report.faults
    first = {}
    for message in receiver.messages:
        assert first.setdefault(message["messageId"], message) == message


def test_5050_messages_in_one_go(make_client, receiver):
    """At most 60 requests, order kept, ids unique."""
    client = make_client()
    for number in range(5_050):
        assert client.track("u", "e", {"n": number})
    assert client.flush(30)
    assert len(receiver.requests) <= 60
    assert [message["properties"]["n"] for message in receiver.messages] == list(range(5_050))
    assert len({message["messageId"] for message in receiver.messages}) == 5_050
    assert receiver.report().fullest_batch == 100


def test_three_poisoned_messages_of_300(make_client, receiver):
    """The three are dropped as rejected and named, 297 are delivered, in under 80 requests."""
    bad = {7, 150, 299}
    told = []
    receiver.decide = lambda messages: (
        Reply(400) if bad & {message["properties"]["n"] for message in messages} else None
    )
    client = make_client(on_drop=told.append)
    for number in range(300):
        client.track("u", "e", {"n": number})
    result = client.flush(30)
    assert not result
    assert (result.delivered, result.dropped, result.pending) == (297, {"rejected": 3}, 0)
    assert {message["properties"]["n"] for drop in told for message in drop.messages} == bad
    assert {drop.reason for drop in told} == {DropReason.REJECTED}
    assert [message["properties"]["n"] for message in receiver.messages] == [n for n in range(300) if n not in bad]
    assert len(receiver.requests) < 80
    assert balanced(client.stats())


def test_a_slow_drip_ends_with_the_timeout(make_client, receiver):
    """An endpoint that answers one byte a second holds a request no longer than `timeout`, and nothing is lost."""
    receiver.script(Reply(drip=1.0))
    client = make_client(timeout=0.3, retry=FAST)
    client.track("u", "e", {"n": 1})
    assert client.flush(5)
    assert client.stats().delivered == 1
    assert client.stats().retries == 1
    assert receiver.report().unique_messages == 1


def test_every_body_stays_within_the_limits(make_client, receiver):
    """No request exceeds its count or its bytes, envelope and commas included, and messages of all sizes arrive."""
    chance = random.Random(7)
    client = make_client(batch_bytes=20_000, message_bytes=15_000, max_queue_bytes=2**26)
    for number in range(1_500):
        pad = chance.choice(["", "é" * chance.randrange(50), "x" * chance.randrange(14_000)])
        assert client.track("u", "e", {"n": number, "pad": pad})
    assert client.flush(30)
    report = receiver.report()
    assert report.largest_body <= 20_000
    assert report.fullest_batch <= 100
    assert [message["properties"]["n"] for message in receiver.messages] == list(range(1_500))
