from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from programs.harness import launched
from web_server import users

from analytics_batcher.integrations.aws_lambda import delivers
from analytics_batcher.receiver import Reply

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Lambda's runtime is a Linux program")


class _Asked(BaseHTTPRequestHandler):
    """Lambda's runtime API, by its published paths: what the runtime asks for, and where it puts the answers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        """Hand out the next invocation, once there is one."""
        assert self.path == "/2018-06-01/runtime/invocation/next"
        number, event, seconds = self.server.events.get()
        body = json.dumps(event).encode()
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", f"request-{number}")
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int((time.time() + seconds) * 1000)))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:eu-central-1:1:function:ours")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        """Take an answer, or an error."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()
        self.server.answers.put((self.path.rpartition("/")[2], body, time.monotonic()))

    def log_message(self, *_):
        """Say nothing."""


class Function:
    """A function in its real runtime.

    Attributes:
        program: The runtime's process.
    """

    def __init__(self, program, server):
        self.program = program
        self._server = server
        self._count = 0

    def invoke(self, *people, seconds=10.0, **more):
        """Have an event handled; `response` or `error`, its body, and how long it took."""
        self._count += 1
        started = time.monotonic()
        self._server.events.put((self._count, {"users": people, **more}, seconds))
        kind, body, at = self._server.answers.get(timeout=30)
        return kind, body, at - started


@pytest.fixture
def deployed(receiver):
    """Starts functions of `programs/lambda_site.py`, as Lambda does."""
    pytest.importorskip("awslambdaric", reason="Lambda's runtime interface client is not installed")

    @contextmanager
    def deploy(**options):
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Asked)
        server.daemon_threads = True
        server.events, server.answers = queue.Queue(), queue.Queue()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {
            "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{server.server_port}",
            "RECEIVER": receiver.url,
            "CLIENT": json.dumps(options),
        }
        try:
            with launched(["-m", "awslambdaric", "lambda_site.handler"], environment, seconds=60) as program:
                yield Function(program, server)
        finally:
            server.shutdown()
            server.server_close()

    return deploy


@pytest.mark.parametrize("background", [True, False])
def test_an_invocation_delivers_before_its_answer(deployed, receiver, background):
    """Every message has arrived when the answer does, with and without a thread, by one kept client."""
    with deployed(background=background) as function:
        for number in range(5):
            kind, answer, _ = function.invoke(f"u{number}", f"v{number}")
            assert (kind, answer["accepted"]) == ("response", [True, True]), answer
            assert answer["request"] == f"request-{number + 1}"
            assert users(receiver) == sorted(f"{letter}{n}" for letter in "uv" for n in range(number + 1))


def test_a_handler_that_raises_delivers_too(deployed, receiver):
    """The error is Lambda's to have, and the message has arrived before."""
    with deployed(background=False) as function:
        kind, answer, _ = function.invoke("u1", fails=True)
        assert (kind, answer["errorType"]) == ("error", "KeyError")
        assert users(receiver) == ["u1"]


@pytest.mark.parametrize("background", [True, False])
def test_what_cannot_be_delivered_in_time_waits_for_the_next_invocation(deployed, receiver, wait_until, background):
    """The answer comes before Lambda's deadline though the vendor is down; the next invocation delivers both."""
    with deployed(background=background) as function:
        assert function.invoke()[0] == "response"  # the program has begun
        receiver.decide = lambda _: Reply(503)
        kind, _, took = function.invoke("u1", seconds=1.5)
        assert kind == "response"
        assert took < 1.5
        wait_until(lambda: "1 messages wait for the next invocation" in function.program.said())
        receiver.decide = None
        assert function.invoke("u2")[0] == "response"
        assert users(receiver) == ["u1", "u2"]


@contextmanager
def frozen(pid, wait_until):
    """A while in which a process does nothing, as between two invocations."""
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(lambda: is_stopped(pid))
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("background", [True, False])
def test_a_frozen_function_goes_on_where_it_was(deployed, receiver, wait_until, background):
    """The vendor closes the connection while the function is frozen: the next invocation delivers all the same."""
    receiver.script(*[Reply(drop_idle=True)] * 3)
    with deployed(background=background) as function:
        pid = function.invoke("u1")[1]["pid"]
        for number in range(2, 5):
            with frozen(pid, wait_until):
                threading.Event().wait(0.1)  # of which the process knows nothing
            assert function.invoke(f"u{number}")[0] == "response"
            assert users(receiver) == [f"u{n}" for n in range(1, number + 1)]


@pytest.mark.parametrize("background", [True, False])
def test_a_request_that_was_frozen_midway_is_made_again(deployed, receiver, wait_until, background):
    """A request is cut while the function is frozen in the middle of it: the next invocation delivers its message."""
    receiver.script(Reply(delay=1.7, reset="before"))
    with deployed(background=background) as function:
        assert function.invoke()[0] == "response"  # the program has begun
        kind, answer, took = function.invoke("u1", seconds=1.5)
        assert kind == "response"
        assert took < 1.5
        with frozen(answer["pid"], wait_until):
            threading.Event().wait(1.2)  # until the vendor has cut the connection
        assert function.invoke("u2")[0] == "response"
        assert users(receiver) == ["u1", "u2"]


def is_stopped(pid):
    """Whether the kernel has stopped a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


# The decorator, without Lambda


class Context:
    """Lambda's context, of which one method is needed."""

    def __init__(self, seconds):
        self._seconds = seconds

    def get_remaining_time_in_millis(self):
        """As Lambda's."""
        return int(self._seconds * 1000)


@pytest.mark.parametrize(
    ("remaining", "options", "seconds"),
    [
        (1.0, {}, (0.4, 0.9)),
        (1.0, {"margin": 0.8}, (0.1, 0.6)),
        (900.0, {"timeout": 0.3}, (0.2, 0.8)),
        (None, {"timeout": 0.3}, (0.2, 0.8)),
        (0.2, {}, (0.0, 0.4)),
    ],
)
def test_a_flush_takes_what_time_remains_and_no_more(make_client, receiver, remaining, options, seconds):
    """The remaining time less the margin, at most the timeout; without a context, as in a test, the timeout alone."""
    receiver.decide = lambda _: Reply(503)
    client = make_client()

    @delivers(client, **options)
    def handler(event, _):
        """Track."""
        return client.track(event, "e", account_id="a")

    started = time.monotonic()
    assert handler("u1", None if remaining is None else Context(remaining)) is True
    assert seconds[0] <= time.monotonic() - started < seconds[1] + 0.5
    assert client.stats().pending == 1


def test_a_decorated_handler_is_still_itself(make_client):
    """Name, docstring and signature are the handler's."""

    @delivers(make_client())
    def handler(event, context):
        """Handle."""

    assert (handler.__name__, handler.__doc__) == ("handler", "Handle.")
    assert handler.__wrapped__
