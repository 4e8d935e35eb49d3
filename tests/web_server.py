"""A framework's server, started as its users start it, with a sample application that tracks at each request."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from http.client import HTTPConnection

from programs.canary import TOKEN
from programs.harness import FOLDER, launched

HELD_BACK = 60
"""A `flush_interval` with which nothing is sent before a flush or the end."""
GUNICORN = [
    *("-m", "gunicorn", "--bind", "127.0.0.1:0", "--workers", "2", "--graceful-timeout", "15"),
    *("--config", str(FOLDER / "gunicorn_hooks.py")),
]


def settings(receiver, **more):
    """The settings of a client of the receiver, by the names that they have in the environment, less the prefix."""
    return {
        "DESTINATION": "vitally",
        "VITALLY_API_TOKEN": TOKEN,
        "BASE_URL": receiver.url,
        "FLUSH_INTERVAL": HELD_BACK,
        "SHUTDOWN_TIMEOUT": 10,
        **more,
    }


class WebServer:
    """A server that runs, on a port that it chose.

    Attributes:
        program: Its first process.
        tracked: The users of whom it has accepted a message, by its answers.
    """

    def __init__(self, program):
        self.program = program
        self.tracked = []

    def has_started(self):
        """Whether it has said where it listens."""
        return self._port is not None

    @property
    def _port(self):
        ports = re.findall(r"http://127\.0\.0\.1:([1-9]\d*)", self.program.said())
        return int(ports[-1]) if ports else None

    def get(self, path="/track", *, accepted=True, **headers):
        """Make a request, on a connection of its own; the answer's JSON, which says whether a message was accepted."""
        return self.begin(path, accepted=accepted, **headers)()

    def begin(self, path, *, accepted=True, **headers):
        """Make a request; what reads its answer."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=20)
        connection.request("GET", path, headers={"Connection": "close", **headers})

        def answer():
            try:
                response = connection.getresponse()
                body = response.read()
            finally:
                connection.close()
            assert response.status == 200, body
            told = json.loads(body)
            assert told["accepted"] is accepted
            if accepted:
                self.tracked.append(told["user"])
            return told

        return answer

    def end(self, number):
        """End it by a signal to its first process."""
        self.program.signal(number)
        return self.program.end()


@contextmanager
def serving(wait_until, arguments, environment, **options):
    """Start a server, and wait until it listens."""
    # Once every line, as users see it: what is printed into a file is kept back else.
    environment = {"PYTHONUNBUFFERED": "1", **environment}
    with launched(arguments, environment, seconds=60, family=True, **options) as program:
        server = WebServer(program)
        wait_until(server.has_started, 30)
        yield server


def users(receiver):
    """The users of whom messages came, once it is sure that none came twice and none breaks a rule of the vendor."""
    report = receiver.report()
    assert (report.repeats, report.faults) == (0, ())
    return sorted(message["userId"] for message in receiver.messages)
