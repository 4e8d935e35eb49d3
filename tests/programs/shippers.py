"""Programs that ship their messages to a Redis server: each case is one, run by `tests/test_redis_buffer.py`."""

from __future__ import annotations

import os
import threading
from itertools import count

from harness import balanced_books, be_told, make_client, say, start, track

from analytics_batcher import RedisBuffer, Retry, SqliteBuffer

PAUSE = threading.Event()
NOWHERE = "http://127.0.0.1:9"
SOON = Retry(base=0.02, cap=0.1)


def ships(url, path, journal, name):
    """Track for ever, and note each id as soon as its call has said that the message is kept."""
    buffer = RedisBuffer(url, shards=2, stage=SqliteBuffer(path), timeout=1.0)
    client = make_client(NOWHERE, buffer=buffer, flush_interval=0.01, retry=SOON)
    note = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in count():
        one = f"{name}-{number}"
        if client.track(f"{name}-{number % 3}", "happened", {"n": number}, message_id=one):
            os.write(note, f"{one}\n".encode())
        PAUSE.wait(0.0005 if number % 20 else 0.02)


def forks(url):
    """Fork with messages waiting and a connection open: parent and child ship what is their own."""
    client = make_client(NOWHERE, buffer=RedisBuffer(url), flush_interval=60)
    track(client, "first", 3)
    assert client.flush(10)
    track(client, "parent", 3)
    child = os.fork()
    if not child:
        own = track(client, "child", 5) == 5 and client.flush(10) and client.stats().delivered == 5
        os._exit(0 if own else 1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    track(client, "parent-later", 3)
    flushed = bool(client.flush(10))
    say(status=status, flushed=flushed, **balanced_books(client))


def storms(url, forks_):
    """Fork again and again while other threads track and the consumer ships; every child tracks and flushes."""
    client = make_client(NOWHERE, buffer=RedisBuffer(url), flush_interval=0.001)
    done = threading.Event()
    counts = [0, 0]

    def work(place):
        for number in count():
            if done.is_set():
                return
            counts[place] += client.track(f"thread-{place}", "happened", {"n": number})
            PAUSE.wait(0.0005)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    statuses = []
    for number in range(int(forks_)):
        child = os.fork()
        if not child:
            os._exit(0 if track(client, f"child-{number}", 2) == 2 and client.flush(10) else 1)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    done.set()
    for thread in threads:
        thread.join()
    client.flush(10)
    say(statuses=statuses, accepted=sum(counts), **balanced_books(client))


def exits(url):
    """Track, and end without a flush."""
    client = make_client(NOWHERE, buffer=RedisBuffer(url), flush_interval=60)
    be_told()
    say(accepted=track(client, "late", 600))


if __name__ == "__main__":
    start({case.__name__: case for case in (ships, forks, storms, exits)})
