"""Programs under gevent, run by `tests/test_servers.py`: each patches the standard library at another moment."""

from __future__ import annotations

import signal
import sys

from gevent import monkey

if "before" in sys.argv:
    monkey.patch_all()

import gevent
from harness import books, make_client, say, start, track

from analytics_batcher import RedisBuffer

NOWHERE = "http://127.0.0.1:9"


def works(url, when, background):
    """Track in twenty greenlets, flush in another one while one ticks, and leave a message to the exit."""
    if when == "after":
        monkey.patch_all()
    fleet = {} if url.startswith("http") else {"buffer": RedisBuffer(url)}
    client = make_client(url if not fleet else NOWHERE, background=background == "thread", flush_interval=60, **fleet)
    if when == "late":
        monkey.patch_all()
    ticks = []

    def tick():
        while True:
            ticks.append(None)
            gevent.sleep(0.01)

    def work(name):
        accepted = 0
        for number in range(10):
            accepted += track(client, f"{name}-{number}", 1)
            gevent.sleep(0.001)
        return accepted

    ticking = gevent.spawn(tick)
    workers = [gevent.spawn(work, name) for name in range(20)]
    gevent.joinall(workers)
    before = len(ticks)
    flushed = gevent.spawn(client.flush, 10).get()
    during = len(ticks) - before
    ticking.kill()
    accepted = sum(worker.value for worker in workers)
    say(accepted=accepted, delivered=flushed.delivered, flushed=bool(flushed), ticks=during)
    say(left=track(client, "left", 1))


def handlers(url, _):
    """Track, and ask for figures, while signal handlers do so too, which interrupt the calls."""
    client = make_client(url, max_queue_messages=1_000_000, flush_interval=0.01)
    accepted, handled = 0, []

    def handler(*_):
        client.stats()
        handled.append(track(client, f"handler-{len(handled)}", 1))

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
    while len(handled) < 800:
        accepted += track(client, "u", 10)
        client.stats()
        if accepted % 1_000 == 0:
            gevent.sleep(0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    say(accepted=accepted + sum(handled), flushed=bool(client.flush(20)), **books(client))


def in_the_hub(url, _):
    """Track the first message where nothing may wait: in a callback of the hub, which runs no greenlet."""
    client = make_client(url, flush_interval=0.01)
    hub, outcome = gevent.get_hub(), []

    def call():
        try:
            outcome.append(track(client, "hub", 1))
        except AssertionError as error:  # what gevent raises of a call that would wait
            outcome.append(repr(error))

    hub.loop.run_callback(call)
    gevent.sleep(0.01)
    say(outcome=outcome, flushed=bool(client.flush(20)), **books(client))


if __name__ == "__main__":
    start({"works": works, "handlers": handlers, "in_the_hub": in_the_hub})
