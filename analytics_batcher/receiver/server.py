"""The receiver: it judges, keeps and answers what comes in. What a vendor wants, only its wire knows."""

from __future__ import annotations

import ssl
import threading
import time
from collections import Counter, deque
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from .connection import HOST, HttpServer
from .record import Report, Request
from .reply import Reply
from .vitally import VitallyWire
from .wire import Judgement, completed, name_of, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path
    from types import TracebackType

    from .pages import Pages
    from .wire import Wire


class Receiver:
    """A vendor's stand-in on the loopback interface, over real HTTP.

    It starts on entering a `with` block, or by `start`. Every attribute can be read from any thread, while it runs and
    after it has stopped.

    Args:
        wire: What the vendor wants. None: Vitally's batch endpoint.
        wires: What several vendors want, each under its own path, in the place of a `wire`.
        api_token: The token that Vitally's requests must carry; a `wire` of its own brings its own.
        port: The port to listen on; 0 for a free one.
        latency: Seconds before a normal answer.
        tls: The paths of a certificate and its key: serve HTTPS.
        keep_bodies: Whether requests keep their raw bodies.
        keep: Whether requests and messages are kept; otherwise they are only counted, and told to `pages`.
        host: The address to listen on.
        pages: Pages for a browser; requests for them are no requests to a vendor, and leave no trace.

    Raises:
        ValueError: Both `wire` and `wires` are given, or two wires have the same path.

    Attributes:
        decide: Called with the messages of each faultless request for which no scripted reply is left; returns the
            reply, or None for the normal answer. Called in the thread of the connection, under no lock.
    """

    def __init__(
        self,
        wire: Wire | None = None,
        *,
        wires: Sequence[Wire] = (),
        api_token: str = "test-token",  # noqa: S107 - a token for tests
        port: int = 0,
        latency: float = 0.0,
        tls: tuple[str | Path, str | Path] | None = None,
        keep_bodies: bool = True,
        keep: bool = True,
        host: str = HOST,
        pages: Pages | None = None,
    ) -> None:
        self.decide: Callable[[list[dict[str, Any]]], Reply | None] | None = None
        if wire is not None and wires:
            raise ValueError("wire and wires exclude each other")
        self._wires: tuple[Wire, ...] = tuple(wires) or (VitallyWire(api_token) if wire is None else wire,)
        self._by_path = {one.path: one for one in self._wires}
        if len(self._by_path) < len(self._wires):
            raise ValueError("two wires have the same path")
        self._port = port
        self._latency = latency
        self._tls = tls
        self._keep_bodies = keep_bodies
        self._keep = keep
        self._host = host
        self._pages = pages
        self._server: HttpServer | None = None
        # Guards all that follows, and tells of each change, which `_changes` counts.
        self._change = threading.Condition(threading.RLock())
        self._changes = 0
        self._script: deque[Reply] = deque()
        self._requests: list[Request] = []
        self._stored: list[tuple[Wire, dict[str, Any]]] = []
        self._connections = 0
        self._numbered = 0

    def __enter__(self) -> Receiver:  # noqa: PYI034 - `typing.Self` came with Python 3.11
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen and serve.

        Raises:
            OSError: The port is taken, or the certificate cannot be read.
            RuntimeError: It was started before.
        """
        if self._server is not None:
            raise RuntimeError("a receiver starts only once")
        context = None
        if self._tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
        self._server = HttpServer(
            self._host, self._port, context, accept=self._accept, answer=self._answer, page=self._page
        )

    def stop(self) -> None:
        """Close every connection and end every wait, within a second. What came in stays readable."""
        if self._pages is not None:
            self._pages.close()
        if self._server is not None:
            self._server.end()

    @property
    def url(self) -> str:
        """The base URL, without a path.

        Raises:
            RuntimeError: It was not started.
        """
        if self._server is None:
            raise RuntimeError("a receiver has a URL once it is started")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._tls is None else 'https'}://{host}:{self._server.server_port}"

    def script(self, *replies: Reply) -> None:
        """Set the answers to the next requests, whatever these are; normal service follows after them.

        Args:
            replies: The answers, in order; they come after those that were set before.
        """
        with self._change:
            self._script.extend(replies)

    @property
    def requests(self) -> tuple[Request, ...]:
        """Every request so far. A request is here before it is answered."""
        with self._change:
            return tuple(self._requests)

    @property
    def messages(self) -> tuple[dict[str, Any], ...]:
        """Every stored message in order of arrival, repeats included."""
        with self._change:
            return tuple(message for _, message in self._stored)

    def messages_of(self, name: str) -> tuple[dict[str, Any], ...]:
        """The stored messages of one wire.

        Args:
            name: The wire's name.

        Returns:
            Those in order of arrival, repeats included.
        """
        with self._change:
            return tuple(message for wire, message in self._stored if name_of(wire) == name)

    @property
    def faults(self) -> tuple[str, ...]:
        """Everything to which a strict vendor would object. A scripted failure is no fault."""
        return tuple(f"request {request.number}: {fault}" for request in self.requests for fault in request.faults)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Everything that a vendor takes though it will not do what was meant."""
        return tuple(
            f"request {request.number}: {warning}" for request in self.requests for warning in request.warnings
        )

    @property
    def connections(self) -> int:
        """TCP connections accepted so far."""
        with self._change:
            return self._connections

    def wait_for(self, predicate: Callable[[Receiver], object], timeout: float = 10.0) -> bool:
        """Wait until something is true.

        Args:
            predicate: Called with this receiver at once, at each new request or connection, and at the end of the
                time; under no lock.
            timeout: Seconds to wait at most.

        Returns:
            Whether it became true.
        """
        deadline = time.monotonic() + timeout
        while True:
            with self._change:
                seen = self._changes
            if predicate(self):
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._wait_for_change(seen, left)

    def _wait_for_change(self, seen: int, seconds: float) -> None:
        with self._change:
            self._change.wait_for(lambda: self._changes != seen, seconds)

    def report(self) -> Report:
        """Count what came in."""
        with self._change:
            requests, stored = self.requests, tuple(self._stored)
        # The same id under two paths is two messages.
        unique = {(wire.path, *wire.key(message)) for wire, message in stored}
        return Report(
            requests=len(requests),
            accepted_requests=sum(request.stored for request in requests),
            messages=len(stored),
            unique_messages=len(unique),
            repeats=len(stored) - len(unique),
            by_kind=dict(Counter(kind for _, kind, _ in unique)),
            fullest_batch=max((len(request.messages) for request in requests), default=0),
            largest_body=max((request.size for request in requests), default=0),
            faults=self.faults,
        )

    def _accept(self) -> int:
        with self._change:
            self._connections += 1
            self._changes += 1
            self._change.notify_all()
            return self._connections

    def _page(self, request: Request) -> Generator[bytes, None, None] | None:
        return None if self._pages is None else self._pages.page(request)

    def _answer(self, request: Request) -> Reply:
        wire = self._by_path.get(request.path)
        request, status = self._judge(request, wire)
        # What comes in elsewhere is answered in the first one's manner.
        wire = wire or self._wires[0]
        with self._change:
            if self._script:
                return self._record(request, self._script.popleft(), wire)
        reply = self._decided(request)
        if reply is None:
            body = refusal(wire, status, request.faults) if request.faults else None
            reply = Reply(status, body=body, delay=self._latency)
        return self._record(request, reply, wire)

    def _decided(self, request: Request) -> Reply | None:
        decide = self.decide
        reply = decide(request.messages) if decide is not None and not request.faults else None
        return self._pages.decide(request) if reply is None and self._pages is not None else reply

    def _judge(self, request: Request, wire: Wire | None) -> tuple[Request, int]:
        """The request with its messages, faults and warnings, and the status of the normal answer."""
        if request.faults:
            return request, request.status or HTTPStatus.BAD_REQUEST
        if wire is not None:
            request = replace(request, wire=name_of(wire))
        if request.method != "POST":
            return replace(request, faults=("the method is not POST",)), HTTPStatus.NOT_FOUND
        if wire is None:
            paths = " or ".join(self._by_path)
            return replace(request, faults=(f"the path is not {paths}",)), HTTPStatus.NOT_FOUND
        if faults := wire.authorize(request.headers):
            return replace(request, faults=tuple(faults)), HTTPStatus.UNAUTHORIZED
        found = Judgement(*wire.judge(request.headers, request.body))
        request = replace(request, messages=found.messages, faults=tuple(found.faults), warnings=tuple(found.warnings))
        return request, found.status if found.faults else HTTPStatus.OK

    def _record(self, request: Request, reply: Reply, wire: Wire) -> Reply:
        """Keep the request as `reply` says; return the reply with all that it left open."""
        answer = completed(reply, wire, request.messages)
        stored = reply.stores and not request.faults
        refused = frozenset(reply.partial or ())
        seconds = time.monotonic() - request.at + answer.delay if answer.answers else None
        with self._change:
            self._numbered += 1
            told = replace(
                request,
                number=self._numbered,
                status=answer.status if answer.answers else None,
                stored=stored,
                refused=tuple(index for index in range(len(request.messages)) if index in refused),
                seconds=seconds,
            )
            if self._keep:
                self._requests.append(told if self._keep_bodies else replace(told, body=b""))
                if stored:
                    self._stored += [(wire, one) for index, one in enumerate(request.messages) if index not in refused]
            self._changes += 1
            self._change.notify_all()
        if self._pages is not None:
            self._pages.watch(told, answer)
        return answer
