from __future__ import annotations

import logging
import signal
import threading
import time

import pytest
from programs.canary import FORMATTER, TOKEN, told

from analytics_batcher import Client, Vitally
from analytics_batcher.receiver import Receiver


class Watch(logging.Handler):
    """Sees every log record of the session, from DEBUG on, and keeps those that tell a canary.

    Threads append to `told`, which is one C call; a test's fixture empties it.
    """

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.told = []

    def emit(self, record):
        """Look at a record, its traceback included."""
        text = FORMATTER.format(record)
        if told(text):
            self.told.append(f"{record.name}: {text}")


WATCH = Watch()


def pytest_configure():
    """Log everything, and watch it. Take Ctrl-C though a shell may have had it ignored, as it does behind an `&`."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger().addHandler(WATCH)


@pytest.fixture(autouse=True)
def _nobody_tells():
    """Fails a test in which a secret, or what stands for personal data, was logged."""
    WATCH.told.clear()
    yield
    assert not WATCH.told


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Fails a test by which one was printed."""
    report = yield
    if report.passed and (found := told(report.capstdout + report.capstderr)):
        report.outcome, report.longrepr = "failed", f"printed were {found}"
    return report


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
