"""The libraries in one form, with their own defaults but for the queue, which must hold what a round puts into it.

Each is imported by its adapter alone, so that a process loads one, and that the others need not be installed.
"""

from __future__ import annotations

import runpy
import sys
import tempfile
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .workload import EVENT, USERS, properties, user

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[2]
TOKEN = "benchmark-token-0123456789"
_BYTES = 2**30


class Library:
    """What a round works with.

    Args:
        url: The sink's.
        queue: How many events must fit; `None`: the library's own default.
    """

    name: str
    distribution: str
    statement: str
    """What imports it."""

    def __init__(self, url: str, queue: int | None = None) -> None:
        raise NotImplementedError

    def call(self, index: int) -> Callable[[], object]:
        """One call with all that it takes, made beforehand: what is timed is the call alone."""
        return partial(self.client.track, user(index), EVENT, properties(index))

    def track(self, index: int) -> object:
        """Track an event of fresh values, as an application does."""
        return self.call(index)()

    def flush(self) -> object:
        """Deliver what waits, with the library's own patience."""
        return self.client.flush()

    client: Any


class Nothing(Library):
    """No tracking at all."""

    name, distribution, statement = "nothing", "", "pass"

    def __init__(self, url: str, queue: int | None = None) -> None:
        pass

    def call(self, index: int) -> Callable[[], object]:
        """Do nothing, of which the answer is `None`."""
        return partial(_nothing, user(index), EVENT, properties(index))

    def flush(self) -> object:
        """Nothing waits."""


def _nothing(*_: object) -> None:
    pass


class AnalyticsBatcher(Library):
    """Ours, with Vitally: batches of 100, as Segment's."""

    name, distribution = "analytics-batcher", "analytics-batcher"
    statement = "from analytics_batcher import Client, Vitally"

    def __init__(self, url: str, queue: int | None = None) -> None:
        from analytics_batcher import Client, Vitally

        options: Any = {} if queue is None else {"max_queue_messages": queue, "max_queue_bytes": _BYTES}
        self.client = Client(Vitally(api_token=TOKEN, base_url=url), **options)

    def flush(self) -> object:
        """Deliver what waits."""
        return self.client.flush(120)


class WithoutOrjson(AnalyticsBatcher):
    """Ours where orjson is not installed: the standard library's json stands in."""

    name = "ours without orjson"

    def __init__(self, url: str, queue: int | None = None) -> None:
        sys.modules["orjson"] = None  # type: ignore[assignment] # which makes an import of it fail
        super().__init__(url, queue)


class Durable(AnalyticsBatcher):
    """Ours with a file: a message is in it before the call returns."""

    name = "ours in a file"

    def __init__(self, url: str, queue: int | None = None) -> None:
        from analytics_batcher import Client, SqliteBuffer, Vitally

        options: Any = {} if queue is None else {"max_queue_messages": queue, "max_queue_bytes": _BYTES}
        buffer = SqliteBuffer(Path(tempfile.mkdtemp(), "spool.db"), max_bytes=_BYTES)
        self.client = Client(Vitally(api_token=TOKEN, base_url=url), buffer=buffer, **options)


class Segment(Library):
    """segment-analytics-python."""

    name, distribution, statement = "segment", "segment-analytics-python", "import segment.analytics"

    def __init__(self, url: str, queue: int | None = None) -> None:
        from segment.analytics.client import Client

        self.client = Client(TOKEN, host=url, **_sized("max_queue_size", queue))


class PostHog(Library):
    """posthog: its capture client, in the background mode that is its default; nothing else of it is used."""

    name, distribution, statement = "posthog", "posthog", "import posthog"

    def __init__(self, url: str, queue: int | None = None) -> None:
        from posthog import Posthog

        self.client = Posthog(TOKEN, host=url, **_sized("max_queue_size", queue))

    def call(self, index: int) -> Callable[[], object]:
        """Its `capture`."""
        return partial(self.client.capture, EVENT, distinct_id=user(index), properties=properties(index))


class Rudder(Library):
    """rudder-sdk-python, which compresses by default."""

    name, distribution, statement = "rudder", "rudder-sdk-python", "import rudderstack.analytics"

    def __init__(self, url: str, queue: int | None = None) -> None:
        from rudderstack.analytics.client import Client

        self.client = Client(TOKEN, host=url, **_sized("max_queue_size", queue))


