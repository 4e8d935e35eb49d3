"""A program that fills its queue against an endpoint that is stuck: run by `tests/test_memory_bound.py`."""

from __future__ import annotations

import gc
import tracemalloc

from harness import be_told, books, make_client, say, start

MESSAGES = 3_000
TEXT = "x" * 10_000


def fill(url, when_full, listens):
    """Track 3,000 messages of 10 kB while the first request gets no answer, and say what they hold."""
    told = {"drops": 0, "shown": 0}

    def on_drop(drop):
        told["drops"] += drop.count
        told["shown"] += len(drop.messages)

    client = make_client(
        url,
        max_queue_bytes=1_000_000,
        when_full=when_full,
        flush_interval=0.01,
        timeout=60,
        on_drop=on_drop if listens == "listens" else None,
    )
    client.track("warm", "up", account_id="a")
    client.flush()
    gc.collect()
    tracemalloc.start()
    accepted = 0
    for number in range(MESSAGES):
        accepted += client.track("u", "happened", {"text": TEXT}, account_id="a")
        if number == 60:
            be_told()  # the first request is under way
    gc.collect()
    held, peak = tracemalloc.get_traced_memory()
    stats = client.stats()
    say(held=held, peak=peak, accepted=accepted, pending_bytes=stats.pending_bytes, at_full=books(client))
    left = client.shutdown(0).pending
    say(left=left, **told, **books(client))


if __name__ == "__main__":
    start({"fill": fill})
