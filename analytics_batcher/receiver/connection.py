"""The sockets: HTTP/1.1 on the loopback interface, read strictly and answered as a `Reply` says."""

from __future__ import annotations

import os
import socket
import socketserver
import ssl
import struct
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from .record import Request

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .reply import Reply

HOST: Final = "127.0.0.1"

# What a browser may take to read a part of a page, before it is given up.
_PAGE_SECONDS: Final = 30.0
# What the threads of the connections may take to end, out of the one second that a stop may take.
_END_SECONDS: Final = 0.5
_MOST_BODY: Final = 64 * 2**20
"""Bytes: over a hundred times what any vendor takes."""
_DIGITS: Final = 18


class HttpServer(ThreadingHTTPServer):
    """A listening socket, the thread that serves it, and one thread for each connection.

    Args:
        host: The address to listen on.
        port: The port; 0 for a free one.
        tls: The context of a TLS server; None for plain HTTP.
        accept: Called at each new connection; returns its number.
        answer: Called with each request; returns the reply.
        page: Called with each request before its body is read; returns the bytes of a page, or None.
    """

    # A fan of clients connects at once, and a refused connection would look like a fault of theirs.
    request_queue_size = 1024
    # Two receivers on one port would share its connections without a word.
    allow_reuse_port = False
    # Should the connection by which `end` wakes the thread fail, this is how long it sleeps on.
    timeout = 0.3

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        *,
        accept: Callable[[], int],
        answer: Callable[[Request], Reply],
        page: Callable[[Request], Generator[bytes, None, None] | None],
    ) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)
        self.answer = answer
        self.page = page
        self.stopping = threading.Event()
        self._accept = accept
        self._tls = tls
        # Guards and tells of `_open`: the number of each open connection.
        self._change = threading.Condition()
        self._open: dict[Any, int] = {}
        self._thread = threading.Thread(target=self._serve, name="analytics-batcher-receiver", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        # Not `serve_forever`: it polls, and every stop would wait for the end of a poll.
        while not self.stopping.is_set():
            self.handle_request()

    def server_bind(self) -> None:
        """Bind, without the look-up of the host's name by which the base class can stall."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection, and leave its TLS handshake, which can take for ever, to its own thread."""
        connection, address = super().get_request()
        if self.stopping.is_set():
            connection.close()
            raise ConnectionAbortedError
        number = self._accept()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with self._change:
            self._open[connection] = number
        return connection, address

    def number(self, connection: Any) -> int:
        """The number of an open connection."""
        with self._change:
            return self._open[connection]

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        if isinstance(request, ssl.SSLSocket):
            # Says goodbye, or else the client sees a truncated stream; without waiting for the client to say it too.
            with suppress(OSError, ValueError):
                request.settimeout(0.0)
                request.unwrap()
        super().shutdown_request(request)
        with self._change:
            self._open.pop(request, None)
            self._change.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over what a client's leaving causes; a failing `decide` is printed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def end(self) -> None:
        """Stop listening, release every handler and close every connection. A second call does nothing."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        with suppress(OSError):
            # To an address that stands for all of them, the system connects by loopback.
            socket.create_connection((self.server_name, self.server_port), _END_SECONDS).close()
        self._thread.join()
        with self._change:
            for connection in self._open:
                # Not the TLS socket's own method: that one would let go of the session under its reader's feet.
                with suppress(OSError):
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
            self._change.wait_for(lambda: not self._open, _END_SECONDS)
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: HttpServer

    def setup(self) -> None:
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002 - both texts repeat what the client sent
        """Record what the base class finds unreadable."""
        self._refuse({}, "the request is not readable HTTP", code)

    def do_POST(self) -> None:
        at = time.monotonic()
        headers: dict[str, str] = {}
        for given, value in self.headers.items():
            name = given.lower()
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        if self._shows_page(self._request(at, headers, b"")):
            return
        length = headers.get("content-length", "" if self.command == "POST" else "0")
        if "transfer-encoding" in headers or not (length.isascii() and length.isdigit()):
            self._refuse(headers, "the body has no plain Content-Length", HTTPStatus.LENGTH_REQUIRED)
            return
        if len(length) > _DIGITS or int(length) > _MOST_BODY:
            self._refuse(headers, f"the body has more than {_MOST_BODY} bytes", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            # The client broke off, or died: that is no request.
            self.close_connection = True
            return
        self._exchange(self._request(at, headers, body))

    do_GET = do_HEAD = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_POST  # noqa: N815 - the base class looks for these names

    def _shows_page(self, request: Request) -> bool:
        page = self.server.page(request)
        if page is None:
            return False
        # What is left of the request is never read.
        self.close_connection = True
        self.connection.settimeout(_PAGE_SECONDS)
        with closing(page):
            for part in page:
                self.wfile.write(part)
        return True

    def _refuse(self, headers: dict[str, str], fault: str, status: int) -> None:
        # Where such a request ends is unknown, and so is where the next one would begin.
        self.close_connection = True
        self._exchange(replace(self._request(time.monotonic(), headers, b""), faults=(fault,), status=status))

    def _request(self, at: float, headers: dict[str, str], body: bytes) -> Request:
        return Request(
            number=0,
            at=at,
            connection=self.server.number(self.request),
            method=self.command or "",
            path=self.path if self.command else "",
            headers=headers,
            body=body,
            size=len(body),
        )

    def _exchange(self, request: Request) -> None:
        reply = self.server.answer(request)
        stopping = self.server.stopping
        if stopping.wait(reply.delay) or (reply.hang and stopping.wait()):
            self.close_connection = True
        elif reply.reset is not None:
            self._reset()
        else:
            self.close_connection |= reply.close
            self._write(reply.encode(head_only=self.command == "HEAD", close=self.close_connection), reply.drip)
            self.close_connection |= reply.drop_idle

    def _write(self, answer: bytes, drip: float | None) -> None:
        if drip is None:
            self.wfile.write(answer)
            return
        for at in range(len(answer)):
            self.wfile.write(answer[at : at + 1])
            if self.server.stopping.wait(drip):
                self.close_connection = True
                return

    def _reset(self) -> None:
        # To linger for no time makes a close a reset. Windows has the structure in shorts.
        linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        # Closed here, because the server's own way of closing says goodbye first.
        self.connection.close()
        self.close_connection = True
