"""What tests of relays share: a real server, producers, the vendor's view of shards, and a look at who serves what."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager

from programs.canary import TOKEN

from analytics_batcher import Client, RedisBuffer, Relay, Retry, Vitally
from analytics_batcher.fleet.shipping import shard_of
from analytics_batcher.fleet.status import stream_status
from analytics_batcher.stamp import new_head

NOWHERE = "http://127.0.0.1:9"
SOON = Retry(base=0.02, cap=0.1)
PAUSE = threading.Event()


class World:
    """A stream on a server, its producers, and relays in this process; all of them end with it."""

    def __init__(self, server, receiver, shards=1):
        self.server, self.receiver, self.shards = server, receiver, shards
        self.redis = server.client()
        self._numbers = defaultdict(itertools.count)
        self._ends = []

    def end(self):
        """End what runs."""
        for end in reversed(self._ends):
            end()
        self.redis.close()

    def producer(self, **options):
        """A client that ships to the stream."""
        options = {"flush_interval": 0.01, "retry": SOON, **options}
        buffer = RedisBuffer(self.server.url, shards=self.shards, allow_volatile=True, timeout=2.0)
        client = Client(Vitally(api_token=TOKEN, base_url=NOWHERE), buffer=buffer, **options)
        self._ends.append(lambda: client.shutdown(0))
        return client

    def ship(self, count, users=10, client=None):
        """Ship so many messages of so many users, each with a number that grows for its user."""
        client = client or self.producer()
        for place in range(count):
            user = f"u{place % users}"
            assert client.track(user, "happened", {"n": next(self._numbers[user])})
        assert client.flush(10)

    def relay(self, **options):
        """A relay of the stream, which runs."""
        options = {"shards": self.shards, "lease": 2.0, "retry": SOON, "flush_interval": 0.01, **options}
        vendor = Vitally(api_token=TOKEN, base_url=self.receiver.url)
        running = Relay(self.server.url, vendor, **options)
        running.start()
        self._ends.append(running.stop)
        return running

    def status(self):
        """The stream, as the status has it."""
        return stream_status(self.server.url)

    def books(self):
        """The figures of all shards, added up."""
        total = Counter()
        for one in self.status().shards:
            total.update({name: value for name, value in vars(one).items() if isinstance(value, int)})
        return total

    def is_done(self, count):
        """Whether so many messages were added, and nothing of them is left."""
        books = self.books()
        return books["added"] == count and not books["length"] and not books["pending"]

    def owners(self):
        """The relay of each shard, or `None`."""
        keys = [f"{{analytics}}:{shard}:lease" for shard in range(self.shards)]
        return [one and one.decode().rpartition("/")[0] for one in self.redis.mget(keys)]

    def shares(self):
        """How many shards each relay has, the greatest first."""
        return sorted(Counter(one for one in self.owners() if one).values(), reverse=True)

    def arrivals(self):
        """Of each user, the numbers of what arrived, each at its first arrival."""
        found = defaultdict(dict)
        for message in self.receiver.messages:
            found[message["userId"]].setdefault(message["properties"]["n"])
        return {user: list(numbers) for user, numbers in found.items()}

    def assert_all_in_order(self):
        """Everything that was shipped arrived, and each user's in its order."""
        arrived = self.arrivals()
        assert arrived.keys() == self._numbers.keys()
        for user, numbers in arrived.items():
            assert numbers == list(range(next(self._numbers[user]))), user


class ShardWatch:
    """Stands in the vendor's way: how many requests of one shard were there at once, which takes a while."""

    def __init__(self, shards, seconds=0.01):
        self._shards, self._seconds = shards, seconds
        self._lock = threading.Lock()
        self._now = Counter()
        self.most = Counter()
        self.begun = defaultdict(list)

    def __call__(self, messages):
        """Decide a request of a receiver."""
        found = {shard_of_user(message["userId"], self._shards) for message in messages}
        assert len(found) == 1
        (shard,) = found
        with self._lock:
            self._now[shard] += 1
            self.most[shard] = max(self.most[shard], self._now[shard])
            self.begun[shard].append(time.monotonic())
        PAUSE.wait(self._seconds)
        with self._lock:
            self._now[shard] -= 1


def shard_of_user(user, shards):
    """The shard of a user's messages."""
    record = new_head() + json.dumps({"type": "track", "userId": user}).encode()
    return shard_of(record, shards)


class OwnerWatch(threading.Thread):
    """Looks all the time who serves each shard: the longest that one was without a relay, after it first had one."""

    def __init__(self, world):
        super().__init__(daemon=True)
        self._world = world
        self._over = threading.Event()
        self._redis = world.server.client()
        self.longest = 0.0
        self.changes = 0

    def run(self):
        """Look, until told to end."""
        since = {}
        before = {}
        keys = [f"{{analytics}}:{shard}:lease" for shard in range(self._world.shards)]
        while not self._over.wait(0.005):
            now = time.monotonic()
            for shard, holder in enumerate(self._redis.mget(keys)):
                if holder:
                    self.changes += holder != before.get(shard, holder)
                    before[shard] = holder
                    since[shard] = now
                elif shard in since:
                    self.longest = max(self.longest, now - since[shard])

    def end(self):
        """Stop looking."""
        self._over.set()
        self.join(10)
        self._redis.close()


@contextmanager
def watching(world):
    """Watch the owners of the shards meanwhile."""
    watch = OwnerWatch(world)
    watch.start()
    try:
        yield watch
    finally:
        watch.end()
