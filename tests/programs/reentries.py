"""Programs that track where they are in the middle of it: each case is one, run by `tests/test_reentry.py`."""

from __future__ import annotations

import ctypes
import gc
import logging
import signal
import sys
import threading
import time
import weakref
from contextlib import suppress
from itertools import count
from random import Random

from canary import PERSON
from harness import KEPT, be_told, books, make_client, say, start, track, unkept_client
from interrupter import Interrupter

from analytics_batcher import Retry

INTERVALS = (0.0002, 0.0005, 0.001, 0.002, 0.005)
SECONDS = 0.5


class Interrupt(BaseException):
    """What is thrown into a call."""


def event(client, user, text=PERSON):
    """One message."""
    return client.track(user, "happened", {"text": text}, account_id="a")


def in_time(seconds=SECONDS):
    """Counts for a while."""
    end = time.monotonic() + seconds
    for number in count():
        if time.monotonic() > end:
            return
        yield number


def is_free(client):
    """Whether another thread can use the client: nobody holds a lock of it."""
    used = []
    thread = threading.Thread(target=lambda: used.append((client.stats(), event(client, "other"))), daemon=True)
    thread.start()
    thread.join(5)
    return bool(used)


def ticking(handler, seconds=SECONDS):
    """Counts for a while, in which a signal handler is called at intervals of each of several lengths."""
    signal.signal(signal.SIGALRM, handler)
    for interval in INTERVALS:
        signal.setitimer(signal.ITIMER_REAL, interval, interval)
        yield from in_time(seconds / len(INTERVALS))
    end_ticks()


