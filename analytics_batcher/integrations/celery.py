"""Celery: what tasks track is delivered when their worker ends.

Example::

    from celery import Celery
    from analytics_batcher import Client, Vitally
    from analytics_batcher.integrations.celery import install

    app = Celery("shop", broker="memory://")
    client = Client(Vitally("acme", api_token="..."))
    install(client)


    @app.task
    def pay(user):
        client.track(user, "Paid", account_id="acc-1")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import signals

if TYPE_CHECKING:
    from .. import Client


def install(client: Client, *, timeout: float = 5.0) -> None:
    """Flush a client when the worker ends, by `worker_shutdown`. To be called once, where the Celery application is.

    That is for the process that runs the tasks itself, with `--pool` `solo`, `threads` or `gevent`, and for a worker
    within a process that goes on. The children of `--pool prefork` leave by `os._exit`, past every exit hook; a client
    sees to these without being told to, in `worker_process_shutdown`, within its `shutdown_timeout`, and wherever it
    was made: one that was made before the fork begins empty in each child, so `worker_process_init` has nothing to do.

    Args:
        client: The client.
        timeout: Seconds that the worker's end may take to deliver.
    """

    def deliver(**_: Any) -> None:
        client.flush(timeout)

    signals.worker_shutdown.connect(deliver, weak=False)  # nobody else keeps it
