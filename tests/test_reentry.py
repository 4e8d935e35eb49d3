from __future__ import annotations

import signal
import sys
import time
from itertools import count

import pytest
from programs.harness import run, running
from programs.interrupter import Interrupter

from analytics_batcher import DropReason
from analytics_batcher.buffers import NEVER, Lease
from analytics_batcher.buffers.memory import RECORD_OVERHEAD, MemoryBuffer
from analytics_batcher.receiver import Reply
from analytics_batcher.stamp import new_head

needs_timer = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
not_before_311 = pytest.mark.skipif(
    sys.version_info < (3, 11), reason="Python 3.10 looks for signals before it unwinds a `with`: two leave it locked"
)
ROOMY = 100_000
TIGHT = 50


def assert_exact(facts, receiver):
    """The client is sound, and what the vendor has is what is called delivered."""
    assert_conserved(facts)
    assert_arrived(receiver, facts["delivered"])


def assert_conserved(facts):
    """Nobody holds a lock, the books balance, and nothing is left."""
    assert facts["free"]
    assert facts["flushed"]
    assert facts["pending"] == 0
    assert facts["tracked"] == facts["delivered"] + sum(facts["dropped"].values())


def assert_arrived(receiver, count):
    """So many messages came, each once."""
    report = receiver.report()
    assert (report.unique_messages, report.repeats, report.faults) == (count, 0, ())


def assert_silent(ended):
    """The program ended well and had nothing to complain about."""
    assert (ended.status, ended.errors) == (0, "")


@needs_timer
@pytest.mark.parametrize(
    ("when_full", "room", "most"),
    [
        ("drop_newest", ROOMY, 2_000),
        ("drop_newest", TIGHT, 10**9),
        ("drop_oldest", TIGHT, 10**9),
        ("block", TIGHT, 2_000),
    ],
)
def test_signal_handlers_can_track_while_they_interrupt_track(receiver, when_full, room, most):
    """Signal handlers that track while the main thread tracks: no call hangs, and every single one is counted."""
    ended = run("reentries", "handlers_track", receiver.url, when_full, room, most)

    assert_silent(ended)
    facts = ended.facts
    assert facts["from_handlers"] >= 100
    assert facts["tracked"] == facts["calls"] + 1  # the one by which another thread saw that no lock is held
    assert_exact(facts, receiver)
    evicted = facts["dropped"].get("queue_full", 0) - (facts["tracked"] - facts["taken"] - 1)
    assert facts["taken"] + 1 == facts["delivered"] + evicted
    assert evicted == 0 or when_full == "drop_oldest"


@needs_timer
@pytest.mark.parametrize(
    ("when_full", "room", "timer"),
    [
        ("drop_newest", ROOMY, "shots"),
        ("drop_newest", TIGHT, "shots"),
        ("drop_oldest", TIGHT, "shots"),
        pytest.param("drop_newest", TIGHT, "ticks", marks=not_before_311),
        pytest.param("drop_oldest", TIGHT, "ticks", marks=not_before_311),
    ],
)
def test_signal_handlers_can_raise_in_the_middle_of_track(receiver, when_full, room, timer):
    """Exceptions out of signal handlers end the call that they interrupt, and neither a lock nor a count breaks."""
    ended = run("reentries", "handlers_raise", receiver.url, when_full, room, timer)

    assert_silent(ended)
    facts = ended.facts
    assert facts["raised"] >= 20
    returned = facts["taken"] + facts["refused"]
    assert returned < facts["tracked"] <= returned + facts["raised"] + 1
    assert_exact(facts, receiver)


@needs_timer
@pytest.mark.parametrize(
    ("call", "background", "when_full"),
    [
        ("flush", "thread", "drop_newest"),
        ("flush", "thread", "drop_oldest"),
        ("flush", "inline", "drop_oldest"),
        ("stats", "thread", "drop_newest"),
        ("enqueue", "thread", "drop_oldest"),
    ],
)
def test_signal_handlers_can_call_in_the_middle_of_other_calls(receiver, call, background, when_full):
    """A handler that flushes, enqueues or asks for figures in the middle of another call is not kept waiting by it."""
    ended = run("reentries", "handlers_call", receiver.url, call, background, when_full)

    assert_silent(ended)
    assert ended.facts["called"] >= 50
    assert ended.facts["late"] == 0
    assert ended.facts["longest"] < 2.0
    assert_exact(ended.facts, receiver)


