"""Every way in which a program ends, with every amount of messages queued, before servers of every speed.

A cell of that matrix is a process of its own. All of them are started by the first test, a few at a time, since most
of their time is spent waiting.
"""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from programs.harness import Ended, run

from analytics_batcher.receiver import Receiver, Reply

COUNTS = (0, 30, 250, 1_030, 10_000)
BATCH = 100
# Seconds beside the `shutdown_timeout`, on a machine that has nothing else to do.
GRACE = 1.0
# Seconds of the `shutdown_timeout`. A fast server shares the machine with as many programs as run at a time.
TIMES = {"fast": 15.0, "slow": 1.5, "hanging": 1.5}
SLOW = 0.3
WITHOUT_DELIVERY = {"SIGTERM", "track after the hook"}
STATUSES = {
    "falls off": 0,
    "sys.exit": 3,
    "exception": 1,
    "SIGINT": -signal.SIGINT,
    "SIGTERM, handled": -signal.SIGTERM,
    "thread ends first": 0,
    "thread ends last": 0,
    "track before the hook": 0,
    "made in a handler, kept": 0,
    "made in a handler, shut down": 0,
    "made before the hook, kept": 0,
    "made after the hook, kept": 0,
    "made after the hook, shut down": 0,
    "made after the hook, collected": 0,
    "made after the hook, module": 0,
}
# These have no figures to show: nobody asks a client that is made there, and what is killed has no last word.
WITHOUT_BOOKS = {"SIGTERM, handled", *(name for name in STATUSES if name.startswith("made"))}
OWN_WORDS = {"exception": "LookupError: the program's own", "SIGINT": "KeyboardInterrupt"}
ENDINGS = [
    pytest.param(name, marks=pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals"))
    if name.startswith("SIG")
    else name
    for name in STATUSES
]


class Cell(NamedTuple):
    """What became of one process, and what its receiver has; and what its end took and might take, in seconds."""

    count: int
    ended: Ended
    took: float
    allowed: float
    stored: int
    repeats: int
    faults: tuple


def run_cell(ending, server, count):
    """Run one program against a receiver of its own."""
    with Receiver(latency=SLOW if server == "slow" else 0.0, keep_bodies=False) as receiver:
        if server == "hanging":
            receiver.decide = lambda _: Reply(hang=True)
        started = time.monotonic()
        ended = run("endings", ending, receiver.url, count, TIMES[server], seconds=60.0)
        report = receiver.report()
    # All that a program does before its end is work: if that took longer than the work, others had the processor.
    slowness = max((ended.facts["begun"] - started) / ended.facts["worked"], 1.0)
    took, allowed = ended.at - ended.facts["begun"], GRACE * slowness
    if ending not in WITHOUT_DELIVERY:
        allowed += TIMES[server]
    return Cell(count, ended, took, allowed, report.unique_messages, report.repeats, report.faults)


@pytest.fixture(scope="module")
def cells(request):
    """Runs the cells of every test of this module that was asked for, and hands out those of one."""
    mine = [item.callspec.params for item in request.session.items if item.module is request.module]
    wanted = [(params.get("ending") or "SIGTERM", params["server"]) for params in mine]
    # Those with a fast server, which keep this process busy, do not share its time with those that are timed.
    wanted.sort(key=lambda one: one[1] != "fast")
    running = {}
    with ThreadPoolExecutor(2 * (os.cpu_count() or 1)) as pool:

        def begin(ending, server):
            if (ending, server) not in running:
                running[ending, server] = [pool.submit(run_cell, ending, server, count) for count in COUNTS]
            return running[ending, server]

        def cells_of(ending, server):
            if not hasattr(request.config, "workerinput"):  # one of several processes may get any of them
                for other in wanted:
                    begin(*other)
            return [future.result() for future in begin(ending, server)]

        yield cells_of


def assert_arrived(cell, delivered, dropped):
    """In time, the receiver has what is called delivered; and, of what is dropped, at most the request under way."""
    assert (cell.repeats, cell.faults) == (0, ())
    assert delivered <= cell.stored <= delivered + min(BATCH, dropped)
    assert cell.took <= cell.allowed


def assert_warned(ended, left):
    """One line says how many messages are left behind, if any are; and nothing is said that is not to be."""
    lines = [line for line in ended.errors.splitlines() if "left behind" in line]
    wanted = f"WARNING vitally: {left} messages were left behind and dropped at exit"
    assert [line.partition(";")[0] for line in lines] == [wanted] * bool(left)


@pytest.mark.parametrize("server", TIMES)
@pytest.mark.parametrize("ending", ENDINGS)
def test_what_is_queued_at_an_ending_is_delivered_or_counted(cells, ending, server):
    """However a program ends, it does so in time, and each message is delivered once, or else counted and warned of."""
    for cell in cells(ending, server):
        count, ended = cell.count, cell.ended
        told = {"delivered": 0, "exit": 0, **ended.facts["told"]}
        assert (ended.status, ended.facts["taken"]) == (STATUSES[ending], count)
        assert told.keys() == {"delivered", "exit"}
        assert told["delivered"] + told["exit"] == count
        assert_arrived(cell, told["delivered"], told["exit"])
        assert_warned(ended, told["exit"])
        own = OWN_WORDS.get(ending, "")
        assert ended.errors.count("Traceback") == bool(own)
        assert own in ended.errors
        if ending not in WITHOUT_BOOKS:
            dropped = {"exit": told["exit"]} if told["exit"] else {}
            figures = {"tracked": count, "delivered": told["delivered"], "dropped": dropped, "pending": 0}
            assert ended.facts["books"] == [figures]
        if server == "fast":
            assert told["exit"] == 0
        elif server == "hanging":
            assert (told["delivered"], cell.stored) == (0, 0)
        else:
            assert told["delivered"] >= min(count, BATCH)


@pytest.mark.parametrize("server", TIMES)
def test_what_is_tracked_after_the_exit_hook_is_refused(cells, server):
    """In an exit handler that runs after the client's own, every call is refused and counted; the log says so."""
    for cell in cells("track after the hook", server):
        dropped = {"closed": cell.count} if cell.count else {}
        assert (cell.ended.status, cell.ended.facts["taken"], cell.ended.facts["told"]) == (0, 0, dropped)
        figures = {"tracked": cell.count, "delivered": 0, "dropped": dropped, "pending": 0}
        assert cell.ended.facts["books"] == [figures]
        assert_arrived(cell, 0, 0)
        warnings = [line.partition("(")[0] for line in cell.ended.errors.splitlines()]
        assert warnings == ["WARNING vitally: dropped 1 as closed "] * bool(cell.count)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
@pytest.mark.parametrize("server", TIMES)
def test_a_sigterm_that_nobody_handles_ends_a_program_as_ever(cells, server):
    """By SIGTERM's default action a program dies with what it has queued; what was delivered by then came once."""
    for cell in cells("SIGTERM", server):
        assert (cell.ended.status, cell.ended.errors) == (-signal.SIGTERM, "")
        assert cell.ended.facts["taken"] == cell.count
        assert_arrived(cell, cell.ended.facts["told"].get("delivered", 0), cell.count)