class Amplitude(Library):
    """amplitude-analytics. Its call takes an event object, one per event, which is made within it."""

    name, distribution, statement = "amplitude", "amplitude-analytics", "import amplitude"

    def __init__(self, url: str, queue: int | None = None) -> None:  # noqa: ARG002 - it has no bound
        from amplitude import Amplitude as Client
        from amplitude import BaseEvent, Config

        self._event = BaseEvent
        self.client = Client(TOKEN, Config(server_url=f"{url}/2/httpapi"))

    def call(self, index: int) -> Callable[[], object]:
        """Its `track`, and the making of what it takes."""
        return partial(self._track, user(index), properties(index))

    def _track(self, user_id: str, values: dict[str, Any]) -> object:
        return self.client.track(self._event(EVENT, user_id=user_id, event_properties=values))

    def flush(self) -> object:
        """Wait for the futures."""
        return [future.result() for future in self.client.flush() if future]


class LaunchDarkly(Library):
    """launchdarkly-server-sdk: its events only; flags come from a store ("daemon mode"), so that it streams nothing.

    A context is made per user, not per event, and beforehand. Its `flush` does not wait.
    """

    name, distribution, statement = "launchdarkly", "launchdarkly-server-sdk", "import ldclient"

    def __init__(self, url: str, queue: int | None = None) -> None:
        from ldclient import Config, Context, LDClient

        sized = _sized("events_max_pending", queue and queue + USERS)  # one more event for each new user
        config = Config(TOKEN, events_uri=url, use_ldd=True, diagnostic_opt_out=True, **sized)
        self._contexts = [Context.create(user(index)) for index in range(USERS)]
        self.client = LDClient(config)

    def call(self, index: int) -> Callable[[], object]:
        """Its `track`, with a context."""
        return partial(self.client.track, EVENT, self._contexts[index % USERS], properties(index))


class Snowplow(Library):
    """snowplow-tracker, its emitter with a thread: batches of 10."""

    name, distribution, statement = "snowplow", "snowplow-tracker", "import snowplow_tracker"

    def __init__(self, url: str, queue: int | None = None) -> None:  # noqa: ARG002 - it has no bound
        from snowplow_tracker import AsyncEmitter, SelfDescribingJson, Tracker

        self._json = SelfDescribingJson
        host, port = url.removeprefix("http://").split(":")
        emitter = AsyncEmitter(host, protocol="http", port=int(port))
        self.client = Tracker("benchmark", emitter, app_id="benchmark", encode_base64=False)

    def call(self, index: int) -> Callable[[], object]:
        """Its call for an event of one's own form."""
        return partial(self._track, {"name": EVENT, **properties(index)})

    def _track(self, values: dict[str, Any]) -> object:
        return self.client.track_self_describing_event(
            self._json("iglu:com.acme/report_opened/jsonschema/1-0-0", values)
        )


def _sized(name: str, queue: int | None) -> dict[str, Any]:
    return {} if queue is None else {name: queue}


OURS = AnalyticsBatcher.name
NOTHING = Nothing.name
SEGMENT = Segment.name
WITHOUT_ORJSON = WithoutOrjson.name
DURABLE = Durable.name
LIBRARIES: dict[str, type[Library]] = {
    library.name: library
    for library in (
        *(AnalyticsBatcher, Segment, PostHog, Rudder, Amplitude, LaunchDarkly, Snowplow),
        *(Nothing, WithoutOrjson, Durable),
    )
}
COMPARED = (OURS, SEGMENT, PostHog.name, Rudder.name, Amplitude.name, LaunchDarkly.name)
"""Those that every figure is taken of. Snowplow has a way of its own to flush, and is beside them there."""


def version(library: str) -> str | None:
    """The installed version; `None` if there is none. Ours is the one of this folder."""
    if issubclass(LIBRARIES[library], AnalyticsBatcher):
        return runpy.run_path(str(ROOT / "analytics_batcher" / "version.py"))["__version__"]
    if library == NOTHING:
        return ""
    try:
        return metadata.version(LIBRARIES[library].distribution)
    except metadata.PackageNotFoundError:
        return None
