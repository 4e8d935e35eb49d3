"""Twenty minutes of bad weather: an application tracks, flushes and forks behind a proxy that breaks its connections.

    python tests/soak.py [--seconds 1200] [--rate 2000] [--concurrency 1] [--seed N]

At the end the receiver's own record accounts for every message of every process, and the application has grown neither
in memory nor in threads nor in descriptors. The exit status is 1 if anything of that is not so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter, defaultdict
from contextlib import contextmanager
from pathlib import Path

from fault_proxy import CLEAR, FaultProxy, Weather

from analytics_batcher.receiver import Receiver, Reply

PROGRAM = Path(__file__).parent / "programs" / "soaking.py"
ROOT = Path(__file__).parents[1]
STORM = 8.0
"""Seconds without any answer, at the beginning: the queue fills, so that its memory is not taken for a leak later."""
WARM_UP = 0.1
"""The part of the time by which growth is not judged: allocator, caches and queue reach their size in it."""
SLOPE_NEEDS = 300.0
"""Seconds under which no slope is judged: the queue's ups and downs would hide it."""
MEGABYTES_IN_TEN_MINUTES = 1.0
LAST_SECONDS = 180.0


class Tally:
    """How often each message of one process was stored, and under which id."""

    def __init__(self):
        self.stored = bytearray()
        self._ids = array("q")
        self.other_ids = 0

    def add(self, number, message_id):
        """Count one message."""
        if number >= len(self.stored):
            more = max(number + 1 - len(self.stored), 4_096)
            self.stored.extend(bytes(more))
            self._ids.extend([0] * more)
        told = hash(message_id)
        if self.stored[number]:
            self.other_ids += self._ids[number] != told
        self._ids[number] = told
        self.stored[number] += 1


class Sky:
    """The weather: of the network, and of the receiver, which also counts here what it stores.

    `_tallies` and `_reply` are guarded by `_lock`.
    """

    def __init__(self, proxy, seed):
        self._proxy, self._dice = proxy, random.Random(seed)
        self._lock = threading.Lock()
        self._tallies = defaultdict(Tally)
        self._reply = None
        self.seen = Counter()

    def decide(self, messages):
        """The receiver's reply to one request."""
        with self._lock:
            reply = self._reply or Reply()
            if reply.stores:
                for message in messages:
                    own = message["properties"]
                    self._tallies[own["process"]].add(own["number"], message["messageId"])
        messages.clear()  # or the receiver would keep millions of them
        return reply

    def tally(self, process):
        """The messages of a process."""
        with self._lock:
            return self._tallies[process]

    def clear(self):
        """Let everything through again."""
        self._set("clear", CLEAR, None)

    def storm(self):
        """Swallow everything."""
        self._set("black hole", Weather(black_hole=True), None)

    def change(self):
        """Turn to other weather, good for as long as bad."""
        if self.seen["clear"] < sum(self.seen.values()) / 2:
            self.clear()
            return
        dice = self._dice
        name, weather, reply = dice.choice(
            [
                ("cut request", Weather(cut_request=dice.randrange(1, 40_000), abort=dice.random() < 0.5), None),
                ("cut answer", Weather(cut_response=dice.randrange(1, 150), abort=dice.random() < 0.5), None),
                ("dripping request", Weather(request_rate=dice.uniform(100, 50_000)), None),
                ("dripping answer", Weather(response_rate=dice.uniform(1, 200)), None),
                ("black hole", Weather(black_hole=True), None),
                ("reset", Weather(reset=True), None),
                ("refuse", Weather(refuse=True), None),
                ("delay", Weather(delay=dice.uniform(0.05, 1.0)), None),
                ("500", CLEAR, Reply(500)),
                ("503 and a wait", CLEAR, Reply(503, headers={"Retry-After": "1"})),
                ("429 and a wait", CLEAR, Reply(429, headers={"Retry-After": "1"})),
                ("413", CLEAR, Reply(413)),
                ("a portal's page", CLEAR, Reply(200, body=b"<html>sign in</html>", store=False)),
                ("answer lost", CLEAR, Reply(reset="after")),
                ("no answer", CLEAR, Reply(hang=True)),
                ("slow answer", CLEAR, Reply(delay=dice.uniform(0.05, 1.0))),
                ("connection dropped", CLEAR, Reply(drop_idle=True)),
            ]
        )
        self._set(name, weather, reply)

    def _set(self, name, weather, reply):
        self.seen[name] += 1
        with self._lock:
            self._reply = reply
        self._proxy.weather = weather


