"""The sink as a round sees it, and the flood by which we know what it can take."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from .workload import EVENT, properties, user

if TYPE_CHECKING:
    from typing_extensions import Self

_SINK = Path(__file__).with_name("sink.py")


class FarEnd:
    """A sink in its own process, for as long as the block lasts.

    Args:
        options: What `sink.Sink` takes.
    """

    def __init__(self, **options: Any) -> None:
        command = [sys.executable, str(_SINK), json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._input = cast("IO[str]", self._process.stdin)
        self._output = cast("IO[str]", self._process.stdout)
        self.port = int(self._output.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def _say(self, line: str) -> None:
        self._input.write(f"{line}\n")
        self._input.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=10)

    def wait(self, events: int, seconds: float) -> dict[str, Any]:
        """Wait until so many events have arrived, at most so long; what arrived, and what it cost the sink."""
        self._say(f"wait {events} {seconds}")
        report: dict[str, Any] = json.loads(self._output.readline())
        return report

    def forget(self) -> None:
        """Count from here: what came so far was to warm up."""
        self._say("forget")
        self._output.readline()


def request(messages: int) -> bytes:
    """One request as ours would be, of so many events."""
    events = [
        {"type": "track", "userId": user(i), "event": EVENT, "properties": properties(i)} for i in range(messages)
    ]
    body = json.dumps(events, separators=(",", ":")).encode()
    return b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def flood(seconds: float) -> dict[str, float]:
    """What the sink takes from two raw sockets that never wait for long: its ceiling."""
    data, messages = request(100), 0
    with FarEnd() as far:
        lines = [socket.create_connection(("127.0.0.1", far.port)) for _ in range(2)]
        began = time.monotonic()
        for line in lines:
            line.sendall(data)
        while time.monotonic() < began + seconds:
            for line in lines:
                line.recv(4096)
                line.sendall(data)
                messages += 100
        took = time.monotonic() - began
        report = far.wait(messages, 5.0)
        for line in lines:
            line.close()
    return {"events": messages / took, "requests": messages / 100 / took, "share": report["cpu"] / report["wall"]}
