"""A recording server on loopback that every library's requests are understood by.

It reads an `index` from each event's properties, so that losses and repeats are exact. What it answers is the weather:
a function from a request to a reply. A body that is not strict JSON gets a 400, as from every vendor.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ELSEWHERE = "127.0.0.2"
"""Where a redirect leads: another host, with a server of its own."""
_BOMB = 400 * 2**20
_LONGEST = 120.0


@dataclass
class Request:
    """What arrived: `body` is inflated, `index` and `id` are per event."""

    moment: float
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    events: list[dict[str, Any]] = field(default_factory=list)
    valid: bool = True
    taken: bool = False
    """Whether the answer was one after which a vendor has the events."""

    @property
    def indexes(self) -> list[int]:
        """The indexes of its events."""
        return [properties_of(event).get("index", -1) for event in self.events]

    @property
    def ids(self) -> list[str]:
        """The ids under which the vendor would know a repeat."""
        return [id_of(event) for event in self.events]

    def holds(self, text: str) -> bool:
        """Whether a text stands anywhere in it."""
        return any(text in part for part in (self.target, str(self.headers), self.body.decode(errors="replace")))


@dataclass(frozen=True)
class Reply:
    """What is answered."""

    status: int = 200
    body: bytes | None = None
    """`None`: what the vendor of that path says to this status."""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    take: bool | None = None
    """Whether the events count as arrived; `None`: if the status is 200."""
    how: str = "answer"
    """Or `hang` (never answers), `cut` (closes without an answer), `drip` (one byte a second)."""


def properties_of(event: dict[str, Any]) -> dict[str, Any]:
    """An event's properties, wherever the vendor has them."""
    found = event.get("properties") or event.get("event_properties")
    return found if isinstance(found, dict) else {}


def id_of(event: dict[str, Any]) -> str:
    """An event's id, whatever the vendor calls it."""
    inside = properties_of(event).get("$insert_id")
    return str(event.get("messageId") or event.get("uuid") or event.get("insert_id") or inside)


def fine(_: Request, __: Recorder) -> Reply:
    """Everything is taken at once."""
    return Reply()


class Recorder:
    """A server that runs until it is closed, and keeps what arrived.

    `requests` is appended to by the threads of the connections, and read when they are done.
    """

    def __init__(self, weather: Callable[[Request, Recorder], Reply] = fine, host: str = "127.0.0.1") -> None:
        self.weather = weather
        self.requests: list[Request] = []
        self.closing = threading.Event()
        self.elsewhere = ""
        """The URL of the server that redirects lead to."""
        self._server = _Server((host, 0), _Handler)
        self._server.recorder = self
        self.url = f"http://{host}:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """End it, and whatever hangs in it."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def arrivals(self) -> Counter[int]:
        """How often each index arrived for good."""
        return Counter(index for request in list(self.requests) if request.taken for index in request.indexes)

    def since_first(self) -> float:
        """Seconds since the first request."""
        return time.monotonic() - self.requests[0].moment


class Refusing:
    """An address where nobody listens: connections are refused."""

    def __init__(self) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))  # kept, so that nobody else gets it
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.requests: list[Request] = []

    def close(self) -> None:
        """Free the address."""
        self._socket.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128
    recorder: Recorder

    def handle_error(self, *_: Any) -> None:
        """A client that was killed is no error."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(time.monotonic(), self.command, self.path, headers, raw)
        try:
            request.body = gzip.decompress(raw) if headers.get("content-encoding") == "gzip" else raw
            request.events = _events(request)
        except (ValueError, OSError, EOFError, RecursionError):
            request.valid = False
        recorder = self.server.recorder
        recorder.requests.append(request)
        reply = recorder.weather(request, recorder) if request.valid else Reply(400)
        request.taken = request.valid and (reply.status == 200 if reply.take is None else reply.take)
        self._send(request, reply)

    do_GET = do_POST  # noqa: N815 - the base class asks for that name

    def _send(self, request: Request, reply: Reply) -> None:
        closing = self.server.recorder.closing
        closing.wait(reply.delay or (_LONGEST if reply.how == "hang" else 0.0))
        if reply.how in {"hang", "cut"}:
            self.close_connection = True
            return
        body = _said(request, reply.status) if reply.body is None else reply.body
        content = {"Content-Type": "application/json", "Content-Length": str(len(body)), **reply.headers}
        lines = [f"HTTP/1.1 {reply.status} {self.responses.get(reply.status, ('Whatever',))[0]}"]
        lines += [f"{name}: {value}" for name, value in content.items() if reply.status != 204 or "Con" not in name]
        answer = "\r\n".join([*lines, "", ""]).encode() + (b"" if reply.status == 204 else body)
        if reply.how == "drip":
            for byte in answer:
                self.wfile.write(bytes([byte]))
                if closing.wait(1.0):
                    break
            self.close_connection = True
        else:
            self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        """The recorder keeps everything itself."""


def _events(request: Request) -> list[dict[str, Any]]:
    if not request.body:
        return []
    text = request.body.decode()
    if "form-urlencoded" in request.headers.get("content-type", ""):
        text = parse_qs(text)["data"][0]
    data = json.loads(text, parse_constant=_refuse)
    if isinstance(data, dict):
        data = data.get("batch") or data.get("events") or [data]
    return list(data)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _said(request: Request, status: int) -> bytes:
    """What the vendor of a path says to a status, in the form that its library reads."""
    good = status < 300
    if request.target.startswith("/2/httpapi"):  # Amplitude
        error = {"error": "the server says no", **_listed(request, status)}
        return json.dumps({"code": status} | ({} if good else error)).encode()
    if request.target.startswith("/track"):  # Mixpanel
        return json.dumps({"status": int(good), "error": None if good else "the server says no"}).encode()
    if request.target.startswith("/batch/"):  # PostHog
        return json.dumps({"status": "Ok"} if good else {"detail": "the server says no"}).encode()
    words = {"success": True} if good else {"code": "refused", "message": "the server says no"}
    return json.dumps(words).encode()


def _listed(request: Request, status: int) -> dict[str, Any]:
    """Amplitude lists in a 400 the events that it means."""
    guilty = [place for place, event in enumerate(request.events) if "poison" in properties_of(event)]
    return {"events_with_invalid_fields": {"poison": guilty}} if status == 400 and guilty else {}


@cache
def bomb() -> bytes:
    """400 MB of spaces within a JSON object, compressed to 400 kB."""
    parts: Iterable[bytes] = [b'{"success":true', *[b" " * 2**20] * (_BOMB // 2**20), b"}"]
    press = zlib.compressobj(wbits=31)
    return b"".join([*(press.compress(part) for part in parts), press.flush()])