@contextmanager
def application(url, options, folder):
    """The application in a process of its own, which is gone in the end."""
    numbers = [str(options.seconds), str(options.rate), str(options.seed), str(options.concurrency)]
    command = [sys.executable, str(PROGRAM), url, folder, *numbers]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def samples_of(folder):
    """What the application has measured so far."""
    path = Path(folder, "samples")
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def shown(sample, sky):
    """A line of progress."""
    resident = sample["resident"] / 2**20
    return (
        f"{sample['at']:6.0f} s  {sample['tracked']:9,} tracked  {sample['pending']:6,} pending  {resident:6.1f} MB  "
        f"{sample['threads']} threads  {sample['descriptors']} descriptors  {sum(sky.seen.values())} changes of weather"
    )


def soak(options, folder):
    """Run the application to its end; what it and the receiver found."""
    dice = random.Random(f"times {options.seed}")
    with Receiver(keep_bodies=False) as receiver:
        target = receiver.url.removeprefix("http://").split(":")
        with FaultProxy((target[0], int(target[1]))) as proxy:
            sky = Sky(proxy, options.seed)
            receiver.decide = sky.decide
            with application(proxy.url, options, folder) as process:
                begun, said = time.monotonic(), 0.0
                sky.storm()
                change = begun + min(STORM, options.seconds / 4)
                pause = threading.Event()
                while process.poll() is None and (now := time.monotonic()) < begun + options.seconds + LAST_SECONDS:
                    if now >= change:
                        at_end = now >= begun + options.seconds
                        sky.clear() if at_end else sky.change()
                        change = math.inf if at_end else min(now + dice.uniform(0.5, 4.0), begun + options.seconds)
                    if now - said >= 10.0 and (samples := samples_of(folder)):
                        said = now
                        print(shown(samples[-1], sky), flush=True)
                    pause.wait(0.1)
                status = process.poll()
        return status, sky, receiver.faults


def slope(samples):
    """Megabytes in ten minutes by which resident memory grows: a line through all samples."""
    times = [sample["at"] for sample in samples]
    return statistics.linear_regression(times, [sample["resident"] for sample in samples]).slope * 600 / 2**20


def judge_growth(samples, seconds):
    """What is wrong with how the application grew, in sentences."""
    steady = [sample for sample in samples if sample["at"] >= seconds * WARM_UP]
    wrong = []
    for what in ("threads", "descriptors"):
        third = len(steady) // 3
        first, last = (statistics.median(sample[what] for sample in part) for part in (steady[:third], steady[-third:]))
        if last > first:
            wrong.append(f"{what} grew from {first} to {last}")
    if seconds >= SLOPE_NEEDS and slope(steady) >= MEGABYTES_IN_TEN_MINUTES:
        wrong.append(f"resident memory grew by {slope(steady):.2f} MB in ten minutes")
    return wrong


def judge_parent(facts, accepted, tally):
    """What is wrong with the books of the application, beside what was stored of it."""
    wrong = []
    if facts["tracked"] != facts["delivered"] + sum(facts["dropped"].values()) + facts["pending"]:
        wrong.append(f"the books do not balance: {facts}")
    if not facts["flushed"] or facts["pending"]:
        wrong.append(f"{facts['pending']} messages were still pending at the end of a clear sky")
    stored = bytes(tally.stored).ljust(len(accepted), b"\0")
    unasked = sum(1 for taken, times in zip(accepted, stored, strict=False) if times and not taken)
    if unasked or any(stored[len(accepted) :]):
        wrong.append(f"{unasked} messages were stored that had not been accepted")
    unique = len(stored) - stored.count(0)
    if unique != facts["delivered"]:
        wrong.append(f"{unique:,} messages were stored and {facts['delivered']:,} counted as delivered")
    if sum(accepted) + facts["dropped"].get("queue_full", 0) != facts["tracked"]:
        wrong.append(f"{sum(accepted):,} were accepted and {facts['dropped']} refused of {facts['tracked']:,}")
    if facts["late"] > facts["grace"]:
        wrong.append(f"a flush was {facts['late']:.2f} s late")
    if facts["hung"]:
        wrong.append(f"{facts['hung']} children did not end")
    return wrong


