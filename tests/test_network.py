"""Clients behind networks that cut, drip, swallow, reset, refuse, delay, divert and impersonate."""

from __future__ import annotations

import base64
import contextlib
import logging
import random
import socket
import sys
import threading
import time

import pytest
import requests
from conftest import TOKEN, balanced
from fault_proxy import CLEAR, FaultProxy, Weather
from issuing import issue
from test_transport import Server, server_context

from analytics_batcher import Client, CustomerIO, InvalidResponse, Retry, Segment, TransportError, Vitally
from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply, SegmentWire, VitallyWire

SITE, KEY, WRITE_KEY = "site-of-ours", "key-of-ours", "write-key-of-ours"
SECRETS = (TOKEN, KEY, WRITE_KEY, base64.b64encode(f"{SITE}:{KEY}".encode()).decode())
FAST = Retry(base=0.002, cap=0.01)
WIRES = {"vitally": VitallyWire(TOKEN), "customerio": CustomerIOWire(SITE, KEY), "segment": SegmentWire(WRITE_KEY)}
DESTINATIONS = {
    "vitally": lambda url: Vitally(api_token=TOKEN, base_url=url),
    "customerio": lambda url: CustomerIO(SITE, KEY, base_url=url),
    "segment": lambda url: Segment(WRITE_KEY, base_url=url),
    "jitsu": lambda url: Segment.jitsu(url, WRITE_KEY),
}
NATIVE = {
    "vitally": {"type": "track", "userId": "u", "event": "e", "properties": {}, "messageId": "m"},
    "customerio": {"type": "person", "action": "event", "identifiers": {"id": "u"}, "name": "e", "attributes": {}},
    "segment": {"type": "track", "userId": "u", "event": "e", "properties": {}, "messageId": "m"},
}
every_destination = pytest.mark.parametrize("name", NATIVE)
every_end = pytest.mark.parametrize("end", ["end", "reset"])
every_connection = pytest.mark.parametrize("connection", ["kept", "fresh"])


@pytest.fixture
def receiver():
    """All three vendors' stand-in."""
    with Receiver(wires=tuple(WIRES.values())) as running:
        yield running


@pytest.fixture
def stand_before():
    """Makes proxies in clear weather before servers."""
    with contextlib.ExitStack() as stack:
        yield lambda port: stack.enter_context(FaultProxy(("127.0.0.1", port)))


@pytest.fixture
def proxy(receiver, stand_before):
    """A proxy before the receiver."""
    return stand_before(port_of(receiver))


@pytest.fixture
def client_of(receiver):
    """Makes clients of one vendor, and shuts them down at the end."""
    clients = []

    def make(name="vitally", url=None, **options):
        clients.append(Client(DESTINATIONS[name](url or receiver.url), **{"retry": FAST, "timeout": 5.0, **options}))
        return clients[-1]

    yield make
    for client in clients:
        client.shutdown(0)


def port_of(receiver):
    """Where a receiver listens."""
    return int(receiver.url.rpartition(":")[2])


def track(client, number):
    """Track a message of its own number; all are of one length."""
    assert client.track("u", "e", {"n": f"{number:04}"})


def stored(receiver, since=0):
    """The number and the id of each stored message, in order of arrival, repeats included."""
    messages = receiver.messages[since:]
    found = [(one.get("properties") or one["attributes"], one.get("messageId") or one["id"]) for one in messages]
    return [(int(properties["n"]), given) for properties, given in found]


def measure(proxy, client):
    """The bytes of one request, and of its answer."""
    before = proxy.request_bytes, proxy.response_bytes
    track(client, 9_999)
    assert client.flush(10)
    proxy.weather = CLEAR  # in force only after the proxy's thread has counted what went before
    return proxy.request_bytes - before[0], proxy.response_bytes - before[1]


def begin(proxy, weather, connection):
    """Let a weather begin, for a kept connection or with none."""
    if connection == "fresh":
        proxy.weather = Weather(refuse=True)
    proxy.weather = weather


