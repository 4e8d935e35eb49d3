"""Reading ahead in a process of its own: the same rows as read here, and no death or fault of either is silent."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from conftest import TOKEN
from import_files import write_tracks

from analytics_batcher.imports import reading
from analytics_batcher.imports.look import look_of
from analytics_batcher.imports.mapping import Mapping
from analytics_batcher.imports.problems import ImportProblem, Stopped
from analytics_batcher.imports.reading import rows_of, task_of
from analytics_batcher.imports.source import Source
from analytics_batcher.receiver import Reply

TRACKS = Mapping("track", {"id": "user_id", "account_id": "account_id", "event": "event", "timestamp": "at"})
BERLIN = Mapping("track", {"id": "user_id", "event": "=Seen", "timestamp": "at"}, timezone="Europe/Berlin")
ROWS = 3_000
LARGE = 20_000
"""Rows of a file that the command reads ahead."""


@contextmanager
def opened(path, plan=TRACKS, offset=0, line=0):
    """A file's source, its stream, and the task to read it; from an offset on, if not all of it."""
    source = Source(str(path), plan.encoding)
    try:
        look = look_of(source, plan)
        stream, _ = source.at(offset or look.offset)
        where = {"offset": offset or look.offset, "line": line or look.line}
        task = task_of(source, plan, look, **where, started="2024-01-02T03:04:05+00:00", id_field="messageId")
        yield task, source, stream
    finally:
        source.close()


def rows(path, plan, offset=0, line=0):
    """What is read of a file."""
    with opened(path, plan, offset, line) as parts, closing(rows_of(*parts)) as found:
        return list(found)


def children(pid):
    """The processes that a process has started and that are there."""
    if not Path("/proc/self/task").exists():
        pytest.skip("nothing tells here which processes a process has")
    tasks = Path(f"/proc/{pid}/task")
    return [int(one) for task in tasks.iterdir() for one in (task / "children").read_text().split()]


