"""What the live page of `inspect` bears: `python benchmarks/live.py [--seconds N] [--rate N] [--kept N]`.

`inspect` runs in a process of its own, a client here sends at a steady rate, and a headless Chromium has the page open.
Measured is how late a message is in the list: from its arrival at `inspect` to the end of the frame in which it was
drawn, by the same clock. Beside it: memory of the page's scripts after a collection, and of the process of `inspect`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from analytics_batcher import Client, Vitally

MIB = 2**20
TOKEN = "a-token"
# What is behind a frame's drawing callbacks runs when the frame is done.
WATCH = """() => {
  window.late = []; window.frames_ = 0; let seen = 0;
  const look = () => {
    window.frames_++;
    const last = rows[rows.length - 1];
    if (last && last[0] !== seen && !drawing) {
      seen = last[0];
      const channel = new MessageChannel();
      channel.port1.onmessage = () => window.late.push(Date.now() - last[1]);
      channel.port2.postMessage(0);
    }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""


def send(url: str, *, count: int, rate: float) -> int:
    """Track at a steady rate; how many were delivered."""
    client = Client(Vitally(api_token=TOKEN, base_url=url), max_queue_messages=200_000, flush_interval=0.1)
    pause, begun = threading.Event(), time.monotonic()
    for number in range(count):
        properties = {
            "plan": "team",
            "seats": number % 90,
            "path": f"/reports/{number}",
            "referrer": "https://a.example",
        }
        client.track(f"user-{number % 500}", "Report opened", properties, account_id=f"account-{number % 40}")
        if rate and number % 50 == 0:
            pause.wait(max(0.0, begun + number / rate - time.monotonic()))
    result = client.shutdown(60)
    return result.delivered


def heap(page: Any) -> float:
    """MiB of the page's scripts, after a collection."""
    devtools = page.context.new_cdp_session(page)
    devtools.send("HeapProfiler.collectGarbage")
    used: float = devtools.send("Runtime.getHeapUsage")["usedSize"] / MIB
    return used


def measure(url: str, process: psutil.Process, given: argparse.Namespace) -> None:
    """Measure, and print."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(url)
        send(url, count=given.kept, rate=0)
        while page.evaluate("rows.length") < given.kept:
            page.wait_for_timeout(100)
        print(f"{given.kept:,} kept: page {heap(page):.0f} MiB, inspect {process.memory_info().rss / MIB:.0f} MiB")
        page.evaluate(WATCH)
        delivered: list[int] = []
        count = int(given.seconds * given.rate)
        sender = threading.Thread(
            target=lambda: delivered.append(send(url, count=count, rate=given.rate)), name="sender"
        )
        processor = sum(process.cpu_times()[:2])
        begun = time.monotonic()
        sender.start()
        while sender.is_alive():
            page.wait_for_timeout(100)
        seconds = time.monotonic() - begun
        page.wait_for_timeout(1_000)
        late = sorted(page.evaluate("late"))
        frames = page.evaluate("frames_") / (seconds + 1)
        processor = sum(process.cpu_times()[:2]) - processor
        last = page.evaluate("rows[rows.length - 1][0]")
        print(f"{delivered[0]:,} messages in {seconds:.1f} s, the page's newest row is number {last:,}")
        print(
            f"late: median {statistics.median(late):.0f} ms, 99th percentile {late[int(0.99 * len(late))]} ms, "
            f"at most {late[-1]} ms ({len(late)} frames with news, {frames:.0f} frames/s)"
        )
        kept = page.evaluate("rows.length")
        print(f"{kept:,} kept: page {heap(page):.0f} MiB, inspect {process.memory_info().rss / MIB:.0f} MiB")
        print(f"inspect used {100 * processor / seconds:.0f} % of a processor")
        browser.close()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=1_000.0, help="messages a second")
    parser.add_argument("--kept", type=int, default=100_000, help="messages that are there before")
    given = parser.parse_args()
    command = [sys.executable, "-m", "analytics_batcher", "inspect", "--token", TOKEN]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    environment.pop("ANALYTICS_BATCHER_INSPECT_TOKEN", None)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            url = process.stderr.readline().strip().partition("=")[2]
            measure(url, psutil.Process(process.pid), given)
        finally:
            process.send_signal(signal.SIGINT)


if __name__ == "__main__":
    main()
