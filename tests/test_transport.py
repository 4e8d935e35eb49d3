"""The transport against real servers on loopback that behave as badly as those of the world."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import gc
import gzip
import ipaddress
import os
import re
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
import warnings
from dataclasses import dataclass

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from analytics_batcher.connection import BODY_LIMIT
from analytics_batcher.errors import TransportError
from analytics_batcher.transport import Transport
from analytics_batcher.version import __version__

TOKEN = "sk_live_51f0c3"
PASSWORD = "hunter2pw"
HEADERS = {"Authorization": f"Basic {TOKEN}", "Content-Type": "application/json"}
BODY = b'[{"type":"track"}]'


@dataclass
class Request:
    """What a server read: the first line, the headers as they came, the body."""

    line: str
    headers: list[str]
    body: bytes


class Server:
    """Accepts on loopback; each connection has a thread that plays `script(server, connection, number)`."""

    def __init__(self, script, tls=None, address=("127.0.0.1", 0)):
        self.script = script
        self.tls = tls
        self.requests = []
        self.connections = 0
        self.stopped = threading.Event()
        self.open = []
        self.listener = socket.create_server(address)
        self.port = self.listener.getsockname()[1]
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def url(self, host="127.0.0.1"):
        """Where a client posts to."""
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}/v1/batch?a=1"

    def accept(self):
        """Give each connection its thread, until `close`."""
        while True:
            connection, _ = self.listener.accept()
            if self.stopped.is_set():
                connection.close()
                return
            self.connections += 1
            thread = threading.Thread(target=self.play, args=(connection, self.connections))
            self.threads.append(thread)
            thread.start()

    def play(self, connection, number):
        """Run the script; a client that goes away ends it."""
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True)
            self.open.append(connection)
            self.script(self, connection, number)
        except OSError:
            pass
        finally:
            connection.close()

    def read(self, connection):
        """One request, or `None` at the end of the connection."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                return None
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        line, *headers = head.decode("latin-1").split("\r\n")
        length = int(next((h[15:] for h in headers if h.lower().startswith("content-length:")), "0"))
        while len(body) < length:
            body += connection.recv(65536)
        self.requests.append(Request(line, headers, body))
        return self.requests[-1]

    def drip(self, connection, data):
        """A byte each 0.2 s."""
        for byte in data:
            connection.sendall(bytes([byte]))
            if self.stopped.wait(0.2):
                return

    def close(self):
        """End the connections, and wait for their threads."""
        self.stopped.set()
        socket.create_connection(self.listener.getsockname()).close()
        self.threads[0].join(5)
        for connection in self.open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(5)
        self.listener.close()


def answer(body=b"ok", *headers, status="200 OK"):
    """Write an HTTP answer."""
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]).encode() + body


def always(reply):
    """A script that gives each request the same answer."""

    def script(server, connection, _number):
        while server.read(connection):
            connection.sendall(reply)

    return script


def abort(connection):
    """Close with a reset, as a crashed server or a firewall does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def hang(server, _connection, _number):
    """Say nothing."""
    server.stopped.wait()


def pump(source, target):
    """Copy what comes until its end."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


def proxy(server, connection, _number):
    """A forwarding and tunnelling HTTP proxy that wants a password."""
    while request := server.read(connection):
        method, target, _ = request.line.split(" ")
        if f"Proxy-Authorization: Basic {base64.b64encode(f'us:{PASSWORD}'.encode()).decode()}" not in request.headers:
            connection.sendall(answer(b"", status=f"407 Give me {PASSWORD}"))
            return
        host, port, path = re.fullmatch(r"(?:http://)?([^/:]+):(\d+)(.*)", target).groups()
        with socket.create_connection((host, int(port))) as upstream:
            if method == "CONNECT":
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                head = "\r\n".join([f"{method} {path} HTTP/1.1", *request.headers, "", ""])
                upstream.sendall(head.encode() + request.body)
            back = threading.Thread(target=pump, args=(upstream, connection))
            back.start()
            pump(connection, upstream)
            back.join(5)


@pytest.fixture
def serve():
    """Start servers that end with the test."""
    with contextlib.ExitStack() as stack:

        def start(*args, **options):
            server = Server(*args, **options)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture
def make(serve):  # noqa: ARG001 - for the order of the two ends
    """Make transports that are closed before the servers."""
    with contextlib.ExitStack() as stack:

        def build(**options):
            transport = Transport(**{"timeout": 5.0, **options})
            stack.callback(transport.close)
            return transport

        yield build


def certificate(folder, name, *, host="localhost", ip="127.0.0.1"):
    """Write a self-signed certificate and its key into one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = dt.datetime.now(dt.timezone.utc)
    names = x509.SubjectAlternativeName([x509.DNSName(host), x509.IPAddress(ipaddress.ip_address(ip))])
    built = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / name
    path.write_bytes(private + built.public_bytes(encoding))
    return str(path)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Certificates that nobody but the test vouches for."""
    folder = tmp_path_factory.mktemp("tls")
    return {
        "good": certificate(folder, "good.pem"),
        "other host": certificate(folder, "other.pem", host="other.example", ip="192.0.2.1"),
    }


