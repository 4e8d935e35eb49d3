"""Clients behind networks that cut, drip, swallow, reset, refuse, delay, divert and impersonate."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import ipaddress
import json
import logging
import random
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import requests
from conftest import TOKEN, balanced
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fault_proxy import CLEAR, FaultProxy, Weather
from test_transport import Server, server_context

from analytics_batcher import Client, CustomerIO, InvalidResponse, Retry, Segment, TransportError, Vitally
from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply, SegmentWire, VitallyWire

SITE, KEY, WRITE_KEY = "site-of-ours", "key-of-ours", "write-key-of-ours"
SECRETS = (TOKEN, KEY, WRITE_KEY, base64.b64encode(f"{SITE}:{KEY}".encode()).decode())
FAST = Retry(base=0.005, cap=0.01)
WIRES = {"vitally": VitallyWire(TOKEN), "customerio": CustomerIOWire(SITE, KEY), "segment": SegmentWire(WRITE_KEY)}
DESTINATIONS = {
    "vitally": lambda url: Vitally(api_token=TOKEN, base_url=url),
    "customerio": lambda url: CustomerIO(SITE, KEY, base_url=url),
    "segment": lambda url: Segment(WRITE_KEY, base_url=url),
    "jitsu": lambda url: Segment.jitsu(url, WRITE_KEY),
}
NATIVE = {
    "vitally": {"type": "track", "userId": "u", "event": "e", "properties": {}, "messageId": "m"},
    "customerio": {"type": "person", "action": "event", "identifiers": {"id": "u"}, "name": "e", "attributes": {}},
    "segment": {"type": "track", "userId": "u", "event": "e", "properties": {}, "messageId": "m"},
}
every_destination = pytest.mark.parametrize("name", NATIVE)
every_end = pytest.mark.parametrize("end", ["end", "reset"])
every_connection = pytest.mark.parametrize("connection", ["kept", "fresh"])


@pytest.fixture
def receiver():
    """All three vendors' stand-in."""
    with Receiver(wires=tuple(WIRES.values())) as running:
        yield running


@pytest.fixture
def stand_before():
    """Makes proxies in clear weather before servers."""
    with contextlib.ExitStack() as stack:
        yield lambda port: stack.enter_context(FaultProxy(("127.0.0.1", port)))


@pytest.fixture
def proxy(receiver, stand_before):
    """A proxy before the receiver."""
    return stand_before(port_of(receiver))


@pytest.fixture
def client_of(receiver):
    """Makes clients of one vendor, and shuts them down at the end."""
    clients = []

    def make(name="vitally", url=None, **options):
        clients.append(Client(DESTINATIONS[name](url or receiver.url), **{"retry": FAST, "timeout": 2.0, **options}))
        return clients[-1]

    yield make
    for client in clients:
        client.shutdown(0)


def port_of(receiver):
    """Where a receiver listens."""
    return int(receiver.url.rpartition(":")[2])


def track(client, number):
    """Track a message of its own number; all are of one length."""
    assert client.track("u", "e", {"n": f"{number:04}"})


def stored(receiver, since=0):
    """The number and the id of each stored message, in order of arrival, repeats included."""
    messages = receiver.messages[since:]
    found = [(one.get("properties") or one["attributes"], one.get("messageId") or one["id"]) for one in messages]
    return [(int(properties["n"]), given) for properties, given in found]


def measure(proxy, client):
    """The bytes of one request, and of its answer."""
    before = proxy.request_bytes, proxy.response_bytes
    track(client, 9_999)
    assert client.flush(5)
    proxy.weather = CLEAR  # in force only after the proxy's thread has counted what went before
    return proxy.request_bytes - before[0], proxy.response_bytes - before[1]


def begin(proxy, weather, connection):
    """Let a weather begin, for a kept connection or with none."""
    if connection == "fresh":
        proxy.weather = Weather(refuse=True)
    proxy.weather = weather


# --- Cut after every byte ---------------------------------------------------------------------------------------------


@every_connection
@every_end
def test_a_request_cut_after_every_byte_arrives_once(client_of, receiver, proxy, *, end, connection):
    """Wherever a request breaks off, its message arrives: once, for the vendor never had it whole."""
    client = client_of(url=proxy.url)
    length, _ = measure(proxy, client)
    assert length > 300
    for offset in range(length + 1):
        since = len(receiver.messages)
        begin(proxy, Weather(cut_request=offset, abort=end == "reset", cuts=1), connection)
        track(client, offset)
        assert client.flush(5), offset
        assert proxy.weather == CLEAR, "the cut did not come"
        copies = stored(receiver, since)
        assert len(copies) == 1 or (offset == length and len(copies) == 2), offset  # the whole one lost its answer
        assert {number for number, _ in copies} == {offset}
        assert len({given for _, given in copies}) == 1
        stats = client.stats()
        assert (stats.tracked, stats.delivered, stats.pending) == (offset + 2, offset + 2, 0)
        assert balanced(stats)


@every_connection
@every_end
def test_an_answer_cut_after_every_byte_costs_one_repetition(client_of, receiver, proxy, *, end, connection):
    """Wherever an answer breaks off, the message arrives a second time, by the same id, and counts once."""
    client = client_of(url=proxy.url)
    _, length = measure(proxy, client)
    assert length > 80
    for offset in range(length + 1):
        since = len(receiver.messages)
        begin(proxy, Weather(cut_response=offset, abort=end == "reset", cuts=1), connection)
        track(client, offset)
        assert client.flush(5), offset
        copies = stored(receiver, since)
        assert len(copies) == 2 or (offset == length and len(copies) == 1), offset
        assert {number for number, _ in copies} == {offset}
        assert len({given for _, given in copies}) == 1
        stats = client.stats()
        assert (stats.tracked, stats.delivered, stats.pending) == (offset + 2, offset + 2, 0)
        assert balanced(stats)


@every_end
@pytest.mark.parametrize("name", ["customerio", "jitsu"])
def test_an_answer_cut_after_every_byte_hides_no_refusal(client_of, stand_before, *, name, end):
    """A message that the vendor refuses counts as rejected, wherever the answer that says so breaks off."""
    wire = {"customerio": WIRES["customerio"], "jitsu": SegmentWire(WRITE_KEY, kind="jitsu", auth="basic")}[name]
    drops = []
    with Receiver(wire) as receiver:
        receiver.decide = lambda _: Reply(partial={1: "name: is odd"})
        proxy = stand_before(port_of(receiver))
        client = client_of(name, proxy.url, on_drop=drops.append)
        # Both messages of a pair go out in one request, which a flush ends.
        pairs = 0
        for number in (0, 1):
            track(client, number)
        assert client.flush(5).delivered == 1
        proxy.weather = CLEAR
        length = proxy.response_bytes
        assert length > 150
        for offset in range(length + 1):
            pairs += 1
            proxy.weather = Weather(cut_response=offset, abort=end == "reset", cuts=1)
            for number in (2 * pairs, 2 * pairs + 1):
                track(client, number)
            result = client.flush(5)
            assert (result.delivered, dict(result.dropped)) == (1, {"rejected": 1}), offset
            assert balanced(client.stats())
        numbers = {number for number, _ in stored(receiver)}
        assert numbers == set(range(0, 2 * pairs + 2, 2))
        assert sum(drop.count for drop in drops) == pairs + 1
        client.shutdown(0)
