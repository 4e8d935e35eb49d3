from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing

import pytest
from conftest import balanced
from programs.harness import FOLDER, run, running

from analytics_batcher import Retry, SqliteBuffer
from analytics_batcher.buffers import Lease
from analytics_batcher.receiver import Reply
from analytics_batcher.stamp import iso_text, new_head, uuid_text

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a durable buffer needs the locks of files")

# The long form: SPOOL_ROUNDS=200 SPOOL_SECONDS=60.
ROUNDS = int(os.environ.get("SPOOL_ROUNDS", "10"))
SECONDS = float(os.environ.get("SPOOL_SECONDS", "5"))
NOWHERE = "http://127.0.0.1:9"
EVERYTHING = 10**9


@pytest.fixture
def path(tmp_path):
    """Where a spool may be."""
    return tmp_path / "spool.db"


@pytest.fixture
def open_buffer(path):
    """Opens buffers on the file, and lets them go at the end."""
    opened = []

    def open_one(name="vitally", *arguments, settings=None, **options):
        opened.append((settings or SqliteBuffer(path)).open(name, *arguments, **options))
        return opened[-1]

    yield open_one
    for buffer in opened:
        buffer.finish()


@pytest.fixture
def client_of(path, make_client):
    """Makes clients that keep their messages in the file."""

    def make(**options):
        return make_client(**{"buffer": SqliteBuffer(path), "flush_interval": 0.01, **options})

    return make


def record(body=b"{}"):
    """A record with a stamp of now."""
    return new_head() + body


def fill(buffer, count):
    """Put so many records, which are returned."""
    records = [record(b'{"n":%d}' % number) for number in range(count)]
    for one in records:
        assert buffer.put(one) is None
    return records


def taken(buffer, messages=EVERYTHING, *, settle=False):
    """The records of a lease."""
    lease = Lease()
    buffer.take(lease, messages, EVERYTHING)
    records = list(lease.records)
    if settle and records:
        assert buffer.settle(lease, range(len(records)), [])
    return records


def drained(buffer):
    """All records, each settled."""
    records = []
    while some := taken(buffer, 100, settle=True):
        records += some
    return records


def noted(journal):
    """The ids that writers noted."""
    return journal.read_text().split() if journal.exists() else []


def in_file(path):
    """The records in the file, oldest first."""
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT record FROM message ORDER BY row")]


def empty(path):
    """Whether no message is left in the file."""
    return not in_file(path)


# --- Processes that are killed ----------------------------------------------------------------------------------------


def deliver_the_rest(client_of, path, wait_until):
    """Open the file once more, and wait until nothing is left in it."""
    client = client_of()
    wait_until(lambda: client.stats().pending == 0 and empty(path), 30)
    assert balanced(client.stats())
    return client


def who_sent(receiver):
    """By message id, the processes that sent it, in their order."""
    senders = {}
    for message in receiver.messages:
        senders.setdefault(message["messageId"], []).append(message["properties"].get("sender"))
    return senders


def test_nothing_accepted_is_lost_by_killing_writers(tmp_path, path, receiver, client_of, wait_until):
    """Two writers on one file are killed at random instants, again and again: every accepted message arrives."""
    journal, chance, killed = tmp_path / "journal", random.Random(6), set()
    for turn in range(ROUNDS):
        with ExitStack() as stack:
            both = [
                stack.enter_context(running("spools", "writes", path, receiver.url, journal, f"{turn}-{one}"))
                for one in range(2)
            ]
            wait_until(
                lambda turn=turn: {name[: name.rfind("-")] for name in noted(journal)} >= {f"{turn}-0", f"{turn}-1"}
            )
            threading.Event().wait(chance.uniform(0.0, 0.4))
            for program in both:
                killed.add(program.pid)
                program.signal(signal.SIGKILL)
    deliver_the_rest(client_of, path, wait_until)
    senders = who_sent(receiver)
    accepted = noted(journal)
    assert len(accepted) > 10 * ROUNDS
    assert set(accepted) <= senders.keys()
    twice = {one: who for one, who in senders.items() if len(who) > 1}
    print(f"{ROUNDS} rounds: {len(accepted):,} accepted, all arrived, {len(twice):,} of them more than once")  # noqa: T201 - for the long form
    assert all(set(who[:-1]) <= killed for who in twice.values()), "sent twice by one who lives"
    assert len(twice) <= 2 * 100 * ROUNDS, "more than was in flight"
    assert not [one for one in tmp_path.iterdir() if one.name.endswith(".owner")][1:], "owners are swept up"


