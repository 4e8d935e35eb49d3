"""How far the package is from the limit, step by step: `python benchmarks/floor.py [--help]`.

Of each step on the caller's path and in the consumer: what it costs, and what the least costs that could stand in its
place. Then a request, by ever more of a library. All in one thread, medians of alternating repeats, less an empty loop.
"""

from __future__ import annotations

import argparse
import http.client
import socket
import statistics
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from random import Random
from struct import Struct
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from measure.far_end import FarEnd, request
from measure.libraries import TOKEN
from measure.workload import EVENT, properties

from analytics_batcher import Client, CustomerIO, Segment, Vitally
from analytics_batcher.answer import Answer
from analytics_batcher.batch import fits
from analytics_batcher.buffers import Lease
from analytics_batcher.buffers.memory import MemoryBuffer
from analytics_batcher.delivery import BatchSender
from analytics_batcher.encoding import OPTIONS, dumps
from analytics_batcher.message import encode, written
from analytics_batcher.plain import plain_copy
from analytics_batcher.retry import Retry
from analytics_batcher.stamp import new_head
from analytics_batcher.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH = 100
MANY = 10**9


@dataclass
class Step:
    """One step: what to repeat, and how many messages one repeat is for."""

    title: str
    run: Callable[[], object]
    messages: int = 1


def measure(
    steps: list[Step], seconds: float, repeats: int, clock: Callable[[], int] = time.perf_counter_ns
) -> dict[str, float]:
    """Nanoseconds of each step per message: alternating repeats, medians."""
    empty = Step("", lambda: None)
    times: dict[str, list[float]] = {step.title: [] for step in (empty, *steps)}
    for _ in range(repeats):
        for step in (empty, *steps):
            times[step.title].append(_once(step.run, seconds, clock))
    nothing = statistics.median(times.pop(""))
    titles = {step.title: step.messages for step in steps}
    return {title: (statistics.median(each) - nothing) / titles[title] for title, each in times.items()}


def _once(run: Callable[[], object], seconds: float, clock: Callable[[], int]) -> float:
    """Nanoseconds of one call, over as many calls as the time allows, but at least three."""
    began, count, chunk = clock(), 0, 1
    limit = seconds * 1e9
    while (took := clock() - began) < limit or count < 3:
        for _ in range(chunk):
            run()
        count += chunk
        chunk = min(chunk * 2, 1000)
    return took / count


def message(values: dict[str, Any]) -> dict[str, Any]:
    """The message of a `track`."""
    return fields() | {"properties": values}


def fields() -> dict[str, Any]:
    """The same without its content, as the call makes it."""
    return {"type": "track", "event": EVENT, "userId": "user-00001"}


def caller_steps() -> tuple[list[Step], list[Step], list[Step]]:
    """The steps of a call, the least that could stand in their place, and the whole call."""
    values = properties(1)
    made = message(values)
    plain = {**made, "properties": plain_copy(values)}
    body, destination = encode(made), Vitally("acme", api_token=TOKEN)
    head, buffer = new_head(), MemoryBuffer(MANY, MANY * 1000)
    lock, line = threading.RLock(), deque[bytes](maxlen=1000)
    bits, pack, wall = Random(1).getrandbits, Struct(">dQ").pack, time.time  # as the stamp's
    entry = (head + body,)

    def append() -> None:
        nonlocal line
        with lock:
            line += entry

    def refill() -> None:
        if buffer.put(head + body) is not None or buffer._messages > 100_000:  # noqa: SLF001 - no step of its own
            buffer.reset()

    steps = [
        Step("build the message", fields),
        Step("check its fields, copy what is plain", lambda: written(fields(), "properties", values)),
        Step("encode", lambda: dumps(plain, None, OPTIONS)),
        Step("stamp: two clocks, 60 random bits, packed", new_head),
        Step("the vendor's own check", lambda: destination.check(made)),
        Step("join stamp and JSON; put, with both bounds", refill),
    ]
    least = [
        Step("build the message", fields),
        Step("check its fields, copy what is plain", values.copy),
        Step("encode", lambda: dumps(plain, None, OPTIONS)),
        Step("stamp: two clocks, 60 random bits, packed", lambda: pack(wall(), bits(60))),
        Step("the vendor's own check", lambda: "userId" in made),
        Step("join stamp and JSON; put, with both bounds", append),
    ]
    client = Client(destination, background=False, max_queue_messages=MANY, max_queue_bytes=MANY * 1000)
    [lane] = client._lanes  # noqa: SLF001 - to empty its buffer

    def call() -> None:
        client.track("user-00001", EVENT, values)
        if lane.buffer._messages > 100_000:  # noqa: SLF001 - as above
            lane.buffer.reset()

    return steps, least, [Step("the whole call", call)]