@needs_timer
@pytest.mark.parametrize("background", ["thread", "inline"])
def test_signal_handlers_can_shut_down_in_the_middle_of_other_calls(receiver, background):
    """A handler that shuts the client down, wherever it interrupts the main thread, delivers all that was accepted."""
    ended = run("reentries", "handlers_shut_down", receiver.url, background)

    assert_silent(ended)
    facts = ended.facts
    assert (facts["late"], facts["left"], facts["free"]) == ([], [], True)
    assert facts["tracked"] == facts["settled"]
    assert_arrived(receiver, facts["delivered"])


@needs_timer
def test_signal_handlers_can_raise_while_a_client_starts_its_thread(receiver):
    """A client whose very first call is interrupted by an exception works from the next call on."""
    ended = run("reentries", "first_calls_interrupted", receiver.url)

    assert_silent(ended)
    assert ended.facts["raised"] >= 1
    assert ended.facts["results"] == [[True, True, True]]
    report = receiver.report()
    assert (report.unique_messages, report.repeats) == (ended.facts["delivered"], 0)
    assert ended.facts["delivered"] >= 2 * 40  # the second call of each, and that of another thread


@pytest.mark.parametrize(
    ("when_full", "room"), [("drop_newest", ROOMY), ("drop_newest", TIGHT), ("drop_oldest", TIGHT)]
)
def test_finalizers_can_track_while_the_collector_runs(receiver, when_full, room):
    """Finalizers and weak references' callbacks that track in the middle of `track` neither hang nor miscount."""
    ended = run("reentries", "finalizers", receiver.url, when_full, room)

    assert_silent(ended)
    assert ended.facts["by_caller"] == {"finalizer": 1_200, "reference": 1_200, "main": 400}
    assert ended.facts["tracked"] == ended.facts["calls"] + 1 == 3_601
    assert_exact(ended.facts, receiver)


@pytest.mark.parametrize("also", ["nothing", "flush", "stats"])
def test_a_log_handler_can_track_what_the_consumer_logs(receiver, also):
    """A log handler that tracks every record, those of our own requests and warnings too, neither hangs nor loops."""
    ended = run("reentries", "log_handler", receiver.url, also)

    assert_silent(ended)
    assert {"analytics_batcher", "application", "urllib3.connectionpool"} <= set(ended.facts["loggers"])
    assert ended.facts["tracked"] == ended.facts["calls"]
    assert ended.facts["taken"] == ended.facts["delivered"]
    assert_exact(ended.facts, receiver)


@pytest.mark.parametrize("option", ["on_drop", "on_delivery", "before_send", "default"])
def test_callbacks_can_use_their_client(receiver, option):
    """A callback that tracks, flushes, shuts down or asks for figures gets its answer at once, and nothing is lost."""
    ended = run("reentries", "callbacks", receiver.url, option)

    assert_silent(ended)
    assert list(ended.facts) == ["track", "flush", "shutdown", "stats"]
    for facts in ended.facts.values():
        assert facts["acted"] >= 1
        assert facts["longest"] < 1.0
        assert set(facts["dropped"]) <= {"invalid", "closed"}
        assert_conserved(facts)
    assert_arrived(receiver, sum(facts["delivered"] for facts in ended.facts.values()))


@pytest.mark.parametrize(("when_full", "room"), [("drop_newest", TIGHT), ("drop_oldest", TIGHT)])
def test_exceptions_can_be_thrown_into_a_tracking_thread(receiver, when_full, room):
    """Exceptions that another thread throws into `track` end that call alone; the counts stay exact."""
    ended = run("reentries", "thrown_into_caller", receiver.url, when_full, room)

    assert_silent(ended)
    assert ended.facts["raised"] == 400
    assert_exact(ended.facts, receiver)


