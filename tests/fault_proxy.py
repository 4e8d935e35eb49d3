"""A TCP proxy on loopback whose weather can be made as bad as the world's, at any moment.

    with FaultProxy(("127.0.0.1", receiver_port)) as proxy:
        proxy.weather = Weather(cut_response=17, abort=True)
        ...                                   # a client of proxy.url
        proxy.weather = CLEAR

One thread plays all connections. A forked child would hold copies of its sockets, which then stay open when the proxy
closes them. A program that forks runs it as a process of its own, `python fault_proxy.py PORT`: see `main`.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

_PIECE = 65_536  # bytes read at once, and held in one direction before the sender has to wait
_NO_LINGER = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # makes a close a reset
_TICK = 0.02  # seconds between two pieces of a drip of many bytes a second


@dataclass(frozen=True)
class Weather:
    """What happens to the connections. Bytes are counted in each connection, from the moment when the weather began.

    Attributes:
        cut_request: Bytes of the client's that pass before the connection is cut, on both sides. With 0 it is cut when
            the first one comes.
        cut_response: The same for bytes of the server's.
        abort: Cut by a reset (RST) instead of an end (FIN).
        request_rate: Bytes a second that drip to the server. None: as fast as they come.
        response_rate: Bytes a second that drip to the client.
        delay: Seconds for which each piece of a request is held.
        black_hole: Take connections and bytes, and forward nothing. A connection that has lost bytes so stays a black
            hole in any later weather.
        reset: Reset all connections, new ones as soon as they are taken.
        refuse: Listen no more, and cut what is open. Later weather listens on the same port.
        cuts: After so many cuts by bytes, or resets of new connections, the weather is `CLEAR` by itself.
    """

    cut_request: int | None = None
    cut_response: int | None = None
    abort: bool = False
    request_rate: float | None = None
    response_rate: float | None = None
    delay: float = 0.0
    black_hole: bool = False
    reset: bool = False
    refuse: bool = False
    cuts: int | None = None


CLEAR = Weather()


class _Flow:
    """One direction of a connection. Used by the proxy's thread only, as is `_Pair`."""

    def __init__(self, source, target):
        self.source = source
        self.target = target
        self.pieces = deque()  # of (when it is due, bytes)
        self.held = 0  # bytes in them
        self.ended = False  # the source has said its last
        self.shut = False  # and so has been told the target
        self.begin()

    def begin(self):
        """Begin to count: the weather has changed."""
        self.passed = 0
        self.ready_at = 0.0  # when the drip's next bytes fall
        self.is_blocked = False  # the target takes no more at present

    def due_at(self):
        """When there is something to forward."""
        return max(self.ready_at, self.pieces[0][0]) if self.pieces else math.inf

    def forward(self, now, rate, limit):
        """Forward what is due. Return the bytes that went, and whether the limit has been reached."""
        before = self.passed
        self.is_blocked = False
        while self.due_at() <= now:
            due, data = self.pieces.popleft()
            room = len(data) if limit is None else limit - self.passed
            if rate is not None:
                room = min(room, max(1, int(rate * _TICK)))
            try:
                sent = self.target.send(data[:room]) if room else 0
            except BlockingIOError:
                self.is_blocked = True
                sent = 0
            if sent < len(data):
                self.pieces.appendleft((due, data[sent:]))
            self.passed += sent
            self.held -= sent
            if self.passed == limit:
                return self.passed - before, True
            if self.is_blocked:
                break
            if rate is not None:
                self.ready_at = now + sent / rate
        if self.ended and not self.pieces and not self.shut:
            self.shut = True
            self.target.shutdown(socket.SHUT_WR)
        return self.passed - before, False


class _Pair:
    """A connection of a client's, and the one to the server, which a black hole does not make."""

    def __init__(self, client, server):
        self.request = _Flow(client, server)
        self.response = _Flow(server, client)
        self.sockets = {client: (self.request, self.response)}  # to the flows that it feeds, and that feed it
        if server is not None:
            self.sockets[server] = (self.response, self.request)
        self.swallows = server is None


