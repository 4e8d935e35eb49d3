"""Every status, with every kind of `Retry-After` and of body, for each destination: what becomes of the batch.

The table below says what each answer means, out of the README's and the design's words, and not out of our code. The
whole way from the buffer to the verdict and back is real, but for the transport, which answers from the script, and for
the clock, which is in the test's hand: a wait of 300 seconds takes none.
"""

from __future__ import annotations

import itertools
import logging
import struct
import time
import tracemalloc
import zlib
from email.utils import formatdate

import pytest
from conftest import TOKEN
from test_transport import Server, answer

from analytics_batcher import CustomerIO, DropReason, Retry, Segment, Vitally
from analytics_batcher.answer import Answer
from analytics_batcher.buffers.memory import MemoryBuffer
from analytics_batcher.connection import BODY_LIMIT
from analytics_batcher.consumer import Consumer
from analytics_batcher.delivery import BatchSender
from analytics_batcher.message import encode
from analytics_batcher.report import Reporter
from analytics_batcher.retry import Schedule
from analytics_batcher.stamp import new_head
from analytics_batcher.transport import Transport

# --- What the answers mean --------------------------------------------------------------------------------------------

RETRIED = {408, 410, 425, 429, 460, *range(500, 600)} - {501, 505}
REFUSED = {400, 422}
PROBE = 60.0  # seconds after which a halted batch is tried again
BASE = 0.5  # the bound of the first wait of a back-off, which is a random part of it
CAP = 300.0  # the most seconds that a server can make us wait

# What a 2xx means with each body. Vitally and Customer.io answer an object; Segment's kin answer anything but a page.
SUCCESSES = {
    "vitally": {"right": "delivered", "megabyte": "delivered", "bomb": "delivered"},
    "customerio": {"right": "delivered", "megabyte": "split", "bomb": "split"},  # more errors than are read
    "segment": dict.fromkeys(("right", "list", "megabyte", "bomb", "bad utf-8"), "delivered"),
}


def meaning(name, status, body):
    """What an answer means: the batch is delivered, retried, split, searched for the bad message, or halted."""
    if 200 <= status < 300:
        return SUCCESSES[name].get(body, "retried")
    if status in RETRIED:
        return "retried"
    if status in REFUSED:
        return "searched"
    return "split" if status == 413 else "halted"


def http_date(ahead):
    """An HTTP date so many seconds from now."""
    return formatdate(time.time() + ahead, usegmt=True)


# Each kind of `Retry-After`, its forms, and the least and the most seconds that it asks for; `None`: for nothing.
PLAIN = None
ASKED = {
    "none": [(lambda: None, PLAIN)],
    "seconds": [(lambda: "7", (7, 7)), (lambda: " 120 ", (120, 120)), (lambda: "0", PLAIN)],
    "date": [
        (lambda: http_date(100), (98, 100)),  # whole seconds
        (lambda: time.strftime("%A, %d-%b-%y %H:%M:%S GMT", time.gmtime(time.time() + 100)), (98, 100)),
        (lambda: time.asctime(time.gmtime(time.time() + 100)), (98, 100)),
        (lambda: http_date(-100), PLAIN),
        (lambda: "Thu, 01 Jan 1970 00:00:00 GMT", PLAIN),
    ],
    "huge": [
        (lambda: "301", (CAP, CAP)),
        (lambda: "999999999", (CAP, CAP)),
        (lambda: http_date(86_400), (CAP, CAP)),
        (lambda: "Fri, 31 Dec 9999 23:59:59 GMT", (CAP, CAP)),
    ],
    "garbage": [
        (lambda text=text: text, PLAIN)
        for text in (
            *("", "soon", "-5", "inf", "nan", "1e999", "7 seconds", "7, 9", "0x10", "\x00", "\xbc", "9" * 60_000),
            *("Fri, 32 Dec 2026 25:61:61 GMT", "Fri, 31 Dec 99999 23:59:59 GMT", "Fri, 31 Dec 2026 23:59:59 +9999999"),
            *("(" * 60_000, "Retry-After: 7"),
        )
    ],
}

PAGE = b"<!DOCTYPE html>\n<html><title>Airport</title><body>Log in\r\nERROR forged</body></html>"


