"""What commands show: to a person on terminals of two widths, with colours and without, to pipes and to machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TOKEN

from analytics_batcher import Client, SqliteBuffer, Vitally
from analytics_batcher.cli.face import Face, Problem, problem_of
from analytics_batcher.cli.progress import PlainProgress, Progress, clock_time
from analytics_batcher.receiver import Reply

terminal = pytest.importorskip("terminal", reason="Windows has no pseudo-terminals of this kind")

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests/programs/faces.py"
BLOCKED = "import sys; sys.modules['click'] = sys.modules['rich'] = None; import runpy; sys.argv[:] = {!r}; "
"""What begins a Python in which neither can be imported."""


@pytest.fixture
def environment():
    """The environment of a program that finds the package."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def command(*arguments, extra=True):
    """The command line of the program."""
    if extra:
        return [sys.executable, str(PROGRAM), *arguments]
    given = [str(PROGRAM), *arguments]
    return [sys.executable, "-c", f"{BLOCKED.format(given)} runpy.run_path({str(PROGRAM)!r}, run_name='__main__')"]


def piped(environment, *arguments, extra=True):
    """Run the program without a terminal."""
    return subprocess.run(
        command(*arguments, extra=extra), env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def once_ready(number):
    """Sends a program that says that it is ready a signal, once."""
    sent = []

    def hear(process, screen):
        if not sent and "ready" in screen.text:
            sent.append(process.send_signal(number))

    return hear


# On a terminal


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("colours", [True, False])
def test_a_person_sees_a_bar_a_table_a_summary_and_an_error(environment, columns, colours):
    """In the end all of it stands there, nothing is wrapped or torn, and colours are there if they are wanted."""
    status, screen = terminal.seen(command("fail"), environment, columns, colours=colours)
    assert status == 1
    lines = screen.lines
    assert lines[0] == "Columns"
    assert lines[1].split() == ["column", "kind", "rows"]
    assert lines[3].split() == ["größe", "number", "1,200"]
    assert lines[4].split() == ["[red]id[/red]", "text,", "zeros", "kept", "7"]
    rest = lines[5:]
    assert rest[0] == "a note\\x1b[2J that forges"
    assert rest[1] == "Importing users.csv"
    assert rest[2] == "━" * 60 + " 100%"
    assert rest[3].startswith("1,000,000 of 1,000,000 rows · ")
    assert rest[3].endswith("/s · 12 refused · 3 retries")
    assert rest[4:9] == [
        "Summary",
        "rows       1,200,000",
        "delivered  1,000,002 (a 1,000,000, b 2)",
        "rate       1,234.6",
        "again      yes",
    ]
    assert rest[9:] == [
        "error: the timestamp is no time",
        "  where:    users.csv:17, column created",
        "  found:    '2020-13-01'",
        "  expected: ISO 8601",
        "  hint:     --timestamp names another column",
    ]
    assert screen.colours is colours


@pytest.mark.parametrize("columns", [80, 120])
def test_a_bar_says_how_far_it_is_and_what_it_waits_for(environment, columns):
    """While it is drawn: the share, rows, rate, time left, refused, retries, and the pause it is in."""
    _, screen = terminal.seen(command("done"), environment, columns)
    (frame, *_) = [frame for frame in screen.frames if frame[-1].startswith("waiting")]
    bar, figures, waiting = frame[-3:]
    assert bar.startswith("━")
    share, left = bar.strip("━╸╺ ").split(maxsplit=1)
    assert share == "45%"
    first, rate, refused, retries = figures.split(" · ")
    assert (first, refused, retries) == ("450,000 of 1,000,000 rows", "12 refused", "3 retries")
    assert int(rate.removesuffix("/s").replace(",", "")) > 100_000, "what was done before does not count"
    assert left.endswith(" left")
    assert waiting == "waiting: 20 s, HTTP 429: slow down"


def test_a_bar_leaves_the_terminal_as_it_was(environment):
    """After Ctrl-C in the middle of a bar the cursor is shown again, in a word what happened, and the status is 130."""
    status, screen = terminal.seen(command("hang"), environment, hear=once_ready(signal.SIGINT))
    assert status == 130
    assert screen.text.rindex("\x1b[?25h") > screen.text.rindex("\x1b[?25l")
    assert screen.lines[-1] == "interrupted"
    assert "Traceback" not in screen.text


def test_sigterm_is_told_apart(environment):
    """SIGTERM ends a command as Ctrl-C does, with the status 143."""
    assert terminal.seen(command("hang"), environment, hear=once_ready(signal.SIGTERM))[0] == 143


@pytest.mark.parametrize(
    ("extra", "variables", "options"),
    [
        (False, {}, []),
        (True, {"TERM": "dumb"}, []),
        (True, {}, ["--plain"]),
    ],
)
def test_plain_lines_where_nothing_can_be_drawn(environment, extra, variables, options):
    """Without the extra, on a dumb terminal, or if it is asked for, a terminal gets plain lines."""
    program = [
        "env",
        *(f"{name}={value}" for name, value in variables.items()),
        *command("fail", *options, extra=extra),
    ]
    status, screen = terminal.seen(program, environment)
    assert status == 1
    assert "\x1b" not in screen.text
    assert "delivered: 1000002 (a 1000000, b 2)" in screen.lines
    assert "error: the timestamp is no time" in screen.lines


# To a pipe and to a machine


@pytest.mark.parametrize("extra", [True, False])
def test_a_pipe_gets_facts_and_no_more(environment, extra):
    """Facts and tables go to standard output, notes and errors to standard error, and nothing is for a terminal."""
    done = piped(environment, "fail", extra=extra)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "Columns",
        "column         kind              rows",
        "größe          number            1,200",
        "[red]id[/red]  text, zeros kept  7",
        "rows: 1200000",
        "delivered: 1000002 (a 1000000, b 2)",
        "rate: 1234.6",
        "again: yes",
    ]
    assert done.stderr.splitlines()[:3] == [
        "a note\\x1b[2J that forges",
        "error: the timestamp is no time",
        "  where:    users.csv:17, column created",
    ]