def server_context(path):
    """TLS for a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@pytest.fixture
def tls(certificates):
    """TLS for a server on loopback."""
    return server_context(certificates["good"])


def failure(transport, url, *, headers=HEADERS, body=BODY, **options):
    """The error of a request, which holds no secret and no other error, and the seconds it took."""
    start = time.monotonic()
    with pytest.raises(TransportError) as caught:
        transport.post(url, headers, body, **options)
    seconds = time.monotonic() - start
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert TOKEN not in shown
    assert PASSWORD not in shown
    assert caught.value.__context__ is caught.value.__cause__ is None
    return caught.value, seconds


# What is sent, and what comes back


def test_request_holds_the_given_headers_and_little_else(serve, make):
    """A request carries the given headers, byte for byte, its length, the host, our name and no wish for gzip."""
    server = serve(always(answer()))
    make().post(server.url(), HEADERS, BODY)
    (request,) = server.requests
    assert request.line == "POST /v1/batch?a=1 HTTP/1.1"
    assert sorted(request.headers) == [
        "Accept-Encoding: identity",
        f"Authorization: Basic {TOKEN}",
        f"Content-Length: {len(BODY)}",
        "Content-Type: application/json",
        f"Host: 127.0.0.1:{server.port}",
        f"User-Agent: analytics-batcher/{__version__}",
    ]
    assert request.body == BODY


def test_given_header_wins(serve, make):
    """A header that the caller gives replaces ours."""
    server = serve(always(answer()))
    make().post(server.url(), {"user-agent": "mine"}, b"")
    agents = [header for header in server.requests[0].headers if header.lower().startswith("user-agent")]
    assert agents == ["user-agent: mine"]
    assert "Content-Length: 0" in server.requests[0].headers


def test_answer_is_plain_data(serve, make):
    """An answer has its status, its headers by lower-case name with repetitions joined, and its body."""
    server = serve(always(answer(b"body", "X-A: 1", "x-a: 2", "Retry-After: 7", status="429 Slow down")))
    got = make().post(server.url(), HEADERS, BODY)
    assert (got.status, got.body, got.truncated) == (429, b"body", False)
    assert got.headers == {"content-length": "4", "x-a": "1, 2", "retry-after": "7"}
    assert type(got.headers) is dict


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_answer_without_body(serve, make, status):
    """An answer that has no body ends with its headers, and the connection is kept."""
    server = serve(always(f"HTTP/1.1 {status}\r\n\r\n".encode()))
    transport = make()
    got = [transport.post(server.url(), HEADERS, BODY) for _ in range(2)]
    assert [(one.status, one.body) for one in got] == [(int(status[:3]), b"")] * 2
    assert server.connections == 1


def test_chunked_answer(serve, make):
    """A chunked answer is put together, and the connection is kept."""
    server = serve(always(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"))
    transport = make()
    assert [transport.post(server.url(), HEADERS, BODY).body for _ in range(2)] == [b"abcde"] * 2
    assert server.connections == 1


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_answer_without_a_length_ends_with_its_connection(serve, make, tls, secure):
    """An answer that states no length is whole where its connection ends, if its headers are."""

    def script(server, connection, _number):
        server.read(connection)
        connection.sendall(b"HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nbody")

    server = serve(script, tls if secure else None)
    got = make(verify=False).post(server.url(), HEADERS, BODY)
    assert (got.status, got.headers, got.body, got.truncated) == (200, {"x-a": "1"}, b"body", False)


def test_interim_answer_does_not_shift_the_next(serve, make):
    """After an interim answer the connection is given up, as the true answer would be taken for the next request's."""

    def script(server, connection, number):
        server.read(connection)
        if number == 1:
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            server.read(connection)
        connection.sendall(answer(f"connection {number}".encode()))

    server = serve(script)
    transport = make()
    assert transport.post(server.url(), HEADERS, BODY).status == 103
    assert transport.post(server.url(), HEADERS, BODY).body == b"connection 2"


def test_redirect_is_not_followed(serve, make):
    """A redirect is an answer, and the token goes nowhere else."""
    elsewhere = serve(always(answer()))
    server = serve(always(answer(b"", f"Location: {elsewhere.url()}", status="307 Temporary Redirect")))
    assert make().post(server.url(), HEADERS, BODY).status == 307
    assert elsewhere.connections == 0


def test_cookies_are_not_kept(serve, make):
    """A cookie that a server sets is not sent back."""
    server = serve(always(answer(b"", "Set-Cookie: session=1")))
    transport = make()
    for _ in range(2):
        transport.post(server.url(), HEADERS, BODY)
    assert not [header for request in server.requests for header in request.headers if "ookie" in header]


def test_netrc_is_ignored(serve, make, tmp_path, monkeypatch):
    """A .netrc that names the host does not replace the Authorization given."""
    path = tmp_path / "netrc"
    path.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(path))
    server = serve(always(answer()))
    make().post(server.url(), HEADERS, BODY)
    assert f"Authorization: Basic {TOKEN}" in server.requests[0].headers


# Bodies


