from __future__ import annotations

import threading
import time

import pytest

from analytics_batcher import Client, Vitally
from analytics_batcher.receiver import Receiver

TOKEN = "test-token"


@pytest.fixture
def receiver():
    """A vendor's stand-in on loopback."""
    with Receiver(api_token=TOKEN) as running:
        yield running


@pytest.fixture
def make_client(receiver):
    """Makes clients of the receiver, and shuts them down at the end."""
    clients = []

    def make(*, url=None, **options):
        client = Client(Vitally(api_token=TOKEN, base_url=url or receiver.url), **options)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.shutdown(0)


@pytest.fixture
def wait_until():
    """Waits for a condition, at most ten seconds."""

    def wait(condition, timeout=10.0):
        pause = threading.Event()
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, "the condition did not come true in time"
            pause.wait(0.002)  # between two looks at a condition that nothing announces

    return wait


def balanced(stats):
    """The law of conservation."""
    settled = stats.delivered + sum(stats.dropped.values()) + stats.pending + stats.handed_over
    return stats.tracked + stats.recovered == settled
