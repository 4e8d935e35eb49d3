"""Celery: what tasks track is delivered before their process is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import signals

if TYPE_CHECKING:
    from .. import Client


def install(client: Client, *, timeout: float = 5.0) -> None:
    """See to a client in Celery's processes. To be called where the application is made, once.

    A prefork child leaves by `os._exit`, past every exit hook; before that, Celery sends `worker_process_shutdown`, in
    which the client is shut down. The worker itself (which runs the tasks with `--pool` `solo`, `threads` or `gevent`)
    sends `worker_shutdown`, in which the client is flushed, as the process may go on.

    It may be made before the worker forks: a child's client begins empty, so nothing is to be done at
    `worker_process_init`.

    Args:
        client: The client.
        timeout: Seconds that the end of a process may take to deliver.
    """

    def end_child(**_: Any) -> None:
        client.shutdown(timeout)

    def end_worker(**_: Any) -> None:
        client.flush(timeout)

    signals.worker_process_shutdown.connect(end_child, weak=False)  # nobody else keeps them
    signals.worker_shutdown.connect(end_worker, weak=False)
