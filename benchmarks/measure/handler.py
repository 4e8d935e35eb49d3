"""A web application of the size that is common, and clients of it in another process.

Each request reads a form in JSON, checks it, asks a database (SQLite in memory) for twenty rows, writes them as JSON,
and tracks some events. It is served by the standard library's threading server, over kept connections.
"""

from __future__ import annotations

import json
import selectors
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from .libraries import Library

_ROWS = 20
_FORM = {
    "report": 7,
    "columns": ["name", "seats", "plan", "changed"],
    "filters": {"plan": "enterprise"},
    "note": "x" * 500,
}
_HERE = Path(__file__)


class _Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    library: ClassVar[Library]
    events: ClassVar[int]
    lines: ClassVar[threading.local]

    def do_POST(self) -> None:
        """Answer one request."""
        form = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not isinstance(form.get("report"), int) or not set(form["columns"]) <= {"name", "seats", "plan", "changed"}:
            raise ValueError(form)
        rows = _database(self.lines).execute("select * from account where plan = ? limit ?", ("enterprise", _ROWS))
        shown = [dict(zip(form["columns"], row, strict=True)) for row in rows]
        body = json.dumps({"rows": shown, "count": len(shown)}).encode()
        for index in range(self.events):
            self.library.track(index)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing of each request."""


def _database(lines: threading.local) -> sqlite3.Connection:
    if not hasattr(lines, "database"):
        lines.database = sqlite3.connect(":memory:")
        lines.database.execute("create table account (name text, seats integer, plan text, changed text)")
        rows = [(f"Account {i}", i, ("free", "team", "enterprise")[i % 3], "2026-11-23") for i in range(200)]
        lines.database.executemany("insert into account values (?, ?, ?, ?)", rows)
    database: sqlite3.Connection = lines.database
    return database


def measure(library: Library, *, rate: float, events: int, seconds: float, clients: int) -> dict[str, Any]:
    """Serve in this process, ask from another one, and tell what the answers took.

    Args:
        library: What tracks.
        rate: Requests a second.
        events: How many events each of them tracks.
        seconds: For how long.
        clients: Over how many connections.
    """
    shape = {"library": library, "events": events, "lines": threading.local()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Application", (_Application,), shape))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    command = [sys.executable, str(_HERE), str(server.server_port), str(rate), str(seconds), str(clients)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30)
    server.shutdown()
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def ask(port: int, rate: float, seconds: float, clients: int) -> dict[str, float]:
    """Ask at a steady rate, whatever the answers take; each one's time counts from when it was due.

    It never sleeps, so that its own wake-ups are not in the figures.
    """
    body = json.dumps(_FORM).encode()
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    selector, samples = selectors.DefaultSelector(), list[float]()
    free: list[socket.socket] = []
    for _ in range(clients):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(request)
        connection.recv(65536)
        selector.register(connection, selectors.EVENT_READ)
        free.append(connection)
    clock, asked, total = time.perf_counter, 0, int(rate * seconds)
    due: dict[socket.socket, float] = {}
    began = clock()
    while len(samples) < total and clock() - began < seconds + 10:
        while free and asked < total and clock() >= began + asked / rate:
            connection = free.pop(0)
            due[connection] = began + asked / rate
            asked += 1
            connection.sendall(request)
        for key, _ in selector.select(0):
            connection = key.fileobj  # type: ignore[assignment]
            connection.recv(65536)
            samples.append((clock() - due[connection]) * 1e6)
            free.append(connection)
    samples.sort()
    return {"p50": samples[len(samples) // 2], "p99": samples[len(samples) * 99 // 100], "asked": len(samples)}


if __name__ == "__main__":
    print(json.dumps(ask(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))))
