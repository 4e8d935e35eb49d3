"""Programs that hand over odd values, in a process of their own since it may crash: run by `tests/test_values.py`."""

from __future__ import annotations

import collections
import enum
import sys
import threading
import time
import uuid
import warnings
from itertools import count

from harness import books, make_client, say, start
from hostile import AFTER, FOREVER, PLACES, WHOLE, Maker, recipes, strictly
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics_batcher import Client, Vitally
from analytics_batcher.encoding import mend
from analytics_batcher.message import encode
from analytics_batcher.receiver import Receiver

try:
    import resource
except ImportError:  # Windows
    resource = None

ROOM = 1_000
MEMORY = 2 * 2**30


class Raising(enum.Enum):
    """What crashes the interpreter once orjson asks for its value."""

    MEMBER = 1

    @property
    def value(self):
        """Not to be had."""
        raise LookupError


def fuzz(examples):
    """Hand over anything at all, at every place, between two others; each time all arrives that can."""
    warnings.simplefilter("ignore")
    with Receiver() as receiver:
        client = Client(Vitally(api_token="test-token", base_url=receiver.url), background=False)

        @settings(max_examples=int(examples), deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(place=st.sampled_from(["a value"] * 12 + sorted(PLACES)), recipe=recipes)
        def check(place, recipe):
            properties = {"before": 1}
            odd = Maker([properties]).make(recipe)
            before = len(receiver.requests)
            assert client.track("u", "first", account_id="a")
            accepted = PLACES[place](client, odd, properties)
            assert client.track("u", "last", account_id="a")
            assert accepted is True or (accepted is False and place not in WHOLE)
            assert client.flush()
            (request,) = receiver.requests[before:]
            first, *odd_ones, last = strictly(request.body)
            assert (first["event"], last["event"], len(odd_ones)) == ("first", "last", accepted)
            assert not request.faults
            if place in WHOLE:
                assert odd_ones[0]["properties"]["before"] == 1
                assert odd_ones[0]["properties"]["after"] == AFTER

        check()
        stats = client.stats()
        assert stats.tracked == stats.delivered + sum(stats.dropped.values())
        assert set(stats.dropped) <= {"invalid"}
        client.shutdown()
    say(delivered=stats.delivered)


def fuzz_writing(examples):
    """Write anything at all, without the way to a vendor."""
    warnings.simplefilter("ignore")
    longest = []

    @settings(max_examples=int(examples), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(recipe=recipes)
    def check(recipe):
        properties = {"before": 1}
        properties |= {"odd": Maker([properties]).make(recipe), "after": AFTER}
        started = time.process_time()
        body = encode(properties)
        longest[:] = [max([*longest, time.process_time() - started])]
        written = strictly(body)
        assert (written["before"], written["after"]) == (1, AFTER)
        strictly(mend(properties, None))

    check()
    say(longest=longest[0])


def crashers(url):
    """Hand over what crashes orjson, wherever a caller's data goes."""
    half_made = uuid.UUID.__new__(uuid.UUID)
    too_large = uuid.UUID.__new__(uuid.UUID)
    object.__setattr__(too_large, "int", 2**200)
    no_number = uuid.UUID.__new__(uuid.UUID)
    object.__setattr__(no_number, "int", "no number")
    odd = [half_made, too_large, no_number, Raising.MEMBER]
    client = make_client(url, before_send=lambda message: {**message, "properties": collections.OrderedDict(of=odd)})
    taken = [
        *(client.track("u", "alone", {"odd": one}, account_id="a") for one in odd),
        client.track("u", "in a list", {"odd": odd}, account_id="a"),
        client.track("u", "in a tuple in a dict", {"odd": {"a": (odd, {"b": odd})}}, account_id="a"),
        client.track("u", "a dict's subclass", collections.OrderedDict(odd=odd), account_id="a"),
        client.track("u", "as a key", {Raising.MEMBER: 1, too_large: 2}, account_id="a"),
        client.enqueue({"type": "track", "event": "native", "userId": "u", "properties": {"a": odd}}),
        client.enqueue(collections.OrderedDict(type="track", event="e", userId="u", properties={"a": Raising.MEMBER})),
    ]
    refused = [client.track(one, "as an id", account_id="a") for one in odd]
    refused += [client.track("u", "e", account_id="a", message_id=one, timestamp=one) for one in odd]
    native = {"type": "track", "event": "e", "userId": "u", "messageId": "m", "properties": {"a": Raising.MEMBER}}
    sent = client.batch([collections.OrderedDict(native)])
    client.flush(10)
    say(taken=taken, refused=refused, sent=sent.status, **books(client))


def forever(url, name):
    """Track what never ends, where it would end with the memory."""
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    client = make_client(url, background=False)
    taken = client.track("u", "happened", {"before": 1, "odd": FOREVER[name](), "after": AFTER}, account_id="a")
    client.flush(10)
    say(taken=taken)


def another_thread_puts_odd_values(url):
    """Track a dict into which another thread puts, all the while, what crashes orjson."""
    shared = {str(number): number for number in range(8)}

    def change(_):
        for _ in range(3):  # a thread gives way at the ends of loops
            shared["3"] = Raising.MEMBER
        for _ in range(3):
            shared["3"] = 3

    beside_another_thread(url, shared, change, 2.0)


def another_thread_changes_the_size(url):
    """Track containers that another thread, all the while, makes larger and smaller."""
    shared = {"dict": {}, "list": [], "set": {1}, "deque": collections.deque(), "chain": collections.ChainMap({})}
    kinds = {**shared, "plain": {"a": [1, {"b": 2}]}}

    def change(number):
        for place in range(20):
            shared["dict"][f"more{place}"] = kinds["plain"][f"more{place}"] = shared["chain"][f"{place}"] = number
            kinds["plain"]["a"][1][place] = number
            kinds["plain"]["a"].append(number)
            for add in (shared["list"].append, shared["set"].add, shared["deque"].append):
                add(place)
        for container in shared.values():
            container.clear()
        for place in range(20):
            del kinds["plain"][f"more{place}"], kinds["plain"]["a"][1][place]
        del kinds["plain"]["a"][2:]

    beside_another_thread(url, kinds, change, 1.0)


def beside_another_thread(url, properties, change, seconds):
    """Track, at the threads' usual pace and at a mad one, while another thread calls `change` again and again."""
    client = make_client(url, max_queue_messages=ROOM, background=False)  # once it is full, a call is all writing
    stopped = threading.Event()

    def run():
        for number in count():
            if stopped.is_set():
                return
            change(number)

    usual = sys.getswitchinterval()
    thread = threading.Thread(target=run)
    thread.start()
    calls = taken = 0
    try:
        for interval in (usual, 1e-6):
            sys.setswitchinterval(interval)
            end = time.monotonic() + seconds / 2
            while time.monotonic() < end:
                taken += client.track("u", "happened", properties, account_id="a")
                calls += 1
    finally:
        sys.setswitchinterval(usual)
        stopped.set()
        thread.join()
    client.flush(20)
    say(calls=calls, taken=taken, **books(client))


CASES = (fuzz, fuzz_writing, crashers, forever, another_thread_puts_odd_values, another_thread_changes_the_size)

if __name__ == "__main__":
    start({case.__name__: case for case in CASES})