def bomb(size=100_000_000):
    """So many bytes, compressed to a thousandth."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(bytes(1_000_000)) for _ in range(size // 1_000_000)) + packer.flush()


RIGHT = {"vitally": b'{"message":"Success."}', "customerio": b"{}", "segment": b'{"success":true}'}
MEGABYTE = b'{"message":"%b"}' % (b"x" * 1_000_000)
JSON, HTML = {"content-type": "application/json"}, {"content-type": "text/html"}


@pytest.fixture(scope="module")
def bodies():
    """Each kind of body, with its headers."""
    return {
        "right": (JSON, None),
        "html": (HTML, PAGE),
        "list": (JSON, b'["taken"]'),
        "megabyte": (JSON, MEGABYTE),
        "bomb": (JSON | {"content-encoding": "gzip"}, bomb()),
        "bad utf-8": (JSON, b'{"message":"\xff\xfe\x80","error":"\xc3("}'),
    }


DESTINATIONS = {
    "vitally": lambda url=None: Vitally("acme", api_token=TOKEN, base_url=url),
    "customerio": lambda url=None: CustomerIO("site", TOKEN, base_url=url),
    "segment": lambda url=None: Segment(TOKEN, base_url=url or "https://api.segment.io"),
}


# --- A world without a network and without time -----------------------------------------------------------------------


class ScriptedTransport:
    """Gives the answers of a script, then those of a vendor that takes everything; remembers what it was sent."""

    def __init__(self, name, script):
        self.name = name
        self.script = script
        self.requests = 0
        self.bodies = []

    def post(self, _url, _headers, body, _deadline=None):
        """Answer as the transport does: of the body, 64 KiB."""
        self.requests += 1
        self.bodies.append(body)
        if not self.script:
            return Answer(200, JSON, RIGHT[self.name])
        return self.script.pop(0)


class World:
    """A consumer between a buffer and a vendor, at a time of its own."""

    def __init__(self, destination, messages, *script):
        self.now = 1_000.0
        self.drops = []
        self.receipts = []
        self.buffer = MemoryBuffer(100, 1_000_000)
        self.transport = ScriptedTransport(destination.name, list(script))
        sender = BatchSender(destination, self.transport, destination.limits, Retry(base=BASE))
        reporter = Reporter(
            destination.name, on_drop=self.drops.append, on_delivery=self.receipts.append, max_bytes=1_000_000
        )
        self.consumer = Consumer(
            self.buffer, sender, reporter, flush_interval=0.0, max_age=7_200.0, clock=lambda: self.now
        )
        for number in range(messages):
            head = new_head()[:16] + struct.pack(">d", self.now)
            assert self.buffer.put(head + WIRES[number]) is None

    def wait(self):
        """The seconds before the next attempt."""
        return self.consumer.not_before - self.now if self.consumer.not_before else 0.0

    def figures(self):
        """Delivered, dropped, waiting: the books balance at every look."""
        reading = self.buffer.read()
        dropped = sum(reading.ledger.dropped.values())
        assert reading.ledger.tracked == reading.ledger.delivered + dropped + reading.messages
        return reading.ledger.delivered, dropped, reading.messages

    def finish(self):
        """Let time pass until nothing waits, a step at a time; no probe comes early."""
        for _ in range(20):
            if not self.figures()[2]:
                return
            if self.wait():
                self.now += self.wait() * 0.99
                requests = self.transport.requests
                self.consumer.step()
                assert self.transport.requests == requests, "an attempt came too early"
                self.now = self.consumer.not_before
            self.consumer.step()
        raise AssertionError("the batch did not come to an end")


WIRES = [encode({"type": "track", "userId": f"u{n}", "event": "e", "properties": {}}) for n in range(2)]


def cut(status, headers, body):
    """An answer as the transport gives it: of the body, at most 64 KiB."""
    return Answer(status, headers, body[:BODY_LIMIT], truncated=len(body) > BODY_LIMIT)


def check(world, expected, asked, messages):
    """One answer came: is the batch where the table has it, and does the next attempt wait as long as it says?

    Returns:
        The figures.
    """
    wait = world.wait()
    delivered, dropped, waiting = world.figures()
    if expected == "delivered":
        assert (delivered, dropped, waiting, wait) == (messages, 0, 0, 0.0)
        assert sum(receipt.count for receipt in world.receipts) == messages
    elif messages == 1 and expected in {"split", "searched"}:
        reason = DropReason.TOO_LARGE if expected == "split" else DropReason.REJECTED
        assert (delivered, dropped, waiting, wait) == (0, 1, 0, 0.0)
        assert [drop.reason for drop in world.drops] == [reason]
    else:
        assert (delivered, dropped, waiting) == (0, 0, messages)
        assert not world.receipts
        if expected == "halted":
            assert wait == PROBE
        elif expected != "retried":
            assert wait == 0.0
        elif asked is PLAIN:
            assert 0 <= wait <= BASE
        else:
            assert asked[0] <= wait <= asked[1]
    error = world.buffer.ledger.last_error
    assert (error is None) == (expected == "delivered")
    if error is not None:
        assert error.isprintable()
        assert len(error) < 500
        assert TOKEN not in error
    return delivered, dropped, waiting


@pytest.fixture
def lines():
    """The log's lines at DEBUG."""
    told = []

    class Listener(logging.Handler):
        def emit(self, record):
            told.append(record.getMessage())

    listener, logger = Listener(), logging.getLogger("analytics_batcher")
    level = logger.level
    logger.addHandler(listener)
    logger.setLevel(logging.DEBUG)
    yield told
    logger.removeHandler(listener)
    logger.setLevel(level)


