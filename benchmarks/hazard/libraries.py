"""The libraries in one form: made for a URL, then `track`, `flush`, `close`. Their own defaults otherwise.

Each is imported by its adapter alone, so that a process loads one, and that the others need not be installed.
"""

from __future__ import annotations

import runpy
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).parents[2]
TOKEN = "hazard-token-0123456789"
PERSON = "hazard-person@example.com"
"""Stands in the properties of every event: personal data."""
EVENT = "Report Opened"


class Library:
    """What a row works with.

    `on_error` is whatever the library calls when it could not deliver. `track` returns whether the library says that it
    took the event; `None` if it says nothing.
    """

    name: str
    distribution: str
    module: str
    extra: ClassVar[dict[str, Any]]
    """A further argument of the library's `track` that is a dict, as an application would pass it."""

    def __init__(self, url: str, on_error: Any = None) -> None:
        raise NotImplementedError

    def track(self, properties: dict[str, Any], event: str = EVENT, extra: dict[str, Any] | None = None) -> bool | None:
        """Track one event."""
        return self._track(properties, event, extra or {})

    def flush(self) -> object:
        """Deliver what waits, with the library's own patience."""
        return self.client.flush()

    def close(self) -> object:
        """End the client, with the library's own patience."""
        return self.client.shutdown()

    def _track(self, properties: dict[str, Any], event: str, extra: dict[str, Any]) -> bool | None:
        raise NotImplementedError

    client: Any


class AnalyticsBatcher(Library):
    """Ours, with Vitally: batches of 100, as Segment's. Plain http is allowed, for the row that needs a host's name."""

    name, distribution, module = "analytics-batcher", "analytics-batcher", "analytics_batcher"
    extra: ClassVar = {"context": {"ip": "1.2.3.4", "page": {"path": "/"}}}

    def __init__(self, url: str, on_error: Any = None) -> None:
        from analytics_batcher import Client, Vitally

        self.client = Client(Vitally(api_token=TOKEN, base_url=url, allow_http=True), on_drop=on_error)

    def _track(self, properties: dict[str, Any], event: str, extra: dict[str, Any]) -> bool | None:
        return self.client.track("user-1", event, properties, **extra)


class Segment(Library):
    """segment-analytics-python."""

    name, distribution, module = "segment", "segment-analytics-python", "segment.analytics"
    extra = AnalyticsBatcher.extra

    def __init__(self, url: str, on_error: Any = None) -> None:
        from segment.analytics.client import Client

        self.client = Client(TOKEN, host=url, on_error=on_error)

    def _track(self, properties: dict[str, Any], event: str, extra: dict[str, Any]) -> bool | None:
        return self.client.track("user-1", event, properties, **extra)[0]


class PostHog(Library):
    """posthog: its capture client, in the background mode that is its default; nothing else of it is used."""

    name, distribution, module = "posthog", "posthog", "posthog"
    extra: ClassVar = {"groups": {"company": "acme"}}

    def __init__(self, url: str, on_error: Any = None) -> None:
        from posthog import Posthog

        self.client = Posthog(TOKEN, host=url, on_error=on_error)

    def _track(self, properties: dict[str, Any], event: str, extra: dict[str, Any]) -> bool | None:
        return self.client.capture(event, distinct_id="user-1", properties=properties, **extra) is not None


class Rudder(Library):
    """rudder-sdk-python."""

    name, distribution, module = "rudder", "rudder-sdk-python", "rudderstack.analytics"
    extra = AnalyticsBatcher.extra

    def __init__(self, url: str, on_error: Any = None) -> None:
        from rudderstack.analytics.client import Client

        self.client = Client(TOKEN, host=url, on_error=on_error)

    def _track(self, properties: dict[str, Any], event: str, extra: dict[str, Any]) -> bool | None:
        return self.client.track("user-1", event, properties, **extra)[0]


class Amplitude(Library):
    """amplitude-analytics. Its `flush` returns futures, which are waited for."""

    name, distribution, module = "amplitude", "amplitude-analytics", "amplitude"
    extra: ClassVar = {"groups": {"company": "acme"}}

    def __init__(self, url: str, on_error: Any = None) -> None:
        from amplitude import Amplitude as Client
        from amplitude import Config

        self.client = Client(TOKEN, Config(server_url=f"{url}/2/httpapi", callback=_if_failed(on_error)))

    def _track(self, properties: dict[str, Any], event: str, extra: dict[str, Any]) -> bool | None:
        from amplitude import BaseEvent

        return self.client.track(BaseEvent(event, user_id="user-1", event_properties=properties, **extra))

    def flush(self) -> object:
        """Wait for the futures."""
        return [future.result() for future in self.client.flush() if future]


class Mixpanel(Library):
    """mixpanel, with its `BufferedConsumer`: batches of 50, sent by the caller, without a thread.

    It retries on https only; here its own adapter is mounted for http too, so that it may retry as in production.
    """

    name, distribution, module = "mixpanel", "mixpanel", "mixpanel"
    extra: ClassVar = {"meta": {"$region": "eu"}}

    def __init__(self, url: str, on_error: Any = None) -> None:  # noqa: ARG002 - it has no callback
        import mixpanel

        self._buffer = mixpanel.BufferedConsumer(events_url=f"{url}/track")
        session = self._buffer._consumer._session  # noqa: SLF001 - see above
        session.mount("http://", session.get_adapter("https://"))
        self.client = mixpanel.Mixpanel(TOKEN, consumer=self._buffer)

    def _track(self, properties: dict[str, Any], event: str, extra: dict[str, Any]) -> bool | None:
        return self.client.track("user-1", event, properties, **extra)

    def flush(self) -> object:
        """Send what the buffer holds."""
        return self._buffer.flush()

    close = flush


def _if_failed(on_error: Any) -> Any:
    """Amplitude's callback is told of successes too: only failures are passed on."""
    return on_error and (lambda event, code, message: on_error(event, message) if code >= 300 else None)


def version(library: str) -> str | None:
    """The installed version; `None` if there is none. Ours is the one of this folder."""
    if library == OURS:
        return runpy.run_path(str(ROOT / "analytics_batcher" / "version.py"))["__version__"]
    try:
        return metadata.version(LIBRARIES[library].distribution)
    except metadata.PackageNotFoundError:
        return None


OURS = AnalyticsBatcher.name
LIBRARIES: dict[str, type[Library]] = {
    library.name: library for library in (AnalyticsBatcher, Segment, PostHog, Rudder, Amplitude, Mixpanel)
}


def properties(index: int, **more: Any) -> dict[str, Any]:
    """The properties of an event, fresh ones for each."""
    return {"index": index, "email": PERSON, "plan": "enterprise", "seats": 42, "trial": False, **more}
