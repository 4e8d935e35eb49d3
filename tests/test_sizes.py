"""Sizes, end to end: no request over a vendor's limit, and nothing lost but what alone exceeds it."""

from __future__ import annotations

import json
from random import Random

import pytest
from conftest import balanced

from analytics_batcher import Client, CustomerIO, Segment, Vitally
from analytics_batcher.receiver import CustomerIOWire, Receiver, SegmentWire, VitallyWire

MESSAGES = 700
CHARACTERS = ["x", "\u00e9", "\u6f22", "\U0001f600", '"', "\\", "\n", "\x01", "\u2028", " "]
EXTRA = 400
"""More bytes than any vendor's form adds to the properties."""

VENDORS = {
    "vitally": (VitallyWire("t"), lambda url: Vitally(api_token="t", base_url=url)),
    "customerio": (CustomerIOWire("s", "k"), lambda url: CustomerIO("s", "k", base_url=url)),
    "segment": (SegmentWire("w"), lambda url: Segment("w", base_url=url)),
}


def properties(chance, number, size):
    """Properties of about that many bytes as compact JSON, in one of many kinds of characters, or in all of them."""
    kinds = chance.choice([*([character] for character in CHARACTERS), CHARACTERS])
    pool = "".join(chance.choice(kinds) for _ in range(50))
    most = len(json.dumps(pool, ensure_ascii=False).encode()) / len(pool)
    return {"n": number, "pad": (pool * (size // len(pool) + 1))[: int(size / most)]}


def sizes(chance, limit):
    """Sizes from 10 bytes to over the limit: small ones, any, and many about the limit."""
    for number in range(MESSAGES):
        if number % 3 == 0:
            yield int(10 ** chance.uniform(1, 4))
        elif number % 3 == 1:
            yield chance.randint(10, limit + 8_000)
        else:
            yield chance.randint(limit - EXTRA, limit + 50) if number % 4 else chance.randint(10, limit)


@pytest.mark.parametrize("vendor", VENDORS)
def test_random_sizes(vendor):
    """Of 700 messages of any size no request exceeds the limit, what fits arrives whole, the rest is counted."""
    wire, make = VENDORS[vendor]
    chance = Random(vendor)
    with Receiver(wire) as receiver:
        destination = make(receiver.url)
        limit = destination.limits.message_bytes
        given = {n: properties(chance, n, size) for n, size in enumerate(sizes(chance, limit))}
        with Client(destination) as client:
            accepted = [n for n, content in given.items() if client.track("u", "e", content)]
            client.flush(20)
            stats = client.stats()
        content = "attributes" if vendor == "customerio" else "properties"
        arrived = {message[content]["n"]: message[content] for message in receiver.messages}
        assert receiver.faults == ()
        assert max(request.size for request in receiver.requests) <= 500_000
        if vendor != "vitally":
            assert max(request.size for request in receiver.requests) > 380_000
    assert len(receiver.messages) == len(arrived)
    assert arrived == {n: given[n] for n in arrived}
    too_large = given.keys() - arrived.keys()
    assert (stats.delivered, dict(stats.dropped)) == (len(arrived), {"too_large": len(too_large)})
    assert balanced(stats)
    assert arrived.keys() <= set(accepted)
    lengths = {n: len(json.dumps(given[n], ensure_ascii=False, separators=(",", ":")).encode()) for n in given}
    assert all(lengths[n] > limit - EXTRA for n in too_large)
    assert all(lengths[n] < limit for n in arrived)
    assert sum(lengths[n] > limit for n in given) > 20
    assert min(lengths.values()) < 30
    if vendor == "vitally":
        assert max(len(request.messages) for request in receiver.requests) <= 100
    if vendor == "segment":  # whose form is the longer one, so that some turn out too large in the consumer
        assert set(accepted) - arrived.keys()