def written(path, form):
    """A file in some form, and its mapping; one row in forty is bad."""
    plain = path / "plain.csv"
    write_tracks(plain, ROWS, 40)
    text = plain.read_bytes().decode("utf-8", "replace")
    if form == "gzip":
        (path / "tracks.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
        return path / "tracks.csv.gz", TRACKS
    if form == "utf-16":
        (path / "wide.csv").write_bytes(text.encode("utf-16"))
        return path / "wide.csv", TRACKS
    if form == "jsonl":
        lines = [
            {"user_id": n, "at": f"2024-01-0{1 + n % 9} 10:00", "nested": {"n": [n, None, 2**70]}} for n in range(ROWS)
        ]
        (path / "x.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines) + "[1]\n\n{\n")
        return path / "x.jsonl", BERLIN
    if form == "native":
        (path / "n.jsonl").write_text('{"type": "track", "messageId": "own"}\n{"type": "track", "event": "e"}\n')
        return path / "n.jsonl", Mapping("native")
    return plain, TRACKS if form == "csv" else BERLIN


@pytest.mark.parametrize("form", ["csv", "another zone", "gzip", "utf-16", "jsonl", "native"])
def test_what_is_read_ahead_is_what_is_read_here(tmp_path, monkeypatch, form):
    """Rows, bytes, places, ids, values and problems are the same, from any row on."""
    path, plan = written(tmp_path, form)
    here = rows(path, plan)
    middle = here[len(here) // 2 - 1]
    assert rows(path, plan, middle[2], middle[3]) == here[len(here) // 2 :]
    monkeypatch.setattr(reading, "LEAST_BYTES", 0)
    assert rows(path, plan) == here
    assert rows(path, plan, middle[2], middle[3]) == here[len(here) // 2 :]


def test_where_no_process_can_be_had_it_is_read_here(tmp_path, monkeypatch):
    """A machine that starts no further process imports nevertheless."""
    path, plan = written(tmp_path, "csv")
    here = rows(path, plan)
    monkeypatch.setattr(reading, "LEAST_BYTES", 0)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    assert rows(path, plan) == here


def test_a_file_that_was_replaced_is_not_read(tmp_path, monkeypatch):
    """The process reads the very file that was looked at, or says that it is gone."""
    monkeypatch.setattr(reading, "LEAST_BYTES", 0)
    path = tmp_path / "tracks.csv"
    write_tracks(path, ROWS)
    with opened(path) as parts:
        path.rename(tmp_path / "other.csv")
        write_tracks(path, ROWS)
        with closing(rows_of(*parts)) as found, pytest.raises(ImportProblem, match="replaced"):
            next(found)


def test_the_process_ends_with_the_reading(tmp_path, monkeypatch):
    """Who stops reading in the midst leaves no process behind; one that dies in the midst is told of."""
    monkeypatch.setattr(reading, "LEAST_BYTES", 0)
    path = tmp_path / "tracks.csv"
    write_tracks(path, LARGE)
    before = set(children(os.getpid()))
    with opened(path) as parts:
        found = rows_of(*parts)
        next(found)
        assert len(set(children(os.getpid())) - before) == 1
        found.close()
        assert set(children(os.getpid())) <= before
        with closing(rows_of(*parts)) as found:
            next(found)
            (child,) = set(children(os.getpid())) - before
            os.kill(child, signal.SIGKILL)
            with pytest.raises(Stopped, match="-9"):
                list(found)


def test_a_broken_file_is_told_of_as_where_it_is_read_here(tmp_path, monkeypatch):
    """An error of the file's own comes over with its words."""
    path = tmp_path / "tracks.csv.gz"
    write_tracks(tmp_path / "tracks.csv", LARGE)
    whole = gzip.compress((tmp_path / "tracks.csv").read_bytes())
    path.write_bytes(whole[: len(whole) - 1_000])
    for least in (2**40, 0):
        monkeypatch.setattr(reading, "LEAST_BYTES", least)
        with pytest.raises(OSError, match="the gzipped data is broken"):
            rows(path, TRACKS)


@pytest.fixture
def started(receiver, tmp_path):
    """Starts an import of a large file whose vendor is slow; ends it."""
    pytest.importorskip("click", reason="the command needs the extra `cli`")
    path = tmp_path / "tracks.csv"
    write_tracks(path, LARGE, 4 * LARGE)  # no bad one
    assert path.stat().st_size > reading.LEAST_BYTES
    own = {"DESTINATION": "vitally", "VITALLY_API_TOKEN": TOKEN, "BASE_URL": receiver.url}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANALYTICS_BATCHER_")}
    settings = {**kept, **{f"ANALYTICS_BATCHER_{name}": value for name, value in own.items()}}
    options = [f"--{name.replace('_', '-')}={column}" for name, column in TRACKS.fields.items()]
    program = [sys.executable, "-m", "analytics_batcher", "import", path, "--as", "track", *options, "--json"]
    processes = []

    def start():
        pipe = subprocess.PIPE
        processes.append(subprocess.Popen(program, env=settings, stdout=pipe, stderr=pipe, text=True))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def slow(receiver, started):
    """An import that is under way, and the process that reads for it."""
    gate = threading.Event()
    receiver.decide = lambda _: Reply(delay=0.05) if gate.is_set() else gate.set()
    process = started()
    assert gate.wait(30)
    (reader,) = children(process.pid)
    return process, reader


def test_an_import_whose_reader_is_killed_goes_on_later(receiver, started):
    """It says so and ends; the same command sends the rest, and no row is lost or sent as another message."""
    process, reader = slow(receiver, started)
    os.kill(reader, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the process that reads the file has ended (status -9)" in errors
    receiver.decide = None
    again = started()
    facts = json.loads(again.communicate(timeout=60)[0])
    assert (again.returncode, facts["rows"], facts["delivered"]) == (0, LARGE, LARGE)
    assert len({message["messageId"] for message in receiver.messages}) == LARGE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_for_all_processes_is_the_imports_matter(receiver, started, number):
    """As a service's end, or a terminal's, tells the reader too: it reads on until its import has ended."""
    process, reader = slow(receiver, started)
    os.kill(reader, number)
    receiver.decide = None
    facts = json.loads(process.communicate(timeout=60)[0])
    assert (process.returncode, facts["delivered"], len(receiver.messages)) == (0, LARGE, LARGE)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_reader_outlives_its_import(receiver, started, wait_until, number):
    """However an import ends, nothing reads on for nobody."""
    process, reader = slow(receiver, started)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    wait_until(lambda: not Path(f"/proc/{reader}").exists())
