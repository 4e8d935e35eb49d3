"""Vendors behind a transport that knows no network: they store, judge, answer by the weather, and forget nothing."""

from __future__ import annotations

import json
import math
from collections import Counter, deque
from datetime import datetime, timezone
from email.utils import formatdate
from typing import NamedTuple

from analytics_batcher import CustomerIO, Segment, Vitally
from analytics_batcher.answer import Answer
from analytics_batcher.errors import TransportError

MAKERS = {
    "vitally": lambda: Vitally("acme", api_token="token"),
    "customerio": lambda: CustomerIO("site", "key"),
    "segment": lambda: Segment("key"),
}
# The most messages and bytes of a request, and bytes of a message.
LIMITS = {
    "vitally": (100, 500_000, 32_768),
    "customerio": (10_000, 500_000, 32_000),
    "segment": (2_500, 500_000, 32_000),
}
SECONDS = 0.05
SLOW = 3.0

REFUSED = {
    "500": Answer(500),
    "503": Answer(503, {"retry-after": "7"}),
    "429": Answer(429, {"ratelimit-reset": "400"}),
    "408": Answer(408, {"retry-after": "soon"}),
    "400": Answer(400, {}, b'{"error":"bad"}'),
    "422": Answer(422),
    "401": Answer(401),
    "403": Answer(403),
    "302": Answer(302, {"location": "https://portal.invalid/login"}),
    "413": Answer(413),
    "portal": Answer(200, {"content-type": "text/html"}, b"<html>log in</html>"),
}
# Seconds before which no request may follow: what an answer asks for, at most 300, and a halt's probe.
WAITS = {"503": 7.0, "429": 300.0, "date": 18.9, "401": 60.0, "302": 60.0}
BACK_OFF = 0.5  # the least, where an answer asks for nothing or there is none; with jitter there is no least
UNSAID = ("500", "408", "portal", "refused", "lost", "lost in error")
JUDGED = ("fair", "slow", "stale", "blind", "narrow", "firewall", "date")
LOST = ("lost", "lost in time", "lost in error", "killed after")
FAILED = ("refused", "hangs", "crash", "killed")
WEATHERS = (*JUDGED, *REFUSED, *LOST, *FAILED)
CLIMATES = ("fair", "fair", "killed", "slow", "narrow", "firewall", "500", "400", "403", "401", "refused", "hangs")
_NARROW = 3


class Killed(BaseException):
    """Ends the thread that is in it, as a system exit or a signal would."""


class Accepted(NamedTuple):
    """What a vendor must find in a message.

    Attributes:
        at: When it was tracked, on the monotonic clock.
        moment: Its time, in Unix milliseconds.
        own: The id that it was given, or `None`.
        weight: What it takes of the queue's bytes.
    """

    at: float
    moment: int
    own: str | None
    weight: int


def content_of(message):
    """What a call said, in the neutral form or in a vendor's."""
    return message.get("properties") or message.get("traits") or message["attributes"]


