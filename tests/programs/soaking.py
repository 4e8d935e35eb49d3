"""The application of the soak: it tracks, flushes, forks and measures itself; `tests/soak.py` runs it."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import psutil
from harness import books, make_client

from analytics_batcher import Retry

TRACKERS = 4
TICK = 0.01  # seconds between two bursts of a tracker
OF_A_CHILD = 50  # messages
CHILD_SECONDS = 30.0
GRACE = 1.0  # seconds beyond its deadline that a flush may take on a machine with more threads than cores
LAST_FLUSH = 120.0

# The least that a real event says; the receiver counts by the first two.
PROPERTIES = {"plan": "pro", "seats": 40, "trial": False, "path": "/reports/weekly", "took": 12.5, "tags": ["a", "b"]}


class Application:
    """One client, and all that is done to it.

    `accepted` has a byte for each message, written by the tracker that made it alone. `late` belongs to the thread that
    flushes, `children` and `hung` to the one that forks; the others read them after these have ended.
    """

    def __init__(self, url, folder, seconds, rate, seed, concurrency):  # noqa: PLR0917 - as they stand on the line
        self.client = make_client(url, timeout=2.0, retry=Retry(base=0.05, cap=1.0), concurrency=concurrency)
        self.seconds, self.rate, self.seed, self.folder = seconds, rate, seed, Path(folder)
        self.accepted = bytearray(int(rate * seconds * 1.5) + 1_000)
        self.end = time.monotonic() + seconds
        self.late = 0.0
        self.flushes = self.children = self.hung = 0

    def track(self, process, number):
        """Track one message; whether it was accepted."""
        return self.client.track(f"user-{number % 997}", "soaked", {"process": process, "number": number, **PROPERTIES})

    def tracker(self, place):
        """Track at the rate, in bursts, as requests come in; what a pause of the machine held up is made up for."""
        begun, made, pause = time.monotonic(), 0, threading.Event()
        while (now := time.monotonic()) < self.end:
            while made < (now - begun) * self.rate / TRACKERS:
                number = place + TRACKERS * made
                if number < len(self.accepted):
                    self.accepted[number] = self.track("parent", number)
                made += 1
            pause.wait(TICK)

    def flusher(self):
        """Flush now and then, with a deadline that often is too short, and see that it holds."""
        dice, pause = random.Random(f"flushes {self.seed}"), threading.Event()
        while time.monotonic() < self.end:
            timeout = dice.choice([0.0, 0.1, 0.5, 2.0])
            begun = time.monotonic()
            self.client.flush(timeout)
            self.late = max(self.late, time.monotonic() - begun - timeout)
            self.flushes += 1
            pause.wait(dice.uniform(0.5, 6.0))

    def forker(self):
        """Fork children that track, flush and leave."""
        dice, pause = random.Random(f"forks {self.seed}"), threading.Event()
        while time.monotonic() < self.end:
            self.children += 1
            pid = os.fork()
            if pid == 0:
                try:
                    self.live_as_child()
                finally:
                    os._exit(0)
            end = time.monotonic() + CHILD_SECONDS
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > end:
                    self.hung += 1
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    break
                pause.wait(0.01)
            pause.wait(dice.uniform(0.5, 5.0))

    def live_as_child(self):
        """What a worker does: a few messages, a flush, an end; and the books for the record."""
        name = f"child-{self.children}"
        for number in range(OF_A_CHILD):
            self.track(name, number)
        self.client.flush(3.0)
        self.client.shutdown(2.0)
        line = json.dumps({"process": name, **books(self.client)}) + "\n"
        # One write at the end of the file: children never mix their lines.
        children = os.open(self.folder / "children", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(children, line.encode())
        os.close(children)

    def measure(self):
        """Write down, each second, what could grow."""
        process, pause = psutil.Process(), threading.Event()
        with (self.folder / "samples").open("w") as samples:
            begun = time.monotonic()
            while (now := time.monotonic()) < self.end:
                stats = self.client.stats()
                sample = {
                    "at": now - begun,
                    "resident": process.memory_info().rss,
                    "threads": threading.active_count(),
                    "descriptors": process.num_fds(),
                    "pending": stats.pending,
                    "tracked": stats.tracked,
                    "retries": stats.retries,
                }
                samples.write(json.dumps(sample) + "\n")
                samples.flush()
                pause.wait(1.0)

    def run(self):
        """Do it all, then deliver the rest and say what the books say."""
        threads = [threading.Thread(target=self.tracker, args=(place,)) for place in range(TRACKERS)]
        threads += [threading.Thread(target=self.flusher), threading.Thread(target=self.forker)]
        for thread in threads:
            thread.start()
        self.measure()
        for thread in threads:
            thread.join()
        flushed = bool(self.client.flush(LAST_FLUSH).pending == 0)
        self.client.shutdown()
        (self.folder / "accepted").write_bytes(self.accepted)
        facts = {"flushed": flushed, "late": self.late, "flushes": self.flushes}
        facts |= {"children": self.children, "hung": self.hung, "grace": GRACE, **books(self.client)}
        (self.folder / "facts").write_text(json.dumps(facts))


if __name__ == "__main__":
    url, folder, seconds, rate, seed, concurrency = sys.argv[1:]
    Application(url, folder, float(seconds), float(rate), seed, int(concurrency)).run()