def end_ticks():
    """End that; what was on its way has come in when this returns."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)


def conclude(client, **facts):
    """Flush, and say the figures."""
    client.flush(10)  # so that there is room for the message of the other thread
    free = is_free(client)
    flushed = client.flush(10)
    say(free=free, flushed=not flushed.pending and not flushed.timed_out, **facts, **books(client))


def handlers_track(url, when_full, room, most):
    """Track in signal handlers that interrupt the main thread's tracking, from the client's first message on."""
    client = make_client(
        url, when_full=when_full, max_queue_messages=int(room), block_timeout=0.01, flush_interval=0.01
    )
    calls, taken, depth = [], [], []  # appended to, since a handler can come in the middle of an addition

    def call(user):
        calls.append(user)
        if event(client, user):
            taken.append(user)

    def handler(*_):
        if len(depth) < 5:  # a machine that cannot keep up would nest them without end
            depth.append(True)
            call("handler")
            depth.pop()

    for number in ticking(handler):
        if number < int(most) / len(INTERVALS):
            call("main")
    conclude(client, calls=len(calls), taken=len(taken), from_handlers=calls.count("handler"))


def handlers_raise(url, when_full, room, timer):
    """Raise out of signal handlers that interrupt a call."""
    client = make_client(url, when_full=when_full, max_queue_messages=int(room), flush_interval=0.01)
    taken, refused, raised = [], [], []

    def handler(_, frame):
        while frame is not None:
            if frame.f_code.co_name == "track" and "analytics_batcher" in frame.f_code.co_filename:
                raised.append(True)
                raise Interrupt
            frame = frame.f_back

    def call():
        with suppress(Interrupt):
            (taken if event(client, "main") else refused).append(True)

    if timer == "ticks":
        for _ in ticking(handler):
            call()
    else:
        signal.signal(signal.SIGALRM, handler)
        for number in in_time():
            if number == 5_000 and int(room) > number:
                break
            # One at a time: Python 3.10 looks for signals before it unwinds a `with`, and then leaves its lock locked.
            signal.setitimer(signal.ITIMER_REAL, 0.000001 * (1 + number % 30))
            call()
        end_ticks()
    conclude(client, taken=len(taken), refused=len(refused), raised=len(raised))


NATIVE = {"type": "track", "userId": "main", "event": "happened", "properties": {}}
INTERRUPTED = {
    "track": lambda client: event(client, "main"),
    "enqueue": lambda client: client.enqueue(dict(NATIVE)),
    "flush": lambda client: (event(client, "main"), client.flush(PATIENCE)),
    "shutdown": lambda client: (event(client, "main"), client.shutdown(PATIENCE)),
    "stats": lambda client: client.stats(),
}
PATIENCE = 3
"""The most seconds of a flush. One in a handler takes as long if what it interrupts keeps the consumer still."""


def handlers_call(url, call, background, when_full):
    """Call in signal handlers that interrupt other calls, and say how long that took at most."""
    called, late = [], []
    random = Random(4)
    client = make_client(
        url, when_full=when_full, max_queue_messages=50, flush_interval=0.001, background=background == "thread"
    )

    def handler(*_):
        began = time.monotonic()
        event(client, "handler")
        result = INTERRUPTED[call](client)
        if call == "flush" and background == "thread":
            late.extend([True] * result[1].timed_out)
        called.append(time.monotonic() - began)
        rearm()

    def rearm():
        if not late:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(INTERVALS[0], INTERVALS[-1]))

    signal.signal(signal.SIGALRM, handler)
    for name, interrupted in INTERRUPTED.items():
        rearm()
        for _ in in_time(0.2) if name != "shutdown" else ():
            interrupted(client)
        signal.setitimer(signal.ITIMER_REAL, 0)
    end_ticks()
    conclude(client, called=len(called), longest=max(called), late=len(late))


def handlers_shut_down(url, background):
    """Shut clients down in signal handlers that interrupt their calls; a late one has a lock in its way."""
    random = Random(4)
    late, left, tracked, settled, delivered, free = [], [], 0, 0, 0, True
    for number in range(30 * len(INTERRUPTED)):
        interrupted = list(INTERRUPTED.values())[number % len(INTERRUPTED)]
        client = unkept_client(url, background=background == "thread", flush_interval=0.001, verify=False)
        done = []

        def handler(*_, client=client, done=done):
            event(client, "handler")
            done.append(client.shutdown(PATIENCE))

        track(client, "before", 3)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0002, 0.002))
        while not done:
            interrupted(client)
        end_ticks()
        client.shutdown(PATIENCE)
        stats = client.stats()
        late += [number] * (done[0].timed_out and not (background == "inline" and done[0].pending))
        left += [number] * (stats.pending > 0 or stats.dropped["exit"] > 0)
        tracked += stats.tracked
        delivered += stats.delivered
        settled += stats.delivered + stats.dropped["closed"]
        free = free and is_free(client)
        if late or left:
            break
    say(late=late, left=left, tracked=tracked, settled=settled, delivered=delivered, free=free)


def first_calls_interrupted(url):
    """Raise out of signal handlers that interrupt the first call of a client, which starts its thread."""
    raised, results = [], []

    def handler(_, frame):
        while frame is not None:
            if frame.f_code.co_name == "start" and "analytics_batcher" in frame.f_code.co_filename:
                raised.append(True)
                raise Interrupt
            frame = frame.f_back

    for number in range(40):
        client = make_client(url)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.00001 + number * 0.000005)
        with suppress(Interrupt):
            event(client, "first")
        end_ticks()
        event(client, "second")
        results.append((is_free(client), not client.shutdown(5).pending, client.stats().consumer_alive))
    say(raised=len(raised), results=sorted(set(results)), delivered=sum(books(c)["delivered"] for c in KEPT))


def finalizers(url, when_full, room):
    """Track in finalizers and in callbacks of weak references, while the collector runs all the time."""
    client = make_client(url, when_full=when_full, max_queue_messages=int(room), flush_interval=0.01)
    calls, taken = [], []

    def call(user):
        calls.append(user)
        if event(client, user):
            taken.append(user)

    class Cycle:
        def __init__(self):
            self.own = self

        def __del__(self):
            call("finalizer")

    class Plain:
        pass

    references = []

    def work(name):
        for _ in range(400):
            Cycle()
            call(name)
            plain = Plain()
            plain.own = plain
            references.append(weakref.ref(plain, lambda _: call("reference")))

    gc.collect()
    gc.freeze()  # or else each collection walks all modules
    gc.set_threshold(3)
    threads = [threading.Thread(target=work, args=(f"thread-{name}",)) for name in range(2)]
    for thread in threads:
        thread.start()
    work("main")
    for thread in threads:
        thread.join()
    gc.set_threshold(700)
    gc.collect()
    by_caller = {user: calls.count(user) for user in ("finalizer", "reference", "main")}
    conclude(client, calls=len(calls), taken=len(taken), by_caller=by_caller)


def log_handler(url, also):
    """Track every log record of the root logger at DEBUG, those of the consumer's own requests too, and then call."""
    client = make_client(url, flush_interval=0.01)
    calls, taken, loggers = [], [], set()

    class Handler(logging.Handler):
        def emit(self, record):
            loggers.add(record.name)
            calls.append(True)
            if event(client, record.name):
                taken.append(True)
            if also == "flush":
                client.flush(0.01)
            elif also == "stats":
                client.stats()

    logging.basicConfig(level=logging.DEBUG, handlers=[Handler()])
    for _ in in_time(0.5):
        logging.getLogger("application").info("something")
        client.track("", "invalid")
        calls.append(True)
        threading.Event().wait(0.001)  # a rate that the receiver can follow
    result = client.shutdown(5)
    logging.getLogger("application").info("after the end")
    stats = books(client)
    say(
        free=is_free(client),
        flushed=not result.pending,
        calls=len(calls),
        taken=len(taken),
        loggers=sorted(loggers),
        **stats,
    )


