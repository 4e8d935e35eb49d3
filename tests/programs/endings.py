"""Programs that end with messages queued: each case is one ending, run by `tests/test_endings.py`.

Each says how many calls it made, the moment at which its end begins, and how long it worked till then. What became of
the messages is told by the callbacks, as it happens, and by the client's figures, in the very last handler of the exit.
"""

from __future__ import annotations

import atexit
import logging
import signal
import sys
import threading
import time
from collections import Counter

from harness import KEPT, books, make_client, say, start, track, unkept_client

import analytics_batcher
from analytics_batcher import Vitally

SECONDS = 20
"""After these a program that should have been ended by a signal ends by itself."""
TOLD = Counter()
OPTIONS = {}


def on_delivery(delivery):
    """Add up what is delivered."""
    TOLD["delivered"] += delivery.count
    say(told=TOLD)


def on_drop(drop):
    """Add up what is dropped."""
    TOLD[drop.reason] += drop.count
    say(told=TOLD)


def run_case(end):
    """Make a case of an ending."""

    def case(url, count, shutdown_timeout):
        logging.basicConfig(format="%(levelname)s %(message)s")
        OPTIONS.update(shutdown_timeout=float(shutdown_timeout), on_delivery=on_delivery, on_drop=on_drop)
        say(told={})
        end(url, int(count))

    return case


def say_books():
    """Register the handler that runs last, after those of the client, if it is registered before the client is made."""
    atexit.register(lambda: say(books=[books(client) for client in KEPT]))


def fill(client, count):
    """Track, and say that the end begins now."""
    say(taken=track(client, "u", count), begun=time.monotonic(), worked=time.process_time())


def fall_off(url, count):
    """Reach the end of the program."""
    say_books()
    fill(make_client(url, **OPTIONS), count)


def call_exit(url, count):
    """Call `sys.exit`."""
    fall_off(url, count)
    sys.exit(3)


def fail(url, count):
    """Raise."""
    fall_off(url, count)
    raise LookupError("the program's own")


def be_interrupted(url, count):
    """Get a Ctrl-C."""
    fall_off(url, count)
    signal.raise_signal(signal.SIGINT)


def be_terminated(url, count):
    """Get a SIGTERM."""
    fall_off(url, count)
    signal.raise_signal(signal.SIGTERM)


def be_terminated_with_handler(url, count):
    """Get a SIGTERM that is handled."""
    analytics_batcher.install_sigterm_handler()
    be_terminated(url, count)
    threading.Event().wait(SECONDS)


def end_thread_first(url, count):
    """Make and use the client in a thread that ends before the main one."""
    say_books()
    thread = threading.Thread(target=lambda: fill(make_client(url, **OPTIONS), count))
    thread.start()
    thread.join()


def end_thread_last(url, count):
    """Use the client in a thread that the main one does not live to see end."""
    say_books()
    client = make_client(url, **OPTIONS)

    def work():
        threading.main_thread().join()
        fill(client, count)

    threading.Thread(target=work).start()


def track_before_hook(url, count):
    """Track in a handler that runs before the client's."""
    say_books()
    client = make_client(url, **OPTIONS)
    atexit.register(fill, client, count)


def track_after_hook(url, count):
    """Track in a handler that runs after the client's."""
    say_books()
    atexit.register(lambda: fill(KEPT[0], count))
    make_client(url, **OPTIONS)


def make_in_handler(url, count, how):
    """Make a client, fill it, and shut it down or leave it as it is."""
    if how == "module":
        analytics_batcher.configure(Vitally(api_token="test-token", base_url=url), **OPTIONS)
        fill(analytics_batcher, count)
    elif how == "collected":
        fill(unkept_client(url, **OPTIONS), count)
    elif how == "shut down":
        with make_client(url, **OPTIONS) as client:
            fill(client, count)
    else:
        fill(make_client(url, **OPTIONS), count)


def make_only_in_handler(how):
    """The case of a program whose first client is made in a handler."""
    return lambda url, count: atexit.register(make_in_handler, url, count, how)


def make_before_hook(url, count):
    """Make a client in a handler that runs before the hook of another one."""
    with unkept_client(url):
        atexit.register(make_in_handler, url, count, "kept")


def make_after_hook(how):
    """The case of a program that makes a client in a handler that runs after the hook of another one."""

    def end(url, count):
        atexit.register(make_in_handler, url, count, how)
        with unkept_client(url):
            pass

    return end


if __name__ == "__main__":
    start(
        {
            name: run_case(end)
            for name, end in {
                "falls off": fall_off,
                "sys.exit": call_exit,
                "exception": fail,
                "SIGINT": be_interrupted,
                "SIGTERM": be_terminated,
                "SIGTERM, handled": be_terminated_with_handler,
                "thread ends first": end_thread_first,
                "thread ends last": end_thread_last,
                "track before the hook": track_before_hook,
                "track after the hook": track_after_hook,
                "made in a handler, kept": make_only_in_handler("kept"),
                "made in a handler, shut down": make_only_in_handler("shut down"),
                "made before the hook, kept": make_before_hook,
                "made after the hook, kept": make_after_hook("kept"),
                "made after the hook, shut down": make_after_hook("shut down"),
                "made after the hook, collected": make_after_hook("collected"),
                "made after the hook, module": make_after_hook("module"),
            }.items()
        }
    )
