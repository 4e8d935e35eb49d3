"""One HTTP POST within one deadline: the only module that knows `requests`, and the border its exceptions do not cross.

`requests` bounds each read, so one byte a second holds it for ever. Here every operation of a socket is given the time
that is left of the whole request, in classes that are put under `requests` where it makes its connections. They are
for classes of `requests`, `urllib3` and `ssl`, which are imported when a `Transport` is made, not with this module
(94 ms); so they are mixins, and get their bases in `_derive`.

A name look-up cannot be interrupted within its thread: it alone may outlast the deadline.
"""

from __future__ import annotations

import math
import os
import re
import socket
import sys
from dataclasses import dataclass
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from analytics_batcher.answer import Answer
from analytics_batcher.errors import TransportError
from analytics_batcher.version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping
    from ssl import SSLContext
    from ssl import SSLSocket as _SocketBase

    from requests import PreparedRequest
    from requests.adapters import HTTPAdapter as _AdapterBase
    from urllib3.connection import HTTPConnection as _ConnectionBase
else:
    _SocketBase = _AdapterBase = _ConnectionBase = object

BODY_LIMIT: Final = 64 * 1024
"""Bytes that are read of an answer's body: room for a reason per message of a batch, and none for a 400 MB bomb."""

_HEADERS: Final = {"User-Agent": f"analytics-batcher/{__version__}", "Accept-Encoding": "identity"}
_HOSTS: Final = 4  # a destination is one host; the environment's proxies may make it several
_PROXY_SCHEMES: Final = ("http", "https", "socks5")


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
    answered: bool = False  # a byte has come back

    def start_attempt(self) -> None:
        self.limit = self.deadline
        self.proxied = self.connecting = self.dialled = self.answered = False

    def left(self) -> float:
        """Seconds left of the present phase; `TimeoutError` if there are none."""
        left = self.limit - monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _TimedSocket(_SocketBase):
    """Over `socket` and `SSLSocket`: gives every operation the time that is left.

    Within one operation, as `sendall` on a plain socket, a handshake or a TLS record, Python counts the time down.
    """

    watch: _Watch

    def do_handshake(self, *args: Any, **kwargs: Any) -> None:
        self.settimeout(self.watch.left())
        super().do_handshake(*args, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(self.watch.left())
        return super().send(*args, **kwargs)

    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self.settimeout(self.watch.left())
        super().sendall(*args, **kwargs)

    def recv(self, *args: Any, **kwargs: Any) -> bytes:
        self.settimeout(self.watch.left())
        data = super().recv(*args, **kwargs)
        self.watch.answered |= bool(data)
        return data

    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self.settimeout(self.watch.left())
        count = super().recv_into(*args, **kwargs)
        self.watch.answered |= count > 0
        return count


class _TimedConnection(_ConnectionBase):
    """Over a connection class of urllib3: connects timed sockets."""

    watch: _Watch
    socket_class: type[socket.socket]

    def connect(self) -> None:
        watch = self.watch
        watch.connecting, watch.limit = True, min(watch.deadline, monotonic() + watch.connect)
        super().connect()
        watch.connecting, watch.limit = False, watch.deadline
        # urllib3 reads it for one purpose: to warn, at each request, of what `verify=False` has asked for.
        self.is_verified = True

    def _new_conn(self) -> socket.socket:
        self.watch.dialled = True
        try:
            return self.socket_class(fileno=self._dial().detach())
        except OSError as error:
            # Mapped here, as urllib3 passes over some errors while sending: an early answer may be there to read.
            raise _failure(error, self.watch) from None

    def _dial(self) -> socket.socket:
        """Connect to the first address that answers; through SOCKS by PySocks, which bounds each read on its own.

        urllib3 gives the whole time to each address. Equal shares of what is left keep the total, and a dead first
        address (of IPv6, often) cannot hide a living second one.
        """
        from urllib3.util.connection import create_connection  # noqa: PLC0415 - see the module

        if hasattr(self, "_socks_options"):
            return super()._new_conn()
        found = socket.getaddrinfo(self._dns_host.strip("[]"), self.port, type=socket.SOCK_STREAM)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        while True:
            share = self.watch.left() / len(addresses)
            try:
                return create_connection((addresses.pop(0), self.port), share, socket_options=self.socket_options)
            except OSError:
                if not addresses:
                    raise


class _TimedAdapter(_AdapterBase):
    """Over requests' adapter: puts the timed classes into its pools, and one TLS context for hosts and proxies."""

    watch: _Watch
    context: SSLContext

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


class Transport:
    """Posts over kept connections, one per host.

    One thread at a time may use it: a background consumer, or another one after the first has died. What it raises
    holds no header, no password of a proxy, nothing of the body and no word of the server's.

    Args:
        timeout: Seconds for a whole request: connecting, sending, reading, and the repetition on a new connection. Or
            `(connect, read)`: connecting (proxy and TLS included) ends after `connect`, the whole after their sum.
        proxy: `None` for none, `"environment"` for those of the environment, or a URL
            `scheme://[user:password@]host[:port]` of scheme http, https or socks5 (which needs PySocks).
        verify: Whether TLS certificates are checked, by the authorities that `requests` comes with; or the path of a
            file or directory of authorities to go by instead.

    Raises:
        ValueError: A setting is not one of these.
    """

    def __init__(
        self, *, timeout: float | tuple[float, float] = 10.0, proxy: str | None = None, verify: bool | str = True
    ) -> None:
        self._watch = _Watch(*_checked_timeout(timeout))
        self._proxy = _checked_proxy(proxy)
        self._verify = verify
        try:
            self._adapter: _TimedAdapter | None = self._open()
        except OSError as error:
            raise ValueError(
                "verify must be True, False or the path of an existing file or directory of PEM certificates, "
                f"not {verify!r} ({_describe(error)})"
            ) from None

    def post(self, url: str, headers: Mapping[str, str], body: bytes, deadline: float | None = None) -> Answer:
        """Send one request and read its answer, whatever the status: redirects are not followed.

        If a kept connection breaks before a byte of an answer, most likely the server had closed it already: the
        request is sent once more, on a new connection.

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
        end = monotonic() + watch.total
        watch.deadline = end if deadline is None else min(end, deadline)
        result = self._attempt(url, headers, body)
        if isinstance(result, TransportError) and result.kind == "reset" and not (watch.dialled or watch.answered):
            result = self._attempt(url, headers, body)
        if isinstance(result, Answer):
            return result
        try:
            raise result
        finally:
            del result  # its traceback holds this frame, and that the body

    def reopen(self) -> None:
        """Forget all connections, for a forked child: it must neither use nor end those of its parent.

        Objects that are dropped close our copies of the sockets and tell the peer nothing. The TLS context goes too:
        another thread may have been in it.
        """
        self._adapter = None

    def close(self) -> None:
        """Close the kept connections. A later request opens new ones."""
        adapter, self._adapter = self._adapter, None
        if adapter is not None:
            adapter.close()

    def _attempt(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer | TransportError:
        """Post once. An error is returned, to be raised where none of requests', with a token in it, is its context."""
        watch = self._watch
        watch.start_attempt()
        handled = sys.exc_info()[1]
        try:
            timeout = min(watch.left(), watch.connect)  # for SOCKS; all else asks the watch
            request, proxies = self._prepare(url, headers, body)
            adapter = self._adapter = self._adapter or self._open()
            verify = self._verify is not False
            return _read(adapter.send(request, stream=True, timeout=timeout, verify=verify, proxies=proxies).raw)
        except Exception as error:  # noqa: BLE001 - the border: whatever it is, there was no answer
            failure = _failure(error, watch)
            _release(error, handled)
            return failure

    def _prepare(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[PreparedRequest, dict[str, str]]:
        """By hand, as a session would replace `Authorization` by what .netrc says, and take as long again."""
        from requests import PreparedRequest, utils  # noqa: PLC0415 - see the module

        request = PreparedRequest()
        request.prepare_method("POST")
        request.prepare_url(url, None)
        request.prepare_headers({**_HEADERS, **headers})
        request.headers["Content-Length"] = str(len(body))
        request.body = body
        proxies = {} if self._proxy is None else {"http": self._proxy, "https": self._proxy}
        if self._proxy == "environment":
            proxies = utils.get_environ_proxies(url)
        self._watch.proxied = bool(utils.select_proxy(url, proxies))
        return request, proxies

    def _open(self) -> _TimedAdapter:
        import ssl  # noqa: PLC0415 - see the module

        from requests.adapters import DEFAULT_CA_BUNDLE_PATH, HTTPAdapter  # noqa: PLC0415 - see the module

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which checks certificates and names
        if self._verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            path = DEFAULT_CA_BUNDLE_PATH if self._verify is True else self._verify
            is_directory = os.path.isdir(path)  # noqa: PTH112 - Path("") is one
            context.load_verify_locations(None if is_directory else path, path if is_directory else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # as urllib3 has it
        context.sslsocket_class = _derive(_TimedSocket, ssl.SSLSocket, watch=self._watch)
        adapter: _TimedAdapter = _derive(_TimedAdapter, HTTPAdapter, watch=self._watch, context=context)(
            pool_connections=_HOSTS, pool_maxsize=1, max_retries=0
        )
        return adapter


def _derive(*bases: type, **attributes: Any) -> Any:
    return type(bases[0].__name__, bases, attributes)


def _read(raw: Any) -> Answer:
    body = b""
    whole = interim = raw.status < 200  # noqa: PLR2004 - as the standard has it
    try:
        while not whole and len(body) <= BODY_LIMIT:
            piece = raw.read(BODY_LIMIT + 1 - len(body), decode_content=False)
            whole = not piece
            body += piece
        if whole and raw.length_remaining:  # urllib3 1.26 does not look
            raise EOFError
    finally:
        # After an interim answer, which http.client takes for the answer, the true one would be the next request's.
        if interim or not whole:
            raw.close()
    headers = {name.lower(): value for name, value in raw.headers.itermerged()}
    return Answer(raw.status, headers, body[:BODY_LIMIT], truncated=not whole)


def _failure(error: Exception, watch: _Watch) -> TransportError:
    if isinstance(error, TransportError):
        return TransportError(str(error), error.kind)
    root = _innermost(error)
    return TransportError(_describe(root) + " while connecting" * watch.connecting, _kind(root, watch))


def _release(error: BaseException | None, handled: BaseException | None) -> None:
    """Cut what was raised, since the caller `handled` another, from its frames.

    Those of urllib3 hold it in turn: together they would hold the body until a garbage collection.
    """
    while error is not None and error is not handled:
        error.__traceback__ = None
        error = error.__context__


def _innermost(error: BaseException) -> BaseException:
    """The error that requests and urllib3 have wrapped: as a reason, as an argument, or by `raise ... from`."""
    for inner in (getattr(error, "reason", None), *error.args, error.__cause__):
        if isinstance(inner, BaseException):
            return _innermost(inner)
    return error


def _describe(error: BaseException) -> str:
    """The type, and the system's own text for its number. Other texts may hold a header, or what a server sent."""
    name = type(error).__name__
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.strerror:
        return f"{name}: {error.strerror}"
    tunnel = re.match(r"Tunnel connection failed: (\d{3})\b", str(error))
    return f"{name}: CONNECT was answered with {tunnel[1]}" if tunnel else name


def _kind(error: BaseException, watch: _Watch) -> str:
    import ssl  # noqa: PLC0415 - see the module
    from http.client import HTTPException  # noqa: PLC0415 - see the module

    from requests import exceptions as of_requests  # noqa: PLC0415 - see the module
    from urllib3 import exceptions as of_urllib3  # noqa: PLC0415 - see the module

    refused = isinstance(error, of_urllib3.NewConnectionError)  # a timeout too, as urllib3 has it
    if isinstance(error, (TimeoutError, of_urllib3.TimeoutError)) and not refused:
        return "timeout"
    ended = isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError))
    if isinstance(error, (ssl.SSLError, of_urllib3.SSLError)) and (watch.connecting or not ended):
        return "tls"
    if isinstance(error, (of_urllib3.ProxyError, of_urllib3.ProxySchemeUnknown, of_requests.InvalidProxyURL)):
        return "proxy"
    if isinstance(error, of_requests.RequestException):  # which is an OSError
        return "request"
    if isinstance(error, ValueError):  # which some of urllib3's are
        return "request"
    broken = isinstance(error, (OSError, EOFError, HTTPException, of_urllib3.HTTPError))
    if watch.connecting and broken:
        return "proxy" if watch.proxied else "connect"
    return "reset" if watch.answered or broken else "request"


def _checked_timeout(timeout: float | tuple[float, float]) -> tuple[float, float]:
    """Seconds for connecting, and for the whole."""
    parts = timeout if isinstance(timeout, tuple) else (timeout,)
    numbers = all(isinstance(part, (int, float)) and part is not True and 0 < part < math.inf for part in parts)
    if not numbers or len(parts) not in {1, 2}:
        raise ValueError(f"timeout must be a positive number of seconds, or a pair (connect, read), not {timeout!r}")
    return float(parts[0]), float(sum(parts))


def _checked_proxy(proxy: str | None) -> str | None:
    if proxy is None or proxy == "environment":
        return proxy
    try:
        parts = urlsplit(proxy)
        valid = parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        masked = re.sub(r"^([a-z0-9+.-]*://)?.*@", r"\1***@", proxy, flags=re.IGNORECASE | re.DOTALL)
        schemes = ", ".join(_PROXY_SCHEMES)
        raise ValueError(f"proxy must be None, 'environment' or a URL of scheme {schemes} with a host, not {masked!r}")
    return proxy
