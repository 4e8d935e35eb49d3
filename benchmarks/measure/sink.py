"""A server in a process of its own that takes events as cheaply as Python can: `python sink.py '{"delay": 0.2}'`.

One thread, no HTTP library: of a request it reads `Content-Length` and whether the body is compressed, counts the
event's name in the body, and answers what all the vendors' libraries take for a yes. It prints its port; then, for each
line `wait EVENTS SECONDS` on its standard input, a line of JSON once that many events have arrived or the time is over;
at `forget` it counts anew. When its input ends, so does it.
"""

from __future__ import annotations

import heapq
import json
import re
import selectors
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from typing import Any

from workload import EVENT

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_GZIP = re.compile(rb"\r\ncontent-encoding: *gzip", re.IGNORECASE)
_INDEX = re.compile(rb'"index": ?(\d+)')
_MARK = EVENT.encode()
_PIECE = 2**20
_SLOW = 2.0
_ABORT = struct.pack("ii", 1, 0)  # linger for 0 seconds: closing resets the connection


def _answer(status: int) -> bytes:
    """An answer in a form that every library reads: `status` is PostHog's, `code` Amplitude's, the rest Segment's."""
    good = status < 300
    said = {"success": good, "code": status, "status": "Ok" if good else "error", "message": "", "error": None}
    body = json.dumps(said).encode()
    head = f"HTTP/1.1 {status} Whatever\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_ANSWERS = {status: _answer(status) for status in (200, 429, 500)}


class Sink:
    """The one loop.

    Args:
        weather: What happens for how long, as `[seconds, what]`: a status, `reset` (the connection, before the events
            are stored), `lost` (reset after they were stored), `slow` (an answer takes 2 s), `hang` (there is none).
        calm: Seconds before the weather may begin. It begins with a request, so that no library sleeps through it.
        record: Whether to tell which events arrived how often.
        delay: Seconds that every answer takes.
    """

    def __init__(
        self, weather: list[Any] | None = None, *, calm: float = 0.0, record: bool = False, delay: float = 0.0
    ) -> None:
        self.weather = weather
        self.calm = calm
        self.record = record
        self.delay = delay
        self.events = self.requests = self.refused = self.bytes = self.connections = self.most = 0
        self.seen: Counter[bytes] = Counter()
        self.broke = self.last = 0.0
        self.began, self.cpu = time.monotonic(), time.process_time()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
        self.selector.register(sys.stdin, selectors.EVENT_READ, self._command)
        self.later: list[tuple[float, int, socket.socket, bytes]] = []
        self.awaited: tuple[int, float] | None = None
        self.running = True

    def serve(self) -> None:
        """Serve until the input ends."""
        print(self.listener.getsockname()[1], flush=True)
        while self.running:
            for key, _ in self.selector.select(self._until()):
                key.data(key.fileobj)
            now = time.monotonic()
            while self.later and self.later[0][0] <= now:
                _, _, connection, answer = heapq.heappop(self.later)
                self._send(connection, answer)
            if self.awaited and (self._arrived() >= self.awaited[0] or now >= self.awaited[1]):
                self.awaited = None
                print(json.dumps(self._report()), flush=True)

    def _until(self) -> float | None:
        moments = [self.later[0][0]] if self.later else []
        moments += [self.awaited[1]] if self.awaited else []
        return max(min(moments) - time.monotonic(), 0.0) if moments else None

    def _arrived(self) -> int:
        return len(self.seen) if self.record else self.events

    def _report(self) -> dict[str, Any]:
        report: dict[str, Any] = {
            name: getattr(self, name) for name in ("events", "requests", "refused", "bytes", "last", "most")
        }
        report["cpu"], report["wall"] = time.process_time() - self.cpu, time.monotonic() - self.began
        report["unique"], report["repeated"] = len(self.seen), sum(count > 1 for count in self.seen.values())
        return report

    def _command(self, stream: Any) -> None:
        words = stream.readline().split()
        if not words:
            self.running = False
        elif words[0] == "wait":
            self.awaited = int(words[1]), time.monotonic() + float(words[2])
        else:  # what came so far was to warm up
            self.events = self.requests = self.bytes = 0
            self.began, self.cpu = time.monotonic(), time.process_time()
            print(flush=True)

    def _accept(self, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        received = bytearray()
        self.selector.register(connection, selectors.EVENT_READ, lambda _: self._read(connection, received))
        self.connections += 1
        self.most = max(self.most, self.connections)

    def _read(self, connection: socket.socket, received: bytearray) -> None:
        try:
            piece = connection.recv(_PIECE)
        except OSError:
            piece = b""
        if not piece:
            self._close(connection)
            return
        received += piece
        while (end := received.find(b"\r\n\r\n")) >= 0:
            head = bytes(received[:end])
            found = _LENGTH.search(head)
            size = end + 4 + (int(found[1]) if found else 0)
            if len(received) < size:
                return
            body = bytes(received[end + 4 : size])
            del received[:size]
            self._take(connection, zlib.decompress(body, 31) if _GZIP.search(head) else body)

    def _take(self, connection: socket.socket, body: bytes) -> None:
        now = time.monotonic()
        self.requests += 1
        self.bytes += len(body)
        what = self._sky(now)
        self.refused += what != 200
        if what in {200, "slow", "lost"}:
            self.events += body.count(_MARK)
            self.last = now
            if self.record:
                self.seen.update(_INDEX.findall(body))
        if what in {"reset", "lost"}:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
            self._close(connection)
        elif what == "slow" or self.delay:
            due = now + (_SLOW if what == "slow" else self.delay)
            heapq.heappush(self.later, (due, self.requests, connection, _ANSWERS[200 if what == "slow" else what]))
        elif what != "hang":
            self._send(connection, _ANSWERS[what])

    def _sky(self, now: float) -> int | str:
        if self.weather is None or now < self.began + self.calm:
            return 200
        self.broke = self.broke or now
        seconds, what = self.weather
        return what if now < self.broke + seconds else 200

    def _send(self, connection: socket.socket, answer: bytes) -> None:
        try:
            connection.sendall(answer)
        except OSError:
            self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        if connection.fileno() >= 0:
            self.selector.unregister(connection)
            connection.close()
            self.connections -= 1


if __name__ == "__main__":
    Sink(**json.loads(sys.argv[1])).serve()
