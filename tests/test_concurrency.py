"""Several requests in flight at once: order, conservation, failures, the pace, against a real server."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

import pytest
from conftest import balanced

from analytics_batcher import Client, CustomerIO, DropReason, Retry, Vitally
from analytics_batcher.message import encode, entities_of
from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply
from analytics_batcher.retry import Pace
from analytics_batcher.stamp import NATIVE, new_head

TOKEN = "test-token"


@pytest.fixture
def make():
    """Makes clients with several requests in flight, and shuts them down."""
    clients = []

    def client(url, **options):
        options = {"concurrency": 4, "batch_messages": 10, "retry": Retry(base=0.001, cap=0.01), **options}
        clients.append(Client(Vitally(api_token=TOKEN, base_url=url), **options))
        return clients[-1]

    yield client
    for one in clients:
        one.shutdown(5)


class Flight:
    """Counts the requests that a receiver has in hand, and holds each for a while."""

    def __init__(self, receiver, seconds=0.05):
        self.most = self.now = 0
        self.users = defaultdict(list)
        self.clash = []
        self.seen = []
        self._lock = threading.Lock()
        self._busy = set()
        self._seconds = seconds
        self._pause = threading.Event()
        receiver.decide = self.decide

    def decide(self, messages):
        """Note who is in flight with whom; then let the receiver answer."""
        users = {message["userId"] for message in messages}
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.seen.append(self.now)
            self.clash += sorted(users & self._busy)
            self._busy |= users
        self._pause.wait(self._seconds)
        with self._lock:
            self.now -= 1
            self._busy -= users
            for message in messages:
                self.users[message["userId"]].append(message["properties"]["n"])


def track(client, count, users, start=0, hot=0):
    """Track for users in turn; with `hot`, every second message is about one of so few."""

    def user(n):
        return f"hot{n // 2 % hot}" if hot and n % 2 else f"u{n % users}"

    return sum(client.track(user(n), "happened", {"n": n}, account_id="a") for n in range(start, start + count))


def test_requests_overlap_up_to_the_limit_and_a_user_stays_in_order(make, receiver):
    """As many requests as allowed are in flight, no two about the same user, and each user's messages come in order."""
    flight = Flight(receiver)
    client = make(receiver.url)
    assert track(client, 1_000, 120, hot=4) == 1_000
    assert client.flush(20)
    assert flight.most == 4
    assert not flight.clash
    assert all(numbers == sorted(numbers) for numbers in flight.users.values())
    report = receiver.report()
    assert (report.unique_messages, report.repeats, report.faults) == (1_000, 0, ())
    assert balanced(client.stats())


def test_one_user_is_one_request_at_a_time(make, receiver):
    """Where all messages are about one user, concurrency changes nothing, and nothing is lost."""
    flight = Flight(receiver, 0.01)
    client = make(receiver.url)
    assert track(client, 200, 1) == 200
    assert client.flush(20)
    assert flight.most == 1
    assert flight.users["u0"] == list(range(200))


def test_failures_keep_each_users_order_and_lose_nothing(make, receiver):
    """Answers of 500, resets and lost answers in between: each message arrives, and each user's in order."""
    weather = [Reply(500), Reply(reset="before"), None, Reply(reset="after"), None, Reply(503), None, None] * 6
    flight = Flight(receiver, 0.02)

    def decide(messages):
        flight.decide(messages)
        return weather.pop() if weather else None

    receiver.decide = decide
    client = make(receiver.url, timeout=5.0)
    assert track(client, 1_000, 120, hot=4) == 1_000
    assert client.flush(30)
    assert not flight.clash
    assert receiver.report().unique_messages == 1_000
    first = {}
    for place, message in enumerate(receiver.messages):
        first.setdefault(message["messageId"], (place, message["userId"], message["properties"]["n"]))
    arrived = defaultdict(list)
    for _, user, number in sorted(first.values()):
        arrived[user].append(number)
    assert all(numbers == sorted(numbers) for numbers in arrived.values())
    stats = client.stats()
    assert (stats.delivered, stats.pending) == (1_000, 0)
    assert stats.retries > 0