def test_each_message_is_sent_by_one_owner_at_a_time(tmp_path, path, receiver, client_of, wait_until):
    """Eight processes share a file, and are killed and started at random: what arrives twice was a killed one's."""
    journal, chance, killed = tmp_path / "journal", random.Random(7), set()
    with ExitStack() as stack:

        def begin(name):
            command = "spools", "writes", path, receiver.url, journal, name
            return stack.enter_context(running(*command, seconds=SECONDS + 60))

        programs = [begin(f"first-{number}") for number in range(8)]
        end, turn = time.monotonic() + SECONDS, 0
        while time.monotonic() < end:
            threading.Event().wait(chance.uniform(0.0, 0.5))
            place = chance.randrange(8)
            killed.add(programs[place].pid)
            programs[place].signal(signal.SIGKILL)
            programs[place] = begin(f"later-{(turn := turn + 1)}")
        wait_until(lambda: len(noted(journal)) > 100, 20)
        for program in programs:
            killed.add(program.pid)
            program.signal(signal.SIGKILL)
    deliver_the_rest(client_of, path, wait_until)
    senders, accepted = who_sent(receiver), noted(journal)
    assert set(accepted) <= senders.keys()
    twice = sum(len(who) > 1 for who in senders.values())
    print(f"{turn} kills: {len(accepted):,} accepted, all arrived, {twice:,} of them more than once")  # noqa: T201 - for the long form
    assert all(set(who[:-1]) <= killed for who in senders.values())


def test_a_dead_owner_is_followed_within_15_seconds(path, receiver, client_of, wait_until):
    """What a killed process leaves is sent by one that ran all the time, without a call."""
    with running("spools", "owner", path, NOWHERE) as program:
        wait_until(lambda: program.has_said("kept"))
        client = client_of()
        wait_until(lambda: client.stats().consumer_alive)
        assert client.stats().recovered == 0, "its owner lives"
        program.signal(signal.SIGKILL)
        program._process.wait()
        wait_until(lambda: client.stats().delivered == 5, 15)
    stats = client.stats()
    assert (stats.recovered, stats.tracked, stats.pending) == (5, 0, 0)
    assert balanced(stats)
    assert receiver.report().unique_messages == 5


def test_a_stopped_owner_keeps_its_messages(path, receiver, client_of, wait_until):
    """A process that is stopped is alive: nobody takes its messages, and it sends them when it goes on."""
    with running("spools", "owner", path, receiver.url) as program:
        wait_until(lambda: program.has_said("kept"))
        program.signal(signal.SIGSTOP)
        before = receiver.report().messages
        client = client_of()
        client._lanes[0].buffer._next_look = 0.0
        client._lanes[0].buffer.wake()
        wait_until(lambda: client._lanes[0].buffer._next_look > 0.0)
        assert client.stats().recovered == 0
        assert receiver.report().messages == before
        program.signal(signal.SIGCONT)
        program.tell()
        ended = program.end()
    assert (ended.status, ended.facts["delivered"], ended.facts["balanced"]) == (0, 5, True)
    assert (receiver.report().unique_messages, receiver.report().repeats) == (5, 0)


# --- Start and exit ---------------------------------------------------------------------------------------------------


def test_what_is_left_is_sent_by_the_next_client(path, receiver, client_of, wait_until):
    """A new client sends what an earlier one kept, oldest first, with ids and times unchanged, and needs no call."""
    first = client_of(url=NOWHERE)
    for number in range(250):
        assert first.track(f"u-{number}", "happened", {"n": number})
    kept = in_file(path)
    result = first.shutdown(0.1)
    assert (result.pending, result.lost, bool(result)) == (250, 0, False)
    later = client_of()
    wait_until(lambda: later.stats().delivered == 250)
    assert [message["userId"] for message in receiver.messages] == [f"u-{number}" for number in range(250)]
    assert [message["messageId"] for message in receiver.messages] == [uuid_text(one) for one in kept]
    assert [message["timestamp"] for message in receiver.messages] == [iso_text(one) for one in kept]
    assert later.stats().recovered == 250
    assert (first.stats().handed_over, first.stats().pending) == (250, 0)
    assert balanced(first.stats())
    assert balanced(later.stats())


def test_the_exit_says_what_is_kept(client_of, caplog):
    """At the end one line says how many messages are kept, and none is lost."""
    client = client_of(url=NOWHERE)
    for _ in range(3):
        client.track("u", "happened")
    begun = time.monotonic()
    client.shutdown(0.2)
    assert time.monotonic() - begun < 2
    assert [line for line in caplog.messages if "3 messages are kept for the next start" in line]
    assert not client.stats().dropped
    assert client.stats().pending == 3
    assert client.track("u", "happened") is False
    assert balanced(client.stats())


