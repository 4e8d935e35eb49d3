"""A client of scripted vendors, of which every call, result and callback is compared with what ought to come of it."""

from __future__ import annotations

import itertools
import json
import logging
import sys
import threading
import traceback
from collections import Counter, defaultdict, deque

import pytest
from vendor_script import Accepted, Killed, Vendor, content_of, transport_to
from virtual_world import World

from analytics_batcher import AnalyticsError, Client, Retry, assembly, lifecycle
from analytics_batcher.log import logger

EPSILON = 0.01
# A record in memory: its bytes' object and its place in the queue; before its JSON, the stamp and its acceptance.
OVERHEAD = sys.getsizeof(b"") + 8 + 16
HEAD = 16 + 8
UNSUPPORTED = {"vitally": "page", "customerio": "organization", "segment": "organization"}
HOOKS = ("before_send", "on_drop", "on_delivery")
OWN = ("background", "when_full", "max_queue_messages", "max_queue_bytes", "batch_messages", "flush_interval", "strict")


def written(value):
    """Compact JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def in_main_thread():
    """Whether a Ctrl-C could come in here; elsewhere a `KeyboardInterrupt` is a callback's own error."""
    return threading.current_thread() is threading.main_thread()


def message_of(kind, number, content):
    """A call's name and arguments, and the neutral message that it makes."""
    user = f"u{number}"
    if kind == "identify":
        message = {"type": "user", "traits": content, "userId": user, "accountId": "a"}
        return "identify", {"user_id": user, "traits": content, "account_id": "a"}, message
    if kind == "account":
        message = {"type": "account", "accountId": "a", "traits": content, "userId": user}
        return "account", {"account_id": "a", "traits": content, "user_id": user}, message
    if kind == "organization":
        message = {"type": "organization", "organizationId": "o", "traits": content}
        return "organization", {"organization_id": "o", "traits": content}, message
    if kind == "page":
        message = {"type": "page", "name": "é", "properties": content, "userId": user}
        return "page", {"user_id": user, "name": "é", "properties": content}, message
    message = {"type": "track", "event": "é", "properties": content, "userId": user}
    return "track", {"user_id": user, "event": "é", "properties": content}, message