def test_a_machine_gets_one_object(environment):
    """With --json standard output is one object with the plain values, and an error is one on standard error."""
    done = piped(environment, "fail", "--json")
    assert json.loads(done.stdout) == {
        "rows": 1_200_000,
        "delivered": {"b": 2, "a": 1_000_000},
        "rate": 1234.56,
        "again": True,
        "nothing": None,
    }
    said = json.loads(done.stderr.splitlines()[-1])["error"]
    assert said["where"] == "users.csv:17, column created"
    assert said["expected"] == "ISO 8601"


@pytest.mark.parametrize("debug", [True, False])
def test_where_an_error_arose_is_for_who_asks(environment, debug):
    """A traceback comes with --debug only; without it even what nobody foresaw is a sentence."""
    done = piped(environment, "break", *["--debug"] * debug)
    assert done.returncode == 1
    assert "error: unexpected RuntimeError: it broke" in done.stderr.splitlines()
    assert ("Traceback (most recent call last)" in done.stderr) is debug
    assert ('raise RuntimeError("it broke")' in done.stderr) is debug


def test_letters_that_the_output_cannot_spell(environment):
    """A letter that standard output's encoding lacks is escaped, and ends nothing."""
    done = piped({**environment, "PYTHONIOENCODING": "ascii"}, "done")
    assert done.returncode == 0
    assert "gr\\xf6\\xdfe" in done.stdout


def test_a_reader_that_goes_is_no_error(environment):
    """Where the pipe's reader has gone, a command ends without complaint."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as gone:
        done = subprocess.run(
            command("done"), env=environment, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=30, check=False
        )
    assert done.returncode == 1
    assert done.stderr == ""


# Errors in words


def test_errors_become_sentences():
    """A system's error names its file, a wrong setting is what it says, and the cause is kept for --debug."""
    missing = FileNotFoundError(2, "No such file or directory", "users.csv")
    problem = problem_of(missing)
    assert problem.facts == {"what": "No such file or directory", "where": "users.csv"}
    assert problem.__cause__ is missing
    assert problem_of(ValueError("timeout=-1: allowed is more")).facts == {"what": "timeout=-1: allowed is more"}
    own = Problem("it is so", status=2)
    assert problem_of(own) is own
    assert problem_of(KeyError("x")).facts["hint"] == "--debug shows where"


