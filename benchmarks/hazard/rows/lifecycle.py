"""Processes that fork."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from itertools import count
from typing import TYPE_CHECKING

from ..libraries import properties
from ..row import Row
from ..verdict import Cell, Seen, arrive, cell, tally

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..case import Case

_PATIENCE = 10.0
_FORKS = 30
_CHILDREN = 1_000_000
_TASKS = 60


def _fork(case: Case) -> None:
    case.track(range(20))
    pid = os.fork()
    if not pid:
        case.track(range(100, 105))
        case.flush()
        os._exit(0)
    _wait(case, lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, pid)
    case.flush()


def _storm(case: Case) -> None:
    """Fork 30 times while 4 threads track; each child tracks one event and flushes."""
    case.track([0])
    stop, numbers, client = threading.Event(), count(1), case.client

    def work() -> None:
        while not stop.wait(0.002):
            client.track(properties(next(numbers)))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    children = []
    for child in range(_FORKS):
        pid = os.fork()
        if not pid:
            case.track([_CHILDREN + child])
            case.flush()
            os._exit(0)
        children.append(pid)
        time.sleep(0.01)
    end = time.monotonic() + _PATIENCE
    for pid in children:
        while not os.waitpid(pid, os.WNOHANG)[0]:
            if time.monotonic() > end:
                case.say(child_hangs=True)
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
    stop.set()
    for thread in threads:
        thread.join()
    case.say(tracked=next(numbers))
    case.flush()


def _after_storm(seen: Seen) -> Cell:
    text, fine = tally(seen, range(_CHILDREN, _CHILDREN + _FORKS))
    parents, once = tally(seen, range(seen.facts.get("tracked", 0)))
    hangs = "flush() hangs in children" if seen.facts.get("child_hangs") else ""
    parent = "" if once else f"the parent's: {parents}"
    return cell(fine and once and not hangs and not seen.failed(), text, hangs, parent, seen.failed())


def _multiprocessing(case: Case) -> None:
    case.track(range(20))
    child = multiprocessing.get_context("fork").Process(target=case.track, args=(range(100, 105),))
    child.start()
    _wait(case, lambda: not child.is_alive(), child.pid)
    case.flush()


def _wait(case: Case, ended: Callable[[], bool], pid: int | None) -> None:
    """Wait for a child, not for ever: one that hangs is a fact, and is ended by its id."""
    end = time.monotonic() + _PATIENCE
    while not ended():
        if time.monotonic() > end and pid:
            case.say(child_hangs=True)
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _with_child(seen: Seen) -> Cell:
    text, fine = tally(seen, range(100, 105))
    parents, once = tally(seen, range(20))
    hangs = "flush() hangs in the child" if seen.facts.get("child_hangs") else ""
    parent = "" if once else f"the parent's: {parents}"
    return cell(fine and once and not hangs and not seen.failed(), text, hangs, parent, seen.failed())


def _celery(case: Case) -> None:
    """Start a worker, wait until its tasks are done, and end it as a deployment does."""
    marks = case.folder / "done"
    marks.touch()
    for name in ("queue", "processed"):
        (case.folder / name).mkdir()
    where = {"HAZARD_LIBRARY": case.library.name, "HAZARD_URL": case.url, "HAZARD_FOLDER": str(case.folder)}
    os.environ.update(where)
    from ..celery_app import work  # noqa: PLC0415 - it is made for what the environment says

    for index in range(_TASKS):
        work.delay(index)
    command = ["celery", "-A", "hazard.celery_app", "worker", "-P", "prefork", "-c", "2", "-l", "WARNING"]
    case.at("the worker's tasks")
    worker = subprocess.Popen([sys.executable, "-m", *command, "--without-gossip", "--without-mingle"])
    while marks.stat().st_size < _TASKS and worker.poll() is None:
        time.sleep(0.01)
    case.at("the worker's end")
    worker.send_signal(signal.SIGTERM)
    worker.wait()


ROWS = [
    Row(
        "fork",
        "`os.fork()` after the client was made; the child tracks 5 and flushes",
        "the child's 5 and the parent's 20 arrive once each, and the child's `flush()` returns within 10 s",
        _fork,
        _with_child,
        limit=25,
    ),
    Row(
        "storm",
        "30 forks while 4 threads track; each child tracks 1 and flushes",
        "the children's 30 and all of the parent's arrive once, and each `flush()` returns within 10 s",
        _storm,
        _after_storm,
        limit=25,
    ),
    Row(
        "multiprocessing",
        "a `multiprocessing` child tracks 5 and ends, without `flush()`",
        "the child's 5 and the parent's 20 arrive once each",
        _multiprocessing,
        _with_child,
        limit=25,
    ),
    Row(
        "celery",
        "celery prefork, SIGTERM right after 60 tasks",
        "all 60 events arrive once",
        _celery,
        arrive(range(_TASKS)),
        limit=40,
    ),
]