class _Fast:
    """Stands in for a transport, and says yes."""

    requests = 0

    def post(self, *_: object) -> Answer:
        self.requests += 1
        return Answer(200, {"content-type": "application/json"}, b'{"message":"Success."}', truncated=False)


def consumer_steps() -> tuple[list[Step], list[Step]]:
    """The steps of a batch of 100 in the consumer, and all of them together with what is between them."""
    records = [new_head() + encode(message(properties(index))) for index in range(BATCH)]
    vendors = (Vitally("acme", api_token=TOKEN), CustomerIO("site", TOKEN), Segment(TOKEN))
    vitally = vendors[0]
    wires = [vitally.wire(record) for record in records]
    sender: Any = BatchSender(vitally, _Fast(), vitally.limits, Retry())  # type: ignore[arg-type]

    def buffer() -> MemoryBuffer:
        made = MemoryBuffer(MANY, MANY * 1000)
        for record in records:
            made.put(record)
        return made

    def put_take_settle() -> None:
        lease, made = Lease(), buffer()
        made.take(lease, BATCH, MANY)
        made.settle(lease, range(BATCH), ())

    steps = [
        Step("take and settle under the lock", put_take_settle, BATCH),
        Step(f"write the wire form: {vitally.name}", lambda: vitally.wires(records), BATCH),
        *(
            Step(f"write the wire form: {one.name}", lambda one=one: [*map(one.wire, records)], BATCH)  # type: ignore[misc]
            for one in vendors[1:]
        ),
        Step("see whether all fit", lambda: fits(wires, vitally.limits, vitally.envelope), BATCH),
        Step("join the body", lambda: vitally.body(wires, 0.0), BATCH),
        Step("a sender's whole step for Vitally, but for the request", lambda: sender.send(records, None), BATCH),
    ]
    return steps, [Step("take and settle under the lock", buffer, BATCH)]


def request_steps(far: FarEnd, stack: list[Any]) -> list[Step]:
    """One POST of 100 messages over a kept connection."""
    import requests  # noqa: PLC0415 - not for the other steps

    data = request(BATCH)
    body = data.partition(b"\r\n\r\n")[2]
    raw = socket.create_connection(("127.0.0.1", far.port))
    line = http.client.HTTPConnection("127.0.0.1", far.port)
    line.connect()
    line.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    session, transport = requests.Session(), Transport()
    stack += [raw, line, session, transport]

    def bare() -> None:
        raw.sendall(data)
        raw.recv(4096)

    def by_http_client() -> None:
        line.request("POST", "/", body)
        line.getresponse().read()

    return [
        Step("a raw socket", bare),
        Step("http.client", by_http_client),
        Step("ours", lambda: transport.post(f"{far.url}/", {"Content-Type": "application/json"}, body)),
        Step("requests.Session.post", lambda: session.post(f"{far.url}/", data=body)),
    ]


def main() -> None:
    """Print the tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats")
    parser.add_argument("--tiny", action="store_true", help="hardly any, to see that it runs")
    options = parser.parse_args()
    print(text(*((0.0, 1) if options.tiny else (0.02, 3) if options.quick else (0.05, 15))))


def text(seconds: float, repeats: int) -> str:
    """The tables."""
    steps, least, whole = caller_steps()
    cost, floor = measure(steps, seconds, repeats), measure(least, seconds, repeats)
    # Checking is measured with what is before and after it, since it changes the message and ends with its JSON.
    cost[steps[1].title] -= cost[steps[0].title] + cost[steps[2].title]
    call = measure(whole, seconds, repeats)["the whole call"]
    lines = ["| on the caller's path | ns per message | the least in its place, ns |", "|---|---|---|"]
    lines += [f"| {title} | {cost[title]:.0f} | {floor[title]:.0f} |" for title in cost]
    rest, total = call - sum(cost.values()), sum(floor.values())
    lines += [f"| calls between them | {rest:.0f} | |"]
    lines += [f"| **a whole `track`** | **{call:.0f}** | **{total:.0f}** |", ""]
    consumer, made = consumer_steps()
    cost, setup = measure(consumer, seconds, repeats), measure(made, seconds, repeats)
    cost[made[0].title] -= setup[made[0].title]
    lines += ["| in the consumer, batches of 100 | ns per message |", "|---|---|"]
    lines += [f"| {title} | {value:.0f} |" for title, value in cost.items()]
    lines += [
        "",
        "| one POST of 100 messages, kept connection, loopback | µs | of which processor | a message's share, ns |",
    ]
    lines += ["|---|---|---|---|"]
    opened: list[Any] = []
    with FarEnd() as far:
        requests = request_steps(far, opened)
        cost = measure(requests, seconds, repeats)
        processor = measure(requests, seconds, repeats, time.thread_time_ns)
        for one in opened:
            one.close()
    lines += [
        f"| {title} | {value / 1e3:.0f} | {processor[title] / 1e3:.0f} | {processor[title] / BATCH:.0f} |"
        for title, value in cost.items()
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
