"""Programs that get a SIGTERM and have a handler for it: each case is one, run by `tests/test_signals.py`.

What is delivered and dropped is told by the callbacks, since most of them are killed in the end.
"""

from __future__ import annotations

import asyncio
import atexit
import faulthandler
import gc
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from harness import KEPT, books, make_client, say, start, track

from analytics_batcher import install_sigterm_handler

LONG = 60.0
"""Longer than any of these programs lives: what is less than a batch is sent because of the signal."""
PATIENCE = 15
TOLD = Counter()


def tell_delivered(delivery):
    """Add up what is delivered."""
    TOLD["delivered"] += delivery.count
    say(told=TOLD)


def tell_dropped(drop):
    """Add up what is dropped."""
    TOLD[drop.reason] += drop.count
    say(told=TOLD)


def make(url, count=0, **options):
    """A client that tells what becomes of its messages, with some of them."""
    options = {"on_delivery": tell_delivered, "on_drop": tell_dropped, "flush_interval": LONG, **options}
    client = make_client(url, **options)
    say(told={}, taken=track(client, "u", count))
    return client


def get_sigterm():
    """Get one, as from a supervisor."""
    signal.raise_signal(signal.SIGTERM)


def stay():
    """Go on until killed."""
    for _ in range(20 * PATIENCE):  # a signal that comes just before a wait begins does not end it
        threading.Event().wait(0.05)
    say(stayed=True)


def default(url):
    """Have code that the default action would not run either."""
    atexit.register(lambda: say(handler=True))
    install_sigterm_handler()
    make(url, 250)
    try:
        get_sigterm()
        stay()
    finally:
        say(unwound=True)


def goes_on(url):
    """Go on tracking until the end comes."""
    install_sigterm_handler()
    client = make(url, 250, max_queue_messages=1_000_000)
    get_sigterm()
    taken = 250
    while True:  # until killed, by the harness if need be
        taken += track(client, "later", 1)
        say(taken=taken)
        threading.Event().wait(0.001)  # a rate that the receiver can follow


def busy(url, how):
    """Be in the middle of something, by turns, whenever the signal comes."""
    install_sigterm_handler()
    options = {"background": how != "flushes inline", "flush_interval": 0.01}
    client, taken = make(url, **options), 0
    while True:  # until killed, by the harness if need be
        taken += track(client, f"u{taken}", 20)
        say(taken=taken)
        if how == "makes clients":
            client.shutdown()
            client = make_client(url, on_delivery=tell_delivered, on_drop=tell_dropped, **options)
        elif how != "tracks":
            client.flush()
        else:
            threading.Event().wait(0.001)  # a rate that the receiver can follow


def chain(url, how):
    """Have a handler of the program's own, which leaves the end to the program, or brings it about."""
    calls = []
    ended = threading.Event()

    def own(number, frame):
        calls.append([number, frame is not None])
        if how == "raises":
            raise SystemExit(7)
        ended.set()

    signal.signal(signal.SIGTERM, own)
    install_sigterm_handler()
    if how == "twice":
        install_sigterm_handler()
    client = make(url, 250, background=how != "inline")
    atexit.register(lambda: say(calls=calls))
    get_sigterm()
    assert ended.is_set()
    limit = time.monotonic() + PATIENCE
    while client.stats().pending and time.monotonic() < limit:
        threading.Event().wait(0.005)
    say(sent=client.stats().delivered)
    if how == "twice":
        get_sigterm()
    say(later=track(client, "later", 30))


def chained_by_another(url):
    """Have a handler on top that calls ours, and ours on top of that."""
    install_sigterm_handler()
    ours, calls = signal.getsignal(signal.SIGTERM), []

    def own(number, frame):
        calls.append(number)
        say(calls=len(calls))
        ours(number, frame)

    signal.signal(signal.SIGTERM, own)
    make(url, 250)
    get_sigterm()
    stay()


def asynchronous(url):
    """Have an event loop that handles SIGTERM, and ours on top."""

    async def main():
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
        install_sigterm_handler()
        client = make(url, 250)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stopped.wait(), PATIENCE)
        say(later=track(client, "later", 30))

    asyncio.run(main())


