"""Prometheus: the figures of clients, read when they are asked for."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any, Final

from ..errors import DropReason
from ..stats import Stats, total

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
except ImportError:
    raise ImportError(
        "analytics_batcher.integrations.prometheus needs the package prometheus-client: "
        "pip install 'analytics-batcher[prometheus]'"
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.core import Metric

    from ..client import Client

_PREFIX: Final = "analytics_batcher_"
_COUNTERS: Final[dict[str, tuple[str, Callable[[Stats], int]]]] = {
    "messages_tracked": ("Calls, refused ones too.", lambda stats: stats.tracked),
    "messages_recovered": ("Messages taken over from an earlier or dead process.", lambda stats: stats.recovered),
    "messages_handed_over": ("Messages that another process took over.", lambda stats: stats.handed_over),
    "messages_delivered": ("Messages that the vendor took.", lambda stats: stats.delivered),
    "batches": ("Requests by which at least one message was delivered.", lambda stats: stats.batches),
    "requests": ("Requests made.", lambda stats: stats.requests),
    "retries": ("Requests that repeated messages of an earlier one.", lambda stats: stats.retries),
}
_GAUGES: Final[dict[str, tuple[str, Callable[[Stats], float]]]] = {
    "messages_pending": ("Messages that wait or are in flight.", lambda stats: stats.pending),
    "pending_bytes": ("Their size in memory, which max_queue_bytes bounds.", lambda stats: stats.pending_bytes),
    "oldest_pending_age_seconds": (
        "How long the oldest of them has waited; 0 if there is none.",
        lambda stats: stats.oldest_pending_age or 0.0,
    ),
    "consumer_alive": ("0 if a thread that is needed has died.", lambda stats: stats.consumer_alive),
}


class StatsCollector:
    """What `prometheus_client` asks at each scrape: the figures of `stats()`, by destination.

    ```python
    prometheus_client.REGISTRY.register(StatsCollector(client))
    ```

    Messages are counted by `analytics_batcher_messages_tracked_total`, `..._messages_delivered_total`,
    `..._messages_dropped_total` (by `reason`), `..._messages_pending` and their like, which balance as `Stats` says.
    Where several clients have a destination of the same name, its figures are their sum. Each process, and so each
    worker of a server that forks, has its own figures.

    It keeps no client alive. Of one that was shut down the counts are exact for as long as it is there; of one that
    was collected they stay as the last scrape had them, since counters never fall.

    Args:
        clients: The clients.
    """

    def __init__(self, *clients: Client) -> None:
        # Changed by scrapes only, each entry as a whole; two at once may both do it, to the same effect.
        self._seen: dict[weakref.ref[Client], Stats] = {weakref.ref(client): client.stats() for client in clients}

    def collect(self) -> Iterator[Metric]:
        """The figures of now. A client's are read at once, under no lock of anybody's afterwards."""
        figures = self._read()
        for name, (text, value) in _COUNTERS.items():
            yield _filled(CounterMetricFamily(_PREFIX + name, text, labels=["destination"]), figures, value)
        dropped = CounterMetricFamily(
            f"{_PREFIX}messages_dropped", "Messages given up, by reason.", labels=["destination", "reason"]
        )
        for name, stats in figures.items():
            for reason in DropReason:  # those that did not occur yet, too: a rate needs a beginning
                dropped.add_metric([name, str(reason)], stats.dropped[reason])
        yield dropped
        for name, (text, read) in _GAUGES.items():
            yield _filled(GaugeMetricFamily(_PREFIX + name, text, labels=["destination"]), figures, read)

    def _read(self) -> dict[str, Stats]:
        by_name: dict[str, list[Stats]] = {}
        for reference, last in tuple(self._seen.items()):
            client = reference()
            stats = last if client is None else client.stats()
            self._seen[reference] = stats
            for name, own in stats.destinations.items():
                by_name.setdefault(name, []).append(own if client is not None else _over(own))
        return {name: total({str(number): own for number, own in enumerate(each)}) for name, each in by_name.items()}


def _over(stats: Stats) -> Stats:
    """What stays of a client that is gone: its counts."""
    return Stats(
        tracked=stats.tracked,
        recovered=stats.recovered,
        handed_over=stats.handed_over,
        delivered=stats.delivered,
        dropped=stats.dropped,
        requests=stats.requests,
        retries=stats.retries,
        batches=stats.batches,
    )


def _filled(family: Any, figures: dict[str, Stats], value: Callable[[Stats], float]) -> Any:
    for name, stats in figures.items():
        family.add_metric([name], value(stats))
    return family
