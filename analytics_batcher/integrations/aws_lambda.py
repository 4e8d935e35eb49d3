"""AWS Lambda: what an invocation tracked is delivered before its answer, as the process is frozen after that.

Example::

    from analytics_batcher import Client, Vitally
    from analytics_batcher.integrations.aws_lambda import delivers

    client = Client(Vitally("acme", api_token="..."), background=False)


    @delivers(client)
    def handler(event, context):
        client.track(event["user"], "Invoked", account_id="acc-1")
"""

from __future__ import annotations

import logging
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from .. import Client

_logger: Final = logging.getLogger("analytics_batcher")
Answer = TypeVar("Answer")


def delivers(
    client: Client, *, margin: float = 0.5, timeout: float = 10.0
) -> Callable[[Callable[[Any, Any], Answer]], Callable[[Any, Any], Answer]]:
    """Decorate a handler, so that the client is flushed when it has returned or raised.

    What could not be delivered in time waits for the next invocation, and a line of the log says how much: if Lambda
    ends the process before that, it is lost. `Client(..., background=False)` suits it: one thread less, and nothing is
    on its way while the process is frozen. A client and its connections outlive invocations: make it at module level.

    Args:
        client: The client.
        margin: Seconds of the invocation's remaining time that are left for its answer.
        timeout: The most seconds to flush, however much time remains: they are paid for.

    Returns:
        The decorator.
    """

    def decorate(handler: Callable[[Any, Any], Answer]) -> Callable[[Any, Any], Answer]:
        @wraps(handler)
        def handle(event: Any, context: Any) -> Answer:
            try:
                return handler(event, context)
            finally:
                _flush(client, min(timeout, _remaining(context) - margin))

        return handle

    return decorate


def _remaining(context: Any) -> float:
    """Seconds until Lambda ends the invocation; endless where a test gives no context."""
    ask = getattr(context, "get_remaining_time_in_millis", None)
    return float("inf") if ask is None else ask() / 1000


def _flush(client: Client, seconds: float) -> None:
    result = client.flush(max(seconds, 0.0))
    if result.pending:
        _logger.warning("%d messages wait for the next invocation: they could not be delivered in time", result.pending)
