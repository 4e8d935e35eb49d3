"""Programs that relay a stream: each case is one, run by `tests/test_fleet.py`."""

from __future__ import annotations

import json
import logging

from harness import TOKEN, say, start

from analytics_batcher import Retry, Vitally, relay

SOON = Retry(base=0.02, cap=0.1)


def serves(url, vendor, options):
    """Relay until a signal comes, and say what was done."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    (figures,) = relay(url, Vitally(api_token=TOKEN, base_url=vendor), retry=SOON, **json.loads(options))
    settled = figures.delivered + sum(figures.dropped.values()) + figures.pending + figures.handed_over
    say(taken=figures.taken, delivered=figures.delivered, balanced=figures.taken == settled, name=figures.name)


if __name__ == "__main__":
    start({"serves": serves})
