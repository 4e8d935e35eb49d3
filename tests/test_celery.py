from __future__ import annotations

import signal
import sys
from collections import Counter
from contextlib import contextmanager

import pytest
from programs.harness import launched, run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="celery's prefork does not run on Windows")

TASKS = 60
WORKER = [
    *("-m", "celery", "-A", "celery_app", "--quiet", "worker", "--concurrency", "2"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
]


@contextmanager
def working(receiver, wait_until, *options, pool="prefork", made="in the parent", glue=""):
    """A real worker, once it has done its tasks."""
    environment = {"RECEIVER": receiver.url, "MADE": made, "GLUE": glue, "TASKS": str(TASKS)}
    with launched([*WORKER, "--pool", pool, *options], environment, seconds=40, family=True) as program:
        wait_until(lambda: program.has_said("A task has tracked", TASKS), 25)
        yield program


def end(program):
    """End a worker by SIGTERM; its standard error."""
    program.signal(signal.SIGTERM)
    ended = program.end()
    assert ended.status == 0, ended.errors
    assert "Traceback" not in ended.errors
    return ended.errors


def arrived(receiver):
    """The messages that came, by the process that tracked them, once it is sure that none came twice or by another."""
    report = receiver.report()
    assert (report.repeats, report.faults) == (0, ())
    users = {}
    for request in receiver.requests:
        users.setdefault(request.connection, set()).update(map(process_of, request.messages))
    assert all(len(processes) == 1 for processes in users.values())
    return Counter(map(process_of, receiver.messages))


def process_of(message):
    """The process that tracked a message."""
    return int(message["userId"].partition("-")[0])


@pytest.mark.parametrize("made", ["in the parent", "at the child's start", "in the first task"])
def test_celerys_children_deliver_at_sigterm_with_no_glue(receiver, wait_until, made):
    """SIGTERM right after 60 tasks: their 60 messages are delivered, each once, wherever the client was made."""
    with working(receiver, wait_until, made=made) as program:
        end(program)

    by_process = arrived(receiver)
    assert by_process.pop(program.pid, 0) == (1 if made == "in the parent" else 0)
    assert by_process.total() == TASKS


def test_celerys_children_deliver_with_the_usual_glue_too(receiver, wait_until):
    """A handler of `worker_process_shutdown` that flushes and shuts down changes nothing: 60 of 60, each once."""
    with working(receiver, wait_until, glue="flush shutdown") as program:
        end(program)

    by_process = arrived(receiver)
    assert by_process.pop(program.pid) == 1
    assert by_process.total() == TASKS


@pytest.mark.parametrize("pool", ["solo", "threads", "gevent"])
def test_a_worker_that_runs_tasks_itself_delivers_before_its_process_ends(receiver, wait_until, pool):
    """With `install`, what a pool without children tracked is delivered when the worker ends, not only at the exit."""
    with working(receiver, wait_until, pool=pool, glue="install") as program:
        errors = end(program)

    assert "The worker has 0 left" in errors
    assert arrived(receiver) == {program.pid: TASKS + 1}


def test_install_and_the_clients_own_glue_deliver_each_message_once(receiver, wait_until):
    """With `install` too, prefork's children deliver 60 of 60, each once."""
    with working(receiver, wait_until, glue="install") as program:
        end(program)

    by_process = arrived(receiver)
    assert by_process.pop(program.pid) == 1
    assert by_process.total() == TASKS


def test_children_that_are_replaced_deliver_before_they_leave(receiver, wait_until):
    """A child that leaves after seven tasks, as it is told to, delivers; so do those that come after it."""
    with working(receiver, wait_until, "--max-tasks-per-child", "7") as program:
        assert receiver.wait_for(lambda r: len(r.messages) == TASKS, 15)  # tasks that do nothing go on
        end(program)

    by_process = arrived(receiver)
    assert by_process.pop(program.pid) == 1
    assert len(by_process) >= 9


@pytest.mark.parametrize("inherited", [True, False])
def test_children_of_celerys_own_multiprocessing_deliver(receiver, monkeypatch, inherited):
    """What a plain `billiard` process tracks is delivered at its end, by an inherited client or by one of its own."""
    monkeypatch.setenv("RECEIVER", receiver.url)
    program = ("module_client", "processes") if inherited else ("forks", "processes", receiver.url)
    ended = run(*program, "billiard", *([] if inherited else ["child"]))

    assert (ended.status, ended.facts["statuses"]) == (0, [0] * 3), ended.errors
    users = Counter(message["userId"].rpartition("-")[0] for message in receiver.messages)
    assert users.pop("parent", 0) == (3 if inherited else 0)
    assert users == {f"child-{name}": 5 for name in range(3)}
    assert receiver.report().repeats == 0
