"""One round of one fleet."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from measure.far_end import FarEnd
from redis_server import RedisServer

from analytics_batcher.fleet.server import Keys
from analytics_batcher.fleet.status import stream_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

_MEMBER = Path(__file__).with_name("member.py")
_PATIENCE = 120.0
_FIRST, _LAST = 0.1, 0.9
"""Between the arrivals of these parts the rate is taken: at the end some shards run dry before others."""
_STREAM = "analytics"


class Point(NamedTuple):
    """A fleet: so many of each; the seconds that each answer of the vendor takes."""

    producers: int
    relays: int
    shards: int
    delay: float = 0.0


FLEETS = (
    Point(1, 1, 1),
    Point(1, 1, 4),
    Point(2, 2, 2),
    Point(2, 2, 4),
    Point(4, 1, 4),
    Point(4, 4, 4),
    Point(8, 2, 8),
    Point(8, 4, 8),
)
SLOW_FLEETS = (Point(1, 1, 1, 0.05), Point(1, 1, 4, 0.05), Point(1, 2, 8, 0.05))


class Member:
    """A producer or a relay."""

    def __init__(self, **options: Any) -> None:
        command = [sys.executable, str(_MEMBER), json.dumps(options)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._input = cast("IO[str]", self._process.stdin)
        self._output = cast("IO[str]", self._process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def hear(self) -> dict[str, Any]:
        """What it says next."""
        line = self._output.readline()
        if not line:
            raise RuntimeError(f"a member ended: {self._process.wait(10)}")
        said: dict[str, Any] = json.loads(line)
        return said

    def tell(self) -> None:
        """Let it go on."""
        self._input.write("\n")
        self._input.flush()


def run_direct(messages: int) -> dict[str, float]:
    """What a producer costs that posts to the vendor itself."""
    with FarEnd() as far, Member(role="producer", url="", sink=far.url, shards=1, messages=messages, number=0) as one:
        one.hear()
        began = time.monotonic()
        one.tell()
        said = one.hear()
        return {"cpu": said["cpu"] / messages * 1e6, "rate": messages / (said["ended"] - began)}


def run_fleet(point: Point, messages: int) -> dict[str, float]:
    """Ship, then deliver."""
    if point.delay:
        messages = min(messages, int(100 / point.delay) * point.shards * 8)
    with (
        tempfile.TemporaryDirectory() as folder,
        RedisServer(folder) as server,
        FarEnd(delay=point.delay) as far,
        server.client() as redis,
    ):
        before = redis.info()
        shipped = _ship(server.url, point, messages)
        filled = redis.info()
        pause = Keys(_STREAM).pause
        redis.set(pause, "until the shards are shared out", px=int(_PATIENCE * 1000))
        delivered = _deliver(server.url, far, point, messages, begin=lambda: redis.delete(pause))
        after = redis.info()
    return {
        **shipped,
        **delivered,
        "ship_server": (_cpu(filled) - _cpu(before)) / messages * 1e6,
        "deliver_server": (_cpu(after) - _cpu(filled)) / messages * 1e6,
        "bytes": (filled["used_memory"] - before["used_memory"]) / messages,
    }


def _cpu(told: dict[str, Any]) -> float:
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


def _ship(url: str, point: Point, messages: int) -> dict[str, float]:
    each = messages // point.producers
    options = {"role": "producer", "url": url, "sink": "", "shards": point.shards, "messages": each}
    with ExitStack() as stack:
        members = [stack.enter_context(Member(**options, number=number)) for number in range(point.producers)]
        for one in members:
            one.hear()
        began = time.monotonic()
        for one in members:
            one.tell()
        said = [one.hear() for one in members]
    if sum(one["delivered"] for one in said) != each * point.producers:
        raise RuntimeError(f"not all was shipped: {said}")
    return {
        "ship_rate": each * point.producers / (max(one["ended"] for one in said) - began),
        "ship_cpu": sum(one["cpu"] for one in said) / messages * 1e6,
    }


def _is_shared_out(url: str, point: Point) -> bool:
    owners = Counter(one.owner for one in stream_status(url, _STREAM).shards)
    few, more = divmod(point.shards, point.relays)
    return sorted(owners.values()) == sorted([few] * (point.relays - more) + [few + 1] * more) and None not in owners


def _deliver(url: str, far: FarEnd, point: Point, messages: int, *, begin: Callable[[], object]) -> dict[str, float]:
    options = {"role": "relay", "url": url, "sink": far.url, "shards": point.shards}
    with ExitStack() as stack:
        members = [stack.enter_context(Member(**options)) for _ in range(point.relays)]
        for one in members:
            one.hear()
        for one in members:
            one.tell()
        until = time.monotonic() + _PATIENCE
        while not _is_shared_out(url, point):
            if time.monotonic() > until:
                raise RuntimeError(f"shards were not shared out: {stream_status(url, _STREAM)}")
            time.sleep(0.05)
        begin()
        first = far.wait(int(messages * _FIRST), _PATIENCE)
        most = far.wait(int(messages * _LAST), _PATIENCE)
        report = far.wait(messages, _PATIENCE)
        for one in members:
            one.tell()
        said = [one.hear() for one in members]
    if report["events"] < messages:
        raise RuntimeError(f"not all arrived: {report}")
    return {
        "rate": (most["events"] - first["events"]) / (most["last"] - first["last"]),
        "relay_cpu": sum(one["cpu"] for one in said) / messages * 1e6,
        "sink_cpu": report["cpu"] / messages * 1e6,
    }
