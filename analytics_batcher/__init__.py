"""A background queue that batches analytics calls and delivers them to Vitally and its kind.

The names are loaded when they are first used: importing this package loads neither `requests` nor anything heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .client import Client
    from .destinations.vitally import Vitally
    from .errors import (
        AnalyticsError,
        ClientClosed,
        DropReason,
        InvalidMessage,
        MessageError,
        MessageTooLarge,
        QueueFull,
        TransportError,
    )
    from .retry import Retry
    from .stats import Delivery, Drop, FlushResult, Stats

_HOMES = {
    "AnalyticsError": "errors",
    "Client": "client",
    "ClientClosed": "errors",
    "Delivery": "stats",
    "Drop": "stats",
    "DropReason": "errors",
    "FlushResult": "stats",
    "InvalidMessage": "errors",
    "MessageError": "errors",
    "MessageTooLarge": "errors",
    "QueueFull": "errors",
    "Retry": "retry",
    "Stats": "stats",
    "TransportError": "errors",
    "Vitally": "destinations.vitally",
}

__all__ = [
    "AnalyticsError",
    "Client",
    "ClientClosed",
    "Delivery",
    "Drop",
    "DropReason",
    "FlushResult",
    "InvalidMessage",
    "MessageError",
    "MessageTooLarge",
    "QueueFull",
    "Retry",
    "Stats",
    "TransportError",
    "Vitally",
    "__version__",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - not needed to import the package

    value: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
