from __future__ import annotations

import gc
import os
import signal
import threading
from contextlib import contextmanager

import pytest
from programs.harness import run, running

from analytics_batcher import Client, Vitally, lifecycle
from analytics_batcher.receiver import Receiver, Reply

SLOW = 0.05
TIME = 0.5  # the `shutdown_timeout` of the programs that must give up
GRACE = 1.0
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


@pytest.fixture
def slow_receiver():
    """A stand-in that takes its time."""
    with Receiver(latency=SLOW) as running_receiver:
        yield running_receiver


@contextmanager
def stuck(reply):
    """A stand-in that answers everything in one unhelpful way."""
    with Receiver() as receiver:
        receiver.decide = lambda _: reply
        yield receiver


def assert_delivered(receiver, count):
    """Each message came once, and nothing came that should not."""
    report = receiver.report()
    assert (report.unique_messages, report.repeats, report.faults) == (count, 0, ())


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("return", 0),
        ("sys.exit", 3),
        ("exception", 1),
        pytest.param("interrupt", -signal.SIGINT, marks=posix),
    ],
)
def test_exit_delivers_what_is_queued_and_keeps_the_status(slow_receiver, how, status):
    """However a program ends, its 2,000 queued messages are delivered and its exit status stays what it was."""
    ended = run("exits", "ends", slow_receiver.url, how)

    assert ended.status == status
    assert_delivered(slow_receiver, 2_000)
    tracebacks = ended.errors.count("Traceback")
    own = {"exception": "LookupError: the program's own", "interrupt": "KeyboardInterrupt"}.get(how, "")
    assert tracebacks == bool(own)
    assert ended.errors.strip().endswith(own) if own else not ended.errors


@pytest.mark.parametrize("first", ["main", "late"])
def test_exit_waits_for_what_a_surviving_thread_tracks(slow_receiver, first):
    """What a non-daemon thread tracks after the main one has ended is delivered."""
    ended = run("exits", "late_thread", slow_receiver.url, first)

    assert (ended.status, ended.errors) == (0, "")
    assert_delivered(slow_receiver, 2_000)


def test_exit_delivers_what_a_daemon_thread_got_accepted(receiver):
    """What was accepted of a daemon thread that tracks on and on is delivered, and the rest is refused."""
    ended = run("exits", "daemon_thread", receiver.url)

    assert (ended.status, ended.errors, ended.facts["done"]) == (0, "", True)
    assert ended.facts["accepted"] >= 10
    assert_delivered(receiver, ended.facts["accepted"])


@pytest.mark.parametrize("background", ["thread", "inline"])
@pytest.mark.parametrize(
    "reply",
    [Reply(hang=True), Reply(drip=0.3), Reply(500), Reply(429, headers={"Retry-After": "60"}), Reply(401)],
    ids=["hangs", "drips", "fails", "asks to wait", "refuses"],
)
def test_exit_gives_up_in_time_and_says_how_much_it_leaves(reply, background):
    """Against an endpoint that takes nothing, the exit ends in its time, and one line says how many are left."""
    with stuck(reply) as receiver:
        ended = run("exits", "gives_up", receiver.url, background, 1)

    assert ended.status == 0
    assert ended.at - ended.facts["begun"] <= TIME + GRACE
    lines = [line for line in ended.errors.splitlines() if "150" in line]
    assert [line.startswith("WARNING vitally: 150 messages were left behind") for line in lines] == [True]
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize("background", ["thread", "inline"])
def test_several_clients_share_the_time_of_the_exit(background):
    """Three clients of an endpoint that hangs take no longer to exit than one, and each says what it leaves."""
    with stuck(Reply(hang=True)) as receiver:
        ended = run("exits", "gives_up", receiver.url, background, 3)

    assert ended.status == 0
    assert ended.at - ended.facts["begun"] <= TIME + GRACE
    assert ended.errors.count("150 messages were left behind") == 3
    assert "Traceback" not in ended.errors


def test_a_client_without_a_thread_delivers_at_exit(receiver):
    """With `background=False`, what was never flushed is delivered at exit."""
    ended = run("exits", "inline", receiver.url)

    assert (ended.status, ended.errors) == (0, "")
    assert_delivered(receiver, 250)


def test_a_message_tracked_while_the_program_ends_is_delivered(receiver):
    """What is tracked for the first time in an exit handler is delivered, where need be by the ending thread itself."""
    ended = run("exits", "in_handler", receiver.url, "after")

    assert (ended.status, ended.errors) == (0, "")
    assert ended.facts["accepted"] == ended.facts["delivered"] == 250
    # On some versions of Python, of 3.12 at least, no thread can be started while the interpreter ends.
    deliverer = "analytics-batcher:vitally" if ended.facts["can_start"] else "MainThread"
    assert set(ended.facts["deliverers"]) == {deliverer}
    assert_delivered(receiver, 250)


def test_a_message_tracked_after_the_exit_hook_is_refused(receiver):
    """What is tracked in an exit handler that runs after the client's own is refused as `closed`, and counted."""
    ended = run("exits", "in_handler", receiver.url, "before")

    assert (ended.status, ended.errors, ended.facts["accepted"]) == (0, "", 0)
    assert (ended.facts["tracked"], ended.facts["dropped"]) == (250, {"closed": 250})
    assert_delivered(receiver, 0)


def test_flush_works_while_the_program_ends(receiver):
    """A flush in an exit handler delivers."""
    ended = run("exits", "flush_in_handler", receiver.url)

    assert (ended.status, ended.errors) == (0, "")
    assert ended.facts == {"accepted": 250, "flushed": True}
    assert_delivered(receiver, 250)


