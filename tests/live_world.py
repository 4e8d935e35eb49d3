"""What the tests of the live page share: a receiver that has one, and a client of its own paths."""

from __future__ import annotations

import json
import time
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import NamedTuple
from urllib.parse import urlsplit

from conftest import TOKEN

from analytics_batcher import Client, CustomerIO, Segment, Vitally
from analytics_batcher.live.serving import Live
from analytics_batcher.receiver import CustomerIOWire, Receiver, SegmentWire, VitallyWire

SITE, KEY, WRITE_KEY = "site", "c10-key", "write-key-1"
VENDORS = {"vitally": "/analytics/v1/batch", "customerio": "/api/v2/batch", "segment": "/v1/batch"}
ENVELOPES = {"customerio": {}, "segment": {"writeKey": WRITE_KEY}}
NOW = "2026-01-02T03:04:05.678Z"


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict
    text: str

    @property
    def json(self):
        """The body, read."""
        return json.loads(self.text)


class World:
    """A receiver of all vendors with a live page."""

    def __init__(self, token="", *, feed=None, host="127.0.0.1"):
        self.live = Live(host, token, feed=feed)
        wires = (VitallyWire(TOKEN), CustomerIOWire(SITE, KEY), SegmentWire(WRITE_KEY))
        self.receiver = Receiver(wires=wires, keep=False, pages=self.live)

    @property
    def url(self):
        """Where it is."""
        return self.receiver.url

    def ask(self, path, method="GET", **headers):
        """Make one request of a browser; `_` in a header's name stands for `-`."""
        given = {name.replace("_", "-"): value for name, value in headers.items() if value is not None}
        address = urlsplit(self.url)
        with closing(HTTPConnection(address.hostname, address.port, timeout=10)) as connection:
            connection.request(method, path, headers=given)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            endless = found.get("content-type") == "text/event-stream"
            return Answer(response.status, found, (response.read1() if endless else response.read()).decode())

    def act(self, path, **changes):
        """Press a button of the page."""
        headers = {"X-Analytics-Batcher": "page", "Origin": self.url, **changes}
        return self.ask(f"/live/{path}", "POST", **headers)

    def details(self, number):
        """What a click shows."""
        return self.ask(f"/live/messages/{number}").json

    @contextmanager
    def stream(self, position=None):
        """The events of the feed, as they come."""
        address = urlsplit(self.url)
        with closing(HTTPConnection(address.hostname, address.port, timeout=10)) as connection:
            headers = {} if position is None else {"Last-Event-ID": position}
            connection.request("GET", "/live/feed", headers=headers)
            with connection.getresponse() as response:
                yield events(response)

    def post(self, messages, vendor="vitally", **changes):
        """Send a batch as a client does, or with other headers or another body."""
        body = changes.pop("body", None)
        if body is None:
            body = json.dumps(messages if vendor == "vitally" else {"batch": messages, **ENVELOPES[vendor]})
        headers = {"Content-Type": "application/json", **AUTHORIZATIONS[vendor], **changes}
        address = urlsplit(self.url)
        with closing(HTTPConnection(address.hostname, address.port, timeout=10)) as connection:
            connection.request("POST", VENDORS[vendor], body, headers)
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, found, response.read().decode())

    def clients(self, **options):
        """A client of each vendor."""
        return {
            "vitally": Client(Vitally(api_token=TOKEN, base_url=self.url), **options),
            "customerio": Client(CustomerIO(SITE, KEY, base_url=self.url), **options),
            "segment": Client(Segment(WRITE_KEY, base_url=self.url), **options),
        }


AUTHORIZATIONS = {
    "vitally": {"Authorization": f"Basic {TOKEN}"},
    "customerio": {"Authorization": "Basic c2l0ZTpjMTAta2V5"},
    "segment": {"Authorization": "Basic d3JpdGUta2V5LTE6"},
}


@contextmanager
def running(token="", **options):
    """A world that serves."""
    world = World(token, **options)
    with world.receiver:
        yield world


def track(number=1, **changes):
    """A good message of Vitally's."""
    return {
        "type": "track",
        "userId": "u1",
        "event": "Signed up",
        "properties": {},
        "messageId": f"m{number}",
        "timestamp": NOW,
        **changes,
    }


def events(response):
    """Server-sent events: each one's name, id and data, read; for as long as a test may wait."""
    assert response.status == 200, response.read()
    event, end = {}, time.monotonic() + 30
    for raw in response:
        assert time.monotonic() < end, "what the test waits for does not come"
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif "data" in event:
            yield event.get("event", "message"), event.get("id", ""), json.loads(event["data"])
            event = {}


def rows_of(stream, count):
    """The next rows, and the id behind them."""
    rows, position = [], ""
    for name, id_, data in stream:
        if name == "message":
            rows, position = rows + data, id_
        if len(rows) >= count:
            return rows, position
    raise AssertionError(f"the stream ended after {len(rows)} rows")