def test_two_clients_of_one_process_are_two_owners(client_of, receiver, wait_until):
    """Two clients of one process on one file each send their own; what one leaves the other takes over."""
    one, other = client_of(url=NOWHERE), client_of()
    assert one.track("one", "happened")
    assert other.track("other", "happened")
    assert other.flush()
    assert [message["userId"] for message in receiver.messages] == ["other"]
    one.shutdown(0.1)
    other._lanes[0].buffer._next_look = 0.0
    other._lanes[0].buffer.wake()
    wait_until(lambda: other.stats().recovered == 1)
    assert other.flush()
    assert [message["userId"] for message in receiver.messages] == ["other", "one"]
    assert one.stats().handed_over == 1
    assert balanced(one.stats())


def test_one_file_serves_several_destinations(open_buffer):
    """Each destination has its own messages in the file, and leaves those of another alone."""
    mine, other = open_buffer("vitally"), open_buffer("other")
    records = fill(mine, 3)
    fill(other, 2)
    mine.finish()
    other.finish()
    third = open_buffer("third")
    assert taken(third) == []
    again = open_buffer("vitally")
    assert taken(again) == records
    assert again.read().ledger.recovered == 3


def test_a_client_that_is_not_enabled_makes_no_file(path, client_of):
    """`enabled=False` does nothing at all."""
    client = client_of(enabled=False)
    assert client.track("u", "happened") is False
    assert not path.exists()


def test_a_durable_message_may_be_older(client_of, make_client):
    """What waits in a file is given up after three days, and in memory after two hours."""
    assert client_of(background=False)._lanes[0].pipeline._consumer._max_age == 259_200
    assert make_client(background=False)._lanes[0].pipeline._consumer._max_age == 7_200
    assert client_of(background=False, retry=Retry(max_age=5))._lanes[0].pipeline._consumer._max_age == 5