def test_the_status_is_the_problem_s(capsys):
    """A problem ends a command with the status it brings, and the work's own status comes through."""

    def wrong():
        raise Problem("no such option", status=2)

    face = Face(plain=True)
    assert face.run(wrong) == 2
    assert face.run(lambda: 3) == 3
    assert capsys.readouterr() == ("", "error: no such option\n")


# Figures


class Clock:
    """A clock that stands until it is told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        """The time."""
        return self.now


def test_the_rate_is_that_of_late():
    """It is taken over the last seconds, without what was done before, and falls while nothing goes on."""
    clock = Clock()
    progress = Progress("x", 10_000, start=5_000, clock=clock)
    clock.now += 0.5
    assert progress.rate == 0
    for _ in range(100):
        clock.now += 1
        progress.update(done=progress.done + 10)
    assert progress.rate == pytest.approx(10, rel=0.1)
    assert progress.seconds_left == pytest.approx(400, rel=0.1)
    assert progress.share == 0.6
    for _ in range(10):
        clock.now += 1
        progress.update(done=progress.done + 100)
    assert progress.rate > 50
    clock.now += 100
    assert progress.rate < 11
    assert Progress("x", None, clock=clock).seconds_left is None
    assert Progress("x", 0, clock=clock).share == 1.0


def test_plain_progress_speaks_every_few_seconds():
    """A line every five seconds at most, however often it is told, with a last one if there were others."""
    clock, said = Clock(), []
    progress = PlainProgress("Importing", 1_000, say=said.append, clock=clock)
    progress.update(done=1)
    progress.close()
    assert said == [], "what was short needs no words"
    for _ in range(600):
        clock.now += 0.01
        progress.update(done=progress.done + 1, refused=2, waiting="20 s, HTTP 429")
    assert len(said) == 1
    assert said[0].startswith(
        "Importing: 501 of 1,000 rows (50%), 100/s, 2 refused, 0 retries, 0:00:05 left, waiting: "
    )
    progress.update(done=1_000)
    progress.close()
    assert said[1].startswith("Importing: 1,000 of 1,000 rows (100%), ")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3_725, "1:02:05"), (1e30, None)])
def test_times_are_a_clock_s(seconds, text):
    """Hours, minutes and seconds, whatever is asked for."""
    assert clock_time(seconds) == (text or "99999:59:59")


# The commands


@pytest.fixture
def vendor(environment, receiver):
    """The environment of a command whose client delivers to the receiver."""
    kept = {name: value for name, value in environment.items() if not name.startswith("ANALYTICS_BATCHER_")}
    own = {"DESTINATION": "vitally", "VITALLY_API_TOKEN": TOKEN, "BASE_URL": receiver.url}
    return {**kept, **{f"ANALYTICS_BATCHER_{name}": value for name, value in own.items()}}


def left_in(path, count):
    """A spool in which a process has left so many messages."""
    client = Client(Vitally(api_token=TOKEN, base_url="http://127.0.0.1:9"), buffer=SqliteBuffer(path))
    for number in range(count):
        client.track("u", str(number))
    client.shutdown(0)
    return str(path)


def ours(*arguments):
    """A command of ours."""
    return [sys.executable, "-m", "analytics_batcher", *arguments]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("colours", [True, False])
def test_a_drain_on_a_terminal(vendor, receiver, tmp_path, columns, colours):
    """A person sees the bar, what it waits for while the vendor asks for a pause, and in the end what came of it."""
    path = left_in(tmp_path / "spool.db", 250)
    receiver.script(Reply(429, headers={"Retry-After": "2"}))
    status, screen = terminal.seen(ours("drain", path), vendor, columns, colours=colours)
    assert status == 0
    assert [one["event"] for one in receiver.messages] == [str(number) for number in range(250)]
    assert any("waiting: HTTP 429" in line for frame in screen.frames for line in frame)
    assert screen.lines[0] == "Draining spool.db"
    assert screen.lines[1] == "━" * 60 + " 100%"
    assert screen.lines[2].startswith("250 of 250 messages · ")
    assert screen.lines[2].endswith(" · 0 refused · 1 retries")
    assert screen.lines[3:] == ["found      250", "delivered  250", "dropped    0", "left       0"]
    assert screen.colours is colours


def test_the_status_of_a_spool_on_a_terminal_and_for_a_machine(vendor, tmp_path):
    """A table for a person, one object for a machine, and nothing is taken."""
    path = left_in(tmp_path / "spool.db", 1_200)
    _, screen = terminal.seen(ours("drain", path, "--status"), vendor, 120)
    row = [line.split() for line in screen.lines if line.startswith("vitally")]
    assert row[0][:3] == ["vitally", "1,200", "0"]
    done = subprocess.run(
        ours("drain", path, "--status", "--json"), env=vendor, capture_output=True, text=True, timeout=30, check=True
    )
    said = json.loads(done.stdout)
    assert said["waiting"] == 1_200
    assert said["destinations"][0].items() >= {"destination": "vitally", "messages": 1_200, "owned": 0}.items()


@pytest.mark.parametrize("columns", [80, 120])
def test_a_replay_on_a_terminal(vendor, receiver, tmp_path, columns):
    """The bar counts letters, those that fail again as refused, and the rest of the lines say where they are."""
    path = tmp_path / "letters.jsonl"
    letters = Client(Vitally(api_token=TOKEN, base_url=receiver.url), dead_letters=str(path))
    receiver.decide = lambda _: Reply(413)
    for number in range(5):
        letters.track("u", str(number))
    letters.shutdown(10)
    assert len(path.read_text().splitlines()) == 5
    receiver.decide = lambda messages: Reply(400) if any(one["event"] == "3" for one in messages) else None
    status, screen = terminal.seen(ours("replay", str(path)), vendor, columns)
    assert status == 3
    assert screen.lines[0] == "Replaying letters.jsonl"
    assert screen.lines[2].startswith("5 of 5 letters · ")
    assert " · 1 refused · " in screen.lines[2]
    assert "delivered     4 (vitally 4)" in screen.lines
    assert "failed again  1 (rejected 1)" in screen.lines


def test_a_machine_reads_what_a_replay_came_to(vendor, tmp_path):
    """With --json a replay of nothing is one object."""
    path = str(tmp_path / "letters.jsonl")
    done = subprocess.run(
        ours("replay", path, "--json"), env=vendor, capture_output=True, text=True, timeout=30, check=True
    )
    said = json.loads(done.stdout)
    assert said == {
        "found": 0,
        "delivered": {},
        "dropped by before_send": 0,
        "failed again": {},
        "not sent": {},
        "left": 0,
    }


@pytest.mark.parametrize("columns", [80, 120])
def test_a_receipt_and_a_diagnosis_on_a_terminal(vendor, receiver, columns):
    """`send` and `doctor` fit the terminal: no line is longer, and what is too long for a cell is folded in it."""
    receiver.decide = lambda _: Reply(400)
    one = ours("send", "--as", "track", "--id", "u", "--event", "e", "--message-id", "i" * 90)
    status, screen = terminal.seen(one, vendor, columns)
    assert status == 3
    assert "refused     1 (rejected 1)" in screen.lines
    assert "".join("".join(screen.lines).split()).count("i" * 20) >= 1
    status, screen = terminal.seen(ours("doctor"), vendor, columns)
    assert status == 0
    assert any(line.startswith("ok") and "vitally: name" in line for line in screen.lines)
    assert TOKEN not in screen.text
    assert not any(line.startswith("│") for line in screen.lines)


@pytest.mark.parametrize("as_json", [True, False])
def test_the_receiver_tells_of_each_request(environment, as_json):
    """`inspect` names its address, and each request with what a strict vendor objects to, until Ctrl-C."""
    command = ours("inspect", "--token", TOKEN, *["--json"] * as_json)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            hint = process.stderr.readline()
            assert hint.startswith("export ANALYTICS_BATCHER_BASE_URL=http://")
            client = Client(Vitally(api_token=TOKEN, base_url=hint.strip().partition("=")[2]))
            client.track("u", "e")
            assert client.shutdown(10)
            listening = "" if as_json else process.stdout.readline()
            line = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 0
        finally:
            process.kill()
    if as_json:
        assert json.loads(line).items() >= {"vendor": "vitally", "messages": 1, "status": 200, "faults": []}.items()
    else:
        assert listening.startswith("listening on http://")
        assert line.startswith("1: vitally: 1 messages, ")
        assert line.endswith(" bytes, status 200, no faults\n")
