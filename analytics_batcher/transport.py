"""One HTTP POST within one deadline: the only module that knows `requests`, and the border its exceptions do not cross.

`requests` bounds each read, so one byte a second holds it for ever. Here every operation of a socket is given the time
that is left of the whole request. The classes for it are mixins, which get their bases in `_derive`: `requests`,
`urllib3` and `ssl` are imported when a `Transport` is made, not with this module (94 ms). A name look-up cannot be
interrupted within its thread: it alone may outlast the deadline.
"""

from __future__ import annotations

import errno
import math
import os
import re
import socket
import sys
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from .answer import Answer
from .errors import TransportError
from .settings import proxy_url, shown, timeout_pair
from .version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests import PreparedRequest
    from requests.adapters import HTTPAdapter as _AdapterBase
    from urllib3.connection import HTTPConnection as _ConnectionBase
else:
    _AdapterBase = _ConnectionBase = object

BODY_LIMIT: Final = 64 * 1024  # bytes: room for a reason per message of a batch, and none for a bomb of 400 MB
# Bytes of all that a server may say to a request: a chunk of -1 bytes makes http.client read on to the end.
_SPEECH_LIMIT: Final = 2**20
_HEADERS: Final = {"User-Agent": f"analytics-batcher/{__version__}", "Accept-Encoding": "identity"}
# Headers and body are two writes. urllib3 leaves Nagle's algorithm on for proxies: 44 ms for each request.
_SOCKET_OPTIONS: Final[list[tuple[int, int, int | bytes]]] = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]


@dataclass(slots=True)
class _Watch:
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
    connection: Any = None  # the one dialled last

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
        result = getattr(super(_TimedSocket, self), name)(*args, **options)
        if name in {"recv", "recv_into"}:
            self.watch.hear(result if name == "recv_into" else len(result))
        return result

    return operation


class _TimedSocket:
    """Over `socket` and `SSLSocket`: gives each operation the time that is left; Python counts it down within."""

    watch: _Watch
    do_handshake, send, sendall, recv, recv_into = map(_timed, ("do_handshake", "send", "sendall", "recv", "recv_into"))


class _TimedConnection(_ConnectionBase):
    """Over a connection class of urllib3: connects timed sockets."""

    watch: _Watch
    socket_class: type[socket.socket]

    def connect(self) -> None:
        watch = self.watch
        watch.connecting, watch.limit = True, min(watch.deadline, monotonic() + watch.connect)
        super().connect()
        watch.connecting, watch.limit, watch.connection = False, watch.deadline, self
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