def judge_child(books, tally):
    """What is wrong with the books of a child, which may have had to leave some behind, as it then says."""
    unique = len(tally.stored) - tally.stored.count(0)
    lost = sum(books["dropped"].values())
    if books["tracked"] != books["delivered"] + lost + books["pending"]:
        return [f"the books of {books['process']} do not balance: {books}"]
    # What it left at its end may have been stored, if only the answer was late.
    if not books["delivered"] <= unique <= books["delivered"] + lost:
        return [f"{unique} messages of {books['process']} were stored, by its books {books}"]
    return []


def judge(seconds, told, sky):
    """What is wrong, in sentences."""
    facts, accepted, children, samples = told
    wrong = judge_parent(facts, accepted, sky.tally("parent")) + judge_growth(samples, seconds)
    for books in children:
        wrong += judge_child(books, sky.tally(books["process"]))
    if len(children) != facts["children"] - facts["hung"]:
        wrong.append(f"{facts['children']} children were forked and {len(children)} told their books")
    if other := sum(sky.tally(name).other_ids for name in ["parent", *(books["process"] for books in children)]):
        wrong.append(f"{other} messages came again under another id")
    return wrong


def tell(seconds, told, sky):
    """What happened, in lines."""
    facts, _, children, samples = told
    steady = [sample for sample in samples if sample["at"] >= seconds * WARM_UP]
    stored = sky.tally("parent").stored
    repeats = sum(stored) - (len(stored) - stored.count(0))
    yield f"weather: {', '.join(f'{name} {count}' for name, count in sky.seen.most_common())}"
    yield f"tracked {facts['tracked']:,}: delivered {facts['delivered']:,}, dropped {facts['dropped'] or 'none'}"
    yield f"stored again after a lost answer: {repeats:,}"
    yield f"{facts['flushes']} flushes, at most {max(facts['late'], 0.0):.2f} s beyond their deadline"
    yield f"{len(children)} forked children: delivered {sum(books['delivered'] for books in children):,}"
    most = max(sample["resident"] for sample in steady) / 2**20
    yield f"resident memory: {slope(steady):+.2f} MB in ten minutes, at most {most:.1f} MB"
    for name in ("threads", "descriptors"):
        yield f"{name}: {min(sample[name] for sample in steady)} to {max(sample[name] for sample in steady)}"


def main():
    """Run, judge, and say so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1_200)
    parser.add_argument("--rate", type=float, default=2_000, help="messages a second")
    parser.add_argument("--concurrency", type=int, default=1, help="requests in flight at once")
    parser.add_argument(
        "--seed", default=str(random.randrange(10**6)), help="of the weather, the forks and the flushes"
    )
    options = parser.parse_args()
    pace = f"{options.rate:.0f} messages a second, {options.concurrency} requests at most in flight"
    print(f"{options.seconds:.0f} s at {pace}, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        status, sky, faults = soak(options, folder)
        if status != 0:
            print(f"the application ended with status {status}")
            return 1
        facts = json.loads(Path(folder, "facts").read_text())
        accepted = Path(folder, "accepted").read_bytes()
        children = [json.loads(line) for line in Path(folder, "children").read_text().splitlines()]
        told = facts, accepted, children, samples_of(folder)
    print("\n".join(tell(options.seconds, told, sky)))
    wrong = judge(options.seconds, told, sky) + list(faults)
    print("\n".join(f"WRONG: {sentence}" for sentence in wrong) or "nothing lost, nothing grew")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