def test_a_429_pauses_all_requests(make, receiver):
    """After `Retry-After: 1` no request begins for a second, whichever was told so."""
    begun = []
    told = threading.Event()

    def decide(_request):
        begun.append(time.monotonic())
        if not told.is_set():
            told.set()
            return Reply(429, headers={"Retry-After": "1"})
        return None

    receiver.decide = decide
    client = make(receiver.url, concurrency=8)
    track(client, 5, 5)
    assert not client.flush(0.5)
    track(client, 300, 50, start=5)
    assert client.flush(10)
    assert begun[1] - begun[0] >= 0.99
    assert receiver.report().unique_messages == 305


def test_after_a_failure_one_request_at_a_time_asks_again(make, receiver):
    """What was in flight fails; then one request goes at a time, until one is answered well."""
    flight = Flight(receiver, 0.15)
    failures = [Reply(503)] * 9

    def decide(messages):
        flight.decide(messages)
        return failures.pop() if failures else None

    receiver.decide = decide
    client = make(receiver.url)
    assert track(client, 600, 100) == 600
    assert client.flush(20)
    assert max(flight.seen[:4]) > 1
    assert set(flight.seen[4:9]) == {1}
    assert max(flight.seen[9:]) > 1
    assert receiver.report().unique_messages == 600


def test_a_bad_message_harms_only_itself(make, receiver):
    """One refused message among many is found, by one request at a time, and all the others are delivered."""
    receiver.decide = lambda messages: (
        Reply(400) if any(message["properties"]["n"] == 77 for message in messages) else None
    )
    drops = []
    client = make(receiver.url, on_drop=drops.append)
    assert track(client, 400, 80) == 400
    client.flush(20)
    stats = client.stats()
    assert (stats.delivered, dict(stats.dropped), stats.pending) == (399, {"rejected": 1}, 0)
    assert [message["properties"]["n"] for drop in drops for message in drop.messages] == [77]


def test_a_vendor_that_refuses_everything_halts_it(make, receiver):
    """Where every message is refused, what was in flight at first is searched, and the rest is kept."""
    receiver.decide = lambda _: Reply(400)
    client = make(receiver.url, batch_messages=20)
    assert track(client, 2_000, 500) == 2_000
    assert not client.flush(5)
    stats = client.stats()
    assert stats.dropped["rejected"] <= 20 * (4 + 2)
    assert stats.pending == 2_000 - stats.dropped["rejected"]
    assert balanced(stats)


def test_drop_policies_and_bounds_hold(make, receiver):
    """With the endpoint hanging, a full queue evicts what is not in flight, and the books balance."""
    receiver.decide = lambda _: Reply(hang=True)
    client = make(receiver.url, when_full="drop_oldest", max_queue_messages=100, flush_interval=0.0)
    assert track(client, 500, 50) == 500
    stats = client.stats()
    assert (stats.pending, stats.dropped["queue_full"]) == (100, 400)
    result = client.shutdown(0.3)
    assert (result.pending, result.timed_out) == (100, True)
    assert balanced(client.stats())


def test_what_is_too_old_expires_though_requests_are_in_flight(make, receiver, wait_until):
    """Messages that wait, and those that are kept for another attempt, are given up at their age."""
    receiver.decide = lambda _: Reply(503)
    client = make(receiver.url, retry=Retry(base=0.05, cap=0.05, max_age=0.5), flush_interval=0.0)
    assert track(client, 200, 40) == 200
    wait_until(lambda: client.stats().dropped["expired"] == 200)
    assert balanced(client.stats())


def test_without_threads_requests_follow_each_other(receiver):
    """`background=False` sends in the calling thread, one request after the other."""
    flight = Flight(receiver, 0.0)
    with Client(
        Vitally(api_token=TOKEN, base_url=receiver.url), background=False, concurrency=4, batch_messages=10
    ) as client:
        threads = threading.active_count()
        assert track(client, 200, 20) == 200
        assert client.flush(20)
        assert threading.active_count() <= threads + 1  # the receiver's own for our connection
    assert flight.most == 1
    assert receiver.report().unique_messages == 200


def test_threads_end_with_the_client(make, receiver, wait_until):
    """After a shutdown none of the client's threads is left."""
    Flight(receiver)
    client = make(receiver.url)
    track(client, 400, 80)
    assert client.flush(20)

    def ours():
        return [thread for thread in threading.enumerate() if thread.name.startswith("analytics-batcher:vitally")]

    assert len(ours()) == 1 + 4
    client.shutdown()
    wait_until(lambda: not ours())


