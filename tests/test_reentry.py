from __future__ import annotations

import signal

import pytest
from programs.harness import run, running

from analytics_batcher.receiver import Reply

needs_timer = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timer")
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
    ("when_full", "room"), [("drop_newest", ROOMY), ("drop_newest", TIGHT), ("drop_oldest", TIGHT)]
)
def test_signal_handlers_can_raise_in_the_middle_of_track(receiver, when_full, room):
    """Exceptions out of signal handlers end the call that they interrupt, and neither a lock nor a count breaks."""
    ended = run("reentries", "handlers_raise", receiver.url, when_full, room)

    assert_silent(ended)
    facts = ended.facts
    assert facts["raised"] >= 20
    returned = facts["taken"] + facts["refused"]
    assert returned < facts["tracked"] <= returned + facts["raised"] + 1
    assert_exact(facts, receiver)


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


def test_a_log_handler_can_track_what_the_consumer_logs(receiver):
    """A log handler that tracks every record, those of our own requests and warnings too, neither hangs nor loops."""
    ended = run("reentries", "log_handler", receiver.url)

    assert_silent(ended)
    assert {"analytics_batcher", "application", "urllib3.connectionpool"} <= set(ended.facts["loggers"])
    assert ended.facts["tracked"] == ended.facts["calls"]
    assert ended.facts["taken"] == ended.facts["delivered"]
    assert_exact(ended.facts, receiver)


@pytest.mark.parametrize("option", ["on_drop", "on_delivery", "before_send"])
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
    ended = run("reentries", "thrown_everywhere", receiver.url, *case, seconds=60)

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