# --- Forks ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_child_and_parent_are_two_owners(path, receiver):
    """A forked child begins anew on the same file, and each of the two delivers its own, once."""
    ended = run("spools", "forks", path, receiver.url)
    assert (ended.status, ended.facts["status"], ended.facts["flushed"], ended.facts["balanced"]) == (0, 0, True, True)
    users = Counter(message["userId"].rpartition("-")[0] for message in receiver.messages)
    assert users == {"parent": 3, "child": 5, "parent-later": 3}
    assert "Traceback" not in ended.errors
    assert empty(path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_does_not_keep_its_parent_alive(path, open_buffer, wait_until):
    """What a killed process leaves is another's to take, though a child of it, forked meanwhile, lives on."""
    with running("spools", "leaves_a_child", path) as program:
        wait_until(lambda: program.has_said("forked"))
        assert open_buffer().read().ledger.recovered == 0
        program.signal(signal.SIGKILL)
        program._process.wait()
        assert open_buffer().read().ledger.recovered == 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it forks by calling C")
def test_a_fork_of_which_python_is_not_told(path, open_buffer):
    """A child of a fork in C, as uWSGI makes them, keeps what it puts, though the parent's connections were open."""
    ended = run("spools", "forks_in_c", path)
    assert (ended.status, ended.facts["status"]) == (0, 10), ended.errors
    bodies = b"".join(drained(open_buffer()))
    assert [bodies.count(name) for name in (b'"parent-', b'"child-', b'"child-later-')] == [3, 10, 5]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_forks_under_load_lose_nothing(path, receiver, client_of, wait_until):
    """Forks in the midst of threads that track: all that parent and children accepted arrives, once."""
    ended = run("spools", "storms", path, receiver.url, 40, seconds=60)
    assert (ended.status, ended.facts["balanced"]) == (0, True)
    assert set(ended.facts["statuses"]) == {0}
    assert ended.facts["accepted"] > 100
    assert ended.facts["dropped"] == {}
    deliver_the_rest(client_of, path, wait_until)
    users = Counter(message["userId"].partition("-")[0] for message in receiver.messages)
    assert users == {"thread": ended.facts["accepted"], "child": 80}
    assert receiver.report().repeats == 0


# --- A kill at every step ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("what", ["go_through", "migrate"])
def test_a_kill_at_any_step_loses_nothing(tmp_path, what):
    """Killed before any of its statements, when making the file, settling, migrating, it leaves all for the next."""
    ended = run("spools", "each_step", tmp_path, what, seconds=60)
    assert ended.status == 0, ended.errors
    assert ended.facts["wrong"] == []
    assert ended.facts["steps"] > 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_kill_at_any_step_leaves_the_message_or_its_letter(tmp_path, receiver):
    """Killed before or after any step on the way to the dead letters, a message is in the file, or among them."""
    receiver.decide = lambda _: Reply(400)
    ended = run("spools", "buries", tmp_path, receiver.url, seconds=60)
    assert ended.status == 0, ended.errors
    assert ended.facts["wrong"] == []
    assert ended.facts["steps"] > 10


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that send signals")
@pytest.mark.parametrize("how", ["calls", "throws"])
def test_a_spool_is_safe_against_signal_handlers(path, how):
    """A signal handler that puts, or throws, in the middle of a put neither deadlocks nor upsets the books."""
    facts = run("spools", "interrupted", path, how).facts
    assert facts["happened"] > 100
    assert (facts["stuck"], facts["balance"], facts["missing"]) == (False, 0, 0)
    assert (facts["left"], facts["in_file"], facts["vanished"], facts["recovered"]) == ([0, 0, 0, 0], 0, 0, 0)


# --- The disk ---------------------------------------------------------------------------------------------------------


def assert_filled(facts):
    """What a program that filled a disk must say."""
    assert facts["refused"] > 1_000
    assert facts["slowest"] < 1.1, "a call waited for the disk"
    assert facts["filled"]["pending"] > 30, "what there was room for was taken"
    assert facts["filled"]["dropped"].keys() <= {"spool_full", "spool_error"}
    assert sum(facts["filled"]["dropped"].values()) == facts["refused"]
    assert facts["recovered"] is True
    assert facts["after"]["balanced"] is True


def test_a_file_that_may_not_grow(path, client_of, wait_until):
    """With the process's files limited to 700 kB: refused calls are counted, it goes on, and nothing kept is lost."""
    ended = run("spools", "fills", path, 700_000)
    assert ended.status == 0, ended.errors
    assert_filled(ended.facts)
    assert ended.errors.count("LOG vitally: dropped") < 5, "one line for each reason, damped"
    client = deliver_the_rest(client_of, path, wait_until)
    assert client.stats().delivered == ended.facts["after"]["pending"]


def mounts(folder):
    """A command's beginning that runs it with a file system of 1 MB mounted in a folder; `None` if it may not be."""
    if not sys.platform.startswith("linux"):
        return None
    start = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=1m none "{folder}" && exec "$@"', "sh"]
    try:
        allowed = subprocess.run([*start, "true"], capture_output=True, check=False, timeout=10).returncode == 0
    except OSError:
        return None
    return start if allowed else None


def run_mounted(folder, *arguments):
    """What a program says that runs with a file system of 1 MB mounted in a folder."""
    start = mounts(folder)
    if start is None:
        pytest.skip("no file system may be mounted here")
    environment = {**os.environ, "PYTHONPATH": f"{FOLDER.parents[1]}:{FOLDER}", "PROGRAM_SECONDS": "50"}
    command = [*start, sys.executable, str(FOLDER / "spools.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_a_file_system_that_may_only_be_read(tmp_path, receiver):
    """Each call is refused at once and counted, one line says why; what was there, and what comes, is sent later."""
    facts, errors = run_mounted(tmp_path, "reads_only", str(tmp_path), receiver.url)
    assert facts["accepted"] == 0
    assert facts["slowest"] < 0.1
    assert facts["refused"]["dropped"] == {"spool_error": 50}
    assert facts["refused"]["pending"] == 0
    assert errors.count("dropped") == errors.count("Read-only file system") == 1
    assert facts["recovered"] is True
    assert (facts["after"]["balanced"], facts["after"]["recovered"], facts["after"]["pending"]) == (True, 10, 0)
    assert Counter(message["userId"].partition("-")[0] for message in receiver.messages)["before"] == 10


@pytest.mark.parametrize("brim", ["own", "others"])
def test_a_full_file_system(tmp_path, receiver, brim):
    """A file system of 1 MB, filled by messages or by others: counted, no exception; it goes on when there is room."""
    facts, _ = run_mounted(tmp_path, "brims", str(tmp_path), receiver.url, brim)
    assert_filled(facts)
    assert facts["delivered"] == facts["after"]["delivered"] >= facts["filled"]["pending"]
    assert facts["after"]["pending"] == 0
    assert receiver.report().unique_messages == facts["delivered"]


@pytest.mark.parametrize("size", ["300", "1000", "7000", "20000"])
def test_a_full_file_system_is_emptied(tmp_path, size):
    """What is delivered is removed although there was room for nothing more: all of it, and then others are taken."""
    facts, _ = run_mounted(tmp_path, "empties", str(tmp_path), size)
    assert_filled(facts)
    assert facts["after"]["delivered"] == facts["filled"]["tracked"] - facts["refused"]
    assert facts["after"]["pending"] <= 1
