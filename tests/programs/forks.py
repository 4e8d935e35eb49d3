"""Programs that fork: each case is one, run by `tests/test_fork.py`.

A child leaves by `os._exit` with a number that says what went wrong first, 0 if nothing did.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

from harness import KEPT, be_told, books, make_client, say, start, track

PATIENCE = 25
OWN = 5
"""The messages of each child."""
STORM = 300
"""The forks of a storm."""
AT_ONCE = 24
"""Its children that live at the same time."""


def fork(work):
    """Run `work` in a forked child, which a signal ends if it hangs; the child's pid."""
    pid = os.fork()
    if pid:
        return pid
    wrong = 99
    try:
        faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
        signal.alarm(PATIENCE)
        wrong = work()
    finally:
        os._exit(wrong)


def status_of(pid):
    """What a child made of itself: its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def live(client, name, *, inline=False):
    """A child's life: it must begin empty, and deliver its own messages, by its own thread if it may have one."""
    stats = client.stats()
    if stats.tracked or stats.pending or stats.pending_bytes or stats.delivered or stats.requests or stats.dropped:
        return 1
    if threading.active_count() != 1:
        return 2
    if track(client, name, OWN) != OWN:
        return 3
    others = [thread.name for thread in threading.enumerate() if thread is not threading.current_thread()]
    if others != ([] if inline else ["analytics-batcher:vitally"]):
        return 4
    result = client.flush(10)
    if not result or result.delivered != OWN:
        return 5
    stats = client.stats()
    return 0 if (stats.tracked, stats.delivered, stats.pending, stats.dropped) == (OWN, OWN, 0, {}) else 6


def idle(url, background):
    """Fork while everything is delivered, then go on."""
    client = make_client(url, background=background == "thread")
    track(client, "parent", 3)
    assert client.flush()
    status = status_of(fork(lambda: live(client, "child", inline=background == "inline")))
    track(client, "parent-after", 3)
    say(status=status, flushed=bool(client.flush()), **books(client))


def queued(url, background):
    """Fork while messages wait that nothing has sent yet."""
    client = make_client(url, background=background == "thread", flush_interval=60)
    track(client, "parent", 150)
    status = status_of(fork(lambda: live(client, "child", inline=background == "inline")))
    say(status=status, flushed=bool(client.flush()), **books(client))


def busy(url):
    """Fork while a request is under way, 50 messages in it and 100 behind it."""
    client = make_client(url, batch_messages=50, flush_interval=0.01)
    track(client, "parent", 150)
    be_told()
    status = status_of(fork(lambda: live(client, "child")))
    say(status=status, flushed=bool(client.flush()), **books(client))


def in_thread(url):
    """Fork in a thread other than the main one."""
    client = make_client(url)
    track(client, "parent", 3)
    statuses = []
    thread = threading.Thread(target=lambda: statuses.append(status_of(fork(lambda: live(client, "child")))))
    thread.start()
    thread.join()
    say(status=statuses[0], flushed=bool(client.flush()), **books(client))


def in_consumer(url):
    """Fork in a callback, which runs in the consumer's own thread."""
    statuses = []
    parent = os.getpid()

    def on_delivery(_):
        if os.getpid() == parent:
            statuses.append(status_of(fork(lambda: live(client, "child"))))

    client = make_client(url, on_delivery=on_delivery)
    track(client, "parent", 3)
    flushed = client.flush()
    say(status=statuses[0], flushed=bool(flushed), **books(client))


def nested(url):
    """Fork in a child that has delivered."""
    client = make_client(url)
    track(client, "parent", 3)

    def child():
        return live(client, "child") or status_of(fork(lambda: live(client, "grandchild")))

    status = status_of(fork(child))
    say(status=status, flushed=bool(client.flush()), **books(client))


def ends(url):
    """Fork a child that tracks and then just ends, as a program does."""
    client = make_client(url, flush_interval=60)
    track(client, "parent", 3)
    pid = os.fork()
    if not pid:
        track(client, "child", OWN)
        sys.exit(3)
    say(status=status_of(pid), flushed=bool(client.flush()), **books(client))


def ends_alone(client, name):
    """A child's life that leaves the delivery to the process's end."""
    return 0 if not client.stats().tracked and track(client, name, OWN) == OWN else 1


def storm(url):
    """Fork three hundred times while four threads track; every other child leaves by `os._exit`, having flushed."""
    client = make_client(url, max_queue_messages=100_000, flush_interval=0.01, verify=False)
    accepted, stop, begun = [], threading.Event(), threading.Barrier(5)

    def work(name):
        begun.wait()
        for burst in count():
            accepted.append(track(client, f"parent-{name}-{burst}", 20))
            if stop.wait(0.02):  # a rate that the receiver can follow
                return

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    gc.freeze()  # or else each child copies the parent's memory to look for garbage at its end
    children, statuses = deque(), []
    for name in range(STORM):
        if len(children) == AT_ONCE:
            statuses.append(status_of(children.popleft()))
        if name % 2:
            children.append(fork(lambda name=name: live(client, f"child-{name}")))
        elif pid := os.fork():
            children.append(pid)
        else:
            signal.alarm(PATIENCE)
            sys.exit(ends_alone(client, f"child-{name}"))
    statuses += map(status_of, children)
    stop.set()
    for thread in threads:
        thread.join()
    say(statuses=statuses, accepted=sum(accepted), flushed=bool(client.flush(20)), **books(client))


