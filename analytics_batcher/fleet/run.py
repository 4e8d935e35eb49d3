"""Runs relays until a signal comes."""

from __future__ import annotations

import _thread
import signal
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from .metrics import serve_metrics
from .relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..destinations import Destination
    from .relay import RelayFigures


_HEAR_SECONDS: Final = 1.0


def stream_of(stream: str, destination: Destination, count: int) -> str:
    """The stream of one of several destinations; a single one has the plain name."""
    return stream if count == 1 else f"{stream}:{destination.name}"


def relay(
    url: str,
    destination: Destination | Sequence[Destination],
    *,
    stream: str = "analytics",
    metrics_port: int | None = None,
    hear: Callable[[list[RelayFigures]], object] | None = None,
    **options: Any,
) -> list[RelayFigures]:
    """Run a relay until SIGTERM or SIGINT comes; then finish what is in flight. A second signal ends it at once.

    Args:
        url: As for `Relay`.
        destination: As for `Relay`. Of several, each has a stream of its own, as producers with all of them write.
        stream: As for `Relay`.
        metrics_port: The port at which Prometheus finds figures, under `/metrics`, of what these relays did and of what
            their streams hold; needs the extra `prometheus`. `None`: nowhere.
        hear: Called once a second with what was done so far, for each destination.
        options: Further options of `Relay`.

    Returns:
        What was done, for each destination.

    Raises:
        ImportError: If an extra is not installed; it names the extra.
        OSError: If the port is taken.
        ValueError: As for `Relay` and `Relay.start`; also outside the main thread, which alone gets signals.
    """
    destinations: Sequence[Any] = destination if isinstance(destination, (list, tuple)) else [destination]
    names = [stream_of(stream, one, len(destinations)) for one in destinations]
    relays = [Relay(url, one, stream=name, **options) for one, name in zip(destinations, names, strict=True)]
    with ExitStack() as stack, _until_signal() as wait:
        if metrics_port is not None:
            stack.callback(serve_metrics(metrics_port, relays))
        for one in relays:
            one.start()
            stack.callback(one.stop)
        while not wait(-1.0 if hear is None else _HEAR_SECONDS):
            if hear is not None:
                hear([one.figures() for one in relays])
    return [one.figures() for one in relays]


@contextmanager
def _until_signal() -> Iterator[Callable[[float], bool]]:
    """What waits for SIGTERM or SIGINT, which meanwhile do nothing else."""
    token = _thread.allocate_lock()  # not an event, whose lock the handler may find held by the wait
    token.acquire()

    def wake(*_: object) -> None:
        with suppress(RuntimeError):
            token.release()

    before = {number: signal.signal(number, wake) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda timeout: token.acquire(timeout=timeout)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
