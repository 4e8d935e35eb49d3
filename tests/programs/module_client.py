"""A program that makes its client as it is loaded, as many do, and so in each of its children."""

from __future__ import annotations

import importlib
import multiprocessing
import os

from harness import make_client, say, start, track

OWN = 5
CLIENT = make_client(os.environ["RECEIVER"], flush_interval=60)


def work(name):
    """What a child does."""
    track(CLIENT, name, OWN)


def processes(method):
    """Track here and in three `multiprocessing` children, which end without a flush."""
    track(CLIENT, "parent", 3)
    # Celery's own; and here, nobody has loaded all of `multiprocessing` before.
    context = importlib.import_module("billiard") if method == "billiard" else multiprocessing.get_context(method)
    children = [context.Process(target=work, args=(f"child-{name}",)) for name in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    say(statuses=[child.exitcode for child in children])


if __name__ == "__main__":
    start({"processes": processes})