def jobs(url):
    """Work as RQ does: a child for each job, which flushes and leaves by `os._exit`, while the parent tracks too."""
    client = make_client(url, flush_interval=60)

    def job(name):
        if track(client, name, OWN) != OWN or client.flush(10).delivered != OWN:
            return 1
        return 2 if track(client, "unflushed", 1) != 1 else 0  # which `os._exit` leaves behind

    statuses = []
    for number in range(3):
        track(client, f"parent-{number}", 1)
        statuses.append(status_of(fork(lambda number=number: job(f"child-{number}"))))
    say(statuses=statuses, flushed=bool(client.flush()), **books(client))


def own_sockets():
    """The sockets that this process holds, by their numbers in the system."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # that of the folder itself
            found.add(str(entry.readlink()))
    return {name for name in found if name.startswith("socket:")}


def sockets(url):
    """Fork while a connection is kept, and tell whose sockets are whose."""
    client = make_client(url)
    before = own_sockets()
    track(client, "parent", 3)
    assert client.flush()
    own = own_sockets() - before
    read, write = os.pipe()

    def child():
        inherited = own_sockets() & own
        track(client, "child", OWN)
        flushed = client.flush(10)
        told = {"inherited": len(inherited), "opened": len(own_sockets() - before), "shared": len(own_sockets() & own)}
        os.write(write, json.dumps(told).encode())
        return 0 if flushed else 1

    status = status_of(fork(child))
    track(client, "parent-after", 3)
    flushed = bool(client.flush())
    say(
        status=status,
        flushed=flushed,
        own=len(own),
        same=own_sockets() - before == own,
        **json.loads(os.read(read, 999)),
    )


def closed(url):
    """Fork thirty times after the shutdown, while four threads go on tracking in vain."""
    client = make_client(url)
    track(client, "parent", 3)
    client.shutdown()
    stop, begun = threading.Event(), threading.Barrier(5)

    def work():
        begun.wait()
        while not stop.is_set():
            track(client, "refused", 20)

    def child():
        if client.stats().tracked:
            return 1
        if track(client, "child", OWN):
            return 2
        if client.flush(5).pending or client.shutdown(5).pending:
            return 3
        return 0 if client.stats().dropped == {"closed": OWN} else 4

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    statuses = [status_of(fork(child)) for _ in range(30)]
    stop.set()
    for thread in threads:
        thread.join()
    say(statuses=statuses, pending=client.stats().pending)


def work_in_child(url, name):
    """What a `multiprocessing` child does: it tracks, with the inherited client if there is one, and returns."""
    client = KEPT[0] if KEPT else make_client(url, flush_interval=60)
    track(client, name, OWN)


def made_in_child(url):
    """What starts a pool's worker: it makes the client."""
    make_client(url, flush_interval=60)


def begin(url, method, client_in):
    """The context of a start method, and how its workers start: with a client of the parent's, or one of their own."""
    if client_in == "parent":
        track(make_client(url, flush_interval=60), "parent", 3)
    if client_in == "server":  # the fork server's process is the parent then
        os.environ["RECEIVER"] = url
        multiprocessing.set_forkserver_preload(["preloaded"])
    own = {"initializer": made_in_child, "initargs": (url,)} if client_in == "initializer" else {}
    if method == "billiard":  # Celery's own: its children are forked
        return importlib.import_module("billiard"), own
    return multiprocessing.get_context(method), own


def processes(url, method, client_in):
    """Track in three `multiprocessing` children, which end without a flush."""
    context, _ = begin(url, method, client_in)
    children = [context.Process(target=work_in_child, args=(url, f"child-{name}")) for name in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(PATIENCE)
    say(statuses=[child.exitcode for child in children])
    for child in children:
        if child.exitcode is None:
            child.kill()


def track_and_start(url, method):
    """Track in a child, and in one of its own."""
    work_in_child(url, "child")
    grandchild = multiprocessing.get_context(method).Process(target=work_in_child, args=(url, "grandchild"))
    grandchild.start()
    grandchild.join(PATIENCE)
    sys.exit(grandchild.exitcode)


def nested_processes(url, method, client_in):
    """Track in a `multiprocessing` child of a `multiprocessing` child."""
    context, _ = begin(url, method, client_in)
    child = context.Process(target=track_and_start, args=(url, method))
    child.start()
    child.join(PATIENCE)
    say(statuses=[child.exitcode])


def pool(url, method, client_in):
    """Track in the workers of a pool, which end with it."""
    context, own = begin(url, method, client_in)
    with context.Pool(3, **own) as workers:
        workers.starmap(work_in_child, [(url, f"child-{name}") for name in range(12)], chunksize=1)
        workers.close()
        workers.join()
    say(statuses=[0])


def executor(url, method, client_in):
    """Track in the workers of an executor, which end with it."""
    context, own = begin(url, method, client_in)
    with ProcessPoolExecutor(3, mp_context=context, **own) as workers:
        done = [workers.submit(work_in_child, url, f"child-{name}") for name in range(12)]
    say(statuses=[0 if one.exception() is None else 1 for one in done])


if __name__ == "__main__":
    start(
        {
            "idle": idle,
            "queued": queued,
            "busy": busy,
            "in_thread": in_thread,
            "in_consumer": in_consumer,
            "nested": nested,
            "ends": ends,
            "storm": storm,
            "jobs": jobs,
            "sockets": sockets,
            "closed": closed,
            "processes": processes,
            "nested_processes": nested_processes,
            "pool": pool,
            "executor": executor,
        }
    )
