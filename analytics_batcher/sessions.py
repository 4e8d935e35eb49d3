"""A client for the time of a job.

Example::

    from analytics_batcher import Vitally, session

    with session(Vitally("acme", api_token="..."), when_full="block") as client:
        for number in range(1000):
            client.track("user-1", "Row Imported", {"number": number}, account_id="acc-1")
    # Here all has been delivered; else it has raised `Undelivered`, and the job's exit status is 1.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .client import Client
from .errors import AnalyticsError
from .log import logger
from .settings import number
from .signals import install_sigterm_handler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .destinations import Destination
    from .stats import FlushResult


class Undelivered(AnalyticsError):  # noqa: N818 - it says what is the matter, as its kin do
    """A `session()` ended, and not everything that had been accepted in it was delivered.

    Attributes:
        result: What was delivered, dropped, and is left.
    """

    def __init__(self, result: FlushResult) -> None:
        left = f"{result.lost} messages were lost ({result.dropped!r}), and {result.pending} left"
        super().__init__(f"{left}; {result.delivered} were delivered")
        self.result = result

    def __reduce__(self) -> tuple[type[Undelivered], tuple[FlushResult]]:
        return type(self), (self.result,)


@contextmanager
def session(
    destination: Destination | Sequence[Destination] | None = None, *, timeout: float = 30.0, **options: Any
) -> Iterator[Client]:
    """Have a client for the time of a job, whose exit status then tells whether all was delivered.

    In the main thread it calls `install_sigterm_handler`, which stays. Sessions know nothing of each other.

    Args:
        destination: As for `Client`; `None`: as `Client.from_env` reads the environment.
        timeout: Seconds that the end may take to deliver what waits. After a SIGTERM it is `shutdown_timeout`.
        options: Those of `Client`. A job that calls faster than the vendor answers wants `when_full="block"`: what a
            call refuses, by returning `False`, has never been accepted.

    Yields:
        The client.

    Raises:
        Undelivered: At the end, if something that was accepted since the last flush was lost or is left, and the job
            itself raised nothing, or an exit with status 0. If it raised something else, that goes on, and the loss is
            logged.
        ValueError: If a setting is wrong.
    """
    number("timeout", timeout, at_least=0)
    client = Client.from_env(**options) if destination is None else Client(destination, **options)
    if threading.current_thread() is threading.main_thread():
        install_sigterm_handler()
    try:
        yield client
    except BaseException as error:
        _end(client, timeout, error)
        raise
    _end(client, timeout, None)


def _end(client: Client, timeout: float, error: BaseException | None) -> None:
    result: FlushResult = client.shutdown(timeout)
    if result:
        return
    undelivered = Undelivered(result)
    if error is None or (isinstance(error, SystemExit) and error.code in {None, 0}):
        raise undelivered from None  # an exit is no cause of it
    logger.error("A session that ends by %s: %s", type(error).__name__, undelivered)
