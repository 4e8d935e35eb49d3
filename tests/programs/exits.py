"""Programs that end: each case is one, run by `tests/test_exit.py`."""

from __future__ import annotations

import atexit
import gc
import logging
import signal
import sys
import threading
import time

from harness import KEPT, be_told, books, make_client, say, start, track, unkept_client


def ends(url, how):
    """Leave 2,000 messages to the exit, which comes in one of several ways."""
    client = make_client(url)
    track(client, "u", 2_000)
    if how == "sys.exit":
        sys.exit(3)
    if how == "exception":
        raise LookupError("the program's own")
    if how == "interrupt":
        signal.raise_signal(signal.SIGINT)


def late_thread(url, first):
    """Track 2,000 messages in a thread that outlives the main one, the first of them there or here."""
    client = make_client(url)
    early = track(client, "early", 1) if first == "main" else 0

    def work():
        threading.main_thread().join()
        track(client, "late", 2_000 - early)

    threading.Thread(target=work).start()


def daemon_thread(url):
    """Track in a daemon thread until nothing is accepted any more, which the exit brings about."""
    accepted = []
    done = threading.Event()
    atexit.register(lambda: say(accepted=sum(accepted), done=done.wait(10)))  # after the client's hook
    client = make_client(url)
    begun = threading.Event()

    def work():
        count = 1
        while count:
            count = track(client, f"daemon-{len(accepted)}", 10)
            accepted.append(count)
            begun.set()
            threading.Event().wait(0.001)  # a rate that the receiver can follow
        done.set()

    threading.Thread(target=work, daemon=True).start()
    begun.wait(10)


def gives_up(url, background, clients):
    """Leave 150 messages of each client to an exit that may take half a second, and say when it begins."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    for _ in range(int(clients)):
        client = make_client(url, background=background == "thread", shutdown_timeout=0.5)
        track(client, "u", 150)
    atexit.register(lambda: say(begun=time.monotonic()))  # before the clients' hook


def inline(url):
    """Leave 250 messages of a client without a thread to the exit."""
    track(make_client(url, background=False), "u", 250)


def in_handler(url, registered):
    """Track for the first time in an atexit handler that runs before or after the client's own."""
    deliverers = []

    def handler():
        try:
            threading.Thread(target=bool).start()
            can_start = True
        except RuntimeError:
            can_start = False
        say(accepted=track(KEEPER[0], "u", 250), can_start=can_start)

    atexit.register(lambda: say(deliverers=deliverers, **books(KEEPER[0])))
    if registered == "before":
        atexit.register(handler)
    KEEPER.append(make_client(url, on_delivery=lambda _: deliverers.append(threading.current_thread().name)))
    if registered == "after":
        atexit.register(handler)


KEEPER = []


def flush_in_handler(url):
    """Track and flush in an atexit handler."""
    client = make_client(url)

    def handler():
        accepted = track(client, "u", 250)
        say(accepted=accepted, flushed=bool(client.flush()))

    atexit.register(handler)


def made_in_handler(url):
    """Make a client in an atexit handler, and shut it down there."""

    def handler():
        with unkept_client(url) as client:
            accepted = track(client, "u", 250)
        say(accepted=accepted, **books(client))

    atexit.register(handler)


def collected(url, background):
    """Drop a client that holds messages, and end."""
    client = unkept_client(url, background=background == "thread", flush_interval=60)
    say(accepted=track(client, "u", 250))
    del client
    gc.collect()


def interrupted(url):
    """Wait for a Ctrl-C in a flush that cannot end by itself."""
    client = make_client(url, shutdown_timeout=0.5)
    track(client, "u", 5)
    be_told()
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    client.flush(20)


def late_without_collections(url):
    """Leave messages to a client that is made in an atexit handler after the hook, with garbage not collected."""
    atexit.register(lambda: say(accepted=track(make_client(url), "u", 250)))
    with unkept_client(url):
        gc.disable()


def late_beside_a_thread(url):
    """Leave messages to a client that is made after the hook, with a thread stopped for ever in one of its calls."""
    logging.basicConfig()
    made, held = threading.Event(), threading.Event()

    def stop_within():
        made.wait()
        with KEPT[0]._lanes[0].buffer._lock:
            held.set()
            threading.Event().wait()

    def handler():
        say(accepted=track(make_client(url), "u", 250))
        made.set()
        held.wait(10)

    atexit.register(handler)
    with unkept_client(url):
        threading.Thread(target=stop_within, daemon=True).start()


def in_callback(url, ended_by):
    """End while the consumer's thread is in the callback that is told of the last delivery."""
    begun = threading.Event()

    def on_delivery(delivery):
        begun.set()
        threading.Event().wait(0.03)  # shorter than the moment that it is let
        say(told=delivery.count)

    client = make_client(url, on_delivery=on_delivery, flush_interval=0)
    track(client, "u", 1)
    assert begun.wait(10)
    if ended_by == "shutdown":
        client.shutdown()


def terminated_twice(url, background):
    """End by the program's own handler of SIGTERM, and get another one in the exit hook."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    track(make_client(url, background=background == "thread", flush_interval=60), "u", 250)
    signal.raise_signal(signal.SIGTERM)


def interrupted_exit(url, background):
    """Get a Ctrl-C in the exit hook."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    atexit.register(lambda: say(**books(KEPT[0])))
    track(make_client(url, background=background == "thread", shutdown_timeout=20), "u", 150)


if __name__ == "__main__":
    start(
        {
            "ends": ends,
            "late_thread": late_thread,
            "daemon_thread": daemon_thread,
            "gives_up": gives_up,
            "inline": inline,
            "in_handler": in_handler,
            "flush_in_handler": flush_in_handler,
            "made_in_handler": made_in_handler,
            "collected": collected,
            "interrupted": interrupted,
            "late_without_collections": late_without_collections,
            "late_beside_a_thread": late_beside_a_thread,
            "in_callback": in_callback,
            "interrupted_exit": interrupted_exit,
            "terminated_twice": terminated_twice,
        }
    )