class FaultProxy:
    """Forwards connections to `target`, through its weather. Ends with the `with` block, and its thread with it.

    Args:
        target: Host and port of the server. Another one may be set at any time, for new connections.
        host: Where to listen.
        port: On which port; 0 for any.

    Attributes:
        port: Where it listens, in any weather but `refuse`.
        url: The same, as the root of a URL of scheme http.
        connections: Connections taken so far.
        request_bytes: Bytes forwarded to the server so far.
        response_bytes: Bytes forwarded to clients so far.

    Locking: none. All is written by the proxy's thread alone, but for the orders, a deque of which each end belongs to
    one side.
    """

    def __init__(self, target, host="127.0.0.1", port=0):
        self.connections = self.request_bytes = self.response_bytes = 0
        self.target = target
        self._weather, self._cuts = CLEAR, 0
        self._pairs = set()
        self._orders = deque()  # of (weather, event to set when it is in force); a weather of None ends the thread
        self._bell, self._rope = socket.socketpair()
        self._listener = _bind((host, port))
        self._address = self._listener.getsockname()[:2]
        self.port = self._address[1]
        self.url = f"http://{host}:{self.port}"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._listens = False
        self._listen()
        self._thread = threading.Thread(target=self._run, name=f"fault-proxy:{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def weather(self):
        """The weather. Setting it returns when it is in force, for open connections too; any thread may."""
        return self._weather

    @weather.setter
    def weather(self, weather):
        in_force = threading.Event()
        self._orders.append((weather, in_force))
        self._rope.send(b".")
        if not in_force.wait(10):
            raise RuntimeError("the proxy's thread has died")

    @property
    def open_connections(self):
        """How many connections are open at present."""
        return len(self._pairs)

    def close(self):
        """Cut all connections, listen no more, and end the thread."""
        if self._thread.is_alive():
            self.weather = None
            self._thread.join(10)
            self._rope.close()
            self._bell.close()  # not by the thread: it may see its last order before it is rung

    def _run(self):
        wait = None
        while True:
            for key, events in self._selector.select(wait):
                if key.fileobj is self._bell:
                    self._bell.recv(4096)
                elif key.fileobj is self._listener:
                    self._accept()
                elif events & selectors.EVENT_READ:
                    self._read(key.fileobj, key.data)
            while self._orders:
                weather, in_force = self._orders.popleft()
                if weather is None:
                    self._end()
                else:
                    self._change(weather)
                in_force.set()
                if weather is None:
                    return
            now = time.monotonic()
            due = min((self._play(pair, now) for pair in list(self._pairs)), default=math.inf)
            wait = None if due == math.inf else max(due - time.monotonic(), 0.0)

    def _change(self, weather):
        self._weather, self._cuts = weather, 0
        for pair in list(self._pairs):
            pair.request.begin()
            pair.response.begin()
            pair.swallows |= weather.black_hole
            if weather.reset or weather.refuse:
                self._cut(pair, abort=weather.reset or weather.abort)
        if weather.refuse and self._listens:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = _bind(self._address)  # bound only: it refuses, and nobody else gets the port meanwhile
            self._listens = False
        elif not weather.refuse and not self._listens:
            self._listen()

    def _listen(self):
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._listens = True

    def _end(self):
        for pair in list(self._pairs):
            self._cut(pair, abort=False)
        self._selector.close()
        self._listener.close()

    def _accept(self):
        try:
            client, _ = self._listener.accept()
        except OSError:
            return  # the client has left already
        self.connections += 1
        server = None
        if not (self._weather.black_hole or self._weather.reset):
            with suppress(OSError):
                server = socket.create_connection(self.target, 5)
        pair = _Pair(client, server)
        self._pairs.add(pair)
        for one in pair.sockets:
            one.setblocking(False)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if server is None and not self._weather.black_hole:
            self._cut(pair, abort=True)
            if self._weather.reset:
                self._count_cut()

    def _count_cut(self):
        if self._weather.cuts is not None:
            self._cuts += 1
            if self._cuts >= self._weather.cuts:
                self._change(CLEAR)

    def _read(self, source, pair):
        if pair not in self._pairs:
            return  # cut since the selector saw it
        flow, _ = pair.sockets[source]
        try:
            data = source.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            self._cut(pair, abort=True)  # as the one side does to us, we do to the other
            return
        flow.ended = not data
        if data and not pair.swallows:
            delay = self._weather.delay if flow is pair.request else 0.0
            flow.pieces.append((time.monotonic() + delay, data))
            flow.held += len(data)

    def _play(self, pair, now):
        """Forward what is due. Return when there will be more to do."""
        weather, request, response = self._weather, pair.request, pair.response
        if pair.swallows:
            if request.ended or response.ended:
                self._cut(pair, abort=False)
            else:
                self._watch(pair)
            return math.inf
        try:
            sent, cut = request.forward(now, weather.request_rate, weather.cut_request)
            self.request_bytes += sent
            if not cut:
                sent, cut = response.forward(now, weather.response_rate, weather.cut_response)
                self.response_bytes += sent
        except OSError:
            self._cut(pair, abort=True)
            return math.inf
        if cut or (request.shut and response.shut):
            self._cut(pair, abort=cut and weather.abort)
            if cut:
                self._count_cut()
            return math.inf
        self._watch(pair)
        return min((flow.due_at() for flow in (request, response) if not flow.is_blocked), default=math.inf)

    def _watch(self, pair):
        """Ask the selector for what the connection waits for."""
        for one, (feeds, fed) in pair.sockets.items():
            wants = selectors.EVENT_READ if not feeds.ended and feeds.held < _PIECE else 0
            wants |= selectors.EVENT_WRITE if fed.is_blocked else 0
            known = self._selector.get_map().get(one)
            if known is None and wants:
                self._selector.register(one, wants, pair)
            elif known is not None and not wants:
                self._selector.unregister(one)
            elif known is not None and known.events != wants:
                self._selector.modify(one, wants, pair)

    def _cut(self, pair, *, abort):
        self._pairs.discard(pair)
        for one in pair.sockets:
            with suppress(KeyError):
                self._selector.unregister(one)
            with suppress(OSError):
                if abort:
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
                else:
                    one.shutdown(socket.SHUT_RDWR)  # whoever else holds a copy of the socket
            one.close()


def _bind(address):
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(address)
    return bound


def main():
    """Stand before the port given on the command line, until the input ends.

    Writes a line of JSON with `port` and the counts, at the start and whenever a weather is in force. Each line of the
    input is one: the JSON of `Weather`'s fields, such as `{"cut_response": 17}`.
    """
    with FaultProxy(("127.0.0.1", int(sys.argv[1]))) as proxy:
        lines = iter(sys.stdin.readline, "")
        while True:
            names = ("port", "connections", "open_connections", "request_bytes", "response_bytes")
            sys.stdout.write(json.dumps({name: getattr(proxy, name) for name in names}) + "\n")
            sys.stdout.flush()
            line = next(lines, None)
            if line is None:
                return
            proxy.weather = Weather(**json.loads(line))


if __name__ == "__main__":
    main()
