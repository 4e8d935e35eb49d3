"""One HTTP POST within one deadline: the only module that knows `requests`, and the border its exceptions do not cross.

It opens connections, over proxies and TLS, and its pools are made of sockets that keep the deadline. `requests`,
`urllib3` and `ssl` are imported when a `Transport` is made, not with this module (94 ms).
"""

from __future__ import annotations

import math
import os
import re
import socket
import sys
from functools import partial
from queue import SimpleQueue
from time import monotonic
from typing import TYPE_CHECKING, Any

from .connection import HEADERS, Handover, Line, TimedConnection, TimedSocket, Watch, derive, read_answer
from .errors import TransportError
from .settings import proxy_url, shown, timeout_pair

if TYPE_CHECKING:
    from collections.abc import Mapping

    from requests import PreparedRequest
    from requests.adapters import HTTPAdapter as _AdapterBase

    from .answer import Answer
else:
    _AdapterBase = object


def _unbounded(_size: int) -> SimpleQueue[Any]:
    return SimpleQueue()


class _TimedAdapter(_AdapterBase):
    """Over requests' adapter: puts the timed classes into its pools, and one TLS context for hosts and proxies."""

    watch: Watch
    context: Any
    queue: Any

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
        timed = {"watch": self.watch, "socket_class": derive(TimedSocket, socket.socket, watch=self.watch)}
        manager.pool_classes_by_scheme = {
            scheme: derive(
                pool,
                ConnectionCls=derive(TimedConnection, pool.ConnectionCls, **timed),
                QueueCls=staticmethod(self.queue),
            )
            for scheme, pool in manager.pool_classes_by_scheme.items()
        }


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
        self._watch = Watch(*timeout_pair(timeout))
        self._proxy = proxy_url(proxy)
        self._verify = verify
        self._line: Line | None = None
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
        line, self._line, self._adapter, self._watch.kept = self._line, None, None, None
        if line is not None:
            line.drop()

    def close(self) -> None:
        """Close the kept connections. A later request opens new ones."""
        self._hang_up()
        if self._adapter is not None:
            self._adapter.close()

    def _hang_up(self) -> None:
        line, self._line, self._watch.kept = self._line, None, None
        if line is not None:
            line.close()

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
        self._hang_up()
        timeout = min(watch.left(), watch.connect)  # for SOCKS; all else asks the watch
        request, options = self._prepare(url, headers, body)
        self._adapter = self._adapter or self._open()
        self.requests += 1
        raw = self._adapter.send(request, stream=True, timeout=timeout, **options).raw
        try:
            answer = read_answer(raw, partial(raw.read, decode_content=False), cut=watch.ended)
        finally:
            raw.close()  # and its connection, unless the end of the body has set that free
        if watch.kept is not None and watch.kept.sock is not None:  # or else the answer has closed it
            self._line = Line(url, request.path_url, watch.kept, watch)
        return answer

    def _prepare(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[PreparedRequest, dict[str, Any]]:
        """By hand: a session would put what .netrc says in place of `Authorization`, and take as long again."""
        from requests import PreparedRequest, utils  # noqa: PLC0415 - see the module

        request = PreparedRequest()
        request.prepare_method("POST")
        request.prepare_url(url, None)
        request.prepare_headers({**HEADERS, **headers})
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
        context.sslsocket_class = derive(TimedSocket, ssl.SSLSocket, watch=self._watch)
        # What is kept for a proxy, or may be, is requests' to look up again for each request.
        queue = _unbounded if self._proxy else derive(Handover, watch=self._watch)
        adapter = derive(_TimedAdapter, HTTPAdapter, watch=self._watch, context=context, queue=staticmethod(queue))
        return adapter(pool_connections=4, pool_maxsize=1, max_retries=0)


def _failure(error: Exception, watch: Watch) -> TransportError:
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


def _kind(error: BaseException, watch: Watch) -> str:
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