class _TimedAdapter(_AdapterBase):
    """Over requests' adapter: puts the timed classes into its pools, and one TLS context for hosts and proxies."""

    watch: _Watch
    context: Any

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, ssl_context=self.context, **options)
        self._time(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        if proxy not in self.proxy_manager:
            if not proxy.lower().startswith("socks"):
                options["proxy_ssl_context"] = self.context
            self._time(super().proxy_manager_for(proxy, ssl_context=self.context, **options))
        return self.proxy_manager[proxy]

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Leave it to the context. Requests would add its own authorities to the given, at each connection."""

    def _time(self, manager: Any) -> None:
        timed = {"watch": self.watch, "socket_class": _derive(_TimedSocket, socket.socket, watch=self.watch)}
        manager.pool_classes_by_scheme = {
            scheme: _derive(
                pool,
                ConnectionCls=_derive(_TimedConnection, pool.ConnectionCls, **timed),
                # That of urllib3 has a lock, which a fork may leave locked to a child that drops its connections.
                QueueCls=staticmethod(lambda _size: SimpleQueue[Any]()),
            )
            for scheme, pool in manager.pool_classes_by_scheme.items()
        }


class _Line:
    """A connection that `requests` opened and left open: more requests to its URL go over it by `http.client` alone.

    For each request, `requests` and `urllib3` look up its pool, its proxy, its certificates and its cookies, parse its
    URL twice and wrap its answer: two thirds of the processor time of a request, and the same each time.

    Args:
        url: Where it leads to, without a proxy.
        target: What stands in a request's first line.
        connection: The connection. It lies in its pool, too, and may have been closed.
        watch: Its clock.
    """

    def __init__(self, url: str, target: str, connection: Any, watch: _Watch) -> None:
        from http.client import HTTPConnection  # noqa: PLC0415 - see the module

        from urllib3.util.connection import is_connection_dropped  # noqa: PLC0415 - see the module

        self._url, self._target, self._connection, self._watch = url, target, connection, watch
        self._is_dropped = is_connection_dropped
        self._request, self._getresponse = HTTPConnection.request, HTTPConnection.getresponse

    def is_open_to(self, url: str) -> bool:
        """Whether a request may go over it, as far as can be seen."""
        return url == self._url and self._connection.sock is not None and not self._is_dropped(self._connection)

    def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post once; whatever goes wrong, or is left unread, closes the connection."""
        raw = None
        try:
            self._request(self._connection, "POST", self._target, body, {**_HEADERS, **headers})
            raw = self._getresponse(self._connection)
            return _read(raw, raw.read, cut=self._watch.ended)
        finally:
            if raw is None or not raw.isclosed():
                self._connection.close()


class Transport:
    """Posts over kept connections, one per host.

    One thread at a time may use it: a background consumer, or another one after the first has died. What it raises
    holds no header, no password of a proxy, nothing of the body and no word of the server's.

    Args:
        timeout: Seconds for a whole request, sending it again included. Or `(connect, read)`: connecting (proxy and
            TLS included) ends after `connect`, the whole after their sum.
        proxy: `None` for none, `"environment"` for those of the environment, or a URL
            `scheme://[user:password@]host[:port]` of scheme http, https or socks5 (which needs PySocks).
        verify: Whether TLS certificates are checked, by the authorities of `requests`; or the path of a file or
            directory of authorities to go by instead.

    Raises:
        ValueError: A setting is not one of these.
    """

    def __init__(
        self, *, timeout: float | tuple[float, float] = 10.0, proxy: str | None = None, verify: bool | str = True
    ) -> None:
        self.requests = 0
        """Requests made so far, those repeated on a new connection included."""
        self._watch = _Watch(*timeout_pair(timeout))
        self._proxy = proxy_url(proxy)
        self._verify = verify
        self._line: _Line | None = None
        try:
            self._adapter = self._open()
        except OSError as error:
            allowed = "True, False or the path of a file or directory of PEM certificates"
            raise ValueError(f"verify must be {allowed}, not {shown(verify)} ({type(error).__name__})") from None

    def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float | None = None) -> Answer:
        """Send one request and read its answer, whatever the status: redirects are not followed.

        If a kept connection breaks before a byte of an answer, most likely the server had closed it already: then the
        request is sent once more, on a new one.

        Args:
            url: Where to; http or https.
            headers: Sent as they are, over our `User-Agent` and `Accept-Encoding`.
            body: Sent as it is, with its `Content-Length`.
            deadline: When to give up, by `time.monotonic()`, if that is before `timeout` has passed.

        Returns:
            The answer, with at most 64 KiB of its body as it came over the wire. A longer one ends the connection.

        Raises:
            TransportError: There was no whole answer.
        """
        watch = self._watch
        watch.deadline = min(monotonic() + watch.total, math.inf if deadline is None else deadline)
        result = self._attempt(url, headers, body)
        if isinstance(result, TransportError) and result.kind == "reset" and not (watch.dialled or watch.received):
            result = self._attempt(url, headers, body)
        if isinstance(result, TransportError):
            del headers, body  # which may hold secrets: an error tracker shows the variables of an error's frames
            raise TransportError(str(result), result.kind)  # `result` would hold this frame, which holds it
        return result

    def reopen(self) -> None:
        """Forget all connections, for a forked child. What is dropped closes its copies, and tells the peer nothing."""
        self._adapter = self._line = self._watch.connection = None

    def close(self) -> None:
        """Close the kept connections. A later request opens new ones."""
        self._line = self._watch.connection = None
        if self._adapter is not None:
            self._adapter.close()

    def _attempt(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer | TransportError:
        """Post once. An error is returned, to be raised where none of requests', with a token in it, is its context."""
        watch = self._watch
        watch.limit = watch.deadline
        watch.proxied = watch.connecting = watch.dialled = watch.ended = False
        watch.received = 0
        handled = sys.exc_info()[1]
        try:
            if self._line is not None and self._line.is_open_to(url):
                self.requests += 1
                return self._line.post(headers, body)
            return self._post_by_requests(url, headers, body)
        except Exception as error:  # noqa: BLE001 - the border: whatever it is, there was no answer
            raised: BaseException | None = error
            # Frames of urllib3 hold the errors that hold them, and the body, until the garbage is collected some day.
            while raised is not None and raised is not handled:
                raised.__traceback__ = None
                raised = raised.__context__
            return _failure(error, watch)

    def _post_by_requests(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        watch = self._watch
        self._line = None
        timeout = min(watch.left(), watch.connect)  # for SOCKS; all else asks the watch
        request, options = self._prepare(url, headers, body)
        self._adapter = self._adapter or self._open()
        self.requests += 1
        raw = self._adapter.send(request, stream=True, timeout=timeout, **options).raw
        try:
            answer = _read(raw, partial(raw.read, decode_content=False), cut=watch.ended)
        finally:
            raw.close()  # and its connection, unless the end of the body has set that free
        if self._proxy is None and watch.connection is not None:
            self._line = _Line(url, request.path_url, watch.connection, watch)
        return answer

    def _prepare(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[PreparedRequest, dict[str, Any]]:
        """By hand: a session would put what .netrc says in place of `Authorization`, and take as long again."""
        from requests import PreparedRequest, utils  # noqa: PLC0415 - see the module

        request = PreparedRequest()
        request.prepare_method("POST")
        request.prepare_url(url, None)
        request.prepare_headers({**_HEADERS, **headers})
        request.headers["Content-Length"] = str(len(body))
        request.body = body
        proxies: dict[str, Any] = {"http": self._proxy, "https": self._proxy}
        if self._proxy == "environment":
            proxies = utils.get_environ_proxies(url)
        self._watch.proxied = bool(utils.select_proxy(url, proxies))
        return request, {"proxies": proxies, "verify": self._verify is not False}

    def _open(self) -> Any:
        import ssl  # noqa: PLC0415 - see the module

        from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter  # noqa: PLC0415 - see the module

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which checks certificates and names
        if self._verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            path = DEFAULT_CA_BUNDLE_PATH if self._verify is True else self._verify
            is_directory = os.path.isdir(path)  # noqa: PTH112 - Path("") is one
            context.load_verify_locations(**{"capath" if is_directory else "cafile": path})
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # as urllib3 has it
        context.sslsocket_class = _derive(_TimedSocket, ssl.SSLSocket, watch=self._watch)
        adapter = _derive(_TimedAdapter, HTTPAdapter, watch=self._watch, context=context)
        return adapter(pool_connections=4, pool_maxsize=1, max_retries=0)


def _derive(*bases: type, **attributes: Any) -> Any:
    return type(bases[0].__name__, bases, attributes)


def _read(raw: Any, read: Callable[[int], bytes], *, cut: bool) -> Answer:
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


def _failure(error: Exception, watch: _Watch) -> TransportError:
    """An error in a word and a line, of names and the system's texts: others may hold a header, or a server's words."""
    root = error
    while inner := [e for e in (*root.args, root.__cause__, getattr(root, "reason", 0)) if isinstance(e, Exception)]:
        root = inner[0]  # the ways in which requests and urllib3 wrap one
    detail = type(root).__name__
    if isinstance(root, OSError) and isinstance(root.errno, int) and root.strerror:
        detail += f": {root.strerror}"
    elif tunnel := re.match(r"Tunnel connection failed: (\d{3})\b", str(root)):
        detail += f": CONNECT was answered with {tunnel[1]}"
    if watch.connecting:
        detail += " while connecting"
    return TransportError(detail, _kind(root, watch))


def _kind(error: BaseException, watch: _Watch) -> str:
    import ssl  # noqa: PLC0415 - see the module

    from requests.exceptions import InvalidProxyURL  # noqa: PLC0415 - see the module

    if isinstance(error, TimeoutError) or watch.limit <= monotonic():  # PySocks and urllib3 1.26 may have hidden it
        return "timeout"
    ended = isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
    if isinstance(error, ssl.SSLError) and (watch.connecting or not ended):
        return "tls"
    if isinstance(error, ValueError) and not watch.received:
        return "proxy" if isinstance(error, InvalidProxyURL) else "request"
    if watch.connecting:
        return "proxy" if watch.proxied else "connect"
    return "reset" if watch.received or isinstance(error, OSError) else "request"