@pytest.mark.parametrize(
    ("message", "entities"),
    [
        ({"type": "track", "userId": "u", "accountId": "a"}, ("userId:u",)),
        ({"type": "account", "accountId": "a", "organizationId": "o"}, ("accountId:a",)),
        ({"type": "organization", "organizationId": "o"}, ("organizationId:o",)),
        ({"type": "alias", "userId": "u", "previousId": "p"}, ("userId:u", "userId:p")),
        ({"type": "track", "anonymousId": "x"}, ("anonymousId:x",)),
        ({"type": "thing"}, ("",)),
    ],
)
def test_order_is_that_of_the_user_or_else_of_what_is_above(message, entities):
    """A message is about its user, else its account, else its organization; an alias about two."""
    assert entities_of(new_head() + encode(message)) == entities
    assert entities_of(new_head(NATIVE) + encode(message)) == entities


def test_an_alias_waits_for_both_and_holds_both_back():
    """What was tracked about either id before an alias comes before it, and what comes after it after it."""
    order = []
    pause = threading.Event()

    def decide(messages):
        pause.wait(0.02)
        order.extend(operation.get("attributes", {}).get("n", operation) for operation in messages)

    with Receiver(CustomerIOWire("site", "key")) as customerio:
        customerio.decide = decide
        destination = CustomerIO("site", "key", base_url=customerio.url)
        with Client(destination, concurrency=4, batch_messages=1, flush_interval=30) as client:
            for n in range(6):
                client.track(f"other{n}", "happened", {"n": n})
            client.track("old", "happened", {"n": 100})
            client.alias("old", "new")
            client.track("new", "happened", {"n": 101})
            assert client.flush(20)
    alias = next(place for place, one in enumerate(order) if isinstance(one, dict))
    assert order.index(100) < alias < order.index(101)


# The pace


def test_requests_keep_the_pace_over_all_destinations(receiver):
    """Twenty a second over two destinations: ten requests take at least 0.45 s, and are spread over it."""
    begun = []
    receiver.decide = lambda _: begun.append(time.monotonic())
    destinations = [Vitally(api_token=TOKEN, base_url=receiver.url, name=name) for name in ("one", "two")]
    with Client(destinations, batch_messages=10, concurrency=4, max_requests_per_second=20) as client:
        assert track(client, 50, 50) == 50
        assert client.flush(20)
    assert len(begun) == 10
    assert max(begun) - min(begun) >= 0.40  # nine spaces of 0.05 s, of which one may be made up for
    steps = [later - earlier for earlier, later in zip(sorted(begun), sorted(begun)[1:], strict=False)]
    assert sum(step < 0.02 for step in steps) <= 2


def test_the_pace_is_even_and_forgives_one_late_request():
    """Claims at an exact clock: one per interval, and who comes late may make up for one, not for a pause."""
    pace = Pace(10)
    assert pace.claim(100.0) == 0.0
    assert pace.claim(100.0) == pytest.approx(0.1)
    assert pace.claim(100.15) == 0.0
    assert pace.claim(100.15) == pytest.approx(0.05)
    assert pace.claim(100.2) == 0.0
    assert pace.claim(105.0) == 0.0
    assert pace.claim(105.0) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"concurrency": 0},
        {"concurrency": 65},
        {"concurrency": 1.5},
        {"max_requests_per_second": 0},
        {"max_requests_per_second": "fast"},
    ],
)
def test_a_wrong_setting_is_named(options):
    """The error names the setting, the value and what is allowed."""
    [(name, value)] = options.items()
    with pytest.raises(ValueError, match=rf"^{name}={value!r}: allowed is "):
        Client(Vitally("acme", api_token=TOKEN), **options)


def test_drops_say_why(make, receiver):
    """A message that before_send drops is counted beside requests in flight, once."""
    client = make(receiver.url, before_send=lambda message: message if message["properties"]["n"] % 2 else None)
    assert track(client, 300, 60) == 300
    client.flush(20)
    stats = client.stats()
    assert (stats.delivered, stats.dropped[DropReason.FILTERED], stats.pending) == (150, 150, 0)
