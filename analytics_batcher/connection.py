"""Connections that keep one deadline for a whole request, and requests over one that was kept.

`requests` bounds each read, so one byte a second holds it for ever. Here every operation of a socket is given the time
that is left of the whole request. The classes for it are mixins, which get their bases in `derive`: `urllib3` and `ssl`
are imported when a transport is made, not with this module. A name look-up cannot be interrupted within its thread: it
alone may outlast the deadline.
"""

from __future__ import annotations

import errno
import io
import os
import select
import socket
from dataclasses import dataclass
from queue import Empty
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, cast

from .answer import Answer, plain_answer
from .version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from urllib3.connection import HTTPConnection as _ConnectionBase
else:
    _ConnectionBase = object

BODY_LIMIT: Final = 64 * 1024  # bytes: room for a reason per message of a batch, and none for a bomb of 400 MB
# Bytes of all that a server may say to a request: a chunk of -1 bytes makes http.client read on to the end.
_SPEECH_LIMIT: Final = 2**20
HEADERS: Final = {"User-Agent": f"analytics-batcher/{__version__}", "Accept-Encoding": "identity"}
# Bytes of an answer read at first: room for most, and it is held while the server thinks.
_PIECE: Final = 8 * 1024
# Up to so many bytes of a body go out with the head, which saves the server a wake-up, and are copied for it.
_SMALL: Final = 64 * 1024
# Else headers and body are two writes. urllib3 leaves Nagle's algorithm on for proxies: 44 ms for each request.
_SOCKET_OPTIONS: Final[list[tuple[int, int, int | bytes]]] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]


@dataclass(slots=True)
class Watch:
    """The clock of the one request under way, and what its sockets have seen. One thread at a time uses it."""

    connect: float
    total: float
    deadline: float = 0.0  # of the request
    limit: float = 0.0  # of its present phase: connecting, or the rest
    proxied: bool = False
    connecting: bool = False
    dialled: bool = False  # it does not go over a kept connection
    received: int = 0  # bytes that have come back
    ended: bool = False  # and then their end
    kept: Any = None  # the connection that the last request left open

    def left(self) -> float:
        """Seconds left of the present phase; `TimeoutError` if there are none."""
        left = self.limit - monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def hear(self, count: int) -> None:
        """Count what has come in; `OSError` if the server does not come to an end."""
        self.received += count
        self.ended |= not count
        if self.received > _SPEECH_LIMIT:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))


def _timed(name: str) -> Any:
    def operation(self: Any, *args: Any, **options: Any) -> Any:
        self.settimeout(self.watch.left())
        result = getattr(super(TimedSocket, self), name)(*args, **options)
        if name in {"recv", "recv_into"}:
            self.watch.hear(result if name == "recv_into" else len(result))
        return result

    return operation


class TimedSocket:
    """Over `socket` and `SSLSocket`: gives each operation the time that is left; Python counts it down within."""

    watch: Watch
    do_handshake, send, sendall, recv, recv_into = map(_timed, ("do_handshake", "send", "sendall", "recv", "recv_into"))


