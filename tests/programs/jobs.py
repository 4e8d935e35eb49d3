"""Jobs within a `session`: `jobs.py CASE URL`."""

from __future__ import annotations

import sys
import threading

from canary import TOKEN
from harness import start, track

from analytics_batcher import Retry, Vitally, session


def job(url, end):
    """Track three messages, and end."""
    retry = Retry(base=0.001, cap=0.002)
    with session(Vitally(api_token=TOKEN, base_url=url), timeout=1.0, flush_interval=60, retry=retry) as client:
        track(client, "job", 3)
        sys.stderr.write("It has tracked\n")
        sys.stderr.flush()
        end()


def fail():
    """Fail, as jobs do."""
    raise KeyError("the job's")


def wait():
    """Be in the middle of it."""
    while True:
        threading.Event().wait(0.05)


start(
    {
        "returns": lambda url: job(url, lambda: None),
        "exits": lambda url: job(url, sys.exit),
        "fails": lambda url: job(url, fail),
        "waits": lambda url: job(url, wait),
    }
)
