from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections import Counter
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest
from programs.harness import FOLDER, launched, run

from analytics_batcher.receiver import Receiver

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these servers fork, and Windows cannot")

REQUESTS = 40
WORKERS = 2
BATCH = 10
KEPT_BACK = {"flush_interval": 60, "batch_messages": BATCH, "shutdown_timeout": 10}
"""So that what is tracked waits for a full batch, a flush or the end."""
GUNICORN = [
    *("-m", "gunicorn", "wsgi:application", "--workers", str(WORKERS)),
    *("--config", str(FOLDER / "gunicorn_hooks.py"), "--graceful-timeout", "15"),
]
UWSGI = [
    *("-c", "import sys, pyuwsgi; pyuwsgi.run(sys.argv[1:])", "--wsgi-file", str(FOLDER / "wsgi.py"), "--need-app"),
    *("--processes", str(WORKERS), "--die-on-term", "--disable-logging"),
]


class Server:
    """A server that runs, and what its workers have answered.

    Attributes:
        program: Its master.
        tracked: The messages that were accepted, by process.
        made_in: The processes that made a client.
    """

    def __init__(self, program, port):
        self.program = program
        self.tracked = Counter()
        self.made_in = set()
        self._port = port

    def get(self, path="/track"):
        """Make a request, on a connection of its own; what the worker answered."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=15)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            answer = connection.getresponse()
            told = json.loads(answer.read())
        finally:
            connection.close()
        assert (answer.status, told["tracked"], told["flushed"]) == (200, 1, path == "/flush")
        self.tracked[told["pid"]] += 1
        self.made_in.add(told["made_in"])
        return told

    def get_from_all(self, path="/track", *, but=()):
        """Make many requests, until all workers have answered some."""
        end = time.monotonic() + 15
        answered = Counter()
        while answered.total() < REQUESTS or len(answered.keys() - set(but)) < WORKERS:
            assert time.monotonic() < end, f"not all workers answer: {answered}"
            answered[self.get(path)["pid"]] += 1
        return answered

    def end(self, number):
        """End the server by a signal to its master."""
        self.program.signal(number)
        return self.program.end()


@contextmanager
def serving(receiver, command, bind, *, when_loaded="", **options):
    """Start a server on a socket that is bound already, so that no other can take its port."""
    environment = {"RECEIVER": receiver.url, "CLIENT": json.dumps(options), "WHEN_LOADED": when_loaded}
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listening:
        number = listening.fileno()
        arguments = [*command, bind, f"fd://{number}"]
        with launched(arguments, environment, seconds=40, family=True, pass_fds=[number]) as program:
            yield Server(program, listening.getsockname()[1])


@contextmanager
def gunicorn(receiver, wait_until, *arguments, **options):
    """Gunicorn, once its workers may be sent signals."""
    with serving(receiver, [*GUNICORN, *arguments], "--bind", **options) as server:
        wait_until(lambda: server.program.has_said("The worker takes signals", WORKERS))
        yield server


def arrived(receiver):
    """The messages that came, by the process that tracked them, once it is sure that none came twice or by another."""
    report = receiver.report()
    assert (report.repeats, report.faults) == (0, ())
    ids = [message["messageId"] for message in receiver.messages]
    # Without its milliseconds: workers that went on with the same random numbers would repeat these.
    assert len({one[14:] for one in ids}) == len(ids)
    users = {}
    for request in receiver.requests:
        users.setdefault(request.connection, set()).update(map(process_of, request.messages))
    assert all(len(processes) == 1 for processes in users.values())
    return Counter(map(process_of, receiver.messages))


def process_of(message):
    """The process that tracked a message."""
    return int(message["userId"].partition("-")[0])


def assert_delivered_throughout(server, receiver, number):
    """A flush delivers before the answer, a full batch between requests, and the end, by a signal, the rest."""
    server.get_from_all("/flush")
    assert arrived(receiver) == server.tracked
    flushed = server.tracked.copy()
    while not all(count % BATCH for count in (server.tracked - flushed).values()) or server.tracked == flushed:
        server.get_from_all()
    full = sum(count // BATCH * BATCH for count in (server.tracked - flushed).values())
    assert receiver.wait_for(lambda r: len(r.messages) == flushed.total() + full, 10)
    ended = server.end(number)

    assert ended.status == 0, ended.errors
    assert arrived(receiver) == server.tracked, ended.errors
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
@pytest.mark.parametrize("kind", ["sync", "gevent"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_gunicorns_workers_deliver_throughout(receiver, wait_until, preload, kind, number):
    """What gunicorn's workers track is delivered, each its own: in the background, by flushes, and at their end."""
    with gunicorn(receiver, wait_until, "-k", kind, *preload, **KEPT_BACK) as server:
        assert_delivered_throughout(server, receiver, number)

    assert (server.made_in == {server.program.pid}) == bool(preload)


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
def test_a_killed_worker_of_gunicorn_loses_its_own_queue_and_no_more(receiver, wait_until, preload):
    """What a killed worker had not sent is lost; nothing else is, nothing comes twice, and its successor delivers."""
    with gunicorn(receiver, wait_until, *preload, **KEPT_BACK) as server:
        server.get_from_all("/flush")
        waiting = Counter()
        while max(waiting.values(), default=0) < BATCH - 1:  # less than a batch
            waiting[server.get()["pid"]] += 1
        killed, lost = waiting.most_common(1)[0]
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: server.program.has_said("The worker takes signals", WORKERS + 1))
        after = server.get_from_all(but=[killed])
        ended = server.end(signal.SIGTERM)

    assert ended.status == 0, ended.errors
    assert killed not in after
    assert len(server.tracked) == WORKERS + 1
    assert arrived(receiver) == server.tracked - Counter({killed: lost})