# --- Cut after every byte ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("end", "connection"), [("end", "kept"), ("reset", "fresh")])
def test_a_request_cut_after_every_byte_arrives_once(client_of, receiver, proxy, *, end, connection):
    """Wherever a request breaks off, its message arrives: once, for the vendor never had it whole."""
    client = client_of(url=proxy.url)
    length, _ = measure(proxy, client)
    assert length > 300
    for offset in range(length + 1):
        since = len(receiver.messages)
        begin(proxy, Weather(cut_request=offset, abort=end == "reset", cuts=1), connection)
        track(client, offset)
        assert client.flush(10), offset
        assert proxy.weather == CLEAR, "the cut did not come"
        copies = stored(receiver, since)
        assert len(copies) == 1 or (offset == length and len(copies) == 2), offset  # the whole one lost its answer
        assert {number for number, _ in copies} == {offset}
        assert len({given for _, given in copies}) == 1
        stats = client.stats()
        assert (stats.tracked, stats.delivered, stats.pending) == (offset + 2, offset + 2, 0)
        assert balanced(stats)


def cut_answers(client, receiver, proxy, end, connection):
    """Cut an answer after every byte, and see each message arrive a second time by the same id."""
    length = min(measure(proxy, client)[1] for _ in range(3))  # on a busy machine one may be asked for twice
    assert length > 80
    before = client.stats().tracked
    for offset in range(length + 1):
        since = len(receiver.messages)
        begin(proxy, Weather(cut_response=offset, abort=end == "reset", cuts=1), connection)
        track(client, offset)
        assert client.flush(10), offset
        copies = stored(receiver, since)
        assert len(copies) == 2 or (offset == length and len(copies) == 1), offset
        assert {number for number, _ in copies} == {offset}
        assert len({given for _, given in copies}) == 1
        stats = client.stats()
        assert (stats.tracked - before, stats.delivered - before, stats.pending) == (offset + 1, offset + 1, 0)
        assert balanced(stats)


@every_connection
@every_end
def test_an_answer_cut_after_every_byte_costs_one_repetition(client_of, receiver, proxy, *, end, connection):
    """Wherever an answer breaks off, the message arrives a second time, by the same id, and counts once."""
    cut_answers(client_of(url=proxy.url), receiver, proxy, end, connection)


@every_end
def test_an_answer_over_tls_cut_after_every_byte_costs_one_repetition(certificates, client_of, stand_before, *, end):
    """The same holds for the bytes of TLS: a connection that ends without a goodbye has said nothing."""
    with Receiver(tls=(certificates["good"],) * 2) as receiver:
        proxy = stand_before(port_of(receiver))
        client = client_of(url=f"https://localhost:{proxy.port}", verify=str(certificates["authority"]))
        track(client, 9_998)
        assert client.flush(10)  # with the first answer come tickets of the session
        cut_answers(client, receiver, proxy, end, "kept")
        client.shutdown(0)


@every_end
@pytest.mark.parametrize("name", ["customerio", "jitsu"])
def test_an_answer_cut_after_every_byte_hides_no_refusal(client_of, stand_before, *, name, end):
    """A message that the vendor refuses counts as rejected, wherever the answer that says so breaks off."""
    wire = {"customerio": WIRES["customerio"], "jitsu": SegmentWire(WRITE_KEY, kind="jitsu", auth="basic")}[name]
    drops = []
    with Receiver(wire) as receiver:
        receiver.decide = lambda _: Reply(partial={1: "name: is odd"})
        proxy = stand_before(port_of(receiver))
        client = client_of(name, proxy.url, on_drop=drops.append)
        # Both messages of a pair go out in one request, which a flush ends.
        pairs = 0
        for number in (0, 1):
            track(client, number)
        assert client.flush(10).delivered == 1
        proxy.weather = CLEAR
        length = proxy.response_bytes
        assert length > 150
        for offset in range(length + 1):
            pairs += 1
            proxy.weather = Weather(cut_response=offset, abort=end == "reset", cuts=1)
            for number in (2 * pairs, 2 * pairs + 1):
                track(client, number)
            result = client.flush(10)
            assert (result.delivered, dict(result.dropped)) == (1, {"rejected": 1}), offset
            assert balanced(client.stats())
        numbers = {number for number, _ in stored(receiver)}
        assert numbers == set(range(0, 2 * pairs + 2, 2))
        assert sum(drop.count for drop in drops) == pairs + 1
        client.shutdown(0)


# --- Bad weather ------------------------------------------------------------------------------------------------------

BAD = {
    "the request drips": (Weather(request_rate=1), {"timeout"}),
    "the answer drips": (Weather(response_rate=1), {"timeout"}),
    "a black hole": (Weather(black_hole=True), {"timeout"}),
    "resets": (Weather(reset=True), {"reset", "connect"}),  # the reset may come before the system calls it connected
    "refusals": (Weather(refuse=True), {"connect"}),
    "a delay": (Weather(delay=60), {"timeout"}),
}
"""The weathers in which nothing gets through, and what an attempt fails of."""
LATE = {"the request drips", "the answer drips"}
"""Those in which the vendor gets what the client had to give up: it arrives again by the same id."""


