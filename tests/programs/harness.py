"""Runs the programs of this folder, each in a process of its own: the test's side, and the program's."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from analytics_batcher import Client, Vitally

FOLDER = Path(__file__).parent
if str(FOLDER) not in sys.path:  # as a program has it
    sys.path.append(str(FOLDER))

from canary import PERSON, TOKEN, told, watch_logs  # noqa: E402 - see above

ROOT = FOLDER.parents[1]
SECONDS = "PROGRAM_SECONDS"
KEPT = []
"""The clients of a program: a module holds them until the process ends, as an application does."""


@dataclass(frozen=True)
class Ended:
    """A process that ended by itself: its exit status, the facts that it said, its standard error, and the moment."""

    status: int
    facts: dict
    errors: str
    at: float


class Program:
    """A process that runs."""

    def __init__(self, process, out, errors, seconds):
        self._process, self._out, self._errors = process, out, errors
        self._deadline = time.monotonic() + seconds

    def tell(self):
        """Let the program go on, which waits in `be_told`."""
        self._process.stdin.write(b"go on\n")
        self._process.stdin.flush()

    @property
    def pid(self):
        """The process's id."""
        return self._process.pid

    def signal(self, number):
        """Send the program a signal."""
        self._process.send_signal(number)

    def has_said(self, text, times=1):
        """Whether its standard error has a text in it so often, at this moment."""
        return _so_far(self._errors).count(text) >= times

    def said(self):
        """All that it has said up to this moment: its standard output, and then its standard error."""
        return _so_far(self._out) + _so_far(self._errors)

    def end(self):
        """Wait for the program's end; it fails the test not to come to one in time."""
        try:
            status = self._process.wait(max(self._deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"the program did not end in time; its standard error: {_text(self._errors)}"
            ) from None
        at = time.monotonic()
        facts = {}
        said, errors = _text(self._out), _text(self._errors)
        assert not told(said + errors), f"the program's output tells what nobody is to see: {said}{errors}"
        for line in said.splitlines():
            if line.startswith("{"):  # a server says more than facts
                facts |= json.loads(line)
        return Ended(status, facts, errors, at)


def _so_far(file):
    # By `pread`: a child shares the place at which it writes.
    return os.pread(file.fileno(), 10**7, 0).decode()


def _text(file):
    file.seek(0)
    return file.read().decode()


@contextmanager
def running(program, case, *arguments, seconds=30.0):
    """Start a case of a program; whatever happens, the process is gone in the end."""
    command = [str(FOLDER / f"{program}.py"), case, *map(str, arguments)]
    with launched(command, {SECONDS: str(seconds - 1.0)}, seconds=seconds) as started:
        yield started


@contextmanager
def launched(arguments, environment, *, seconds=30.0, family=False, **options):
    """Start Python; whatever happens, the process is gone in the end, and with `family` all that it has started."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(FOLDER)]), **environment}
    options |= {"env": environment, "stdin": subprocess.PIPE, "start_new_session": family}
    # Files and not pipes: a forked child that lives on would hold a pipe open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen([sys.executable, *arguments], stdout=out, stderr=errors, **options)
        try:
            yield Program(process, out, errors, seconds)
        finally:
            if family:
                with suppress(ProcessLookupError):  # whoever is left of a group keeps its number from being given again
                    os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
            process.stdin.close()


def run(program, case, *arguments, seconds=30.0):
    """Run a case of a program to its end."""
    with running(program, case, *arguments, seconds=seconds) as started:
        return started.end()


# The program's side


def start(cases):
    """Run the case that the command line names. A process that hangs shows where, and ends."""
    _watch()
    watch_logs()
    if hasattr(os, "register_at_fork"):
        # The watch is a thread: a child that inherited its books, and not it, would wait for its end for ever.
        stop = faulthandler.cancel_dump_traceback_later
        os.register_at_fork(before=stop, after_in_parent=_watch, after_in_child=_watch)
    cases[sys.argv[1]](*sys.argv[2:])


def _watch():
    faulthandler.dump_traceback_later(float(os.environ[SECONDS]), exit=True)


def say(**facts):
    """Tell the test facts."""
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def be_told():
    """Wait until the test says so."""
    assert sys.stdin.readline() == "go on\n"


def unkept_client(url, **options):
    """A client of the test's receiver."""
    return Client(Vitally(api_token=TOKEN, base_url=url), **options)


def make_client(url, **options):
    """A client of the test's receiver, which the program's end finds alive."""
    KEPT.append(unkept_client(url, **options))
    return KEPT[-1]


def track(client, name, count):
    """Track messages of users `name-0`, `name-1` and so on; the number that was accepted."""
    about = {"email": PERSON}
    return sum(client.track(f"{name}-{number}", "happened", about, account_id="a") for number in range(count))


def books(client):
    """The figures of a client, for `say`."""
    stats = client.stats()
    return {
        "tracked": stats.tracked,
        "delivered": stats.delivered,
        "dropped": dict(stats.dropped),
        "pending": stats.pending,
    }


def balanced_books(client):
    """The figures of a client with a durable buffer, for `say`, and whether they balance."""
    stats = client.stats()
    settled = stats.delivered + sum(stats.dropped.values()) + stats.pending + stats.handed_over
    more = {"recovered": stats.recovered, "handed_over": stats.handed_over}
    return {**books(client), **more, "balanced": stats.tracked + stats.recovered == settled}
