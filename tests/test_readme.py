"""The README's claims that a machine can check."""

from __future__ import annotations

import gzip
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from test_examples import example as example_text

from analytics_batcher import Client, Retry, Segment
from analytics_batcher.receiver import Receiver, SegmentWire
from analytics_batcher.testing import Recorder

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_testing_example_runs_as_it_stands():
    """The example for applications' tests works when it is copied."""
    (example,) = [block for block in BLOCKS if "Receiver(" in block]
    exec("from analytics_batcher import Client, Vitally\n" + example, {})  # noqa: S102 - the README's own code
    assert example.count("assert") == 3


def test_the_recorders_example_runs_and_fails_as_it_says():
    """The example records what it asserts; the failure that is shown is that of another event's name."""
    (example,) = [block for block in BLOCKS if "Recorder(" in block]
    names = {}
    exec("from analytics_batcher import Vitally\n" + example, names)  # noqa: S102 - the README's own code
    with pytest.raises(AssertionError) as failure:
        names["recorder"].assert_tracked("Signed Up")
    assert f"```\nAssertionError: {failure.value}\n```" in TEXT


@pytest.mark.parametrize(
    "name", ["sessions", *(f"integrations/{one}" for one in ("django", "flask", "asgi", "celery", "aws_lambda"))]
)
def test_the_frameworks_examples_are_those_of_their_modules(name):
    """They stand in the modules' docstrings, where a test runs them."""
    assert f"{example_text(name)}\n" in BLOCKS


def test_the_collectors_example_runs(monkeypatch):
    """A scrape shows the client's figures."""
    prometheus_client = pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    (example,) = [block for block in BLOCKS if "StatsCollector(" in block]
    with Recorder() as recorder:
        exec(example, {"client": recorder})  # noqa: S102 - the README's own code
        recorder.track("u", "e")
        text = prometheus_client.generate_latest(registry).decode()
    assert 'analytics_batcher_messages_tracked_total{destination="recorder"} 1.0' in text
    section = TEXT[TEXT.index("### Metrics") : TEXT.index("## See what is sent")]
    names = set(re.findall(r"^# TYPE analytics_batcher(\S+) ", text, re.MULTILINE))
    said = {name for some in re.findall(r"`(?:analytics_batcher)?(_\S+?)`", section) for name in expanded(some)}
    assert said == names


def expanded(name):
    """The names that one with braces stands for."""
    before, brace, rest = name.partition("{")
    inside, _, after = rest.partition("}")
    return {f"{before}{one}{after}" for one in inside.split(",")} if brace else {name}


def test_the_first_example_runs_against_a_receiver(receiver):
    """The first example delivers its four messages."""
    first = BLOCKS[0].replace('"acme", api_token="..."', f'api_token="test-token", base_url="{receiver.url}"')
    assert first != BLOCKS[0]
    exec(first, {})  # noqa: S102 - the README's own code
    assert [message["type"] for message in receiver.messages] == ["organization", "account", "user", "track"]
    assert not receiver.faults


