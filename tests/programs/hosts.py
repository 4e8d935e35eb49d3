"""Programs that stand for uWSGI without threads, of which every newer one has some, run by `tests/test_servers.py`."""

from __future__ import annotations

import ctypes
import logging
import sys
import types

from harness import books, make_client, say, start, track


def holds_interpreter(url):
    """Track in requests between which no other thread runs: the interpreter is held while the next one is awaited."""
    microseconds = ctypes.PyDLL(None).usleep  # which, other than by `CDLL`, is called without letting go of it
    client = make_client(url, flush_interval=0.01)
    flushes = []
    for request in range(9):
        track(client, f"request-{request}", 5)
        if request % 3 == 2:
            flushes.append(bool(client.flush(10)))
        microseconds(50_000)
    track(client, "last", 5)
    microseconds(50_000)
    say(flushes=flushes, **books(client))


def has_no_threads(url):
    """Make clients where uWSGI says of itself that it has no threads."""
    host = types.ModuleType("uwsgi")
    host.has_threads = 0
    sys.modules["uwsgi"] = host
    logging.basicConfig(format="%(levelname)s %(message)s")
    for _ in range(2):
        track(make_client(url), "u", 1)
    say(hooked=hasattr(host, "post_fork_hook"))


if __name__ == "__main__":
    start({"holds_interpreter": holds_interpreter, "has_no_threads": has_no_threads})
