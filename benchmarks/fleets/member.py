"""A producer or a relay in a process of its own: `python member.py '{"role": "relay", ...}'`.

It says `ready`, begins at a line on its standard input, and says at the end what it did, and what that cost.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1]))

from measure.workload import EVENT, properties

from analytics_batcher import Client, RedisBuffer, Relay, Vitally

NOWHERE = "http://127.0.0.1:9"
_TOKEN = "test-token"
_USERS = 1_000
_PATIENCE = 120.0


def say(**facts: Any) -> None:
    """Say a line."""
    print(json.dumps(facts), flush=True)


def produce(*, url: str, sink: str, shards: int, messages: int, number: int) -> None:
    """Track so many messages, and flush: to the stream, or without a URL to the sink."""
    buffer = RedisBuffer(url, shards=shards) if url else None
    bounds = {"max_queue_messages": messages + 1, "max_queue_bytes": 2**31}
    client = Client(Vitally(api_token=_TOKEN, base_url=sink or NOWHERE), buffer=buffer, **bounds)  # type: ignore[arg-type]
    client.track("warm", "up")
    client.flush(10)
    calls = [(f"user-{number}-{index % _USERS}", properties(index)) for index in range(messages)]
    say(ready=True)
    sys.stdin.readline()
    cpu = time.process_time()
    for user, about in calls:
        client.track(user, EVENT, about)
    result = client.flush(_PATIENCE)
    say(
        cpu=time.process_time() - cpu,
        ended=time.monotonic(),
        delivered=result.delivered,
        requests=client.stats().requests,
    )


def relay(*, url: str, sink: str, shards: int) -> None:
    """Relay, until told to stop."""
    running = Relay(url, Vitally(api_token=_TOKEN, base_url=sink), shards=shards)
    say(ready=True)
    sys.stdin.readline()
    cpu = time.process_time()
    running.start()
    sys.stdin.readline()
    used = time.process_time() - cpu
    figures = running.figures()
    running.stop()
    say(cpu=used, delivered=figures.delivered, requests=figures.requests)


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    {"producer": produce, "relay": relay}[options.pop("role")](**options)