@pytest.mark.parametrize("body", ["right", "html", "list", "megabyte", "bomb", "bad utf-8"])
@pytest.mark.parametrize("name", DESTINATIONS)
def test_every_status(bodies, lines, name, body):
    """Each status with each `Retry-After` does to a batch what the table says; then a good vendor gets all of it."""
    destination = DESTINATIONS[name]()
    headers, content = bodies[body]
    content = RIGHT[name] if content is None else content
    forms = {kind: itertools.cycle(ways) for kind, ways in ASKED.items()}
    for status in range(100, 600):
        expected = meaning(name, status, body)
        for kind in ASKED:
            form, asked = next(forms[kind])
            text = form()
            asked = asked if not 200 <= status < 300 else PLAIN  # a portal's page is no word of the vendor's
            given = headers if text is None else headers | {"retry-after": text}
            for messages in (1, 2) if expected in {"split", "searched"} else (2,):
                world = World(destination, messages, cut(status, given, content))
                world.consumer.step()
                _, dropped, _ = check(world, expected, asked, messages)
                world.finish()
                assert world.figures() == (messages - dropped, dropped, 0)
                sent = [one.partition(b'"sentAt"')[0] for one in world.transport.bodies]
                # Again the same bytes; or, after a split, those of the first half and those of the second.
                assert len(set(sent)) == len(sent) if len(sent) == 3 else len(set(sent)) == 1
                assert len(sent) == {"delivered": 1, "retried": 2, "halted": 2}.get(expected, 2 * messages - 1)
    assert lines
    assert all(line.isprintable() and len(line) < 400 and TOKEN not in line for line in lines)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
@pytest.mark.parametrize("name", DESTINATIONS)
def test_every_form_of_retry_after(name, status):
    """Each form of the header is waited for as RFC 9110 means it, at most 300 s; garbage means the own back-off."""
    for form, asked in itertools.chain(*ASKED.values()):
        text = form()
        world = World(DESTINATIONS[name](), 2, Answer(status, {} if text is None else {"retry-after": text}))
        world.consumer.step()
        check(world, "retried", asked, 2)
        world.finish()
        assert world.figures() == (2, 0, 0)


# --- Over real sockets ------------------------------------------------------------------------------------------------


def chunked(*pieces):
    """A body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def raw(status, *headers, body=b""):
    """An answer as it goes over the wire, with no header but those given."""
    return "\r\n".join([f"HTTP/1.1 {status} Whatever", *headers, "", ""]).encode("latin-1") + body


def with_length(status, headers, body):
    """The same with the headers of the table's bodies, and a length."""
    return answer(body, *(f"{name}: {value}" for name, value in headers.items()), status=f"{status} Whatever")


@pytest.fixture
def talk():
    """Sends a batch by the real transport to a server of bytes: what became of it, and how much memory that took.

    The first request is answered by the bytes given, and its connection is left to the client; each later one is
    answered as the vendor does, and then the whole batch must come to be delivered.
    """
    ends = []

    def script(server, connection, _number):
        while server.read(connection):
            first = len(server.requests) == 1
            connection.sendall(server.bytes if first else with_length(200, JSON, RIGHT[server.name]))
            if first and b"Connection: close" in server.bytes:
                return

    def make(name, first):
        server = Server(script)
        transport = Transport(timeout=10.0, verify=False)  # no authorities are loaded
        ends.extend([transport.close, server.close])
        server.bytes, server.name = first, name
        destination = DESTINATIONS[name](f"http://127.0.0.1:{server.port}")
        sender = BatchSender(destination, transport, destination.limits, Retry(base=0.001, cap=0.001))
        records = [new_head() + wire for wire in WIRES]
        Schedule(Retry()).next()  # loads what it uses, which is no part of the answer
        tracemalloc.start()
        try:
            outcome = sender.send(records, None)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        for _ in range(3):
            if outcome.delivered or not records:
                break
            again = sender.send(records, None)
            assert not again.losses
            records = [record for place, record in enumerate(records) if place not in again.delivered]
        else:
            assert not records
        return outcome, peak

    yield make
    for end in ends:
        end()