class Odd:
    """What JSON does not know."""


ACTIONS = {
    "track": lambda client: event(client, "callback"),
    "flush": lambda client: client.flush(10),
    "shutdown": lambda client: client.shutdown(10),
    "stats": lambda client: client.stats(),
}


def callbacks(url, option):
    """Use clients in their own callbacks, in the consumer's thread and after the end, in every way."""
    say(**{action: in_callback(url, option, use) for action, use in ACTIONS.items()})


def in_callback(url, option, use):
    """Use one client in one of its callbacks; what came of it."""
    acted, deadline = [], time.monotonic() + 10

    def callback(given):
        if len(acted) < 5:
            began = time.monotonic()
            acted.append(0.0)
            use(client)
            acted[-1] = max(acted[-1], time.monotonic() - began)
        return given

    client = make_client(url, flush_interval=0.01, **{option: callback})
    text = Odd() if option == "default" else "x"
    for _ in range(3):
        event(client, "main", text)
        client.track("", "invalid")
    first = client.flush(5)
    while not acted and time.monotonic() < deadline:
        threading.Event().wait(0.002)  # a refusal is reported on the consumer's own time
    event(client, "main", text)
    second = client.flush(5)
    last = client.shutdown(5)
    client.track("", "invalid after the end")
    return {
        "free": is_free(client),
        "flushed": not (first.timed_out or second.timed_out or last.timed_out or last.pending),
        "acted": len(acted),
        "longest": max(acted, default=None),
        **books(client),
    }


def throw(thread, exception):
    """Throw an exception into another thread, as a task's soft time limit does."""
    hit = ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(exception))
    assert hit == 1


def thrown_into_caller(url, when_full, room):
    """Throw exceptions from outside into a thread that tracks all the time."""
    client = make_client(url, when_full=when_full, max_queue_messages=int(room), flush_interval=0.01)
    # Until Python 3.11 an exception thrown into a thread that starts another can end that one before its birth, and
    # then `Thread.start` never returns.
    event(client, "first")
    client.flush()
    rounds = 400
    taken, caught = [], []
    open_to_it, passed = threading.Semaphore(0), threading.Semaphore(0)

    def work():
        for _ in range(rounds):
            try:
                open_to_it.release()
                while True:  # until it comes: it comes once, and so it comes here
                    taken.extend([True] * event(client, "caller"))
            except Interrupt:
                caught.append(True)
            passed.release()

    sys.setswitchinterval(0.00005)
    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(rounds):
        open_to_it.acquire()
        throw(thread, Interrupt)
        passed.acquire()
    thread.join()
    conclude(client, taken=len(taken), raised=len(caught))


def consumer_of(client):
    """The thread that runs the only client's consumer."""
    assert client is KEPT[-1]
    (thread,) = [one for one in threading.enumerate() if one.name == "analytics-batcher:vitally"]
    return thread


def consumer_killed(url, by):
    """Kill the consumer's thread while it waits; the next message, or a flush, starts another one."""
    client = make_client(url)
    event(client, "before")
    client.flush()
    alive = [client.stats().consumer_alive]
    killed = consumer_of(client)
    throw(killed, SystemExit)
    event(client, "wakes it, to its death")
    killed.join(10)
    alive.append(client.stats().consumer_alive)
    pending = client.stats().pending
    if by == "message":
        event(client, "starts another one")
        end = time.monotonic() + 10
        while client.stats().pending and time.monotonic() < end:
            threading.Event().wait(0.002)  # nothing but the figures tells, and a flush would help
    else:
        client.flush()
    alive.append(client.stats().consumer_alive)
    another = consumer_of(client) is not killed
    conclude(client, alive=alive, left=pending, dead=not killed.is_alive(), another=another)


def consumer_killed_in_request(url):
    """Kill the consumer's thread while it waits for an answer."""
    client = make_client(url, batch_messages=50, flush_interval=0.01)
    track(client, "u", 150)
    be_told()
    killed = consumer_of(client)
    throw(killed, SystemExit)
    killed.join(10)
    conclude(client, dead=not killed.is_alive(), alive=client.stats().consumer_alive)