class ObservedClient:
    """A client in a world of its own.

    Args:
        config: Its options; `vendors`, their names; `sizes`, the most bytes of a batch and of a message; `hooks`, the
            callbacks that it has.
    """

    def __init__(self, config):
        self.config = config
        self.patch = pytest.MonkeyPatch()
        self.world = World()
        self.world.install(self.patch)
        self.patch.setattr(logger, "propagate", False)
        self.watcher = logging.Handler(logging.ERROR)
        self.watcher.emit = self.watch
        logger.addHandler(self.watcher)
        batch_bytes, message_bytes = config["sizes"]
        lowered = config["batch_messages"], batch_bytes, message_bytes
        self.vendors = [Vendor(self.world, name, lowered, config) for name in config["vendors"]]
        self.patch.setattr(assembly, "Transport", transport_to(self.vendors))
        self.client = Client(
            [vendor.destination for vendor in self.vendors],
            batch_bytes=batch_bytes,
            message_bytes=message_bytes,
            retry=Retry(jitter=config["jitter"], max_age=config["max_age"]),
            **{name: config[name] for name in (*OWN, "timeout", "block_timeout")},
            **{name: getattr(self, name) for name in config["hooks"]},
        )
        self.pipelines = [lane.pipeline for lane in self.client._lanes]
        self.numbers = itertools.count()
        self.behaviours = defaultdict(deque)  # what callbacks are to do, once each
        self.calling = False  # whether a call is under way
        self.closed = self.ending = False  # whether it was shut down, and by the test itself
        self.count_anew()

    def count_anew(self):
        """Begin with empty books."""
        self.told, self.told_delivered = Counter(), Counter()
        self.asked = Counter()  # how often `before_send` had each message
        self.base, self.refused = (0, Counter()), 0  # what was counted when the last result was made, and refused since
        self.must_tell = "on_drop" in self.config["hooks"]
        self.killed = False
        self.begun = self.running = 0  # flushes, the shutdown among them

    def fork(self):
        """Become the child: alone, and with empty books."""
        self.world.fork()
        for pipeline in self.pipelines:
            pipeline.after_fork()
        for vendor in self.vendors:
            vendor.fork()
        self.count_anew()

    def end(self):
        """Leave nothing behind."""
        self.world.end()
        logger.removeHandler(self.watcher)
        for pipeline in self.pipelines:
            lifecycle.forget(pipeline)
        self.patch.undo()

    # Callbacks

    def watch(self, line):
        """An error in the consumer that nobody put there."""
        text = line.getMessage()
        if "consumer failed" in text and "vendor_script.py" not in text:
            self.vendors[0].faults.append(text)

    def behave(self, where):
        """Do in a callback what callbacks should not do."""
        try:
            self.do(self.behaviours[where].popleft() if self.behaviours[where] else None)
        except AssertionError:
            self.vendors[0].faults.append(traceback.format_exc())  # the client keeps it from the test
            raise

    def do(self, what):
        """Raise, or call the client, which then may not wait."""
        started = self.world.now
        if what == "raise":
            raise KeyError
        if what == "exit":
            raise SystemExit
        if what == "interrupt":
            if in_main_thread():
                self.must_tell, self.killed = False, True
            raise KeyboardInterrupt
        if what in {"flush", "shutdown"}:
            self.closed = self.closed or what == "shutdown"
            if self.ending or self.calling:  # what it takes, the call or the end under way cannot say
                self.base = None
            self.flushed(self.client.flush if what == "flush" else self.client.shutdown, 3.0, patient=False)
        if what == "track" and not self.calling:
            for vendor in self.vendors:
                vendor.evicts = None  # a batch may be on its way that no vendor has seen
            self.call("track")
        assert self.world.now == started

    def before_send(self, message):
        """Change a message, or drop it if it is secret."""
        content = content_of(message)
        fatal = {"raise", "exit"} if in_main_thread() else {"raise", "exit", "interrupt"}
        if "secret" in content or (self.behaviours["before_send"] or ["none"])[0] in fatal:
            for vendor in self.vendors:  # it is not told for which one
                vendor.filtered.add(content["n"])
        self.behave("before_send")
        self.asked[content["n"]] += 1
        content["asked"] = sum(self.asked.values())
        return None if "secret" in content else {**message, "messageId": "mine"}

    def on_delivery(self, delivery):
        """Count."""
        self.told_delivered[delivery.destination] += delivery.count
        self.behave("on_delivery")

    def on_drop(self, drop):
        """Count, and ask whether it is just."""
        self.told[drop.destination, drop.reason] += drop.count
        vendor = next(vendor for vendor in self.vendors if vendor.name == drop.destination)
        for message in drop.messages:
            number = content_of(message)["n"]
            if number in vendor.dropped or number in vendor.yes or not self.is_just(vendor, drop, number):
                vendor.faults.append(f"{number} was dropped as {drop.reason}: {drop.detail}")
            vendor.dropped[number] = drop.reason
        self.behave("on_drop")

    def is_just(self, vendor, drop, number):
        """Whether there was a reason to drop a message."""
        reason, accepted = drop.reason, vendor.accepted.get(number)
        if reason in {"rejected", "filtered"}:
            return number in (vendor.blamed if reason == "rejected" else vendor.filtered)
        if reason == "expired":
            return self.world.now - accepted.at >= vendor.max_age
        if reason == "exit":
            return self.ending
        if reason == "too_large" and accepted is not None:
            return number in vendor.blamed or "allowed are" in drop.detail
        if reason == "queue_full" and self.config["when_full"] == "drop_oldest" and accepted is not None:
            return vendor.evicts is None or number in vendor.evicts
        return accepted is None or (reason == "queue_full" and self.config["when_full"] == "block")

    # Calls

    def call(self, kind, size=0, odd=()):
        """Make one call, and compare what came of it with what ought to.

        Args:
            kind: What is called.
            size: Bytes of padding; or as many as the vendor takes (`fits`), or one more (`over`), or as many as the
                queue has room for (`room`).
            odd: `bad` for its vendor, `secret` to `before_send`, or `given` an id and a time.
        """
        number = next(self.numbers)
        content = {"n": number, **{name: True for name in odd if name != "given"}, "pad": ""}
        name, arguments, message = message_of(kind, number, content)
        stamp = {"messageId": "i" * 36, "timestamp": "2018-01-01T00:00:00.000Z"}
        given = "given" in odd and kind != "native"
        if given:
            stamp["messageId"] = f"m{number}"
            message.update(stamp)
            arguments.update(timestamp=1_514_764_800, message_id=stamp["messageId"])
        targets = self.vendors
        if kind == "native":
            targets = [self.vendors[number % len(self.vendors)]]
            name, message = "enqueue", targets[0].native(message, content)
            arguments, stamp = {"message": message, "to": targets[0].name}, {}
        room = min(vendor.limits[2] for vendor in targets) - len(written({**message, **stamp}))
        if size == "room":  # as much as the queue still holds
            held = self.client.stats().destinations[targets[0].name].pending_bytes + HEAD + OVERHEAD
            room = min(room, self.config["max_queue_bytes"] - held - len(written(message)))
        elif isinstance(size, int):
            room = size
        content["pad"] = "é" * (max(room, 0) // 2) + "x" * (room % 2) + "x" * (size == "over")
        wire, body = len(written({**message, **stamp})), len(written(message))
        at, moment = self.world.now, 1_514_764_800_000 if given else int(self.world.time() * 1000)
        expected = {vendor.name: self.fates(vendor, kind, wire, body) for vendor in targets}
        for vendor in targets:
            if None in expected[vendor.name]:
                vendor.accepted[number] = Accepted(at, moment, f"m{number}" if given else None, body + HEAD + OVERHEAD)
        self.make(targets, number, expected, lambda: getattr(self.client, name)(**arguments))

    def fates(self, vendor, kind, wire, body):
        """Why a vendor may miss a message: the reasons, with None for not."""
        stats = self.client.stats().destinations[vendor.name]
        weight = body + HEAD + OVERHEAD
        if kind == UNSUPPORTED[vendor.name]:
            return {"unsupported"}
        if wire > vendor.limits[2]:
            return {"too_large"}
        if self.closed:
            return {"closed"}
        size = self.config["max_queue_bytes"]
        if stats.pending < self.config["max_queue_messages"] and stats.pending_bytes + weight <= size:
            return {None}
        if self.config["when_full"] == "drop_newest" or weight > size:
            return {"queue_full"}
        waits = self.config["when_full"] == "block"
        return {None, "queue_full", "closed"} if waits else self.make_room(vendor, weight, stats)

    def make_room(self, vendor, weight, stats):
        """Evict the oldest that are not being tried, if that makes room enough.

        In the midst of a request or a callback, or after an interruption, it is not known which these are; nor is it
        while a batch is tried of which `before_send` has dropped a part: its sender may have died.
        """
        held = vendor.held()
        undone = not vendor.filtered.isdisjoint(held)
        if vendor.flying or undone or self.killed or not self.must_tell or len(held) != stats.pending:
            vendor.evicts = None
        if vendor.evicts is None:
            return {None, "queue_full"}
        surplus = stats.pending + 1 - self.config["max_queue_messages"]
        surplus_bytes = stats.pending_bytes + weight - self.config["max_queue_bytes"]
        gone = set()
        for number in (number for number in held if number not in vendor.tried):
            if surplus > 0 or surplus_bytes > 0:
                surplus, surplus_bytes = surplus - 1, surplus_bytes - held[number]
                gone.add(number)
        if surplus > 0 or surplus_bytes > 0:
            return {"queue_full"}
        vendor.evicts |= gone
        vendor.evicting = len(gone)
        return {None}

    def make(self, targets, number, expected, call):
        """Make a call whose fate for each vendor is known, or one of two."""
        before, started = self.client.stats().destinations, self.world.now
        self.calling, outer = True, self.calling
        result = raised = None
        try:
            result = call()
        except AnalyticsError as error:
            raised = error
        finally:
            self.calling = outer
        assert raised is None or any(raised.reason in fates for fates in expected.values())
        assert raised is None or self.config["strict"]
        stats = self.client.stats().destinations
        certain = all(len(fates) == 1 for fates in expected.values())
        waits = self.config["when_full"] == "block"
        for vendor in targets:
            fates, new, old = expected[vendor.name], stats[vendor.name], before[vendor.name]
            evicting, vendor.evicting = vendor.evicting, 0
            if not result:
                vendor.accepted.pop(number, None)
            if waits and not certain:
                continue
            dropped = Counter(new.dropped) - Counter(old.dropped)
            assert new.tracked - old.tracked == (result is not None)
            assert set(dropped) - fates <= ({"queue_full"} if evicting else set())
            if len(fates) == 1:
                assert new.pending - old.pending == (None in fates) - evicting
                assert sum(dropped.values()) == (None not in fates and result is not None) + evicting
            self.refused += sum(dropped.values())
        if certain:
            assert bool(result) == any(None in fates for fates in expected.values())
            assert (result is None) == (self.config["strict"] and not result)
        assert self.world.now - started <= waits * self.config["block_timeout"] + EPSILON

    def interruptible(self, call, *arguments):
        """Let a call be ended by what kills its thread, which is no fault of ours."""
        try:
            return call(*arguments)
        except (Killed, KeyboardInterrupt):
            self.base, self.killed = None, True  # what a result took that nobody got is not known

    def flushed(self, call, timeout, *, patient=True):
        """Flush or shut down, and check the result: it is what the figures say that came since the previous one."""
        started, tracked = self.world.now, self.client.stats().tracked
        ended = call == self.client.shutdown
        self.begun += 1
        self.running += 1
        alone = self.begun if self.running == 1 else None
        try:
            result = call(timeout)
        finally:  # also if a callback ended it by what kills a thread
            self.running -= 1
            if ended and not self.client.stats().pending:
                for vendor in self.vendors:
                    vendor.void |= vendor.flying
        waited = self.world.now - started
        assert waited <= timeout + EPSILON
        stats = self.client.stats()
        assert ended or not patient or not result.timed_out or waited >= timeout - EPSILON, (waited, timeout)
        assert result.pending == stats.pending or ended
        assert result.timed_out or not result.pending or stats.tracked > tracked
        assert bool(result) == (not result.pending and not result.lost)
        if self.base is not None:
            try:
                self.check_difference(result, stats, left=result.pending - stats.pending if ended else 0)
            except AssertionError:
                if alone == self.begun:
                    raise
                self.base = None  # of what was settled meanwhile another thread's result may have a part
        return result

    def check_difference(self, result, stats, left):
        """A result is what the figures say that came since the previous one, less what it calls pending."""
        delivered, dropped = stats.delivered - self.base[0], Counter(stats.dropped) - self.base[1]
        dropped["exit"] -= left
        later = +dropped - Counter(result.dropped)  # what a callback tracked after the result was made
        assert result.delivered == delivered
        assert Counter(result.dropped) == +dropped - later
        assert not later or (self.ending and set(later) == {"closed"})
        if self.config["when_full"] == "drop_newest":
            assert result.lost == sum(dropped.values()) - dropped["filtered"] - self.refused
        self.base, self.refused = (stats.delivered, Counter(stats.dropped) - later), sum(later.values())
