from __future__ import annotations

import os
from collections import Counter

import pytest
from programs.harness import run, running

from analytics_batcher.receiver import Reply

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

OWN = 5
PARENT = 3
STORM = 300


def arrived(receiver):
    """How many messages came of each process, once it is sure that none came twice and that no two are alike."""
    report = receiver.report()
    assert (report.repeats, report.faults) == (0, ())
    ids = [message["messageId"] for message in receiver.messages]
    # Without its milliseconds: a child that went on with its parent's random numbers would repeat these.
    assert len({one[14:] for one in ids}) == len(ids)
    return Counter(process_of(message) for message in receiver.messages)


def process_of(message):
    """The process that tracked a message, by its user: `parent-2` is the parent's, `child-7-2` that of child 7."""
    name = message["userId"].rpartition("-")[0]
    return "parent" if name.startswith("parent") else name


def assert_own_connections(receiver):
    """Every connection carried the messages of one process only."""
    users = {}
    for request in receiver.requests:
        users.setdefault(request.connection, set()).update(map(process_of, request.messages))
    assert all(len(processes) == 1 for processes in users.values())


@pytest.mark.parametrize("background", ["thread", "inline"])
def test_a_child_of_an_idle_parent_begins_anew(receiver, background):
    """A child begins with empty books and delivers its own over its own connection; the parent keeps what it had."""
    ended = run("forks", "idle", receiver.url, background)

    assert (ended.status, ended.facts["status"], ended.facts["flushed"]) == (0, 0, True)
    assert arrived(receiver) == {"parent": 2 * PARENT, "child": OWN}
    assert_own_connections(receiver)
    assert receiver.connections == 2
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize("background", ["thread", "inline"])
def test_a_child_leaves_what_the_parent_queued_to_the_parent(receiver, background):
    """Messages that wait at a fork are delivered once, by the parent."""
    ended = run("forks", "queued", receiver.url, background)

    assert (ended.status, ended.facts["status"], ended.facts["flushed"]) == (0, 0, True)
    assert arrived(receiver) == {"parent": 150, "child": OWN}
    assert_own_connections(receiver)
    assert "Traceback" not in ended.errors


def test_a_fork_in_the_middle_of_a_request_harms_neither_side(receiver):
    """A child delivers while its parent's request is still under way, and that request is made once."""
    waited = []

    def decide(messages):
        if process_of(messages[0]) == "parent" and not waited:
            waited.append(True)
            program.tell()
            waited.append(receiver.wait_for(lambda r: "child" in map(process_of, r.messages), 15))
        return Reply()

    receiver.decide = decide
    with running("forks", "busy", receiver.url) as program:
        ended = program.end()

    assert waited == [True, True]
    assert (ended.status, ended.facts["status"], ended.facts["flushed"]) == (0, 0, True)
    assert arrived(receiver) == {"parent": 150, "child": OWN}
    assert_own_connections(receiver)
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize("where", ["in_thread", "in_consumer"])
def test_a_fork_in_a_thread_is_as_good_as_any(receiver, where):
    """A child that was forked in a thread, be it the consumer's own, delivers its own and only that."""
    ended = run("forks", where, receiver.url)

    assert (ended.status, ended.facts["status"], ended.facts["flushed"]) == (0, 0, True)
    assert arrived(receiver) == {"parent": PARENT, "child": OWN}
    assert_own_connections(receiver)
    assert "Traceback" not in ended.errors


def test_a_grandchild_begins_anew_too(receiver):
    """A child of a child delivers its own and only that."""
    ended = run("forks", "nested", receiver.url)

    assert (ended.status, ended.facts["status"], ended.facts["flushed"]) == (0, 0, True)
    assert arrived(receiver) == {"parent": PARENT, "child": OWN, "grandchild": OWN}
    assert_own_connections(receiver)


def test_a_child_that_just_ends_delivers_at_its_exit(receiver):
    """What a forked child tracked is delivered by its exit, which keeps its status; the parent's is not."""
    ended = run("forks", "ends", receiver.url)

    assert (ended.status, ended.facts["status"], ended.facts["flushed"]) == (0, 3, True)
    assert arrived(receiver) == {"parent": PARENT, "child": OWN}
    assert_own_connections(receiver)
    assert "Traceback" not in ended.errors


def test_a_storm_of_forks_loses_and_repeats_nothing(receiver):
    """300 forks under four tracking threads: every process delivers exactly what it accepted, however it leaves."""
    ended = run("forks", "storm", receiver.url, seconds=60)

    assert ended.status == 0, ended.errors
    assert ended.facts["statuses"] == [0] * STORM, ended.errors
    assert ended.facts["flushed"]
    own = {f"child-{name}": OWN for name in range(STORM)}
    assert arrived(receiver) == {"parent": ended.facts["accepted"], **own}
    assert ended.facts["accepted"] == ended.facts["tracked"] == ended.facts["delivered"]
    assert_own_connections(receiver)
    assert "Traceback" not in ended.errors