def aftermath(client, accepted):
    """What is wrong with a client after it was interrupted, if anything is; it is gone after this."""
    wrong = []
    if not is_free(client):
        return ["a lock is held"]
    accepted += client.track("after", "happened", account_id="a")
    result = client.flush(5)
    if result.timed_out or result.pending:
        wrong.append(f"a flush left {result.pending}")
    stats = client.stats()
    if stats.tracked != stats.delivered + sum(stats.dropped.values()) + stats.pending:
        wrong.append(f"{stats.tracked} tracked, {stats.delivered} delivered, {stats.pending} pending")
    result = client.shutdown(5)
    stats = client.stats()
    if result.pending or stats.pending or stats.pending_bytes:
        wrong.append(f"at the end {stats.pending} messages, {stats.pending_bytes} bytes pending")
    return wrong


CALLS = {
    "track": lambda client: event(client, "thrown into"),
    "flush": lambda client: client.flush(2),
    "shutdown": lambda client: client.shutdown(2),
    "give-up": lambda client: client.shutdown(0),
    "stats": lambda client: client.stats(),
}


def interrupted_everywhere(url, calls, background, when_full, room, action):  # noqa: PLR0917 - a command line
    """Interrupt calls at each point where that can happen, each time with a new client: raise there, or call."""
    wrong, points, delivered = {}, set(), 0
    gc.freeze()
    gc.disable()  # no finalizer of an earlier client may come between
    for call in calls.split("+"):
        place = call
        while place and len(wrong) < 10:
            gc.collect()
            client = unkept_client(
                url,
                background=background == "thread",
                when_full=when_full,
                max_queue_messages=int(room),
                flush_interval=60,
                batch_bytes=1_000,
                retry=Retry(base=0.001),
                verify=False,  # no certificates to load, and none needed
                on_drop=lambda _: None,
            )
            accepted = 0
            if call != "track" or int(room) < 10:
                accepted = track(client, "before", 3)
            late = []

            def act(client=client, late=late):
                if action == "raise":
                    raise Interrupt
                result = CALLS[action](client)
                # A flush that has interrupted the very run of the consumer cannot wait for it.
                if background == "thread" and action in {"flush", "shutdown"}:
                    late.extend([f"a {action} was late"] * result.timed_out)

            with Interrupter(act, points) as interrupter, suppress(Interrupt):
                CALLS[call](client)
            place = interrupter.place
            found = late + aftermath(client, accepted)
            if found:
                wrong[place or call] = found
            delivered += client.stats().delivered
    say(points=len(points), wrong=wrong, delivered=delivered)


def called_everywhere(url, calls, background):
    """Use a client in the middle of its calls, at each point where that can happen, each time with a new one."""
    wrong, points, delivered = {}, set(), 0

    def use():
        event(client, "handler")
        client.flush(0)
        client.stats()

    for call in calls.split("+"):
        place = call
        while place and len(wrong) < 10:
            client = unkept_client(url, background=background == "thread", flush_interval=60, verify=False)
            accepted = track(client, "before", 3)
            with Interrupter(use, points) as caller:
                CALLS[call](client)
            place = caller.place
            found = aftermath(client, accepted)
            if found:
                wrong[place or call] = found
            delivered += client.stats().delivered
    say(points=len(points), wrong=wrong, delivered=delivered)


def killed_everywhere(url):
    """Kill the consumer's thread at each point where that can happen, while it delivers two batches and waits."""
    wrong, points, delivered, missed, pause = {}, set(), 0, 0, threading.Event()
    while len(wrong) < 10 and missed < 3:
        client = unkept_client(url, batch_messages=2, flush_interval=0.001, verify=False)
        with Interrupter(sys.exit, points, consumer=True) as interrupter:
            accepted = track(client, "before", 3)
            end = time.monotonic() + 2
            while not interrupter.is_over(client) and time.monotonic() < end:
                pause.wait(0.0005)  # the end of a thread tells nobody, and a flush would start another one
        if interrupter.place is None:
            missed += 1  # how often the consumer looks is not the same each time
        found = aftermath(client, accepted)
        if found:
            wrong[interrupter.place or "nowhere"] = found
        delivered += client.stats().delivered
    say(points=len(points), wrong=wrong, delivered=delivered)


if __name__ == "__main__":
    start(
        {
            "handlers_track": handlers_track,
            "handlers_raise": handlers_raise,
            "handlers_call": handlers_call,
            "handlers_shut_down": handlers_shut_down,
            "first_calls_interrupted": first_calls_interrupted,
            "finalizers": finalizers,
            "log_handler": log_handler,
            "callbacks": callbacks,
            "thrown_into_caller": thrown_into_caller,
            "consumer_killed": consumer_killed,
            "called_everywhere": called_everywhere,
            "interrupted_everywhere": interrupted_everywhere,
            "killed_everywhere": killed_everywhere,
            "consumer_killed_in_request": consumer_killed_in_request,
        }
    )
