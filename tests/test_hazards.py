from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hazard.libraries import OURS, PERSON, TOKEN
from hazard.rows import ROWS
from hazard.run import run
from hazard.server import Request
from hazard.verdict import Seen, accounted, arrive, ends, grows, leaks, returns

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the rows fork, and send signals")
CHEAP = ["multiprocessing", "thrown", "closed", "exit", "202", "hostile", "mutated", "import", "netrc", "forged"]


def command(root, *arguments):
    """Run the benchmark as its users do."""
    program = [sys.executable, str(root / "benchmarks" / "hazards.py"), "--peer", OURS, *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)


def request(*indexes, taken=True, **fields):
    """A request that holds events of those indexes."""
    events = [{"properties": {"index": index}} for index in indexes]
    fields = {"moment": 0.0, "method": "POST", "target": "/", "headers": {}, "body": b"", **fields}
    return Request(events=events, taken=taken, **fields)


def seen(*requests, ended=True, **fields):
    """What was seen of a process that ended two seconds after it began."""
    return Seen(ended, 15.0, requests=list(requests), end=2.0, **fields)


def test_our_column_is_fine_and_written(tmp_path):
    """The command runs rows in processes of their own, finds ours fine, and writes the table as Markdown."""
    file = tmp_path / "hazards.md"
    rows = [word for row in CHEAP for word in ("--only", row)]
    done = command(ROOT, *rows, "--jobs", "3", "--write", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    text = file.read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    for row in CHEAP:
        [line] = [line for line in table if line.startswith(f"| {ROWS[row].title} |")]
        assert "| ✓ " in line
        assert any(line.startswith(f"| `{row}` | ") and ROWS[row].wanted in line for line in table)
    assert f"| fine | {len(CHEAP)} of {len(CHEAP)} |" in table
    assert f"hazards.py --only {CHEAP[0]}" in text


def test_a_break_of_ours_fails_the_command(tmp_path):
    """Without the exit hook, the row about exit is not fine, and the command says so and fails."""
    for folder in ("benchmarks", "analytics_batcher"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    hook = tmp_path / "analytics_batcher" / "lifecycle.py"
    text = hook.read_text()
    assert "atexit.register(shut_down)" in text
    hook.write_text(text.replace("atexit.register(shut_down)", "pass"))
    done = command(tmp_path, "--only", "exit")
    assert done.returncode == 1
    assert "✗" in done.stdout
    assert f"{OURS} is not fine: exit" in done.stderr


def test_a_library_that_is_not_installed_is_said():
    """A column does not go missing unnoticed: the command names what is not installed, and runs nothing."""
    program = [sys.executable, "-S", str(ROOT / "benchmarks" / "hazards.py"), "--peer", "mixpanel"]  # no packages
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "not installed: mixpanel" in done.stderr
    assert not done.stdout


def test_a_process_that_hangs_is_ended():
    """What does not end within its limit is called hanging, by what it hangs in, and is gone afterwards."""
    row = dataclasses.replace(ROWS["hang-flush"], limit=2.0)
    began = time.monotonic()
    cell, found = run(row, OURS)
    assert time.monotonic() - began < 8
    assert not cell.fine
    assert "flush() hangs (> 2 s)" in cell.text
    assert found.facts["stage"] == "flush()"


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
@pytest.mark.parametrize("ended", [True, False])
def test_no_row_is_fine_when_nothing_was_seen(row, ended):
    """A process that hangs at its start, or ends without a fact, is fine in no row."""
    assert row.judge(seen(ended=ended, facts={"stage": "track()"})).fine is False


@pytest.mark.parametrize(
    ("found", "fine", "text"),
    [
        (seen(request(0, 1), request(2)), True, "3 of 3"),
        (seen(request(0, 1)), False, "2 of 3"),
        (seen(request(0, 1), request(2, taken=False)), False, "2 of 3"),
        (seen(request(0, 1, 2), request(1)), False, "3 of 3, 1 of them twice"),
        (seen(request(0, 1, 2), request(1, 2), request(2)), False, "3 of 3, 2 of them up to 3 times"),
        (seen(request(0, 1, 2), facts={"raised": "ValueError"}), False, "3 of 3, track() raises ValueError"),
        (seen(request(0, 1, 2), ended=False, facts={"stage": "exit"}), False, "3 of 3, exit hangs"),
        (seen(request(0, 1, 2), status=1, log="E: e", facts={"stage": "exit"}), False, "3 of 3, exit fails with E"),
        (seen(request(0, 1, 2), status=-11, facts={"stage": "exit"}), False, "3 of 3, dies of SIGSEGV in exit"),
    ],
)
def test_arriving_means_each_once(found, fine, text):
    """An event that is lost or repeated, a call that raises, and a process that hangs or dies are not fine."""
    cell = arrive(range(3))(found)
    assert (cell.fine, cell.text) == (fine, text)


@pytest.mark.parametrize(
    ("found", "fine"),
    [
        (seen(request(0, 1, 2)), True),
        (seen(request(0)), False),
        (seen(request(0), log="WARNING 2 messages were left behind"), True),
        (seen(request(0), log="WARNING 1 message was left behind"), False),
        (seen(request(0), log="WARNING 3 messages were left behind"), True),
        (seen(request(0), log="WARNING 4 messages were left behind"), False),
        (seen(request(0), request(0), log="WARNING 2 messages were left behind"), False),
        (seen(request(0), ended=False, log="WARNING 2 messages were left behind"), False),
    ],
)
def test_what_is_lost_at_exit_must_be_said(found, fine):
    """The log must name the number of lost events; the last batch may be among them, since it was in flight."""
    assert accounted(3)(found).fine is fine


def test_returning_and_ending_have_a_limit():
    """A call or an exit that takes longer than its criterion is not fine."""
    assert returns(12)(seen(facts={"seconds": 11.9})).fine
    assert not returns(12)(seen(facts={"seconds": 12.1})).fine
    assert ends(1.5)(seen(facts={"stage": "exit", "moment": 0.6})).fine
    assert not ends(1.5)(seen(facts={"stage": "exit", "moment": 0.4})).fine
    assert grows(100)(seen(facts={"grown": 99.0})).fine
    assert not grows(100)(seen(facts={"grown": 101.0})).fine


def test_what_is_sent_must_be_what_was_called():
    """An event that shows a change made after the call is not fine, and neither is none at all."""
    late, given = ROWS["late"].judge, request(0)
    assert late(seen(given)).fine
    given.events[0]["properties"]["plan"] = "changed"
    assert late(seen(given)).text == "the later state is sent"
    assert not late(seen()).fine


def test_leaks_are_found_wherever_they_stand():
    """The token, in the clear or as a login, and event data are found in a request's line, headers and body."""
    encoded = "Basic aGF6YXJkLXRva2VuLTAxMjM0NTY3ODk6"
    assert leaks([request(target=f"/?key={TOKEN}")]) == ["token"]
    assert leaks([request(headers={"authorization": encoded})]) == ["token"]
    assert leaks([request(body=PERSON.encode())]) == ["data"]
    assert leaks([request(body=b"data=" + PERSON.replace("@", "%40").encode())]) == ["data"]
    assert leaks([request(body=b"{}")]) == []


def table_of(text):
    """The first table of a Markdown text that has our column: the marks of each row."""
    lines = text[text.index("| what happens | ") :].split("\n\n")[0].splitlines()
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[2:]]
    return {title: [cell if title == "fine" else cell[0] for cell in cells] for title, *cells in rows}


def test_the_readme_shows_what_the_last_run_came_to():
    """The README's table has the marks of the full one, and of every row that there is."""
    full = table_of((ROOT / "benchmarks" / "hazards.md").read_text(encoding="utf-8"))
    shown = table_of((ROOT / "README.md").read_text(encoding="utf-8"))
    assert shown == full
    assert full.keys() == {row.title for row in ROWS.values()} | {"fine"}
    assert {cells[0] for title, cells in full.items() if title != "fine"} == {"✓"}