def test_what_gunicorns_master_tracked_is_the_masters(receiver, wait_until):
    """What is tracked while the application is preloaded is delivered by the master, once, and workers begin anew."""
    with gunicorn(receiver, wait_until, "--preload", when_loaded="track", **KEPT_BACK) as server:
        server.get_from_all("/flush")
        assert arrived(receiver) == server.tracked
        ended = server.end(signal.SIGTERM)

    assert ended.status == 0, ended.errors
    assert arrived(receiver) == server.tracked + Counter({server.program.pid: 3})


@contextmanager
def uwsgi(receiver, wait_until, *arguments, **options):
    """uWSGI, once its workers are there, and have the application."""
    loads = WORKERS if "--lazy-apps" in arguments else 1
    with serving(receiver, [*UWSGI, *arguments], "--http-socket", **options) as server:
        wait_until(lambda: server.program.has_said("spawned uWSGI worker", WORKERS))
        wait_until(lambda: server.program.has_said("WSGI app 0 (mountpoint='') ready", loads))
        yield server


MASTER = "--master"
# uWSGI's SIGTERM and SIGINT end a worker in the middle of a request without its exit hooks; this is its way to wait.
GRACEFUL = ("--hook-master-start", "unix_signal:15 gracefully_kill_them_all")


@pytest.mark.parametrize("how", [(), ("--enable-threads", "--threads", "2"), ("--lazy-apps",)])
def test_uwsgis_workers_deliver_throughout(receiver, wait_until, how):
    """What uWSGI's workers track is delivered, each its own: in the background, by flushes, and at their end."""
    with uwsgi(receiver, wait_until, MASTER, *GRACEFUL, *how, **KEPT_BACK) as server:
        assert_delivered_throughout(server, receiver, signal.SIGTERM)

    assert (server.made_in == {server.program.pid}) == ("--lazy-apps" not in how)
    chances = [message["messageId"][-15:] for message in receiver.messages]  # the 60 random bits of an id
    assert len(set(chances)) == len(chances), "workers draw the same chances"


def test_uwsgis_idle_workers_deliver_at_a_sudden_end(receiver, wait_until, tmp_path):
    """A SIGTERM that uWSGI does not let its workers finish for makes them deliver too, unless it meets a request."""
    path = str(tmp_path / "stats")
    with uwsgi(receiver, wait_until, MASTER, "--stats", path, **KEPT_BACK) as server:
        server.get_from_all()
        wait_until(lambda: states_of_workers(path) == ["idle"] * WORKERS)
        ended = server.end(signal.SIGTERM)

    assert ended.status == 0, ended.errors
    assert arrived(receiver) == server.tracked, ended.errors