def iso(milliseconds):
    """Unix milliseconds in ISO 8601."""
    moment = datetime.fromtimestamp(milliseconds // 1000, timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}Z"


class Vendor:
    """One vendor, strict about everything that our laws promise.

    Attributes:
        script: The next weathers.
        climate: The weather once there is no script.
        limits: The most messages and bytes of a request, and bytes of a message.
        max_age: Seconds after which nothing may be sent.
        accepted: What was tracked, by number.
        dropped: The messages that were reported as dropped, with the reasons.
        filtered: Those that `before_send` dropped.
        evicts: Those that made room for others, or `None` once it is not known which they are.
        evicting: How many of them by the present call.
        alone: Whether it is the client's only vendor, so that what `before_send` was given was for this one.
        back_off: The least seconds between two attempts.
        is_asked: Whether `before_send` sees each message, and marks it.
        faults: What broke a law.
        flying: The messages of the request under way.
        tried: The messages of all requests.
        void: Those of a request that was given up while under way: their answer counts for nobody.
        yes: Messages that were taken, with the answer given.
        blamed: Messages that an answer concerned alone, and refused.
        stored: How often each message was stored.
        requests: Requests that ended, with or without an answer.
        retries: Those of them that held a message of an earlier one.
        batches: Those of them by which at least one message was taken.
    """

    def __init__(self, world, name, lowered, config):
        self.world = world
        self.destination = MAKERS[name]()
        self.name = name
        self.limits = [own if low is None else low for own, low in zip(LIMITS[name], lowered, strict=True)]
        self.max_age = {None: math.inf, "auto": 7_200}.get(config["max_age"], config["max_age"])
        self.back_off = BACK_OFF if config["jitter"] == "none" else 0.0
        self.is_asked = "before_send" in config["hooks"]
        self.script = deque()
        self.climate = "fair"
        self.accepted = {}
        self.dropped = {}
        self.filtered = set()
        self.alone = len(config["vendors"]) == 1
        self.faults = []
        self.blamed = set()
        self.stored = Counter()
        self._first = {}
        self._ids = {}
        self._lost = set()
        self._bad = set()
        self._last = -1
        self.fork()

    def fork(self):
        """Count anew for a child; what the parent accepted must never come from it."""
        self.yes, self.void, self.flying, self.tried = set(), set(), set(), set()
        self.evicts, self.evicting = set(), 0
        self.requests = self.retries = self.batches = 0
        self._not_before = 0.0
        self._before_fork = set(self.accepted)

    def held(self):
        """What was accepted and neither taken nor dropped, with its weight, the oldest first."""
        settled = self.yes.union(self.dropped, self.evicts or (), self._before_fork)
        return {number: one.weight for number, one in self.accepted.items() if number not in settled}

    def native(self, neutral, content):
        """A neutral `track` in this vendor's own form."""
        if self.name != "customerio":
            return neutral
        person = {"id": neutral["userId"]}
        return {"type": "person", "action": "event", "identifiers": person, "name": "e", "attributes": content}

    def receive(self, transport, body, seconds):
        """Take one request, and answer or fail as the weather has it."""
        weather = self.script.popleft() if self.script else self.climate
        messages = self._read(body)
        numbers = [content_of(message)["n"] for message in messages]
        if self.world.now < self._not_before:
            self.faults.append(f"a request came {self._not_before - self.world.now} s before its time")
        if self.flying:
            self.faults.append("two requests at once")
        try:
            self.flying = set(numbers)
            repeated = bool(self.tried & self.flying)
            self.tried |= self.flying
            if weather.startswith("killed") or weather == "crash":
                if weather == "killed after":
                    self._store(self._judged("fair", numbers, messages)[1], lost=True)
                self.world.sleep(min(SECONDS, seconds))
                raise RuntimeError("crash") if weather == "crash" else Killed
            if weather == "stale":
                transport.requests += 1  # its own, on a new connection
            return self._answered(weather, numbers, messages, seconds, repeated=repeated)
        finally:
            self.flying = set()

    def _answered(self, weather, numbers, messages, seconds, *, repeated):
        takes = {"slow": SLOW, "hangs": 1e9, "lost in time": 1e9}.get(weather, SECONDS)
        answer, taken = self._judged(weather, numbers, messages)
        lost = takes > seconds or weather in LOST
        self._store(taken, lost=lost)
        self.world.sleep(min(takes, seconds))
        requests = 2 if weather == "stale" else 1
        self.requests += requests
        self.retries += requests if repeated else requests - 1
        if takes > seconds:
            self._not_before = self.world.now + self.back_off
            raise TransportError("TimeoutError", "timeout")
        if weather in UNSAID:
            self._not_before = self.world.now + self.back_off
        if weather == "lost in error":
            return Answer(502)
        if weather in {"refused", "lost"}:
            raise TransportError("ConnectionResetError", "reset" if taken else "connect")
        self._say(answer, numbers, taken)
        self._not_before = max(self._not_before, self.world.now + WAITS.get(weather, 0.0))
        return answer

    def _judged(self, weather, numbers, messages):
        """The answer, and which messages it takes."""
        bad = [index for index, message in enumerate(messages) if "bad" in content_of(message)]
        refusal = REFUSED.get(weather)
        if weather == "date":
            refusal = Answer(503, {"retry-after": formatdate(self.world.time() + 20, usegmt=True)})
        if weather == "narrow" and len(messages) > _NARROW:
            refusal = Answer(413)
        if weather == "firewall" and bad:
            refusal = Answer(403)
        if refusal is not None or weather in FAILED:
            return refusal, []
        if weather in {"blind", "narrow"} or not bad:
            return Answer(204 if weather == "blind" else 200, {}, b"" if weather == "blind" else b"{}"), numbers
        if self.name == "vitally":
            return Answer(400, {}, b'{"message":"one of them is bad"}'), []
        taken = [number for index, number in enumerate(numbers) if index not in bad]
        return self._partly(bad, messages, len(taken)), taken

    def _partly(self, bad, messages, taken):
        if self.name == "customerio":
            errors = [{"batch_index": index, "reason": "invalid", "message": "bad"} for index in bad]
            errors.append({"batch_index": len(messages), "reason": "invalid"})  # of no message
            return Answer(207, {}, json.dumps({"errors": errors}).encode())
        lines = [f"Message ID: {messages[index]['messageId']}: bad" for index in bad]
        said = {"ok": False, "receivedEvents": len(messages), "okEvents": taken, "errors": lines}
        return Answer(200, {}, json.dumps(said).encode())

    def _say(self, answer, numbers, taken):
        """Note whom the answer takes, and whom it blames."""
        refused = set(numbers) - set(taken)
        if answer.status in {200, 207, 403} or len(numbers) == 1:
            self.blamed |= refused
        if taken:
            self.batches += 1
        self._lost -= set(taken)
        self.yes |= set(taken) - self.void

    def _store(self, numbers, *, lost):
        for number in numbers:
            if self.stored[number] and number not in self._lost:
                self.faults.append(f"{number} was stored twice")
            if not self.stored[number] and number not in self._bad:  # a bad one may be taken in better weather
                if number < self._last:
                    self.faults.append(f"{number} was stored after {self._last}")
                self._last = number
            self.stored[number] += 1
            if lost:
                self._lost.add(number)

    def _read(self, body):
        read = json.loads(body, parse_constant=self.faults.append)
        messages = read if self.name == "vitally" else read["batch"]
        most_messages, most_bytes, most_of_one = self.limits
        if len(body) > most_bytes or not 1 <= len(messages) <= most_messages:
            self.faults.append(f"a body of {len(messages)} messages and {len(body)} bytes")
        for message in messages:
            size = len(json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode())
            if size > most_of_one:
                self.faults.append(f"a message of {size} bytes")
            self._know(content_of(message)["n"], message)
        return messages

    def _know(self, number, message):
        """Check whether a message may be sent."""
        content, accepted = content_of(message), self.accepted.get(number)
        if number in self.filtered and (self.alone or "secret" in content):
            self.faults.append(f"{number} was sent though before_send dropped it")
        if self.is_asked and "asked" not in content:
            self.faults.append(f"{number} was sent as it was before before_send")
        if number in (self.evicts or ()):
            self.faults.append(f"{number} was sent though it was older than what was evicted")
        if number in self.dropped:
            self.faults.append(f"{number} was sent after it was dropped as {self.dropped[number]}")
        if accepted is None or number in self._before_fork:
            self.faults.append(f"{number} is not this process's to send")
        elif self.world.now - accepted.at >= self.max_age:
            self.faults.append(f"{number} was sent though it was too old")
        else:
            self._recognise(number, message, accepted)

    def _recognise(self, number, message, accepted):
        """Check whether a message, its id and its time are what they always were."""
        if "bad" in content_of(message):
            self._bad.add(number)
        own = message.get("id" if self.name == "customerio" else "messageId", number)
        if self._first.setdefault(number, message) != message or self._ids.setdefault(own, number) != number:
            self.faults.append(f"{number} changed, or has another one's id")
        if self.name != "customerio" and accepted.own not in {None, own}:
            self.faults.append(f"{number} lost the id that it was given")
        moment = message.get("timestamp")
        if moment not in {None, accepted.moment // 1000, iso(accepted.moment)}:
            self.faults.append(f"{number} is of {moment}, not {accepted.moment}")


def transport_to(vendors):
    """The scripted transport's class, for clients of these vendors."""
    by_url = {vendor.destination.url: vendor for vendor in vendors}

    class Transport:
        """In the form of `analytics_batcher.transport.Transport`."""

        def __init__(self, *, timeout, proxy, verify):
            assert proxy is None
            assert verify is True
            self.requests = 0
            self._total = sum(timeout) if isinstance(timeout, tuple) else timeout
            self.reopen()

        def post(self, url, headers, body, deadline=None):
            """One request, within its deadline."""
            vendor = by_url[url]
            assert headers["Authorization"].startswith("Basic ")
            if self._forks != vendor.world.forks:
                vendor.faults.append("a connection was shared over a fork")
            now = vendor.world.now
            seconds = self._total if deadline is None else min(self._total, deadline - now)
            if seconds <= 0:
                raise TransportError("TimeoutError", "timeout")
            self.requests += 1
            return vendor.receive(self, body, seconds)

        def reopen(self):
            """Let go of the parent's connections."""
            self._forks = vendors[0].world.forks

        def close(self):
            """There are no connections."""

    return Transport
