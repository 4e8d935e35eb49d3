"""What a message's wire form costs the consumer, for each destination, beside the pass-through of Vitally.

Rounds alternate between the destinations; medians. `python benchmarks/mapping.py [ROUNDS]`.
"""

from __future__ import annotations

import statistics
import sys
import time

from analytics_batcher import CustomerIO, Segment, Vitally
from analytics_batcher.message import encode
from analytics_batcher.stamp import new_head

MESSAGES = 5_000
PROPERTIES = {
    "plan": "enterprise",
    "seats": 42,
    "source": "web",
    "path": "/reports/weekly",
    "duration_ms": 12.5,
    "trial": False,
    "since": "2026-01-02T03:04:05+00:00",
    "tags": ["alpha", "beta"],
}
KINDS = {
    "track": {"type": "track", "userId": "user-1", "event": "Report Opened", "properties": PROPERTIES},
    "identify": {"type": "user", "userId": "user-1", "accountId": "account-1", "traits": PROPERTIES},
}
DESTINATIONS = (Vitally("acme", api_token="token"), CustomerIO("site", "key"), Segment("key"))


def main() -> None:
    """Alternate, then print medians and their ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    print(f"Microseconds per message for its wire form, medians of {rounds} alternating rounds of {MESSAGES}.")
    for kind, message in KINDS.items():
        records = [new_head() + encode(message) for _ in range(MESSAGES)]
        times: dict[str, list[float]] = {destination.name: [] for destination in DESTINATIONS}
        for _ in range(rounds):
            for destination in DESTINATIONS:
                started = time.perf_counter()
                for record in records:
                    destination.wire(record)
                times[destination.name].append((time.perf_counter() - started) / MESSAGES * 1e6)
        floor = statistics.median(times["vitally"])
        for name, values in times.items():
            middle = statistics.median(values)
            print(f"{kind:10}{name:14}{middle:8.2f}{middle / floor:8.1f} times the pass-through")


if __name__ == "__main__":
    main()
