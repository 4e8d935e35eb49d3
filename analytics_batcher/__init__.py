"""A background queue that batches analytics calls and delivers them to Vitally and its kind.

The names are loaded when they are first used: importing this package loads neither `requests` nor anything heavy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from .buffers.redis import RedisBuffer
    from .buffers.sqlite import SqliteBuffer
    from .client import Client
    from .default import (
        account,
        alias,
        configure,
        custom_object,
        enqueue,
        flush,
        identify,
        organization,
        page,
        screen,
        shutdown,
        track,
        unlink,
    )
    from .destinations.customerio import CustomerIO
    from .destinations.segment import Segment
    from .destinations.vitally import Vitally
    from .direct import BatchResult
    from .errors import (
        AnalyticsError,
        ClientClosed,
        DropReason,
        InvalidMessage,
        InvalidResponse,
        MessageError,
        MessageTooLarge,
        QueueFull,
        SpoolError,
        TransportError,
    )
    from .fleet.relay import Relay, RelayFigures
    from .fleet.run import relay
    from .replays import ReplayResult, replay
    from .retry import Retry
    from .sessions import Undelivered, session
    from .signals import install_sigterm_handler
    from .spools import DrainResult, drain
    from .stats import Delivery, Drop, FlushResult, Stats

_HOMES = {
    "AnalyticsError": "errors",
    "BatchResult": "direct",
    "Client": "client",
    "ClientClosed": "errors",
    "CustomerIO": "destinations.customerio",
    "Delivery": "stats",
    "DrainResult": "spools",
    "Drop": "stats",
    "DropReason": "errors",
    "FlushResult": "stats",
    "InvalidMessage": "errors",
    "InvalidResponse": "errors",
    "MessageError": "errors",
    "MessageTooLarge": "errors",
    "QueueFull": "errors",
    "RedisBuffer": "buffers.redis",
    "Relay": "fleet.relay",
    "RelayFigures": "fleet.relay",
    "ReplayResult": "replays",
    "Retry": "retry",
    "Segment": "destinations.segment",
    "SpoolError": "errors",
    "SqliteBuffer": "buffers.sqlite",
    "Stats": "stats",
    "TransportError": "errors",
    "Undelivered": "sessions",
    "Vitally": "destinations.vitally",
    "account": "default",
    "alias": "default",
    "configure": "default",
    "custom_object": "default",
    "drain": "spools",
    "enqueue": "default",
    "flush": "default",
    "identify": "default",
    "install_sigterm_handler": "signals",
    "organization": "default",
    "page": "default",
    "relay": "fleet.run",
    "replay": "replays",
    "screen": "default",
    "session": "sessions",
    "shutdown": "default",
    "track": "default",
    "unlink": "default",
}

__all__ = [
    "AnalyticsError",
    "BatchResult",
    "Client",
    "ClientClosed",
    "CustomerIO",
    "Delivery",
    "DrainResult",
    "Drop",
    "DropReason",
    "FlushResult",
    "InvalidMessage",
    "InvalidResponse",
    "MessageError",
    "MessageTooLarge",
    "QueueFull",
    "RedisBuffer",
    "Relay",
    "RelayFigures",
    "ReplayResult",
    "Retry",
    "Segment",
    "SpoolError",
    "SqliteBuffer",
    "Stats",
    "TransportError",
    "Undelivered",
    "Vitally",
    "__version__",
    "account",
    "alias",
    "configure",
    "custom_object",
    "drain",
    "enqueue",
    "flush",
    "identify",
    "install_sigterm_handler",
    "organization",
    "page",
    "relay",
    "replay",
    "screen",
    "session",
    "shutdown",
    "track",
    "unlink",
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