def test_long_body_is_cut_and_its_connection_closed(serve, make):
    """Of 5 MB, 64 KiB are read; the server finds the connection closed, and the next request opens another."""
    size = 5_000_000
    closed = threading.Event()

    def script(server, connection, _number):
        server.read(connection)
        try:
            connection.sendall(answer(b"x" * size))
            connection.recv(1)
        finally:
            closed.set()

    server = serve(script)
    transport = make()
    got = transport.post(server.url(), HEADERS, BODY)
    assert (got.body, got.truncated) == (b"x" * BODY_LIMIT, True)
    assert closed.wait(5)
    transport.post(server.url(), HEADERS, BODY)
    assert server.connections == 2


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_body_of_the_limit_is_whole(serve, make, framing):
    """A body of exactly 64 KiB is not cut, and its connection is kept."""
    body = b"x" * BODY_LIMIT
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    server = serve(always(answer(body) if framing == "length" else chunked))
    transport = make()
    for _ in range(2):
        got = transport.post(server.url(), HEADERS, BODY)
        assert (len(got.body), got.truncated) == (BODY_LIMIT, False)
    assert server.connections == 1


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_chunk_of_a_negative_size_is_not_read_to_its_end(serve, make, tls, secure):
    """A chunk of -1 bytes, which means all that comes, ends the request after a megabyte; 40 MB would come."""
    heard = []

    def script(server, connection, _number):
        server.read(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
        for _ in range(40):
            connection.sendall(piece)
            heard.append(piece)

    piece = bytes(1_000_000)
    transport = make(verify=False)
    server = serve(script, tls if secure else None)
    tracemalloc.start()
    try:
        error, _ = failure(transport, server.url())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert error.kind == "reset"
    assert len(heard) < 40
    assert peak < 5_000_000


def test_compressed_body_stays_compressed(serve, make):
    """A body that a server compresses unasked comes back as it is."""
    packed = gzip.compress(b"0" * 1_000_000)
    server = serve(always(answer(packed, "Content-Encoding: gzip")))
    assert make().post(server.url(), HEADERS, BODY).body == packed


BAD_ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    f"HTTP/1.1 {PASSWORD} {TOKEN}\r\n\r\n".encode(),
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain",
    b"HTTP/1.1 204 No Content\r\nContent-Le",
    b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r",
    b"HTTP/1.1 200",
    b"HTTP/1.1 20",
    b"",
]
GOOD_ANSWERS = [
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\n\r\n",
    b"HTTP/1.1 429 Slow\r\nX-A: 1\r\nRetry-After: 7\r\nx-a: 2\r\nContent-Length: 4\r\n\r\nbody",
    b"HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nbody",
    b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000,
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
]


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_an_answer_means_the_same_on_a_new_connection_and_on_a_kept_one(serve, make, tls, secure):
    """What comes back is read alike, and ends the connection alike, whether requests or http.client asked for it."""

    def outcome(transport, url):
        try:
            got = transport.post(url, HEADERS, BODY)
        except TransportError as error:
            return error.kind
        return got.status, got.headers, got.body, got.truncated

    for reply in [*GOOD_ANSWERS, *filter(None, BAD_ANSWERS)]:
        waits = reply in GOOD_ANSWERS and b"HTTP/1.0" not in reply

        def script(server, connection, _number, reply=reply, waits=waits):
            if server.read(connection).line.startswith("POST /kept"):
                connection.sendall(answer(b"first"))
                server.read(connection)
            connection.sendall(reply)
            if waits and server.read(connection):
                connection.sendall(answer(b"the same connection"))

        server = serve(script, tls if secure else None)
        seen = []
        for path in ("new", "kept"):
            transport = make(verify=False)
            url = server.url().replace("/v1/batch", f"/{path}")
            if path == "kept":
                assert outcome(transport, url)[2] == b"first"
            got = outcome(transport, url)
            later = outcome(transport, url)
            seen.append((got, later[2] == b"the same connection"))
        assert seen[0] == seen[1], reply
        assert later[2] in {b"the same connection", b"first"}
        assert len({tuple(sorted(request.headers)) for request in server.requests}) == 1


@pytest.mark.parametrize("earlier", [0, 1, 2])
def test_a_connection_that_the_server_will_close_is_closed(serve, make, earlier):
    """After `Connection: close` the server waits for our end too: nothing more is sent there, first answer or not."""
    ended = threading.Event()

    def script(server, connection, _number):
        for _ in range(earlier):
            server.read(connection)
            connection.sendall(answer(b"stay", "Connection: keep-alive"))
        server.read(connection)
        connection.sendall(answer(b"go", "Connection: close"))
        if not connection.recv(1):
            ended.set()

    server = serve(script)
    transport = make()
    bodies = [transport.post(server.url(), HEADERS, BODY).body for _ in range(earlier + 1)]
    assert bodies == [b"stay"] * earlier + [b"go"]
    assert ended.wait(5)
    assert server.connections == 1


@pytest.mark.parametrize("reply", BAD_ANSWERS)
def test_incomplete_or_bad_answer(serve, make, reply):
    """An answer that breaks off, or is none, is a `reset` in which the server's words do not stand."""

    def script(server, connection, _number):
        server.read(connection)
        connection.sendall(reply)

    server = serve(script)
    error, _ = failure(make(), server.url())
    assert error.kind == "reset"
    assert server.connections == 1


# Time


def test_dripping_tunnel_ends_at_the_timeout(serve, make, tls):
    """The bytes are counted through a tunnel too, and through its proxy's own TLS."""

    def script(server, connection, _number):
        server.read(connection)
        server.drip(connection, answer())

    through, server = serve(proxy, tls), serve(script, tls)
    transport = make(timeout=0.5, verify=False, proxy=f"https://us:{PASSWORD}@127.0.0.1:{through.port}")
    error, seconds = failure(transport, server.url())
    assert len(server.requests) == 1
    assert error.kind == "timeout"
    assert 0.45 < seconds < 0.8