@every_connection
@pytest.mark.parametrize("bad", BAD)
def test_a_flush_returns_in_bad_weather_and_everything_arrives_after_it(
    client_of, receiver, proxy, wait_until, *, bad, connection
):
    """A flush ends at its deadline with everything kept; clear weather delivers all, in order, and counts it once."""
    weather, kinds = BAD[bad]
    client = client_of(url=proxy.url, timeout=0.2)
    track(client, 0)
    assert client.flush(10)
    begin(proxy, weather, connection)
    for number in range(1, 6):
        track(client, number)
    started = time.monotonic()
    result = client.flush(0.5)
    assert time.monotonic() - started < 1.5
    assert (bool(result), result.timed_out, result.delivered, result.pending) == (False, True, 0, 5)
    wait_until(lambda: client.stats().last_error)
    stats = client.stats()
    assert stats.last_error.partition(":")[0] in kinds
    assert balanced(stats)
    assert len(receiver.messages) == 1 or bad == "the answer drips"
    proxy.weather = CLEAR
    assert client.flush(10)
    ids = {}
    for number, given in stored(receiver):
        ids.setdefault(number, []).append(given)
    assert list(ids) == list(range(6))
    assert all(len(set(given)) == 1 for given in ids.values())
    made = client.stats().requests - stats.requests  # the one that was under way too
    assert bad in LATE or max(map(len, ids.values())) <= made
    stats = client.stats()
    assert (stats.delivered, stats.pending, sum(stats.dropped.values())) == (6, 0, 0)
    assert balanced(stats)


@pytest.mark.parametrize("bad", BAD)
def test_a_shutdown_returns_in_bad_weather_and_says_what_it_left(client_of, receiver, proxy, caplog, *, bad):
    """A shutdown ends at its deadline; what could not be sent is counted, called back, and told in the log."""
    weather, _ = BAD[bad]
    drops = []
    client = client_of(url=proxy.url, timeout=5.0, on_drop=drops.append)
    proxy.weather = weather
    for number in range(5):
        track(client, number)
    started = time.monotonic()
    result = client.shutdown(0.3)
    assert time.monotonic() - started < 1.3
    assert (bool(result), result.timed_out, result.delivered, result.pending) == (False, True, 0, 5)
    stats = client.stats()
    assert (stats.delivered, stats.pending, dict(stats.dropped)) == (0, 0, {"exit": 5})
    assert balanced(stats)
    assert [(str(drop.reason), drop.count, len(drop.messages)) for drop in drops] == [("exit", 5, 5)]
    assert [line for line in caplog.messages if "5 messages were left behind" in line]
    assert not receiver.messages or bad == "the answer drips"


def test_one_byte_a_second_is_ended_at_the_timeout(client_of, receiver, proxy, wait_until):
    """An answer of one byte a second holds a request no longer than `timeout`, however many bytes have come by then."""
    client = client_of(url=proxy.url, timeout=1.3, retry=Retry(base=60, jitter="none"))
    proxy.weather = Weather(response_rate=1)
    track(client, 0)
    started = time.monotonic()
    assert not client.flush(0)
    wait_until(lambda: client.stats().requests)
    assert 1.2 < time.monotonic() - started < 2.3
    assert client.stats().last_error.startswith("timeout: ")
    assert 1 <= proxy.response_bytes <= 2
    assert len(receiver.messages) == 1


def test_a_delay_within_the_timeout_costs_nothing_but_time(client_of, receiver, proxy):
    """A network that is only slow sees each message once."""
    client = client_of(url=proxy.url)
    proxy.weather = Weather(delay=0.1)
    for number in range(3):
        track(client, number)
        assert client.flush(10)
    assert [number for number, _ in stored(receiver)] == [0, 1, 2]
    assert (client.stats().requests, client.stats().retries) == (3, 0)