def test_a_client_can_live_within_an_exit_handler(receiver):
    """A client that is made and shut down in an exit handler delivers."""
    ended = run("exits", "made_in_handler", receiver.url)

    assert (ended.status, ended.errors) == (0, "")
    assert ended.facts["accepted"] == ended.facts["delivered"] == 250
    assert_delivered(receiver, 250)


@pytest.mark.parametrize("background", ["thread", "inline"])
def test_what_a_collected_client_held_is_delivered_at_exit(receiver, background):
    """A client that was collected with messages queued delivers them before the process ends."""
    ended = run("exits", "collected", receiver.url, background)

    assert (ended.status, ended.errors, ended.facts) == (0, "", {"accepted": 250})
    assert_delivered(receiver, 250)


@posix
def test_ctrl_c_ends_a_flush_and_the_exit_keeps_its_time():
    """A Ctrl-C in a flush that waits for a hanging endpoint ends it, and the exit then takes no more than its time."""
    with stuck(Reply(hang=True)) as receiver, running("exits", "interrupted", receiver.url, seconds=10) as program:
        assert receiver.wait_for(lambda r: r.requests)
        program.tell()
        ended = program.end()

    assert ended.status == -signal.SIGINT
    assert ended.errors.count("Traceback") == 1
    assert ended.errors.strip().endswith("KeyboardInterrupt")


@posix
@pytest.mark.parametrize("background", ["thread", "inline"])
def test_ctrl_c_ends_the_exit_hook_which_says_how_much_it_leaves(background):
    """A Ctrl-C in the exit hook ends it at once; what is left is counted all the same, and one line says how many."""
    with stuck(Reply(hang=True)) as receiver, running("exits", "interrupted_exit", receiver.url, background) as program:
        assert receiver.wait_for(lambda r: r.requests)
        program.signal(signal.SIGINT)
        ended = program.end()

    assert (ended.facts["dropped"], ended.facts["pending"]) == ({"exit": 150}, 0)
    assert ended.errors.count("WARNING vitally: 150 messages were left behind") == 1
    assert ended.errors.count("KeyboardInterrupt") == 1


@posix
@pytest.mark.parametrize("background", ["thread", "inline"])
def test_another_sys_exit_does_not_end_the_exit_hook(slow_receiver, background):
    """A second SIGTERM to a program whose handler calls `sys.exit` comes in the exit hook, and costs no message."""
    with running("exits", "terminated_twice", slow_receiver.url, background) as program:
        assert slow_receiver.wait_for(lambda r: r.requests)
        program.signal(signal.SIGTERM)
        ended = program.end()

    assert (ended.status, ended.errors) == (7, "")
    report = slow_receiver.report()
    assert (report.unique_messages, report.faults) == (250, ())
    assert report.repeats <= 100 * (background == "inline")  # of the request that was interrupted


@pytest.mark.parametrize("ended_by", ["exit", "shutdown"])
def test_the_callback_of_the_last_delivery_is_let_finish(receiver, ended_by):
    """A callback that is told of the last delivery when the program ends comes to its end before that."""
    ended = run("exits", "in_callback", receiver.url, ended_by)

    assert (ended.status, ended.errors, ended.facts) == (0, "", {"told": 1})


def test_a_client_made_after_the_exit_hook_needs_no_collections(receiver):
    """What is left to a client that was made after the exit hook is delivered where garbage is not collected, too."""
    ended = run("exits", "late_without_collections", receiver.url)

    assert (ended.status, ended.errors, ended.facts) == (0, "", {"accepted": 250})
    assert_delivered(receiver, 250)


def test_a_client_made_after_the_exit_hook_waits_for_no_thread(receiver):
    """With a thread stopped for ever within it, such a client delivers nothing and says so, and the process ends."""
    ended = run("exits", "late_beside_a_thread", receiver.url)

    assert (ended.status, ended.facts["accepted"]) == (0, 250)
    assert ended.errors == "vitally: 250 messages were left behind and dropped at exit\n"
    assert_delivered(receiver, 0)


@pytest.mark.parametrize("warm", [False, True], ids=["queued", "waiting"])
def test_a_collected_client_delivers_and_its_thread_ends(receiver, wait_until, warm):
    """What a client held when it was collected is delivered at once, and then nothing is left of it."""
    before, watched = set(threading.enumerate()), dict(lifecycle._watched)
    client = Client(Vitally(api_token="test-token", base_url=receiver.url), flush_interval=60)
    count = 250
    for number in range(count):
        assert client.track(f"u{number}", "happened", account_id="a")
    if warm:
        assert client.flush()
        assert client.track("one more", "happened", account_id="a")
        count += 1
    (thread,) = [one for one in set(threading.enumerate()) - before if one.name == "analytics-batcher:vitally"]

    del client
    gc.collect()

    thread.join(10)
    assert not thread.is_alive()
    assert_delivered(receiver, count)
    wait_until(lambda: lifecycle._watched == watched)


def test_a_collected_client_that_holds_nothing_leaves_no_thread(receiver, wait_until):
    """A client that is collected while it has nothing to send ends its thread without a request."""
    before, watched = set(threading.enumerate()), dict(lifecycle._watched)
    client = Client(Vitally(api_token="test-token", base_url=receiver.url))
    assert client.track("u", "happened", account_id="a")
    assert client.flush()
    (thread,) = [one for one in set(threading.enumerate()) - before if one.name == "analytics-batcher:vitally"]

    del client
    gc.collect()

    thread.join(10)
    assert not thread.is_alive()
    wait_until(lambda: lifecycle._watched == watched)
    assert len(receiver.requests) == 1