@pytest.mark.parametrize(
    ("case", "least"),
    [
        (("track", "thread", "drop_newest", ROOMY), 10),
        (("track", "inline", "drop_newest", 3), 10),
        (("track", "inline", "drop_oldest", 3), 10),
        (("flush+shutdown", "thread", "drop_newest", ROOMY), 50),
        (("flush+shutdown", "inline", "drop_newest", ROOMY), 200),
        (("stats", "inline", "drop_newest", ROOMY), 10),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_call_can_be_interrupted_anywhere(receiver, case, least):
    """Wherever an exception (a Ctrl-C, a time limit) hits a call, the next calls work and the books balance."""
    ended = run("reentries", "interrupted_everywhere", receiver.url, *case, "raise", seconds=60)

    assert ended.status == 0, ended.errors
    assert ended.facts["wrong"] == {}
    assert ended.facts["points"] >= least
    assert receiver.report().unique_messages == ended.facts["delivered"] > 0


@pytest.mark.parametrize("background", ["thread", "inline"])
@pytest.mark.parametrize(("calls", "least"), [("track+stats", 30), ("flush+shutdown", 60)])
def test_a_client_can_be_used_in_the_middle_of_its_calls(receiver, calls, least, background):
    """Wherever a handler or a finalizer that tracks and flushes comes into a call, neither hangs nor miscounts."""
    ended = run("reentries", "called_everywhere", receiver.url, calls, background, seconds=30)

    assert ended.status == 0, ended.errors
    assert ended.facts["wrong"] == {}
    assert ended.facts["points"] >= least
    assert receiver.report().unique_messages == ended.facts["delivered"] > 0


@pytest.mark.parametrize(
    ("case", "least"),
    [
        (("stats", "thread", "drop_newest", ROOMY, "flush"), 40),
        (("track", "thread", "drop_oldest", 3, "flush"), 20),
        (("track", "inline", "drop_oldest", 3, "flush"), 20),
        (("flush", "thread", "drop_newest", ROOMY, "flush"), 60),
        (("shutdown", "thread", "drop_newest", ROOMY, "shutdown"), 80),
        (("give-up", "thread", "drop_newest", ROOMY, "shutdown"), 80),
        (("give-up", "inline", "drop_newest", ROOMY, "flush"), 80),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_another_call_can_come_in_anywhere(receiver, case, least):
    """Wherever a flush or a shutdown comes in between (a signal, a finalizer), it is in time, and the books balance."""
    ended = run("reentries", "interrupted_everywhere", receiver.url, *case, seconds=60)

    assert_silent(ended)
    assert ended.facts["wrong"] == {}
    assert ended.facts["points"] >= least
    assert receiver.report().unique_messages == ended.facts["delivered"] > 0


def full_buffer():
    """A buffer of six records, of which two are leased, two have come back from a lease, and two wait."""
    buffer = MemoryBuffer(6, 10_000, evict=True, keep_evicted=True)
    for number in range(6):
        assert buffer.put(record(number)) is None
    lease = Lease()
    buffer.take(lease, 4, 10_000)
    buffer.release(lease, 2)
    return buffer, lease


def record(number):
    """A record of its own size."""
    return new_head() + b"{" + b" " * number + b"}"


def consume(buffer, lease):
    """What a consumer does, and what it delivers: it settles what it has leased, and leases and delivers more."""
    delivered = list(lease.records)
    if not buffer.settle(lease, range(len(delivered)), ()):
        return []  # they were abandoned
    buffer.take(lease, 3, 10_000)
    buffer.release(lease, 2)
    delivered += lease.records[:1]
    buffer.settle(lease, range(len(lease.records[:1])), ())
    return delivered


def is_balanced(reading):
    """Whether the books of a reading balance."""
    books = reading.ledger
    return books.tracked == books.delivered + sum(books.dropped.values()) + reading.messages


CAME_IN = {
    "consume": consume,
    "put": lambda buffer, _: buffer.put(record(7)) and [],
    "abandon": lambda buffer, _: buffer.abandon(DropReason.EXIT),
}
INTERRUPTED = {
    "put": lambda buffer: buffer.put(record(8)),
    "read": lambda buffer: buffer.read(),
    "settled_below": lambda buffer: buffer.settled_below(),
    "ticket": lambda buffer: buffer.ticket(),
    "abandon": lambda buffer: buffer.abandon(DropReason.EXIT),
    "take_evicted": lambda buffer: buffer.take_evicted(),
    "wait_for_room": lambda buffer: buffer.wait_for_room(100, 0.0),
    "arm": lambda buffer: buffer.arm(7, 10_000),
    "close": lambda buffer: buffer.close(),
    "take": lambda buffer: buffer.take(Lease(), 3, 10_000),
}


@pytest.mark.parametrize("came_in", CAME_IN)
@pytest.mark.parametrize("interrupted", INTERRUPTED)
def test_a_buffer_stays_whole_whatever_comes_in_between(interrupted, came_in):
    """Wherever another call comes in between, a buffer's call counts each record once and sees the books balanced."""
    points = set()
    for turn in count():
        buffer, lease = full_buffer()
        gone = []

        def act(buffer=buffer, lease=lease, gone=gone):
            gone.extend(CAME_IN[came_in](buffer, lease) or [])

        with Interrupter(act, points) as interrupter:
            result = INTERRUPTED[interrupted](buffer)
        if interrupter.place is None:
            assert turn == len(points) > 0
            return
        if interrupted == "read":
            assert is_balanced(result), interrupter.place
        if interrupted == "settled_below":
            assert result <= buffer.settled_below(), interrupter.place
        if interrupted == "abandon":
            gone += result
        reading = buffer.read()
        assert is_balanced(reading), interrupter.place
        rest = buffer.abandon(DropReason.EXIT)
        assert reading.bytes == sum(len(one) + RECORD_OVERHEAD for one in rest), interrupter.place
        assert len(set(gone + rest)) == len(gone + rest) == reading.ledger.tracked - reading.ledger.evicted
        assert is_balanced(buffer.read()), interrupter.place
        assert (buffer.read().messages, buffer.read().bytes, buffer.read().waiting_bytes) == (0, 0, 0)


def test_a_record_can_come_in_while_others_are_taken():
    """Wherever a record comes in while the consumer takes others, it gets those, and the new one waits."""
    points = set()
    while True:
        buffer, taken = MemoryBuffer(9, 10_000), Lease()
        waiting = [record(number) for number in range(3)]
        for one in waiting:
            buffer.put(one)
        with Interrupter(lambda buffer=buffer: buffer.put(record(4)), points) as interrupter:
            buffer.take(taken, 3, 10_000)
        if interrupter.place is None:
            assert points
            return
        assert taken.records == waiting, interrupter.place
        reading = buffer.read()
        assert is_balanced(reading), interrupter.place
        assert (reading.messages, reading.waiting) == (4, 1), interrupter.place


def test_a_consumer_that_goes_to_sleep_misses_no_record():
    """Wherever a record comes in while the consumer arms the buffer, it is told at once, or woken."""
    points = set()
    while True:
        buffer = MemoryBuffer(6, 10_000)
        with Interrupter(lambda buffer=buffer: buffer.put(record(1)), points) as interrupter:
            is_there = buffer.arm(1, NEVER)
        if interrupter.place is None:
            assert points
            return
        before = time.monotonic()
        if not is_there:
            buffer.wait(5)
        assert time.monotonic() - before < 4, interrupter.place


def test_the_consumer_can_be_killed_anywhere(receiver):
    """Wherever the consumer's thread dies, another one goes on; nothing is lost or miscounted."""
    ended = run("reentries", "killed_everywhere", receiver.url, seconds=90)

    assert ended.status == 0, ended.errors
    assert ended.facts["wrong"] == {}
    assert ended.facts["points"] >= 200
    assert receiver.report().unique_messages == ended.facts["delivered"]


@pytest.mark.parametrize("by", ["message", "flush"])
def test_a_killed_consumer_starts_again(receiver, by):
    """A consumer that was killed while it waited is shown as dead, and starts at the next message or flush."""
    ended = run("reentries", "consumer_killed", receiver.url, by)

    assert_silent(ended)
    assert ended.facts["alive"] == [True, False, True]
    assert (ended.facts["left"], ended.facts["dead"], ended.facts["another"]) == (1, True, True)
    assert_exact(ended.facts, receiver)


def test_a_consumer_killed_in_a_request_loses_nothing(receiver):
    """When the consumer is killed while it waits for an answer, everything is delivered; that batch may come twice."""
    told = []

    def decide(_):
        if not told:
            told.append(True)
            program.tell()
            return Reply(delay=0.5)  # long enough to be killed in
        return None

    receiver.decide = decide
    with running("reentries", "consumer_killed_in_request", receiver.url) as program:
        ended = program.end()

    assert_silent(ended)
    facts = ended.facts
    assert (facts["dead"], facts["alive"], facts["free"], facts["flushed"]) == (True, False, True, True)
    assert facts["tracked"] == facts["delivered"] == receiver.report().unique_messages == 151
