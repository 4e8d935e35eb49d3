"""The fault proxy: each of its weathers does what it says, seen from plain sockets on both sides."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from fault_proxy import CLEAR, FaultProxy, Weather

REQUEST = bytes(range(1, 101))
RESPONSE = bytes(range(101, 201))


class Upstream:
    """Answers a request of a hundred bytes by a hundred others; knows of each connection what came, and its end."""

    def __init__(self):
        self.received = []
        self.ends = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self):
        """Serve each connection in a thread, until `close`."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.received.append(bytearray())
                self.ends.append(None)
                thread = threading.Thread(target=self.serve, args=(connection, len(self.ends) - 1))
                self.threads.append(thread)
                thread.start()

    def serve(self, connection, number):
        """Answer until the client ends."""
        with connection:
            try:
                while data := connection.recv(65_536):
                    self.received[number] += data
                    if len(self.received[number]) % len(REQUEST) == 0:
                        connection.sendall(RESPONSE)
                self.ends[number] = "end"
            except ConnectionError:
                self.ends[number] = "reset"

    def close(self):
        """Listen no more, and wait for the threads."""
        with contextlib.suppress(OSError):  # it may be closed already
            self.listener.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(5)
        self.listener.close()


@pytest.fixture
def upstream():
    """A server behind the proxy."""
    running = Upstream()
    yield running
    running.close()


@pytest.fixture
def proxy(upstream):
    """A proxy before it, in clear weather."""
    with FaultProxy(upstream.address) as running:
        yield running


@pytest.fixture
def connect(proxy):
    """Makes connections to the proxy that end with the test."""
    with contextlib.ExitStack() as stack:

        def dial():
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 5))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection

        yield dial


def read(connection, most=100):
    """What comes, at most `most` bytes, and how it ended: by an `end`, a `reset`, or not (`open`)."""
    data = b""
    try:
        while len(data) < most:
            piece = connection.recv(most - len(data))
            if not piece:
                return data, "end"
            data += piece
    except ConnectionError:
        return data, "reset"
    return data, "open"


def ask(connection):
    """Send a request; what comes back."""
    connection.sendall(REQUEST)
    return read(connection)


def test_clear_weather_forwards_both_ways_and_counts(proxy, upstream, connect, wait_until):
    """In clear weather the proxy is not felt: bytes and the ends of both sides pass, and are counted."""
    first, second = connect(), connect()
    for connection in (first, second, first):
        assert ask(connection) == (RESPONSE, "open")
    assert (proxy.connections, proxy.open_connections) == (2, 2)
    wait_until(lambda: (proxy.request_bytes, proxy.response_bytes) == (300, 300))
    first.shutdown(socket.SHUT_WR)
    assert read(first) == (b"", "end")
    wait_until(lambda: upstream.ends[0] == "end" and proxy.open_connections == 1)
    assert ask(second) == (RESPONSE, "open")


def test_many_bytes_pass_whole(connect):
    """A megabyte passes without a hole, though the client reads nothing before all is sent."""
    connection = connect()
    sender = threading.Thread(target=lambda: connection.sendall(REQUEST * 10_000))
    sender.start()
    data, how = read(connection, 100)
    assert (data, how) == (RESPONSE, "open")
    sender.join(10)
    assert not sender.is_alive()


@pytest.fixture(params=["end", "reset"])
def cut(request):
    """How a cut is felt."""
    return request.param


@pytest.mark.parametrize("count", [0, 1, 57, 100])
def test_a_request_is_cut_after_so_many_bytes(proxy, upstream, connect, wait_until, *, count, cut):
    """The server reads exactly so many bytes of a request and then its end; the client reads no answer."""
    proxy.weather = Weather(cut_request=count, abort=cut == "reset")
    assert ask(connect()) == (b"", cut)
    wait_until(lambda: upstream.ends == [cut])
    assert proxy.request_bytes == count
    if cut == "end":  # a reset may overtake what it follows
        assert upstream.received[0] == REQUEST[:count]


@pytest.mark.parametrize("count", [0, 1, 57, 100])
def test_a_response_is_cut_after_so_many_bytes(proxy, upstream, connect, wait_until, *, count, cut):
    """The server has the whole request; the client reads exactly so many bytes of the answer, then its end or reset."""
    proxy.weather = Weather(cut_response=count, abort=cut == "reset")
    connection = connect()
    connection.sendall(REQUEST)
    assert read(connection, 1_000) == (RESPONSE[:count], cut)
    assert upstream.received[0] == REQUEST
    wait_until(lambda: proxy.response_bytes == count)


def test_bytes_are_counted_from_the_change_of_the_weather(proxy, connect):
    """A cut falls on an open connection too, after so many of the bytes to come."""
    connection = connect()
    assert ask(connection) == (RESPONSE, "open")
    proxy.weather = Weather(cut_response=150)
    assert ask(connection) == (RESPONSE, "open")
    assert ask(connection) == (RESPONSE[:50], "end")


@pytest.mark.parametrize("direction", ["request_rate", "response_rate"])
def test_bytes_drip(proxy, connect, direction):
    """At 200 bytes a second, a hundred take half a second; other bytes are not slowed."""
    connection = connect()
    proxy.weather = Weather(**{direction: 200})
    started = time.monotonic()
    assert ask(connection) == (RESPONSE, "open")
    assert 0.4 < time.monotonic() - started < 1.5