@pytest.mark.parametrize("bad", ["a black hole", "resets", "refusals"])
def test_a_kept_connection_that_died_in_between_is_replaced(client_of, receiver, proxy, bad):
    """A connection that bad weather killed while nobody used it costs a time-out at most; the message arrives once."""
    client = client_of(url=proxy.url, timeout=1.0 if bad == "a black hole" else 5.0)
    track(client, 0)
    assert client.flush(10)
    proxy.weather, _ = BAD[bad]
    proxy.weather = CLEAR
    track(client, 1)
    assert client.flush(10)
    assert [number for number, _ in stored(receiver)] == [0, 1]
    assert receiver.connections == 2
    assert client.stats().requests == (3 if bad == "a black hole" else 2)


def test_a_storm_of_weathers_loses_nothing(client_of, receiver, proxy):
    """Through seconds of random weather, with four threads tracking and one flushing, every message arrives."""
    chance = random.Random(7)
    client = client_of(url=proxy.url, timeout=0.2, flush_interval=0.01)
    over = threading.Event()
    counts = [0] * 4

    def call(place):
        while not over.wait(0.001):
            track(client, place * 2_000 + counts[place])
            counts[place] += 1

    threads = [threading.Thread(target=call, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(50):
        size = chance.randrange(3_000)
        proxy.weather = chance.choice(
            [
                *(Weather(cut_request=size), Weather(cut_response=size % 120, abort=True), Weather(black_hole=True)),
                *(Weather(reset=True), Weather(refuse=True), Weather(delay=0.05), Weather(request_rate=20_000), CLEAR),
            ]
        )
        client.flush(chance.uniform(0.0, 0.06))
        assert balanced(client.stats())
    proxy.weather = CLEAR
    over.set()
    for thread in threads:
        thread.join()
    assert client.flush(20)
    tracked = {place * 2_000 + count for place in range(4) for count in range(counts[place])}
    ids = {}
    for number, given in stored(receiver):
        ids.setdefault(number, set()).add(given)
    assert ids.keys() == tracked
    assert all(len(given) == 1 for given in ids.values())
    stats = client.stats()
    assert (stats.delivered, stats.pending, sum(stats.dropped.values())) == (len(tracked), 0, 0)


# --- Impostors --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, what it issued, and what it did not."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = issue(folder / "authority.pem", host="authority.example", ip="192.0.2.9")
    stranger = issue(folder / "stranger.pem", host="stranger.example", ip="192.0.2.8")
    return {
        "authority": authority,
        "good": issue(folder / "good.pem", by=authority),
        "self-signed": issue(folder / "self.pem"),
        "expired": issue(folder / "expired.pem", by=authority, days=(-3, -1)),
        "not yet valid": issue(folder / "early.pem", by=authority, days=(1, 3)),
        "wrong host": issue(folder / "other.pem", by=authority, host="other.example", ip="192.0.2.1"),
        "unknown authority": issue(folder / "unknown.pem", by=stranger),
    }


class Impostor(Server):
    """Speaks TLS by a certificate, and keeps each byte that reaches it through that."""

    def __init__(self, certificate):
        self.heard = b""
        super().__init__(self.listen, tls=server_context(certificate))

    def listen(self, _server, connection, _number):
        """Read to the end."""
        while data := connection.recv(65_536):
            self.heard += data


@pytest.fixture
def impostor():
    """Makes impostors that end with the test."""
    with contextlib.ExitStack() as stack:

        def make(certificate):
            made = Impostor(certificate)
            stack.callback(made.close)
            return made

        yield make


def attempts_against(impostor, client, native, wait_until):
    """Let the client try a few times, and once directly, and get nowhere."""
    for number in range(3):
        track(client, number)
    client.flush(0)
    wait_until(lambda: client.stats().requests >= 3)
    stats = client.stats()
    assert (stats.delivered, stats.pending, sum(stats.dropped.values())) == (0, 3, 0)
    assert stats.last_error.startswith("tls: ")
    with pytest.raises(TransportError) as caught:
        client.batch([native])
    assert caught.value.kind == "tls"
    assert impostor.connections >= 4
    assert impostor.heard == b""


@every_destination
@pytest.mark.parametrize("bad", ["self-signed", "expired", "not yet valid", "wrong host", "unknown authority"])
def test_an_impostor_hears_nothing(certificates, impostor, client_of, stand_before, wait_until, *, caplog, bad, name):
    """A server by a wrong certificate hears not a byte; all is kept, and goes to the right one when that is back."""
    other = impostor(certificates[bad])
    proxy = stand_before(other.port)
    client = client_of(name, f"https://localhost:{proxy.port}", verify=str(certificates["authority"]))
    with caplog.at_level(logging.DEBUG):
        attempts_against(other, client, NATIVE[name], wait_until)
        lines = [record for record in caplog.records if record.name == "analytics_batcher"]
        assert len(lines) == 1
        assert "tls: " in lines[0].getMessage()
        with Receiver(wires=tuple(WIRES.values()), tls=(certificates["good"],) * 2) as receiver:
            proxy.target = ("127.0.0.1", port_of(receiver))
            assert client.flush(10)
            assert [number for number, _ in stored(receiver)] == [0, 1, 2]
            assert client.batch([NATIVE[name]])
            assert receiver.faults == ()
            client.shutdown(5)
    assert not [secret for secret in SECRETS if secret in caplog.text]
    assert other.heard == b""


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_the_environment_vouches_for_nobody(certificates, impostor, client_of, wait_until, monkeypatch, *, name):
    """A certificate that only a variable of the environment vouches for is an impostor's."""
    path = certificates["self-signed"]
    monkeypatch.setenv(name, str(path.parent if name.endswith("DIR") else path))
    other = impostor(path)
    attempts_against(other, client_of(url=f"https://localhost:{other.port}"), NATIVE["vitally"], wait_until)


# --- Diversions -------------------------------------------------------------------------------------------------------


class Elsewhere:
    """A port where nobody should come: it never accepts, so that whoever does stands in its queue."""

    def __init__(self, host="127.0.0.1"):
        self.listener = socket.create_server((host, 0))
        self.url = f"http://{host}:{self.listener.getsockname()[1]}"

    def heard(self):
        """What the first who came has said; `None` if nobody came."""
        self.listener.settimeout(0)
        try:
            connection, _ = self.listener.accept()
        except BlockingIOError:
            return None
        with connection:
            connection.settimeout(5)
            return connection.recv(65_536)


@pytest.fixture
def elsewhere():
    """Makes such ports, which end with the test."""
    with contextlib.ExitStack() as stack:

        def make(host="127.0.0.1"):
            made = Elsewhere(host)
            stack.callback(made.listener.close)
            return made

        yield make


@pytest.fixture
def no_environment(monkeypatch):
    """An environment that names no proxy, whatever the machine's does."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


PROXIES = [form(f"{kind}_proxy") for kind in ("http", "https", "all", "no") for form in (str.lower, str.upper)]


@every_destination
@pytest.mark.parametrize("found_by", ["HOME", "NETRC"])
def test_a_netrc_is_not_read(client_of, receiver, tmp_path, monkeypatch, *, name, found_by):
    """A .netrc that names the host, and everybody else, puts no login in the place of our credentials."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login thief password stolen\ndefault login thief password stolen\n")
    netrc.chmod(0o600)
    monkeypatch.delenv("NETRC", raising=False)
    monkeypatch.setenv(found_by, str(tmp_path if found_by == "HOME" else netrc))
    if found_by == "HOME":
        monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert requests.utils.get_netrc_auth(receiver.url) == ("thief", "stolen"), "the file is not in force"
    client = client_of(name)
    track(client, 1)
    assert client.flush(10)
    assert client.batch([NATIVE[name]])
    assert receiver.faults == ()  # the stand-in wants the credentials to a byte
    own = DESTINATIONS[name](receiver.url).headers()["Authorization"]
    assert [request.headers["authorization"] for request in receiver.requests] == [own, own]


@every_destination
def test_proxies_of_the_environment_see_nothing(client_of, receiver, elsewhere, no_environment, *, name):
    """No variable of the environment names a proxy to a client that did not ask for it."""
    thief = elsewhere()
    for variable in PROXIES[:-2]:
        no_environment.setenv(variable, thief.url)
    client = client_of(name)
    track(client, 1)
    assert client.flush(10)
    assert client.batch([NATIVE[name]])
    assert receiver.faults == ()
    assert len(receiver.messages) == 2
    assert thief.heard() is None


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
def test_proxies_of_the_environment_are_used_when_asked_for(
    client_of, receiver, elsewhere, no_environment, wait_until, *, variable
):
    """With `proxy="environment"` requests go through it, and none to it that `no_proxy` exempts."""
    chosen = elsewhere()
    no_environment.setenv(variable, chosen.url)
    client = client_of(proxy="environment", timeout=0.2)
    track(client, 1)
    assert not client.flush(0)
    wait_until(lambda: client.stats().requests)
    assert not receiver.requests
    assert f"Basic {TOKEN}".encode() in chosen.heard()
    client.shutdown(0)
    exempt = elsewhere()
    no_environment.setenv(variable, exempt.url)
    no_environment.setenv("no_proxy", "127.0.0.1,localhost")
    client = client_of(proxy="environment")
    track(client, 2)
    assert client.flush(10)
    assert exempt.heard() is None


@pytest.fixture
def check_diversion(wait_until):
    """Sends by each of a client's two ways to a vendor that redirects: nobody goes there, and all is kept."""

    def check(client, receiver, name, status, target):
        receiver.decide = lambda _: Reply(status, headers={"Location": f"{target.url}/v1/batch"})
        track(client, 1)
        assert not client.flush(0)
        wait_until(lambda: client.stats().requests)
        with pytest.raises(InvalidResponse) as caught:
            client.batch([NATIVE[name]])
        assert caught.value.status == status
        assert target.heard() is None
        stats = client.stats()
        assert (stats.requests, stats.delivered, stats.pending, sum(stats.dropped.values())) == (1, 0, 1, 0)
        assert target.url.split("/")[2].partition(":")[0] in stats.last_error
        assert balanced(stats)
        assert receiver.faults == ()  # both came with our credentials to where they belong
        assert len(receiver.requests) == 2

    return check


HOSTS = ["127.0.0.1", pytest.param("127.0.0.2", marks=pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere loopback is one address"
))]  # fmt: skip


