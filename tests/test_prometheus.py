"""Prometheus: clients' figures, scraped over HTTP."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
from conftest import TOKEN
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import DuplicateTimeseries

from analytics_batcher import Client, DropReason, Segment, Vitally
from analytics_batcher.integrations.prometheus import StatsCollector
from analytics_batcher.receiver import Receiver, Reply, SegmentWire, VitallyWire

NAMES = {
    **dict.fromkeys(("messages_tracked", "messages_recovered", "messages_handed_over"), "counter"),
    **dict.fromkeys(("messages_delivered", "messages_dropped", "requests", "retries", "batches"), "counter"),
    **dict.fromkeys(("messages_pending", "pending_bytes", "oldest_pending_age_seconds", "consumer_alive"), "gauge"),
}


@pytest.fixture
def serve():
    """Serves collectors at a free port; the function that scrapes them."""
    ends = []

    def serve(*collectors):
        registry = CollectorRegistry(auto_describe=True)
        for collector in collectors:
            registry.register(collector)
        server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
        ends.append((server, thread))
        return lambda: scraped(server.server_port)

    yield serve
    for server, thread in ends:
        server.shutdown()
        server.server_close()
        thread.join(10)


def scraped(port):
    """The families of a scrape; a repeated series would be an error of Prometheus's."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples = [(one.name, *sorted(one.labels.items())) for family in families for one in family.samples]
    assert len(samples) == len(set(samples))
    return families


def figures(families, destination="vitally"):
    """The figures of a destination by their names without the prefix; dropped ones by reason."""
    return {
        one.labels.get("reason") or one.name.removeprefix("analytics_batcher_"): one.value
        for family in families
        for one in family.samples
        if one.labels["destination"] == destination
    }


def settled(found):
    """What the books of a scrape say of the messages that came in, and of what became of them."""
    dropped = sum(found[reason] for reason in DropReason)
    gone = found["messages_delivered_total"] + dropped + found["messages_pending"]
    return found["messages_tracked_total"] + found["messages_recovered_total"], gone


def test_a_scrape_is_what_the_stats_say(make_client, receiver, serve):
    """Every figure of `stats()` is scraped over HTTP, with its kind, by destination, drops by reason."""
    client = make_client(background=False)
    scrape = serve(StatsCollector(client))
    receiver.script(Reply(503, headers={"Retry-After": "0"}))
    for number in range(5):
        client.track("u", str(number), account_id="a")
    client.track("u", "")
    client.flush()
    client.track("u", "waits", account_id="a")
    families, stats = scrape(), client.stats()
    found = figures(families)
    assert {family.name.removeprefix("analytics_batcher_"): family.type for family in families} == NAMES
    assert all(family.documentation for family in families)
    assert found.pop("oldest_pending_age_seconds") > 0
    drops = {reason: found.pop(reason) for reason in DropReason}
    assert {reason: count for reason, count in drops.items() if count} == {"invalid": 1}
    assert found == {
        "messages_tracked_total": 7,
        "messages_recovered_total": 0,
        "messages_handed_over_total": 0,
        "messages_delivered_total": 5,
        "batches_total": 1,
        "requests_total": 2,
        "retries_total": 1,
        "messages_pending": 1,
        "pending_bytes": stats.pending_bytes,
        "consumer_alive": 1,
    }


def test_two_clients_and_several_destinations(serve):
    """Figures of the same destination are summed up over clients, and others stand beside them."""
    with Receiver(wires=[VitallyWire(TOKEN), SegmentWire(TOKEN)]) as receiver:
        vitally, segment = Vitally(api_token=TOKEN, base_url=receiver.url), Segment(TOKEN, base_url=receiver.url)
        with Client(vitally, background=False) as one, Client([vitally, segment], background=False) as other:
            scrape = serve(StatsCollector(one, other))
            one.track("u", "x", account_id="a")
            one.flush()
            other.page("u", "Home")
            other.track("u", "x", account_id="a")
            families = scrape()
            assert settled(figures(families)) == (3, 3)
            assert figures(families)["unsupported"] == 1
            assert figures(families)["messages_delivered_total"] == 1
            assert figures(families, "segment")["messages_pending"] == 2
    with pytest.raises(DuplicateTimeseries):
        serve(StatsCollector(one), StatsCollector(other))


def test_a_client_that_ends_breaks_no_scrape(make_client, receiver, serve):
    """A client that was shut down keeps its counts, of a collected one they stay, and neither is kept alive."""
    closed = make_client()
    collected = Client(Vitally(api_token=TOKEN, base_url=receiver.url), background=False)
    scrape = serve(StatsCollector(closed, collected))
    for client in (closed, collected):
        client.track("u", "x", account_id="a")
        client.track("u", "")
        client.flush()
    assert settled(figures(scrape())) == (4, 4)
    collected.track("u", "waits", account_id="a")
    assert figures(scrape())["messages_pending"] == 1
    closed.shutdown()
    closed.track("u", "late", account_id="a")
    del client, collected
    gc.collect()
    found = figures(scrape())
    assert (found["messages_delivered_total"], found["invalid"], found["closed"]) == (2, 2, 1)
    assert (found["messages_tracked_total"], found["messages_pending"], found["consumer_alive"]) == (6, 0, 1)
    assert figures(scrape()) == found


def test_a_scrape_blocks_nobody(make_client):
    """In the middle of a scrape calls go on, and so does another scrape."""
    client = make_client(flush_interval=60)
    collector = StatsCollector(client)
    scrape = collector.collect()
    next(scrape)
    done = threading.Event()

    def call():
        assert client.track("u", "x", account_id="a")
        assert client.stats().tracked == 1
        assert len(list(collector.collect())) == len(NAMES)
        done.set()

    thread = threading.Thread(target=call)
    thread.start()
    assert done.wait(10)
    thread.join(10)
    assert {family.name.removeprefix("analytics_batcher_") for family in scrape} == NAMES.keys() - {"messages_tracked"}


def test_the_books_of_every_scrape_balance(make_client, serve):
    """While two threads track, and the consumer delivers, each scrape's figures balance, and no count falls."""
    client = make_client(flush_interval=0)
    scrape = serve(StatsCollector(client))
    over = threading.Event()

    def track():
        while not over.is_set():
            client.track("u", "x", account_id="a")
            over.wait(0.0005)

    threads = [threading.Thread(target=track) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        seen = [figures(scrape()) for _ in range(40)]
    finally:
        over.set()
        for thread in threads:
            thread.join(10)
    assert all(came == went for came, went in map(settled, seen))
    for name in ("messages_tracked_total", "messages_delivered_total", "requests_total"):
        values = [found[name] for found in seen]
        assert values == sorted(values)
        assert values[-1] > values[0]


def test_the_extra_is_named():
    """Without `prometheus-client` the import's error says what to install."""
    program = "import sys\nsys.modules['prometheus_client'] = None\nimport analytics_batcher.integrations.prometheus\n"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ImportError: analytics_batcher.integrations.prometheus needs the package prometheus-client: "
        "pip install 'analytics-batcher[prometheus]'"
    )