@pytest.mark.parametrize("where", ["headers", "body"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_dripping_answer_ends_at_the_timeout(serve, make, tls, where, secure):
    """A server that sends a byte each 0.2 s holds a request no longer than the timeout."""

    def script(server, connection, _number):
        server.read(connection)
        if where == "body":
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        server.drip(connection, answer(b"x" * 100))

    server = serve(script, tls if secure else None)
    error, seconds = failure(make(timeout=0.6, verify=False), server.url())
    assert error.kind == "timeout"
    assert 0.55 < seconds < 0.9


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_slow_reader_ends_at_the_timeout(serve, make, tls, secure):
    """A server that reads a large body little by little holds a request no longer than the timeout."""

    def script(server, connection, _number):
        while connection.recv(16_384) and not server.stopped.wait(0.02):
            pass

    server = serve(script, tls if secure else None)
    error, seconds = failure(make(timeout=0.4, verify=False), server.url(), body=bytes(30_000_000))
    assert error.kind == "timeout"
    assert 0.35 < seconds < 0.7


def test_slow_tls_handshake_ends_at_the_timeout(serve, make):
    """A handshake that drips, on a port that speaks no TLS, ends at the timeout."""

    def script(server, connection, _number):
        connection.sendall(b"\x16\x03\x03\x20\x00")
        server.drip(connection, bytes(100))

    server = serve(script)
    error, seconds = failure(make(timeout=0.4), server.url("localhost").replace("http", "https"))
    assert error.kind == "timeout"
    assert 0.35 < seconds < 0.7


def test_slow_proxy_ends_at_the_timeout(serve, make):
    """A proxy that drips its answer to CONNECT ends at the timeout."""

    def script(server, connection, _number):
        server.read(connection)
        server.drip(connection, b"HTTP/1.1 200 Connection established\r\n\r\n")

    server = serve(script)
    error, seconds = failure(make(timeout=0.4, proxy=f"http://127.0.0.1:{server.port}"), "https://vendor.example/")
    assert error.kind == "timeout"
    assert 0.35 < seconds < 0.7


def test_silent_server_ends_at_the_timeout(serve, make):
    """A server that never answers costs the timeout."""
    error, seconds = failure(make(timeout=0.3), serve(hang).url())
    assert error.kind == "timeout"
    assert 0.25 < seconds < 0.6


def test_deadline_comes_before_the_timeout(serve, make):
    """An earlier deadline ends the request, a later one does not extend it."""
    server = serve(hang)
    _, early = failure(make(timeout=5.0), server.url(), deadline=time.monotonic() + 0.2)
    assert 0.15 < early < 0.5
    _, late = failure(make(timeout=0.2), server.url(), deadline=time.monotonic() + 5.0)
    assert 0.15 < late < 0.5


def test_past_deadline_makes_no_connection(serve, make):
    """A deadline that has passed is a timeout at once, without a connection."""
    server = serve(always(answer()))
    error, seconds = failure(make(), server.url(), deadline=time.monotonic() - 1)
    assert error.kind == "timeout"
    assert seconds < 0.1
    assert server.connections == 0


DEAF = [f"127.0.0.{number}" for number in range(10, 14)]
on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a full queue refuses, and loopback is one address"
)


@pytest.fixture
def deaf():
    """A port that takes for ever to connect to on the addresses `DEAF`: the queues of its connections are full."""
    with contextlib.ExitStack() as stack:
        port = 0
        for address in DEAF:
            listener = stack.enter_context(socket.create_server((address, port), backlog=0))
            port = listener.getsockname()[1]
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex((address, port))
        yield port


@pytest.fixture
def resolve(monkeypatch):
    """Make `many.example` the name of some addresses, as nothing on this machine can answer for a name server."""
    known = socket.getaddrinfo

    def use(*addresses):
        def look_up(_host, *args, **options):
            return [entry for one in addresses for entry in known(one, *args, **options)]

        def getaddrinfo(host, *args, **options):
            return (look_up if host == "many.example" else known)(host, *args, **options)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return use


@on_linux
@pytest.mark.parametrize(("timeout", "deadline"), [((0.2, 5.0), 5.0), ((5.0, 5.0), 0.2)])
def test_connecting_has_its_own_limit(deaf, make, timeout, deadline):
    """With a pair, connecting ends after its part, or at the deadline if that is earlier."""
    url = f"http://{DEAF[0]}:{deaf}/"
    error, seconds = failure(make(timeout=timeout), url, deadline=time.monotonic() + deadline)
    assert error.kind == "timeout"
    assert 0.15 < seconds < 0.5


def late(server, connection, _number):
    """Answer after 0.2 s."""
    while server.read(connection) and not server.stopped.wait(0.2):
        connection.sendall(answer())


def test_answer_may_take_longer_than_connecting(serve, make):
    """With a pair, its first part does not bound the answer."""
    assert make(timeout=(0.1, 5.0)).post(serve(late).url(), HEADERS, BODY).status == 200


def test_each_request_has_the_whole_time(serve, make):
    """A second request over a kept connection does not live on the time of the first."""
    server = serve(late)
    transport = make(timeout=0.35)
    assert [transport.post(server.url(), HEADERS, BODY).status for _ in range(2)] == [200, 200]
    assert server.connections == 1


def test_pair_bounds_the_whole(serve, make):
    """With a pair, the whole request ends after the sum."""
    error, seconds = failure(make(timeout=(0.1, 0.2)), serve(hang).url())
    assert error.kind == "timeout"
    assert 0.25 < seconds < 0.6


@on_linux
def test_dead_addresses_share_the_time(deaf, make, resolve):
    """A host of several addresses that swallow connections costs the timeout once, not once for each address."""
    resolve(*DEAF)
    error, seconds = failure(make(timeout=0.4), f"http://many.example:{deaf}/")
    assert error.kind == "timeout"
    assert 0.35 < seconds < 0.6


@on_linux
def test_living_address_is_reached_past_a_dead_one(deaf, serve, make, resolve):
    """A first address that swallows connections leaves time for the second."""
    server = serve(always(answer()), address=("127.0.0.20", deaf))
    resolve(DEAF[0], "127.0.0.20")
    assert make(timeout=0.6).post(f"http://many.example:{deaf}/", HEADERS, BODY).status == 200
    assert server.connections == 1


# Connections


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_connection_is_kept(serve, make, tls, secure):
    """Ten requests use one connection, from whichever thread they come."""
    server = serve(always(answer()), tls if secure else None)
    transport = make(verify=False)
    for _ in range(5):
        transport.post(server.url(), HEADERS, BODY)
    other = threading.Thread(target=lambda: [transport.post(server.url(), HEADERS, BODY) for _ in range(5)])
    other.start()
    other.join()
    assert len(server.requests) == 10
    assert server.connections == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_requests_over_a_kept_connection_say_what_the_first_one_said(serve, make, host):
    """First line, headers and body are as on the new connection; other headers, and large bodies, are not confused."""
    address = ("::1", 0) if host == "[::1]" else ("127.0.0.1", 0)
    try:
        server = serve(always(answer()), address=address)
        socket.getaddrinfo(host.strip("[]"), server.port)
    except OSError as error:
        pytest.skip(f"this machine has no {host}: {error}")
    transport = make()
    other = {**HEADERS, "Content-Encoding": "gzip", "User-Agent": "mine"}
    sent = [(HEADERS, BODY), (HEADERS, BODY), (other, BODY), (other, b"x" * 200_000), (HEADERS, b"y" * 65_537)]
    for headers, body in sent:
        assert transport.post(server.url(host), headers, body).status == 200
    transport.close()
    for headers, body in sent:  # each of them as a first one
        transport.post(server.url(host), headers, body)
        transport.close()
    said = [(request.line, sorted(request.headers), request.body) for request in server.requests]
    assert said[: len(sent)] == said[len(sent) :]
    assert server.connections == 1 + len(sent)


def test_small_requests_do_not_wait_for_acknowledgements(serve, make):
    """Twenty small requests over a proxy take no 40 ms each, which the server's kernel takes to acknowledge headers."""
    through = serve(always(answer()))
    transport = make(proxy=f"http://127.0.0.1:{through.port}")
    start = time.monotonic()
    for _ in range(20):
        transport.post("http://vendor.example/", HEADERS, BODY)
    assert time.monotonic() - start < 0.4
    assert through.connections == 1


def test_close_ends_the_kept_connection(serve, make):
    """`close` is seen by the server, and a later request opens another connection."""
    ended = threading.Event()

    def script(server, connection, number):
        always(answer())(server, connection, number)
        ended.set()

    server = serve(script)
    transport = make()
    transport.post(server.url(), HEADERS, BODY)
    transport.close()
    assert ended.wait(5)
    transport.post(server.url(), HEADERS, BODY)
    assert server.connections == 2


def test_reopen_uses_a_new_connection(serve, make):
    """After `reopen` the old connection is not used again."""
    server = serve(always(answer()))
    transport = make()
    transport.post(server.url(), HEADERS, BODY)
    transport.reopen()
    transport.post(server.url(), HEADERS, BODY)
    assert server.connections == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_forked_child_leaves_the_parents_connection_alone(serve, make, tls):
    """A forked child that reopens posts over its own connection, and its parent's TLS connection goes on."""
    server = serve(always(answer()), tls)
    transport = make(verify=False)
    transport.post(server.url(), HEADERS, BODY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # there are threads: that is the point
        child = os.fork()
    if not child:
        status = 1
        try:
            transport.reopen()
            gc.collect()
            status = transport.post(server.url(), HEADERS, BODY).status != 200
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    transport.post(server.url(), HEADERS, BODY)
    assert len(server.requests) == 3
    assert server.connections == 2


LATER = always(answer(b"later"))


@pytest.mark.usefixtures("no_environment")
@pytest.mark.parametrize("proxy", [None, "environment"])
def test_kept_connections_are_behind_no_lock(serve, make, proxy):
    """A fork cannot leave a lock locked that a child would need to drop its parent's connections."""
    server = serve(always(answer()))
    transport = make(proxy=proxy)
    for _ in range(3):
        transport.post(server.url(), HEADERS, BODY)
    assert server.connections == 1
    assert not hasattr(transport._adapter.poolmanager.connection_from_url(server.url()).pool, "mutex")


def stale(*, first=b"", later=LATER):
    """A script whose first connection answers once, and breaks when the second request has come, after `first`."""

    def script(server, connection, number):
        if number > 1:
            later(server, connection, number)
            return
        server.read(connection)
        connection.sendall(answer())
        server.read(connection)
        connection.sendall(first)

    return script


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_stale_connection_is_replaced(serve, make, tls, secure):
    """A request whose kept connection turns out closed is sent again, on a new one."""
    server = serve(stale(), tls if secure else None)
    transport = make(verify=False)
    transport.post(server.url(), HEADERS, BODY)
    assert transport.post(server.url(), HEADERS, BODY).body == b"later"
    assert server.connections == 2


def test_other_hosts_failure_changes_nothing(serve, make):
    """A kept connection that turns out closed is replaced, whatever happened with another host in between."""
    server = serve(stale())
    transport = make()
    transport.post(server.url(), HEADERS, BODY)
    assert failure(transport, f"http://127.0.0.1:{free_port()}/")[0].kind == "connect"
    assert transport.post(server.url(), HEADERS, BODY).body == b"later"


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_stale_connection_that_resets_is_replaced(serve, make, tls, secure):
    """A reset of a kept connection, in the middle of a large request, is no failure."""

    def script(server, connection, number):
        if server.read(connection):
            connection.sendall(answer())
        if number == 1:
            connection.recv(1)
            abort(connection)
        server.read(connection)
        connection.sendall(answer(b"later"))

    server = serve(script, tls if secure else None)
    transport = make(verify=False)
    transport.post(server.url(), HEADERS, BODY)
    transport.post(server.url(), HEADERS, bytes(10_000_000))
    assert server.connections == 2


def test_stale_connection_is_replaced_once(serve, make):
    """If the new connection breaks too, that is the request's failure: there is no third."""
    server = serve(stale(later=lambda server, connection, _number: server.read(connection)))
    transport = make()
    transport.post(server.url(), HEADERS, BODY)
    error, _ = failure(transport, server.url())
    assert error.kind == "reset"
    assert server.connections == 2


def test_replacement_is_under_the_same_deadline(serve, make):
    """The second sending has the time that is left of the first."""
    server = serve(stale(later=hang))
    transport = make(timeout=0.3)
    transport.post(server.url(), HEADERS, BODY)
    error, seconds = failure(transport, server.url())
    assert error.kind == "timeout"
    assert 0.25 < seconds < 0.5
    assert server.connections == 2


def test_begun_answer_is_not_asked_for_again(serve, make):
    """A kept connection that breaks within its answer is a failure, as the request was taken."""
    server = serve(stale(first=b"HTTP/1.1 2"))
    transport = make()
    transport.post(server.url(), HEADERS, BODY)
    error, _ = failure(transport, server.url())
    assert error.kind == "reset"
    assert server.connections == 1


def test_fresh_connection_is_not_replaced(serve, make):
    """A reset of the first request of a connection is a failure at once."""

    def script(server, connection, _number):
        server.read(connection)
        abort(connection)

    server = serve(script)
    error, _ = failure(make(), server.url())
    assert error.kind == "reset"
    assert "reset" in str(error).lower() or "disconnected" in str(error).lower()
    assert server.connections == 1


@pytest.mark.skipif(sys.platform == "win32", reason="no signal to one thread")
def test_interrupt_discards_the_connection(serve, make):
    """Ctrl-C passes through, and the answer that was not read is not taken for the next request's."""
    main = threading.get_ident()

    def script(server, connection, number):
        server.read(connection)
        if number == 1:
            signal.pthread_kill(main, signal.SIGINT)
            server.read(connection)
        connection.sendall(answer(f"connection {number}".encode()))

    server = serve(script)
    transport = make()
    with pytest.raises(KeyboardInterrupt):
        transport.post(server.url(), HEADERS, BODY)
    assert transport.post(server.url(), HEADERS, BODY).body == b"connection 2"


# Errors


def free_port():
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_refused_connection(make):
    """A refusal is of kind `connect`, and says so."""
    error, _ = failure(make(), f"http://user:{PASSWORD}@127.0.0.1:{free_port()}/")
    assert error.kind == "connect"
    assert str(error).startswith("ConnectionRefusedError: ")


def test_unknown_host(make):
    """A name without an address is of kind `connect`."""
    error, _ = failure(make(), "http://nothing.invalid/")
    assert error.kind == "connect"
    assert str(error).startswith("gaierror: ")


@pytest.mark.parametrize(
    ("url", "headers"),
    [
        ("http://127.0.0.1/", {"Authorization": f"Basic {TOKEN}\nX-Evil: 1"}),
        ("http://127.0.0.1/", {"Authorization": f" Basic {TOKEN}"}),
        ("http://127.0.0.1/", {"Authorization": f"Basic {TOKEN}\u20ac"}),
        ("http://127.0.0.1/", {f"{TOKEN}\r\nX-Evil": "1"}),
        (f"http://{TOKEN}\u2026{'x' * 70}/", HEADERS),
        (f"http://{'x' * 64}.example/{TOKEN}", HEADERS),
        (f"http://user:{TOKEN}@:80/", HEADERS),
        (f"http://127.0.0.1:{TOKEN}/", HEADERS),
        (f"gopher://{TOKEN}/", HEADERS),
        (TOKEN, HEADERS),
    ],
)
def test_bad_url_or_header(make, serve, url, headers):
    """What cannot be sent is of kind `request`, and does not stand in the error."""
    server = serve(always(answer()))
    error, _ = failure(make(), url.replace("127.0.0.1/", f"127.0.0.1:{server.port}/"), headers=headers)
    assert error.kind == "request"
    assert server.requests == []


def test_callers_own_error_is_left_alone(make):
    """A request made while another error is handled leaves that one its traceback, and does not look into it."""
    own = TimeoutError()
    transport, url = make(), f"http://127.0.0.1:{free_port()}/"

    def post_while_handling():
        try:
            raise own
        finally:
            transport.post(url, HEADERS, BODY)

    with pytest.raises(TransportError) as caught:
        post_while_handling()
    assert caught.value.kind == "connect"
    assert caught.value.__context__ is own
    assert own.__traceback__ is not None


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("trouble", ["refused", "reset", "timeout"])
def test_failed_request_does_not_keep_its_body(serve, make, tls, trouble, secure):
    """The body of a failed request is let go at once: the garbage collector may come long after many more."""
    script = hang if trouble == "timeout" else lambda server, connection, _number: server.read(connection)
    url = serve(script, tls if secure else None).url()
    if trouble == "refused":
        url = re.sub(r":\d+/", f":{free_port()}/", url)
    transport = make(timeout=0.1, verify=False)
    body = bytes(1000)
    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(body)
        with contextlib.suppress(TransportError):
            transport.post(url, HEADERS, body)
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()


# TLS


def test_unknown_authority_is_refused(serve, make, tls):
    """A certificate that nobody vouches for is refused by default, as kind `tls`, before a request is sent."""
    server = serve(always(answer()), tls)
    error, _ = failure(make(), server.url("localhost"))
    assert error.kind == "tls"
    assert server.requests == []
    assert server.connections == 1


def test_given_authority_is_accepted(serve, make, tls, certificates):
    """A certificate by the given authority is accepted."""
    server = serve(always(answer()), tls)
    assert make(verify=certificates["good"]).post(server.url("localhost"), HEADERS, BODY).status == 200


@pytest.mark.skipif(urllib3.__version__ < "2", reason="urllib3 1.26 does not tell the context an address to check")
def test_address_is_checked_too(serve, make, certificates):
    """A trusted certificate is accepted for an address that it names, and for no other."""
    good = serve(always(answer()), server_context(certificates["good"]))
    assert make(verify=certificates["good"]).post(good.url(), HEADERS, BODY).status == 200
    other = serve(always(answer()), server_context(certificates["other host"]))
    error, _ = failure(make(verify=certificates["other host"]), other.url())
    assert error.kind == "tls"


def test_given_authority_is_the_only_one(serve, make, tls, certificates, tmp_path):
    """The path replaces the authorities that come with requests; a directory is taken too."""
    transport = make(verify=certificates["good"])
    transport.post(serve(always(answer()), tls).url("localhost"), HEADERS, BODY)
    subjects = [entry["subject"] for entry in transport._adapter.context.get_ca_certs()]
    assert subjects == [((("commonName", "localhost"),),)]
    assert make(verify=str(tmp_path))._adapter.context.get_ca_certs() == []


def test_authority_is_not_taken_from_the_environment(serve, make, tls, certificates, monkeypatch):
    """The environment's authorities are not asked."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, certificates["good"])
    server = serve(always(answer()), tls)
    error, _ = failure(make(), server.url("localhost"))
    assert error.kind == "tls"


def test_other_host_is_refused(serve, make, certificates):
    """A trusted certificate of another host is refused."""
    server = serve(always(answer()), server_context(certificates["other host"]))
    error, _ = failure(make(verify=certificates["other host"]), server.url("localhost"))
    assert error.kind == "tls"
    assert server.requests == []


def test_old_tls_is_refused(serve, make, certificates):
    """TLS 1.1 is not spoken, even unverified."""
    context = server_context(certificates["good"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    error, _ = failure(make(verify=False), serve(always(answer()), context).url())
    assert error.kind == "tls"


def test_verification_is_switched_off_in_silence(serve, make, certificates):
    """With `verify=False` any certificate will do, and nothing warns of it."""
    server = serve(always(answer()), server_context(certificates["other host"]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert make(verify=False).post(server.url(), HEADERS, BODY).status == 200
    assert caught == []


# Proxies


@pytest.fixture
def no_environment(monkeypatch):
    """Take the proxies out of the environment, to put some in."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


def test_proxies_of_the_environment_are_ignored(serve, make, no_environment):
    """A proxy in the environment is not used unasked."""
    for name in ("HTTP_PROXY", "ALL_PROXY"):
        no_environment.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert make().post(serve(always(answer())).url(), HEADERS, BODY).status == 200


def test_proxies_of_the_environment_are_used_when_asked(serve, make, no_environment):
    """With `"environment"` its proxy is used, but for the hosts that it exempts."""
    through, server = serve(proxy), serve(always(answer()))
    no_environment.setenv("http_proxy", f"http://us:{PASSWORD}@127.0.0.1:{through.port}")
    transport = make(proxy="environment")
    assert transport.post(server.url(), HEADERS, BODY).status == 200
    no_environment.setenv("no_proxy", "127.0.0.1")
    assert transport.post(server.url(), HEADERS, BODY).status == 200
    assert (through.connections, server.connections) == (1, 2)


@pytest.mark.parametrize("way", ["http by http", "http by https", "https by http", "https by https"])
def test_proxy_is_used(serve, make, tls, certificates, way):
    """A proxy gets the password, the server gets the request, and the connection through it is kept."""
    scheme, proxy_scheme = way.split(" by ")
    through = serve(proxy, tls if proxy_scheme == "https" else None)
    server = serve(always(answer()), tls if scheme == "https" else None)
    transport = make(proxy=f"{proxy_scheme}://us:{PASSWORD}@localhost:{through.port}", verify=certificates["good"])
    for _ in range(2):
        assert transport.post(server.url("localhost"), HEADERS, BODY).status == 200
    assert through.connections == server.connections == 1
    assert through.requests[0].line.startswith("CONNECT localhost" if scheme == "https" else "POST http://localhost")
    assert f"Authorization: Basic {TOKEN}" in server.requests[1].headers
    if scheme == "https":
        assert not [header for header in server.requests[0].headers if header.startswith("Proxy-")]


def test_proxy_that_refuses_us(serve, make):
    """A proxy's refusal to tunnel is of kind `proxy`, with its status and without its words."""
    error, _ = failure(make(proxy=f"http://127.0.0.1:{serve(proxy).port}"), "https://vendor.example/")
    assert error.kind == "proxy"
    assert "407" in str(error)


@pytest.mark.parametrize("url", ["http://vendor.example/", "https://vendor.example/"])
def test_dead_proxy(make, url):
    """A proxy that is not there is of kind `proxy`, and its password does not stand in the error."""
    error, _ = failure(make(proxy=f"http://us:{PASSWORD}@127.0.0.1:{free_port()}"), url)
    assert error.kind == "proxy"
    assert str(error).startswith("ConnectionRefusedError: ")


def test_proxy_that_hangs_up(serve, make):
    """A proxy that closes the connection instead of a tunnel is of kind `proxy`."""
    through = serve(lambda server, connection, _number: server.read(connection))
    error, _ = failure(make(proxy=f"http://127.0.0.1:{through.port}"), "https://vendor.example/")
    assert error.kind == "proxy"


def test_bad_proxy_of_the_environment(make, no_environment):
    """A proxy of the environment without a host is of kind `proxy`."""
    no_environment.setenv("http_proxy", f"http://us:{PASSWORD}@/")
    error, _ = failure(make(proxy="environment"), "http://vendor.example/")
    assert error.kind == "proxy"


# Settings


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan"), True, "10", None, (), (1,), (1, 0), (1, 2, 3)])
def test_timeout_must_be_positive(timeout):
    """A timeout that bounds nothing is refused, by its name."""
    with pytest.raises(ValueError, match=r"^timeout must be a positive number of seconds, or a pair .*, not "):
        Transport(timeout=timeout)


@pytest.mark.parametrize(
    "proxy",
    [
        f"ftp://us:{PASSWORD}@host:1",
        f"us:{PASSWORD}@host:1",
        f"http://us:{PASSWORD}@",
        f"http://us:{PASSWORD}/@host",
        f"http://us:{PASSWORD}@a@host:port",
        f"//us:{PASSWORD}@host",
        "",
        "http://",
        "host:8080",
    ],
)
def test_proxy_must_be_a_url(proxy):
    """A proxy that cannot be one is refused, by its name and without its password."""
    with pytest.raises(
        ValueError, match=r"^proxy must be None, 'environment' or a URL .*http, https, socks5"
    ) as caught:
        Transport(proxy=proxy)
    assert PASSWORD not in "".join(traceback.format_exception(caught.value))
    assert proxy.rpartition("@")[2] in str(caught.value)


def test_verify_must_exist(tmp_path):
    """A path where there are no certificates is refused, by its name."""
    empty = tmp_path / "empty.pem"
    empty.write_text("")
    for path in (str(tmp_path / "missing.pem"), str(empty), ""):
        with pytest.raises(ValueError, match=r"^verify must be True, False or the path") as caught:
            Transport(verify=path)
        assert repr(path) in str(caught.value)


def test_import_is_light():
    """Importing the module loads neither requests nor urllib3 nor ssl; making a transport loads them."""
    code = (
        "import sys, analytics_batcher.transport as t; heavy = {'requests', 'urllib3', 'ssl'};"
        "print(sorted(heavy & set(sys.modules))); t.Transport(); print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n['requests', 'ssl', 'urllib3']\n"


def test_socks_proxy_is_used(serve, make):
    """A SOCKS 5 proxy is used, with its password, under the same clock."""
    pytest.importorskip("socks")

    def socks(server, connection, _number):
        connection.recv(2 + connection.recv(2, socket.MSG_PEEK)[1])
        connection.sendall(b"\x05\x02")
        server.requests.append(connection.recv(100))
        connection.sendall(b"\x01\x00")
        asked = connection.recv(100)
        connection.sendall(b"\x05\x00\x00\x01" + bytes(6))
        with socket.create_connection((socket.inet_ntoa(asked[4:8]), int.from_bytes(asked[8:10], "big"))) as upstream:
            back = threading.Thread(target=pump, args=(upstream, connection))
            back.start()
            pump(connection, upstream)
            back.join(5)

    through, server = serve(socks), serve(always(answer()))
    transport = make(proxy=f"socks5://us:{PASSWORD}@127.0.0.1:{through.port}", timeout=0.6)
    for _ in range(2):
        assert transport.post(server.url(), HEADERS, BODY).status == 200
    assert PASSWORD.encode() in through.requests[0]
    assert through.connections == server.connections == 1
    mute = make(proxy=f"socks5://127.0.0.1:{serve(hang).port}", timeout=0.2)
    assert failure(mute, server.url())[0].kind == "timeout"
    dripping = serve(lambda server, connection, _number: server.read(connection) and server.drip(connection, answer()))
    error, seconds = failure(transport, dripping.url())
    assert error.kind == "timeout"
    assert seconds < 0.9
