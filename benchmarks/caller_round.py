"""One round of `caller.py`: tracks with one library in this process, and prints figures as JSON."""

from __future__ import annotations

import json
import multiprocessing
import resource
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

PROPERTIES = {
    "plan": "enterprise",
    "seats": 42,
    "source": "web",
    "path": "/reports/weekly",
    "duration_ms": 12.5,
    "trial": False,
    "referrer": "newsletter-2026-11",
    "tags": ["alpha", "beta"],
}


class _Counting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: neither is to wait for the other's receipt
    count = 0

    def do_POST(self) -> None:
        data = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).count += len(data["batch"] if isinstance(data, dict) else data)
        self._answer(b'{"message":"Success."}')

    def do_GET(self) -> None:
        self._answer(str(self.count).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def _serve(pipe: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Counting)
    pipe.send(server.server_port)
    server.serve_forever()


def _ours(url: str, events: int) -> tuple[Callable[[int], object], Callable[[], object]]:
    from analytics_batcher import Client, Vitally  # noqa: PLC0415 - a round loads one library

    client = Client(Vitally(api_token="token", base_url=url), max_queue_messages=events + 1)

    def track(number: int) -> object:
        return client.track("user-1", "Report Opened", PROPERTIES, account_id=f"account-{number % 50}")

    return track, lambda: client.flush(60)


def _segment(url: str, events: int) -> tuple[Callable[[int], object], Callable[[], object]]:
    from segment.analytics.client import Client as SegmentClient  # noqa: PLC0415 - as above

    client = SegmentClient("token", host=url, max_queue_size=events + 1)

    def track(number: int) -> object:
        return client.track("user-1", "Report Opened", {**PROPERTIES, "account": f"account-{number % 50}"})

    return track, client.flush


def main() -> None:
    """Track, wait for the delivery, print."""
    library, events = sys.argv[1], int(sys.argv[2])
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{ours.recv()}"
    track, flush = (_ours if library == "analytics_batcher" else _segment)(url, events)
    track(0)
    flush()
    clock = time.perf_counter_ns
    samples = []
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for number in range(events):
        begun = clock()
        track(number)
        samples.append(clock() - begun)
    flush()
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    samples.sort()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    figures = {
        "p50": samples[events // 2] / 1e3,
        "p99": samples[events * 99 // 100] / 1e3,
        "cpu": cpu / events * 1e6,
        "seconds": seconds,
        "delivered": _delivered(url) - 1,
    }
    print(json.dumps(figures))
    server.terminate()


def _delivered(url: str) -> int:
    with urlopen(url) as answer:  # noqa: S310 - our own server on loopback
        return int(answer.read())


if __name__ == "__main__":
    main()
