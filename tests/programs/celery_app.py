"""The application of the workers of `tests/test_celery.py`: its tasks track.

What the environment says: `RECEIVER`, where messages go; `MADE`, where the client is made; `GLUE`, what the application
calls when a child ends, or `install`, ours; `TASKS`, how many of them.
"""

from __future__ import annotations

import os
import threading

from celery import Celery
from celery.signals import worker_process_init, worker_process_shutdown, worker_ready, worker_shutdown
from harness import KEPT, make_client, track

from analytics_batcher.integrations.celery import install

MADE, GLUE = os.environ["MADE"], os.environ["GLUE"]

app = Celery("celery_app", broker="memory://", broker_transport_options={"polling_interval": 0.01})


def make(**_):
    """Make the client, whose messages wait for a flush or the end."""
    make_client(os.environ["RECEIVER"], flush_interval=60)


if MADE == "in the parent":
    make()
elif MADE == "at the child's start":
    worker_process_init.connect(make)


@app.task
def tracks(number):
    """Track one message of this process's."""
    if not KEPT:
        make()
    accepted = track(KEPT[0], f"{os.getpid()}-{number}", 1)
    os.write(2, b"A task has tracked\n" if accepted == 1 else b"A task was refused\n")


@worker_ready.connect
def begin(**_):
    """Queue the tasks, once the worker takes them."""
    if KEPT:
        track(KEPT[0], f"{os.getpid()}-parent", 1)
    for number in range(int(os.environ["TASKS"])):
        tracks.delay(number)
    threading.Thread(target=keep_turning, daemon=True).start()


@app.task
def does_nothing():
    """Do nothing."""


def keep_turning():
    """Let the worker's loop turn: with this broker it sees a SIGTERM when a task comes, or else up to 4 s later."""
    while True:
        does_nothing.delay()
        threading.Event().wait(0.1)


if GLUE == "install":
    install(KEPT[0], timeout=10)

    @worker_shutdown.connect
    def report(**_):
        """Say what the worker's own process still has, after ours was called."""
        os.write(2, f"The worker has {KEPT[0].stats().pending} left\n".encode())

elif GLUE:

    @worker_process_shutdown.connect
    def leave(**_):
        """The glue that other libraries need."""
        for call in GLUE.split():
            getattr(KEPT[0], call)()