def test_one_byte_a_second_comes_alone(proxy, connect):
    """A drip of one byte a second gives the first at once, and no second before its second; clear weather the rest."""
    proxy.weather = Weather(response_rate=1)
    connection = connect()
    connection.sendall(REQUEST)
    assert read(connection, 1) == (RESPONSE[:1], "open")
    connection.settimeout(0.3)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    connection.settimeout(5)
    proxy.weather = CLEAR
    assert read(connection, 99) == (RESPONSE[1:], "open")


def test_a_request_is_held(proxy, connect):
    """A delay holds each request so long, on an open connection too."""
    connection = connect()
    proxy.weather = Weather(delay=0.3)
    for _ in range(2):
        started = time.monotonic()
        assert ask(connection) == (RESPONSE, "open")
        assert 0.25 < time.monotonic() - started < 1.3


def test_a_black_hole_swallows(proxy, upstream, connect, wait_until):
    """It takes connections and bytes, and nothing comes of them; those connections stay lost in clear weather."""
    kept = connect()
    assert ask(kept) == (RESPONSE, "open")
    proxy.weather = Weather(black_hole=True)
    fresh = connect()
    wait_until(lambda: proxy.connections == 2)
    for weather in (proxy.weather, CLEAR):
        proxy.weather = weather
        for connection in (kept, fresh):
            connection.settimeout(0.1)
            with pytest.raises(TimeoutError):
                ask(connection)
    assert upstream.received == [REQUEST]
    assert ask(connect()) == (RESPONSE, "open")
    for connection in (kept, fresh):
        connection.shutdown(socket.SHUT_WR)
    wait_until(lambda: proxy.open_connections == 1 and upstream.ends[0] == "end")


def test_connections_are_reset_at_once(proxy, upstream, connect, wait_until):
    """Open connections are reset, and new ones as soon as they are taken; the server sees none of these."""
    kept = connect()
    assert ask(kept) == (RESPONSE, "open")
    proxy.weather = Weather(reset=True)
    assert read(kept) == (b"", "reset")
    with contextlib.suppress(ConnectionError):
        assert read(connect()) == (b"", "reset")
    wait_until(lambda: proxy.connections == 2 and upstream.ends == ["reset"])
    proxy.weather = CLEAR
    assert ask(connect()) == (RESPONSE, "open")


def test_connections_are_refused(proxy, upstream, connect):
    """Open connections end, new ones are refused, and clear weather listens on the same port again."""
    port = proxy.port
    kept = connect()
    assert ask(kept) == (RESPONSE, "open")
    for _ in range(3):
        proxy.weather = Weather(refuse=True)
        with pytest.raises(ConnectionRefusedError):
            connect()
        proxy.weather = CLEAR
        assert ask(connect()) == (RESPONSE, "open")
    assert read(kept) == (b"", "end")
    assert proxy.port == port
    assert len(upstream.ends) == 4


@pytest.mark.parametrize("weather", [Weather(cut_request=9, cuts=2), Weather(reset=True, cuts=2)], ids=["cut", "reset"])
def test_weather_clears_after_so_many_cuts(proxy, connect, weather):
    """After the cuts that the weather may make, it is clear."""
    proxy.weather = weather
    for _ in range(2):
        with contextlib.suppress(ConnectionError):
            assert ask(connect())[0] == b""
    assert ask(connect()) == (RESPONSE, "open")
    assert proxy.weather == CLEAR


def test_a_server_that_is_gone_resets_its_clients(proxy, upstream, connect):
    """Behind a proxy whose server does not listen, a connection is reset."""
    upstream.close()
    with contextlib.suppress(ConnectionError):
        assert read(connect()) == (b"", "reset")
    assert proxy.open_connections == 0


def test_it_ends_with_its_thread_and_its_descriptors(upstream, wait_until):
    """After its block there is no thread, no descriptor and no listener left, whatever was under way."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("descriptors are counted where /proc lists them")
    before = len(list(folder.iterdir()))
    clients = []
    for weather in (CLEAR, Weather(black_hole=True), Weather(response_rate=1), Weather(delay=60)):
        with FaultProxy(upstream.address) as proxy:
            names = [thread.name for thread in threading.enumerate()]
            assert f"fault-proxy:{proxy.port}" in names
            proxy.weather = weather
            clients.append(socket.create_connection(("127.0.0.1", proxy.port), 5))
            clients[-1].sendall(REQUEST)
            wait_until(lambda proxy=proxy: proxy.open_connections == 1)
        assert read(clients[-1], 1_000)[1] in {"end", "reset"}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port), 5)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fault-proxy")]
    for client in clients:
        client.close()
    wait_until(lambda: len(list(folder.iterdir())) == before)


def test_it_runs_as_a_process(upstream):
    """As a process, it takes its weather by lines of JSON and says its port and its counts."""
    program = Path(__file__).with_name("fault_proxy.py")
    command = [sys.executable, str(program), str(upstream.address[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        port = json.loads(process.stdout.readline())["port"]
        process.stdin.write(b'{"cut_response": 3}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["connections"] == 0
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            assert ask(connection) == (RESPONSE[:3], "end")
        process.stdin.write(b"{}\n")
        process.stdin.close()
        assert json.loads(process.stdout.readline())["response_bytes"] == 3
        assert process.wait(10) == 0