def ignored(url):
    """Ignore SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    install_sigterm_handler()
    client = make(url, 50)  # less than a batch
    get_sigterm()
    say(ignored=signal.getsignal(signal.SIGTERM) == signal.SIG_IGN, pending=client.stats().pending)


def in_call(url, call, background):
    """Be in the middle of a flush or a shutdown, with a request under way, when the test sends the signal."""
    install_sigterm_handler()
    client = make(url, 250, background=background == "thread")
    say(result=getattr(client, call)(LONG).delivered)
    stay()


def at_exit(url, where, background):
    """Be in the exit hook, or in an exit handler before it that flushes or never returns, when the signal comes."""
    install_sigterm_handler()
    client = make(url, 250, background=background == "thread")
    if where == "flush":
        atexit.register(client.flush, LONG)
    elif where == "handler":
        atexit.register(stay)
        atexit.register(get_sigterm)
    sys.exit(3)


def after_main(url):
    """Live on in a thread that outlives the main one."""
    install_sigterm_handler()
    make(url, 250)

    def work():
        threading.main_thread().join()
        for _ in range(20 * PATIENCE):  # as in `stay`, of the wait for this thread
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(0.05)

    threading.Thread(target=work).start()


def with_threads(url):
    """Have threads that go on whatever the main one does."""
    install_sigterm_handler()
    make(url, 250)
    for _ in range(3):
        threading.Thread(target=stay).start()
    get_sigterm()


def importing(url, folder):
    """Get the signal in the middle of an import."""
    install_sigterm_handler()
    make(url, 250)
    Path(folder, "slow_module.py").write_text("import sigterms\nsigterms.get_sigterm()\nsigterms.stay()\n")
    sys.path.insert(0, folder)
    sys.modules["sigterms"] = sys.modules["__main__"]
    __import__("slow_module")


def finalizing(url):
    """Get the signal in a finalizer, which would swallow an exception."""
    install_sigterm_handler()
    make(url, 250)

    class Thing:
        def __del__(self):
            get_sigterm()

    Thing()
    gc.collect()
    stay()


def twice(url):
    """Get several signals in a row."""
    install_sigterm_handler()
    make(url, 250)
    for _ in range(5):
        get_sigterm()
        threading.Event().wait(0.05)  # so that each is one of its own
    stay()


def holding_a_lock(url):
    """Hold a lock that a callback takes, before an endpoint that hangs, and get one signal after another."""
    install_sigterm_handler()
    lock, asked = threading.Lock(), threading.Event()

    def on_drop(drop):
        tell_dropped(drop)
        asked.set()
        with lock:
            pass

    make(url, 250, on_drop=on_drop, shutdown_timeout=0.5)
    with lock:
        get_sigterm()
        say(asked=asked.wait(PATIENCE))
        for _ in range(10 * PATIENCE):
            threading.Event().wait(0.1)
            get_sigterm()


def without_threads(url, how):
    """Be unable to start a thread, at rest or in the middle of a flush that the main thread makes by itself."""
    install_sigterm_handler()
    client = make(url, 250, background=False)
    threading.stack_size(1 << 46)
    try:
        if how == "at rest":
            get_sigterm()
        else:
            client.flush(LONG)
        stay()
    finally:
        say(unwound=True)


def new_client(url):
    """Make a client while what the first one has is being sent, and leave messages to it."""
    install_sigterm_handler()
    make(url, 250)
    get_sigterm()
    client = make_client(url, on_delivery=tell_delivered, on_drop=tell_dropped, flush_interval=LONG)
    say(later=track(client, "later", 30))
    stay()


def nothing(url):
    """Have no client at all."""
    del url
    install_sigterm_handler()
    get_sigterm()
    stay()


def hanging(url):
    """Leave what an endpoint does not take."""
    logging.basicConfig(format="%(levelname)s %(message)s")
    install_sigterm_handler()
    make(url, 250, shutdown_timeout=0.5)
    say(begun=time.monotonic())
    get_sigterm()
    stay()


def forked(url):
    """Fork a child that gets a signal, while the parent does not."""
    install_sigterm_handler()
    make(url, 30)
    pid = os.fork()
    if not pid:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        track(KEPT[0], "child", 250)
        get_sigterm()
        stay()
    say(child=os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), **books(KEPT[0]))


def forked_while_sending(url):
    """Fork a child while the parent sends what it must before it ends; the child is told to end a moment later."""
    install_sigterm_handler()
    make(url, 250)
    get_sigterm()
    reading, writing = os.pipe()
    if not os.fork():
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        os.close(writing)
        os.read(reading, 1)  # ends when the parent does
        track(KEPT[0], "child", 30)
        get_sigterm()
        stay()
    stay()


def work_until_terminated(ready):
    """What the child process does."""
    track(KEPT[0], "child", 250)
    ready.set()
    stay()


def terminated(url):
    """Terminate a `multiprocessing` child that has inherited the handler."""
    install_sigterm_handler()
    make(url, 0)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    child = context.Process(target=work_until_terminated, args=(ready,))
    child.start()
    assert ready.wait(PATIENCE)
    child.terminate()
    child.join(PATIENCE)
    say(child=child.exitcode)


def first_process(url, how):
    """Be the first process of a container, whom the default action does not end."""
    assert os.getpid() == 1
    if how == "with threads":
        default(url)
    else:
        without_threads(url, "at rest")


def contained(url, how):
    """Run `first_process` as one."""
    command = ["unshare", "--pid", "--fork", "--kill-child", sys.executable, __file__, "first_process", url, how]
    sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    start(
        {
            case.__name__: case
            for case in (
                default,
                goes_on,
                busy,
                chain,
                chained_by_another,
                asynchronous,
                ignored,
                in_call,
                at_exit,
                after_main,
                with_threads,
                importing,
                finalizing,
                twice,
                holding_a_lock,
                without_threads,
                new_client,
                nothing,
                hanging,
                forked,
                forked_while_sending,
                terminated,
                first_process,
                contained,
            )
        }
    )