@pytest.mark.parametrize("status", [200, 201, 207, 302, 400, 401, 413, 429, 500, 503, 511])
@pytest.mark.parametrize("name", DESTINATIONS)
def test_every_body_over_a_real_connection(talk, bodies, name, status):
    """The table holds for what the transport reads too, and no body takes more memory than the 64 KiB read of it."""
    for body, (headers, content) in bodies.items():
        outcome, peak = talk(name, with_length(status, headers, RIGHT[name] if content is None else content))
        expected = meaning(name, status, body)
        assert (len(outcome.delivered) == 2) == (expected == "delivered"), body
        assert outcome.halted == (expected == "halted"), body
        assert outcome.wait <= 0.001 or expected == "halted", body
        assert not outcome.losses
        assert peak < 16 * BODY_LIMIT, body


ODD = {
    "100 and then the answer": (raw(100) + raw(200, "Content-Length: 2", body=b"{}"), "delivered"),
    "101": (raw(101, "Upgrade: websocket"), "halted"),
    "103 and then the answer": (raw(103) + raw(200, "Content-Length: 2", body=b"{}"), "halted"),
    "199": (raw(199), "halted"),
    "204 with a page": (raw(204, f"Content-Length: {len(PAGE)}", body=PAGE), "delivered"),
    "204 with a bare page": (raw(204, body=PAGE), "delivered"),
    "304 with a page": (raw(304, f"Content-Length: {len(PAGE)}", body=PAGE), "halted"),
    "chunks": (raw(200, "Transfer-Encoding: chunked", body=chunked(b"{", b"}")), "delivered"),
    "a page in chunks": (raw(200, "Transfer-Encoding: chunked", body=chunked(*[PAGE] * 9)), "retried"),
    "chunks of no number": (raw(200, "Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n0\r\n\r\n"), "broken"),
    "chunks of a negative number": (raw(200, "Transfer-Encoding: chunked", body=b"-5\r\n{}\r\n0\r\n\r\n"), "broken"),
    "a chunk without its end": (raw(200, "Transfer-Encoding: chunked", body=b"2\r\n{}0\r\n\r\n"), "broken"),
    "a chunk's size without its end": (raw(200, "Transfer-Encoding: chunked", body=b"1" * 80_000), "broken"),
    "two lengths": (raw(200, "Content-Length: 2", "Content-Length: 3", body=b"{}"), "broken"),
    "a length of no number": (raw(500, "Content-Length: many", "Connection: close", body=b"{}"), "retried"),
    "a hundred headers too many": (raw(200, *("X-A: 1",) * 201, "Content-Length: 2", body=b"{}"), "broken"),
    "a header of 100 kB": (raw(200, "X-A: " + "a" * 100_000, "Content-Length: 2", body=b"{}"), "broken"),
    "a header without a colon": (raw(500, "Content-Length: 0", "ERROR forged"), "retried"),
    "status 999": (raw(999, "Content-Length: 0"), "retried"),
    "status 99": (raw(99, "Content-Length: 0"), "broken"),
    "status 1000": (raw(1000, "Content-Length: 0"), "broken"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.9\r\n", "broken"),
    "an endless status line": (b"HTTP/1.1 200 " + b"a" * 100_000, "broken"),
    "nothing but blank lines": (b"\r\n" * 1_000, "broken"),
}
"""What a server may send, and what a batch comes to by it."""


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", DESTINATIONS)
def test_odd_answers_over_a_real_connection(talk, name, odd):
    """An answer that is none, or an odd one, costs an attempt: the batch is kept, and the next attempt delivers it."""
    first, expected = ODD[odd]
    outcome, peak = talk(name, first)
    assert (len(outcome.delivered) == 2) == (expected == "delivered")
    assert outcome.halted == (expected == "halted")
    assert not outcome.losses
    assert peak < 32 * BODY_LIMIT
    if expected == "broken":
        assert outcome.error.startswith("reset: ")
    if outcome.error:
        assert outcome.error.isprintable()
        assert "forged" not in outcome.error