def states_of_workers(path):
    """What uWSGI says of its workers."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.connect(path)
        with asking.makefile() as told:
            return [worker["status"] for worker in json.load(told)["workers"]]


@pytest.mark.parametrize("hooks", [(), ("--py-call-uwsgi-fork-hooks",)])
def test_what_uwsgis_master_tracked_is_the_masters(receiver, wait_until, hooks):
    """What is tracked while the application is loaded is delivered by the master, once, and workers begin anew."""
    with uwsgi(receiver, wait_until, MASTER, *GRACEFUL, *hooks, when_loaded="track", flush_interval=0.5) as server:
        server.get_from_all()
        assert receiver.wait_for(lambda r: len(r.messages) == server.tracked.total() + 3, 10)
        server.get_from_all()
        ended = server.end(signal.SIGTERM)

    assert ended.status == 0, ended.errors
    assert arrived(receiver) == server.tracked + Counter({server.program.pid: 3})


@pytest.mark.parametrize(
    ("own", "called"), [("hook before, decorator after", ["hook", "decorator"]), ("decorator before", ["decorator"])]
)
def test_an_applications_own_hooks_of_uwsgi_are_called_too(receiver, wait_until, own, called):
    """What the application does after uWSGI's fork goes on to be done, and takes nothing from what the client does."""
    with uwsgi(receiver, wait_until, MASTER, *GRACEFUL, when_loaded=own, **KEPT_BACK) as server:
        assert server.get("/track")["forked"] == called
        server.get_from_all("/flush")
        ended = server.end(signal.SIGTERM)

    assert ended.status == 0, ended.errors
    assert arrived(receiver) == server.tracked, ended.errors


def test_a_flush_and_the_exit_deliver_where_no_other_thread_runs_meanwhile(receiver):
    """As with uWSGI without threads: a host that holds the interpreter between requests delays, and loses nothing."""
    ended = run("hosts", "holds_interpreter", receiver.url)

    assert (ended.status, ended.facts["flushes"]) == (0, [True] * 3), ended.errors
    assert ended.facts["tracked"] == 50
    report = receiver.report()
    assert (report.messages, report.repeats) == (50, 0)


def test_a_client_says_once_that_uwsgi_runs_without_threads(receiver):
    """Where uWSGI has no threads, the first client warns that messages wait for a flush or the end, and delivers."""
    ended = run("hosts", "has_no_threads", receiver.url)

    assert ended.status == 0, ended.errors
    assert ended.errors.count("WARNING uWSGI runs without --enable-threads") == 1
    assert ended.facts["hooked"]
    assert receiver.report().messages == 2


@pytest.mark.parametrize(
    ("when", "background"), [("before", "thread"), ("after", "thread"), ("late", "thread"), ("late", "inline")]
)
def test_greenlets_track_and_flush_without_stopping_each_other(when, background):
    """Patched before our import, after it, or after the client was made: a flush lets other greenlets run."""
    with Receiver(latency=0.3) as receiver:
        ended = run("greenlets", "works", receiver.url, when, background)

    assert ended.status == 0, ended.errors
    facts = ended.facts
    assert (facts["accepted"], facts["delivered"], facts["flushed"], facts["left"]) == (200, 200, True, 1)
    assert facts["ticks"] > 10  # of about sixty in the 0.6 s of two requests
    report = receiver.report()
    assert (report.messages, report.repeats, report.faults) == (201, 0, ())
    assert "Traceback" not in ended.errors


def test_signal_handlers_track_under_gevent_too(receiver):
    """A handler that tracks in the middle of a greenlet's call stops nothing, and every message comes."""
    ended = run("greenlets", "handlers", receiver.url, "before", seconds=40)

    assert ended.status == 0, ended.errors
    assert ended.facts["flushed"]
    assert ended.facts["accepted"] == ended.facts["tracked"] == ended.facts["delivered"]
    report = receiver.report()
    assert (report.messages, report.repeats) == (ended.facts["accepted"], 0)


def test_the_first_message_may_come_in_a_callback_of_the_hub(receiver):
    """There a new thread cannot be waited for: the call accepts the message all the same, and it is delivered."""
    ended = run("greenlets", "in_the_hub", receiver.url, "before")

    assert ended.status == 0, ended.errors
    assert ended.facts["outcome"] == [1]
    assert (ended.facts["flushed"], ended.facts["delivered"], receiver.report().messages) == (True, 1, 1)