@every_destination
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_leads_nobody_away(client_of, receiver, elsewhere, check_diversion, *, status, host, name):
    """A redirect to another port or host is not followed: nothing reaches it, everything is kept, and it is named."""
    check_diversion(client_of(name), receiver, name, status, elsewhere(host))


@every_destination
@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_to_plain_http_leads_nobody_away(
    client_of, certificates, elsewhere, check_diversion, *, status, name
):
    """A redirect from https to http is not followed either."""
    with Receiver(wires=tuple(WIRES.values()), tls=(certificates["good"],) * 2) as receiver:
        url = f"https://localhost:{port_of(receiver)}"
        client = client_of(name, url, verify=str(certificates["authority"]))
        check_diversion(client, receiver, name, status, elsewhere())
        client.shutdown(0)


# --- Captive portals --------------------------------------------------------------------------------------------------

PAGE = b"<!DOCTYPE html>\n<html><title>Airport</title><body>Log in first</body></html>"
HTML = {"Content-Type": "text/html; charset=utf-8"}
PORTALS = {
    "a page": Reply(200, body=PAGE, headers=HTML, store=False),
    "a page that calls itself JSON": Reply(200, body=PAGE, store=False),
    "a page that asks to be closed": Reply(200, body=PAGE, headers=HTML, store=False, close=True),
    "511": Reply(511, body=PAGE, headers=HTML),
}


