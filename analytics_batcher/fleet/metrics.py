"""Figures for Prometheus: what this process's relays did, and what their streams hold, read when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .relay import Relay
    from .status import ShardStatus

_HINT: Final = "metrics_port needs the package prometheus-client: pip install 'analytics-batcher[prometheus]'"
_OF_RELAY: Final = (
    ("messages_delivered", "delivered", "Messages that the vendor took from this relay."),
    ("requests", "requests", "Requests to the vendor."),
    ("retries", "retries", "Requests that repeated messages of an earlier one."),
    ("messages_handed_over", "handed_over", "Messages that this relay had read and that became another one's."),
)
_OF_SHARD: Final = (
    ("entries", "length", "Entries in the shard."),
    ("entries_pending", "pending", "Of these, the ones that a relay has read."),
    ("bytes", "bytes", "What the entries count for against the producers' bound."),
    ("oldest_age_seconds", "oldest_age", "Since the oldest message was made; 0 if there is none."),
)


class RelayCollector:
    """What `prometheus_client` asks at each scrape.

    Args:
        relays: The relays of this process.
    """

    def __init__(self, relays: Sequence[Relay]) -> None:
        self._relays = relays

    def collect(self) -> Iterator[Any]:
        """The figures of each relay, and of each shard of its stream, where the server answers."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - an extra

        names = ["stream", "destination"]
        counters = {
            field: CounterMetricFamily(f"analytics_batcher_relay_{name}", text, labels=names)
            for name, field, text in _OF_RELAY
        }
        dropped = CounterMetricFamily(
            "analytics_batcher_relay_messages_dropped", "Messages that this relay gave up.", labels=[*names, "reason"]
        )
        held = GaugeMetricFamily("analytics_batcher_relay_shards", "Shards that this relay serves.", labels=names)
        shards = {
            field: GaugeMetricFamily(f"analytics_batcher_shard_{name}", text, labels=[*names, "shard"])
            for name, field, text in _OF_SHARD
        }
        trimmed = CounterMetricFamily(
            "analytics_batcher_shard_entries_trimmed",
            "Entries that somebody else has removed since the stream began.",
            labels=[*names, "shard"],
        )
        served = GaugeMetricFamily(
            "analytics_batcher_shard_served", "Whether any relay serves the shard.", labels=[*names, "shard"]
        )
        for relay in self._relays:
            labels = [relay.stream, relay.destination]
            figures = relay.figures()
            for field, family in counters.items():
                family.add_metric(labels, getattr(figures, field))
            for reason, count in figures.dropped.items():
                dropped.add_metric([*labels, reason], count)
            held.add_metric(labels, len(figures.shards))
            for one in _shards_of(relay):
                for field, gauge in shards.items():
                    gauge.add_metric([*labels, str(one.shard)], getattr(one, field) or 0)
                trimmed.add_metric([*labels, str(one.shard)], one.trimmed)
                served.add_metric([*labels, str(one.shard)], one.owner is not None)
        yield from (*counters.values(), dropped, held, *shards.values(), trimmed, served)


def _shards_of(relay: Relay) -> Sequence[ShardStatus]:
    try:
        return relay.status().shards
    except OSError:  # the relay's own figures are worth having all the same
        return ()


def serve_metrics(port: int, relays: Sequence[Relay]) -> Callable[[], object]:
    """Let Prometheus have the figures, at `/metrics` of this machine's port.

    Args:
        port: The port.
        relays: The relays of this process.

    Returns:
        What ends it.

    Raises:
        ImportError: If the extra is not installed; it names the extra.
        OSError: If the port is taken.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415 - an extra
    except ImportError:
        raise ImportError(_HINT) from None
    registry = CollectorRegistry(auto_describe=False)
    registry.register(RelayCollector(relays))
    server, thread = start_http_server(port, registry=registry)

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