def test_the_command_line_is_what_it_says(tmp_path, receiver):
    """The section's commands run as they stand, in an empty folder, on files that have the columns that they name."""
    pytest.importorskip("click", reason="the commands need the extra `cli`")
    section = TEXT[TEXT.index("## Command line") : TEXT.index("## Destinations")]
    (block,) = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    commands = [shlex.split(line) for line in block.splitlines()]
    assert {words[1] for words in commands} >= {"doctor", "import", "send"}
    (tmp_path / "accounts.csv").write_text("id,name\nacme,Acme\n")
    rows = b"user_id,account_id,name,at\nuser-1,acme,Signed up,2024-01-02T03:04:05Z\n"
    (tmp_path / "events.csv.gz").write_bytes(gzip.compress(rows))
    own = {"DESTINATION": "vitally", "VITALLY_API_TOKEN": "test-token", "BASE_URL": receiver.url}
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        **{f"ANALYTICS_BATCHER_{name}": value for name, value in own.items()},
    }
    for name, *arguments in commands:
        assert name == "analytics-batcher"
        program = [sys.executable, "-m", "analytics_batcher", *arguments]
        done = subprocess.run(
            program, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
    assert [(one["event"], one["userId"]) for one in receiver.messages] == [("Signed up", "user-1")] * 2
    assert receiver.faults == ("request 1: the method is not POST",)  # doctor's, for the vendor's clock
    made = {path.name for path in tmp_path.iterdir()} - {"accounts.csv", "events.csv.gz"}
    assert made == {"events.csv.gz.checkpoint.json"}


def test_the_options_table_is_the_signature():
    """Every option of the client stands in the table, with its default where that is a plain value."""
    section = TEXT[TEXT.index("## Options of `Client`") : TEXT.index("## Destinations")]
    rows = re.findall(r"^\| (`.*?) \| (.*?) \| (.*?) \|$", section, re.MULTILINE)
    named = {name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    parameters = inspect.signature(Client).parameters
    options = {name for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    assert options - {"block_timeout"} == named.keys()
    assert "block_timeout" in TEXT
    for name in options - {"block_timeout"}:
        default = parameters[name].default
        if isinstance(default, float | str | bool) and name not in {"proxy", "verify"}:
            shown = f'"{default}"' if isinstance(default, str) else str(default)
            assert shown in named[name][1], name


def test_the_retry_defaults_are_as_said():
    """The README shows `Retry`'s own signature."""
    assert re.search(r"`(Retry\(base.*?\))`", TEXT)[1] == f"{Retry()!r}".replace("'", '"')


def table_of(heading):
    """The rows of a section's table, as lists of cells."""
    section = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("| \n").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert rows
    return rows


SETTINGS = {"url": "http://127.0.0.1:9", "n": 5, "s": 1.5, "f": print, "write_key": "write-key"}


@pytest.mark.parametrize("row", table_of("Coming from segment-analytics-python"), ids=lambda row: row[0])
def test_each_row_of_the_way_from_segment_works(row):
    """What stands in the second column runs as it stands, and a call makes the message that Segment's own would."""
    code = row[1].strip("`")
    names = {**SETTINGS, "Client": Client, "Segment": Segment, "Retry": Retry}
    with Receiver(wire=SegmentWire(write_key="write-key")) as receiver:
        destination = Segment("write-key", base_url=receiver.url)
        with Client(destination, background=False) as client:
            made = eval(code, {**names, "client": client})  # noqa: S307 - the README's own code
            if not code.startswith("client."):
                assert isinstance(made, Client | Segment)
                return
            assert made
            assert client.flush()
        kind = row[0].strip("`").partition("(")[0]
        sent = [message["type"] for message in receiver.messages]
        assert sent == ([] if kind in {"flush", "shutdown"} else [kind if kind.isidentifier() else "track"])
        assert not receiver.faults


def test_options_of_segments_client_arrive():
    """Each option's counterpart is a parameter of ours, so that no row names one that is gone."""
    options = inspect.signature(Client).parameters.keys() | inspect.signature(Segment).parameters.keys()
    for row in table_of("Coming from segment-analytics-python"):
        if row[1].startswith("`Client("):
            assert set(re.findall(r"(\w+)=", row[1])) - {"max_age"} <= options


class _PostHogStandIn(BaseHTTPRequestHandler):
    def do_POST(self):
        """Keep the body, and take it."""
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Say nothing."""


def test_the_vendor_of_the_readme_works():
    """The example of a new vendor runs as it stands, in under 60 lines, and delivers in that vendor's form."""
    (example,) = [block for block in BLOCKS if "class PostHog" in block]
    assert len(example.splitlines()) < 60
    names = {}
    exec(example, names)  # noqa: S102 - the README's own code
    server = ThreadingHTTPServer(("127.0.0.1", 0), _PostHogStandIn)
    server.bodies = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    destination = names["PostHog"]("phc_key", base_url=f"http://127.0.0.1:{server.server_port}")
    with Client(destination) as client:
        assert client.track("u1", "signed-in", {"n": 1}, message_id="m", timestamp="2026-01-02T03:04:05.678Z")
        assert client.identify("u1", {"plan": "pro"})
        assert client.enqueue({"event": "native", "distinct_id": "u1"})
        assert not client.account("a1")
        assert client.flush().delivered == 3
        assert client.stats().dropped == {"unsupported": 1}
    server.shutdown()
    server.server_close()
    (body,) = server.bodies
    first, second, third = body["batch"]
    assert body["api_key"] == "phc_key"
    assert first == {
        "event": "signed-in",
        "distinct_id": "u1",
        "properties": {"n": 1},
        "timestamp": "2026-01-02T03:04:05.678Z",
        "uuid": "m",
    }
    assert second["properties"] == {"$set": {"plan": "pro"}}
    assert (third["event"], third["distinct_id"]) == ("native", "u1")