@every_destination
@pytest.mark.parametrize("portal", PORTALS)
def test_a_captive_portal_is_not_the_vendor(client_of, receiver, caplog, *, portal, name):
    """What a portal answers in the vendor's place is no delivery; behind it each message arrives exactly once."""
    receiver.script(*[PORTALS[portal]] * 3)
    deliveries = []
    client = client_of(name, on_delivery=deliveries.append)
    for number in range(3):
        track(client, number)
    assert client.flush(10)
    assert [number for number, _ in stored(receiver)] == [0, 1, 2]
    stats = client.stats()
    assert (stats.requests, stats.retries, stats.delivered, stats.pending) == (4, 3, 3, 0)
    assert [(delivery.count, delivery.attempts) for delivery in deliveries] == [(3, 4)]
    why = "HTTP 511" if portal == "511" else "unexpected_response: HTTP 200"
    assert [line for line in caplog.messages if why in line]
    assert "Airport" not in caplog.text


@every_destination
def test_a_direct_batch_tells_a_portals_page_from_an_answer(client_of, receiver, *, name):
    """The result of a direct `batch()` that a portal answered is falsy, and says why."""
    receiver.script(PORTALS["a page"])
    result = client_of(name).batch([NATIVE[name]])
    assert not result
    assert "unexpected_response" in result.errors[0]


@every_destination
def test_an_empty_200_cannot_be_told_from_the_vendors(client_of, receiver, *, name):
    """An empty 2xx counts as a delivery, since some vendors' kin say no more: whoever forges that is believed."""
    receiver.script(Reply(200, body=b"", store=False))
    client = client_of(name)
    track(client, 1)
    assert client.flush(10)
    assert client.stats().delivered == 1
    assert not receiver.messages