class TimedConnection(_ConnectionBase):
    """Over a connection class of urllib3: connects timed sockets."""

    watch: Watch
    socket_class: type[socket.socket]

    def connect(self) -> None:
        """Connect, tunnel and shake hands within the time for connecting."""
        watch = self.watch
        watch.connecting, watch.limit = True, min(watch.deadline, monotonic() + watch.connect)
        super().connect()
        watch.connecting, watch.limit = False, watch.deadline
        # urllib3 reads it for one purpose: to warn, at each request, of what `verify=False` has asked for.
        self.is_verified = True

    def _new_conn(self) -> socket.socket:
        self.watch.dialled = True
        return self.socket_class(fileno=self._dial().detach())

    def _dial(self) -> socket.socket:
        """Connect to the first address that answers. urllib3 gives the whole time to each.

        Of shares of what is left, the sum is in time, and a dead first address (of IPv6, often) hides no living second.
        """
        from urllib3.util.connection import create_connection  # noqa: PLC0415 - see the module

        if hasattr(self, "_socks_options"):  # PySocks greets the proxy by a socket of its own, timed per read
            return super()._new_conn()
        found = socket.getaddrinfo(self._dns_host.strip("[]"), self.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        while True:
            share = self.watch.left() / len(addresses)
            try:
                return create_connection((addresses.pop(0), self.port), share, socket_options=_SOCKET_OPTIONS)
            except OSError:
                if not addresses:
                    raise


class Handover:
    """What a pool keeps its idle connections in, for urllib3: hands them over to whoever holds the watch.

    In the pool urllib3 would close them at exit, before the exit hook of a client has sent what it has: a connection
    that works for a `Line`, too. And its own queue has a lock, which a fork may leave locked to a child.
    """

    watch: Watch

    def __init__(self, _size: int) -> None:
        pass

    def put(self, connection: Any, **_: Any) -> None:
        """Take a connection that is free again. A new pool puts `None` in the place of each."""
        if connection is not None:
            self.watch.kept = connection

    def get(self, **_: Any) -> Any:
        """Have none: the pool makes one."""
        raise Empty


class Line:
    """A connection that `requests` opened and left open: more requests to its URL go over it by `http.client` alone.

    For each request, `requests` and `urllib3` look up its pool, its proxy, its certificates and its cookies, parse its
    URL twice and wrap its answer, and `http.client` writes the same head again: five sixths of the processor time of a
    request, and the same each time.

    Args:
        url: Where it leads to, without a proxy.
        target: What stands in a request's first line.
        connection: The connection. It lies in no pool.
        watch: Its clock.
    """

    def __init__(self, url: str, target: str, connection: Any, watch: Watch) -> None:
        from http.client import HTTPResponse  # noqa: PLC0415 - see the module

        self._url, self._target, self._connection, self._watch = url, target, connection, watch
        self._is_readable = _readable(connection.sock)  # between requests a server says nothing but that it closes
        self._response = HTTPResponse
        self._headers: Mapping[str, str] | None = None
        self._head = b""  # what a request with these headers begins with, up to the length of its body

    def is_open_to(self, url: str) -> bool:
        """Whether a request may go over it, as far as can be seen."""
        return url == self._url and self._connection.sock is not None and not self._is_readable()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def drop(self) -> None:
        """In a forked child: close its copy of the socket, and touch no reader, which a thread may have locked."""
        if self._connection.sock is not None:
            self._connection.sock.close()

    def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post once; whatever goes wrong, or is left unread, closes the connection."""
        is_open = False
        try:
            connection = self._send(headers, body)
            data = connection.recv(_PIECE)
            answer = plain_answer(data)
            is_open = answer is not None
            if answer is None:
                raw = self._response(cast("socket.socket", _Begun(data, connection)), method="POST")
                raw.begin()
                answer = read_answer(raw, raw.read, cut=self._watch.ended)
                is_open = raw.isclosed() and not raw.will_close
            return answer
        finally:
            if not is_open:
                self.close()

    def _send(self, headers: Mapping[str, str], body: bytes) -> Any:
        if headers != self._headers:
            self._head, self._headers = self._compose(headers), headers
        head = b"%b%d\r\n\r\n" % (self._head, len(body))
        connection = self._connection.sock
        if len(body) <= _SMALL:
            connection.sendall(head + body)
        else:
            connection.sendall(head)
            connection.sendall(body)
        return connection

    def _compose(self, headers: Mapping[str, str]) -> bytes:
        """Have `http.client` write a request's head, once for all alike; it refuses what no header can hold."""
        from http.client import HTTPConnection  # noqa: PLC0415 - see the module

        writer: Any = HTTPConnection(self._connection.host, self._connection.port)
        writer.default_port = self._connection.default_port
        writer.sock = paper = _Paper()
        writer.request("POST", self._target, headers={**HEADERS, **headers, "Content-Length": "0"})
        return bytes(paper.written.removesuffix(b"0\r\n\r\n"))


def _readable(connection: socket.socket) -> Callable[[], bool]:
    if not hasattr(select, "poll"):  # on Windows, and under some patches
        return lambda: bool(select.select([connection], (), (), 0.0)[0])
    poll = select.poll()  # which takes any number of a descriptor, and `select` only the first thousand
    poll.register(connection, select.POLLIN)
    return lambda: bool(poll.poll(0))


class _Begun(io.RawIOBase):
    """Stands in for a socket of which something was read already.

    Args:
        data: What was read.
        connection: The socket, which stays open.
    """

    def __init__(self, data: bytes, connection: Any) -> None:
        self._data, self._connection = data, connection

    def makefile(self, _mode: str) -> io.BufferedReader:
        """What `http.client` reads from."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        """It is for nothing else."""
        return True

    def readinto(self, room: Any, /) -> int:
        """What was read already; then what comes."""
        if not self._data:
            return int(self._connection.recv_into(room))
        count = min(len(room), len(self._data))
        room[:count], self._data = self._data[:count], self._data[count:]
        return count


class _Paper:
    """Stands in for a socket, and keeps what is written."""

    def __init__(self) -> None:
        self.written = bytearray()

    def sendall(self, data: bytes) -> None:
        """Keep it."""
        self.written += data


def read_answer(raw: Any, read: Callable[[int], bytes], *, cut: bool) -> Answer:
    """Read an answer of urllib3, or of http.client, to its end or to the limit."""
    # http.client takes the end of the connection for the end of the headers: a 207 without its list of errors.
    if cut:
        raise EOFError
    # And an interim answer for the answer. The true one would be the next request's: its connection is to be closed.
    body, whole = b"", raw.status < 200  # noqa: PLR2004 - as the standard has it
    while not whole and len(body) <= BODY_LIMIT:
        piece = read(BODY_LIMIT + 1 - len(body))
        whole = not piece
        body += piece
    if whole and (raw.length_remaining if hasattr(raw, "length_remaining") else raw.length):
        raise EOFError  # neither http.client nor urllib3 1.26 looks
    headers: dict[str, str] = {}
    for field, value in raw.headers.items():
        name = field.lower()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Answer(raw.status, headers, body[:BODY_LIMIT], truncated=not whole)


def derive(*bases: type, **attributes: Any) -> Any:
    """Make a class of the first base's name."""
    return type(bases[0].__name__, bases, attributes)
