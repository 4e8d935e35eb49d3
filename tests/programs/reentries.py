"""Programs that track where they are in the middle of it: each case is one, run by `tests/test_reentry.py`."""

from __future__ import annotations

import ctypes
import gc
import linecache
import logging
import signal
import sys
import threading
import time
import weakref
from collections import Counter
from contextlib import suppress
from itertools import count

from harness import KEPT, be_told, books, make_client, say, start, track, unkept_client

TICK = 0.0005
SECONDS = 0.5


class Interrupt(BaseException):
    """What is thrown into a call."""


def event(client, user):
    """One message."""
    return client.track(user, "happened", {"text": "x" * 20}, account_id="a")


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


def tick(handler):
    """Call a signal handler again and again."""
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, TICK, TICK)


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

    tick(handler)
    for number in in_time():
        if number < int(most):
            call("main")
    end_ticks()
    conclude(client, calls=len(calls), taken=len(taken), from_handlers=calls.count("handler"))


def handlers_raise(url, when_full, room):
    """Raise out of signal handlers that interrupt a call."""
    client = make_client(url, when_full=when_full, max_queue_messages=int(room), flush_interval=0.01)
    taken, refused, raised = [], [], []

    def handler(_, frame):
        while frame is not None:
            if frame.f_code.co_name == "track" and "analytics_batcher" in frame.f_code.co_filename:
                raised.append(True)
                raise Interrupt
            frame = frame.f_back

    signal.signal(signal.SIGALRM, handler)
    for number in in_time():
        if number == 5_000 and int(room) > number:
            break
        # One at a time: Python 3.10 looks for signals before it unwinds a `with`, and then leaves its lock locked.
        signal.setitimer(signal.ITIMER_REAL, 0.000001 * (1 + number % 30))
        with suppress(Interrupt):
            (taken if event(client, "main") else refused).append(True)
    end_ticks()
    conclude(client, taken=len(taken), refused=len(refused), raised=len(raised))


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


def log_handler(url):
    """Track every log record of the root logger at DEBUG, those of the consumer's own requests too."""
    client = make_client(url, flush_interval=0.01)
    calls, taken, loggers = [], [], set()

    class Handler(logging.Handler):
        def emit(self, record):
            loggers.add(record.name)
            calls.append(True)
            if event(client, record.name):
                taken.append(True)

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
    for _ in range(3):
        event(client, "main")
        client.track("", "invalid")
    first = client.flush(5)
    while not acted and time.monotonic() < deadline:
        threading.Event().wait(0.002)  # a refusal is reported on the consumer's own time
    event(client, "main")
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


class Thrower:
    """Throws once: at a new point of those in the package at which the interpreter lets exceptions from outside in.

    These points are the entries of functions, the returns from C, the turns of loops, and on Python 3.10 every return;
    each is new when it is passed for the first and for the second time.

    Args:
        exception: What to throw.
        known: The points at which something was thrown before; the new one is added.
        consumer: Whether into the consumer's thread; if not, into the calling one.
    """

    RETURNS = {"call", "c_return"} | ({"return"} if sys.version_info < (3, 11) else set())

    def __init__(self, exception, known, *, consumer=False):
        self.place = self.thread = None
        self._exception, self._known = exception, known
        self._passed = Counter()
        self._module = threading if consumer else sys
        self._lines = {}

    def __enter__(self):
        self._module.settrace(self._trace)
        self._module.setprofile(self._profile)
        return self

    def __exit__(self, *_):
        self._module.setprofile(None)
        self._module.settrace(None)

    def is_over(self, client):
        """Whether a consumer came to its end, or went through without passing as many points."""
        return not client.stats().pending if self.thread is None else not self.thread.is_alive()

    def _is_ours(self, frame):
        if frame is None or self.place or "analytics_batcher/" not in frame.f_code.co_filename:
            return False
        return self._module is sys or threading.current_thread().name.startswith("analytics-batcher:")

    def _profile(self, frame, what, _):
        at = frame.f_back if what == "return" else frame
        if what in self.RETURNS and self._is_ours(at):
            self._pass(at, what)

    def _trace(self, frame, what, _):
        if not self._is_ours(frame):
            return None
        if what == "line":
            before, self._lines[frame] = self._lines.get(frame, 0), frame.f_lineno
            line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            if frame.f_lineno <= before and line.split()[:1] in (["for"], ["while"]):
                self._pass(frame, "loop")
        elif what == "return":
            self._lines.pop(frame, None)
        return self._trace

    def _pass(self, frame, what):
        name = frame.f_code.co_filename.rpartition("analytics_batcher/")[2]
        place = f"{name}:{frame.f_lineno} {frame.f_code.co_name} ({what})"
        self._passed[place] += 1
        point = (place, self._passed[place])
        if self._passed[place] <= 2 and point not in self._known:
            self._known.add(point)
            self.place, self.thread = place, threading.current_thread()
            sys.setprofile(None)
            sys.settrace(None)
            self._act()

    def _act(self):
        raise self._exception