def test_children_that_leave_by_os_exit_deliver_what_they_flushed(receiver):
    """As with RQ: a job's child that flushes and leaves by `os._exit` delivers that, once, and none of its parent's."""
    ended = run("forks", "jobs", receiver.url)

    assert (ended.status, ended.facts["statuses"], ended.facts["flushed"]) == (0, [0] * 3, True), ended.errors
    assert arrived(receiver) == {"parent": 3, **{f"child-{number}": OWN for number in range(3)}}
    assert (ended.facts["tracked"], ended.facts["delivered"], ended.facts["pending"]) == (3, 3, 0)
    assert_own_connections(receiver)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux lists a process's sockets there")  # noqa: PTH112 - evaluated at import
def test_a_child_lets_go_of_its_parents_connection(receiver):
    """A child closes its copy of the kept connection and opens one of its own; the parent goes on with the old one."""
    ended = run("forks", "sockets", receiver.url)

    assert (ended.status, ended.facts["status"], ended.facts["flushed"]) == (0, 0, True), ended.errors
    assert (ended.facts["own"], ended.facts["inherited"], ended.facts["shared"]) == (1, 0, 0)
    assert (ended.facts["opened"], ended.facts["same"]) == (1, True)
    assert [request.connection for request in receiver.requests] == [1, 2, 1]
    assert_own_connections(receiver)


def test_a_closed_client_stays_closed_in_a_child(receiver):
    """A child of a parent whose client was shut down gets every call back, refused, and begins with empty books."""
    ended = run("forks", "closed", receiver.url, seconds=45)

    assert ended.status == 0, ended.errors
    assert ended.facts == {"statuses": [0] * 30, "pending": 0}, ended.errors
    assert arrived(receiver) == {"parent": PARENT}


METHODS = ("fork", "spawn", "forkserver")
INHERITED = [("fork", "parent"), ("forkserver", "server")]
MADE_IN_CHILD = [(method, "child") for method in METHODS]
MADE_BY_INITIALIZER = [(method, "initializer") for method in METHODS]


def assert_all_came(receiver, client_in, children):
    """Each child's own messages came, and the parent's if it has a client, over connections of their own."""
    parents = {"parent": PARENT} if client_in in {"parent", "server"} else {}
    if client_in == "server":  # which ends by itself, once the program has ended
        assert receiver.wait_for(lambda r: len(r.messages) == children * OWN + PARENT, 10)
    assert arrived(receiver) == {f"child-{name}": OWN for name in range(children)} | parents
    if parents:  # the workers of a pool have several names each, which share a connection
        users = [set(map(process_of, request.messages)) for request in receiver.requests]
        assert {"parent"} in users
        assert all("parent" not in others for others in users if others != {"parent"})


@pytest.mark.parametrize(("method", "client_in"), INHERITED + MADE_IN_CHILD)
def test_multiprocessing_children_deliver_at_their_end(receiver, method, client_in):
    """What `multiprocessing` children track is delivered without a flush, once, and not by another process."""
    ended = run("forks", "processes", receiver.url, method, client_in, seconds=40)

    assert (ended.status, ended.facts["statuses"]) == (0, [0, 0, 0]), ended.errors
    assert_all_came(receiver, client_in, 3)
    assert_own_connections(receiver)
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize(("method", "client_in"), [("fork", "parent"), ("fork", "child"), ("forkserver", "child")])
def test_multiprocessing_grandchildren_deliver_at_their_end(receiver, method, client_in):
    """A child of a `multiprocessing` child delivers its own too, and no other's."""
    ended = run("forks", "nested_processes", receiver.url, method, client_in, seconds=40)

    assert (ended.status, ended.facts["statuses"]) == (0, [0]), ended.errors
    parents = {"parent": PARENT} if client_in == "parent" else {}
    assert arrived(receiver) == {"child": OWN, "grandchild": OWN} | parents
    assert_own_connections(receiver)
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize(("method", "client_in"), INHERITED + MADE_IN_CHILD)
def test_pool_workers_deliver_when_their_pool_ends(receiver, method, client_in):
    """What the workers of a pool track is delivered by the time that the closed pool is joined."""
    ended = run("forks", "pool", receiver.url, method, client_in, seconds=40)

    assert (ended.status, ended.facts["statuses"]) == (0, [0]), ended.errors
    assert_all_came(receiver, client_in, 12)
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize(("method", "client_in"), INHERITED + MADE_BY_INITIALIZER)
def test_an_executors_workers_deliver_when_it_ends(receiver, method, client_in):
    """What the workers of a `ProcessPoolExecutor` track is delivered by the time that it is shut down."""
    ended = run("forks", "executor", receiver.url, method, client_in, seconds=40)

    assert (ended.status, ended.facts["statuses"]) == (0, [0] * 12), ended.errors
    assert_all_came(receiver, client_in, 12)
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize("method", METHODS)
def test_a_client_of_the_module_delivers_in_children_too(receiver, monkeypatch, method):
    """A client that is made as the program is loaded delivers what its children track, whether they load it again."""
    monkeypatch.setenv("RECEIVER", receiver.url)
    ended = run("module_client", "processes", method, seconds=40)

    assert (ended.status, ended.facts["statuses"]) == (0, [0] * 3), ended.errors
    assert_all_came(receiver, "parent", 3)
    assert "Traceback" not in ended.errors