class Caller(Thrower):
    """Calls at such a point, as a signal handler or a finalizer does, where a `Thrower` throws.

    Args:
        use: What to call.
        known: As for a `Thrower`.
    """

    def __init__(self, use, known):
        super().__init__(None, known)
        self._act = use


def aftermath(client, accepted):
    """What is wrong with a client after something was thrown into it, if anything is; it is gone after this."""
    wrong = []
    if not is_free(client):
        return ["a lock is held"]
    accepted += client.track("after", "happened", account_id="a")
    result = client.flush(1)
    if result.timed_out or result.pending:
        wrong.append(f"a flush left {result.pending}")
    stats = client.stats()
    if stats.tracked != stats.delivered + sum(stats.dropped.values()) + stats.pending:
        wrong.append(f"{stats.tracked} tracked, {stats.delivered} delivered, {stats.pending} pending")
    result = client.shutdown(1)
    stats = client.stats()
    if result.pending or stats.pending or stats.pending_bytes:
        wrong.append(f"at the end {stats.pending} messages, {stats.pending_bytes} bytes pending")
    return wrong


CALLS = {
    "track": lambda client: event(client, "thrown into"),
    "flush": lambda client: client.flush(2),
    "shutdown": lambda client: client.shutdown(2),
    "stats": lambda client: client.stats(),
}


def thrown_everywhere(url, calls, background, when_full, room):
    """Throw into calls at each point where that can happen, each time with a new client."""
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
                verify=False,  # no certificates to load, and none needed
                on_drop=lambda _: None,
            )
            accepted = 0
            if call != "track" or int(room) < 10:
                accepted = track(client, "before", 3)
            with Thrower(Interrupt, points) as thrower, suppress(Interrupt):
                CALLS[call](client)
            place = thrower.place
            found = aftermath(client, accepted)
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
            with Caller(use, points) as caller:
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
        with Thrower(SystemExit, points, consumer=True) as thrower:
            accepted = track(client, "before", 3)
            end = time.monotonic() + 2
            while not thrower.is_over(client) and time.monotonic() < end:
                pause.wait(0.0005)  # the end of a thread tells nobody, and a flush would start another one
        if thrower.place is None:
            missed += 1  # how often the consumer looks is not the same each time
        found = aftermath(client, accepted)
        if found:
            wrong[thrower.place or "nowhere"] = found
        delivered += client.stats().delivered
    say(points=len(points), wrong=wrong, delivered=delivered)


if __name__ == "__main__":
    start(
        {
            "handlers_track": handlers_track,
            "handlers_raise": handlers_raise,
            "first_calls_interrupted": first_calls_interrupted,
            "finalizers": finalizers,
            "log_handler": log_handler,
            "callbacks": callbacks,
            "thrown_into_caller": thrown_into_caller,
            "consumer_killed": consumer_killed,
            "thrown_everywhere": thrown_everywhere,
            "called_everywhere": called_everywhere,
            "killed_everywhere": killed_everywhere,
            "consumer_killed_in_request": consumer_killed_in_request,
        }
    )
