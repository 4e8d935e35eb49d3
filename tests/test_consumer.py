"""The consumer's step, with the clock in the test's hand and a sender that answers as it is told."""

from __future__ import annotations

import struct

import pytest

from analytics_batcher import DropReason
from analytics_batcher.buffers.memory import MemoryBuffer
from analytics_batcher.consumer import Consumer
from analytics_batcher.report import Reporter
from analytics_batcher.sender import Outcome
from analytics_batcher.stamp import new_head
from analytics_batcher.stats import Loss


class ScriptedSender:
    """A sender of the contract: delivers everything, or answers what it was told."""

    name = "scripted"
    batch_messages = 10
    batch_bytes = 100_000

    def __init__(self):
        self.sent = []
        self.answers = []
        self.deadlines = []

    def send(self, records, deadline):
        """Remember what came, and answer."""
        self.sent.append(list(records))
        self.deadlines.append(deadline)
        if self.answers:
            return self.answers.pop(0)
        return Outcome(tried=len(records), delivered=range(len(records)), requests=1)

    def reset(self):
        """There is nothing to forget."""

    def close(self):
        """There is nothing to close."""


class World:
    """A consumer between a buffer and a sender, at a time of its own."""

    def __init__(self, *, flush_interval=0.5, max_age=100.0, max_messages=1_000, evict=False):
        self.now = 1_000.0
        self.drops = []
        self.buffer = MemoryBuffer(max_messages, 10_000_000, evict=evict)
        self.sender = ScriptedSender()
        reporter = Reporter("scripted", on_drop=self.drops.append, max_bytes=1_000_000)
        self.consumer = Consumer(
            self.buffer,
            self.sender,
            reporter,
            flush_interval=flush_interval,
            max_age=max_age,
            clock=lambda: self.now,
        )

    def put(self, *numbers):
        """Accept messages at the present time."""
        for number in numbers:
            head = new_head()[:16] + struct.pack(">d", self.now)
            assert self.buffer.put(head + b'{"n":%d}' % number) is None

    def sent(self):
        """What the sender was given, step by step."""
        return [[int(record[29:-1]) for record in records] for records in self.sender.sent]

    def balance(self):
        """What the books leave unexplained."""
        ledger = self.buffer.ledger
        return ledger.tracked - ledger.delivered - sum(ledger.dropped.values()) - self.buffer.read().messages


@pytest.fixture
def world():
    """A fresh one."""
    return World()


def test_an_idle_consumer_asks_for_nothing_until_it_is_woken(world):
    """Without messages a step waits for the buffer, however long."""
    assert world.consumer.step() is None
    assert not world.sender.sent


def test_a_message_waits_for_company_as_long_as_flush_interval(world):
    """The first message's age decides, not the last one's."""
    world.put(1)
    assert world.consumer.step() == pytest.approx(0.5)
    world.now += 0.4
    world.put(2)
    assert world.consumer.step() == pytest.approx(0.1)
    assert not world.sent()
    world.now += 0.11
    assert world.consumer.step() == 0.0
    assert world.sent() == [[1, 2]]


def test_after_a_batch_no_single_message_wakes_the_consumer(world):
    """It looks again by itself when the next message may have waited its time, and only then sleeps until woken."""
    world.put(*range(10))
    world.consumer.step()
    assert world.consumer.step() == pytest.approx(0.5)
    world.now += 0.3
    world.put(10)
    assert world.buffer._token.locked()
    world.put(*range(11, 20))
    assert not world.buffer._token.locked()  # nine more make a batch
    world.buffer.wait(0)
    assert world.consumer.step() == 0.0
    world.now += 0.2
    world.consumer.step()
    world.put(20)
    world.now += 0.3
    assert world.consumer.step() == pytest.approx(0.2)
    world.now += 0.2
    assert world.consumer.step() == 0.0
    assert world.sent() == [list(range(10)), list(range(10, 20)), [20]]
    world.now += 0.5
    assert world.consumer.step() is None
    world.put(21)
    assert not world.buffer._token.locked()  # the first one into an empty buffer


@pytest.mark.parametrize(("hurry", "waits"), [(None, True), ("more", False), ("flush", False), ("end", False)])
def test_others_are_let_in_before_a_batch_is_written(world, hurry, waits):
    """The consumer waits for a moment, and so lets go of the interpreter, unless a batch more, or somebody, waits."""
    world.put(*range(20 if hurry == "more" else 10))
    world.consumer.flush_below = 10 if hurry == "flush" else 0
    world.consumer.draining = hurry == "end"
    world.buffer.wake()
    world.consumer.step()
    assert world.sent() == [list(range(10))]
    assert world.buffer._token.locked() is waits  # it is taken by whoever waits


def test_a_full_batch_does_not_wait(world):
    """As many messages as a batch takes go at once, the oldest first; the rest waits for company."""
    world.put(*range(13))
    assert world.consumer.step() == 0.0
    assert world.sent() == [list(range(10))]
    assert world.consumer.step() == pytest.approx(0.5)


def test_a_full_queue_does_not_wait_for_company():
    """A queue smaller than a batch is sent when it refuses a message."""
    world = World(max_messages=4)
    world.put(1, 2, 3, 4)
    assert world.buffer.put(new_head() + b"{}") is DropReason.QUEUE_FULL
    assert world.consumer.step() == 0.0
    assert world.sent() == [[1, 2, 3, 4]]


def test_a_flush_ends_the_wait_for_company_for_what_came_before_it(world):
    """What is accepted after the ticket waits for company again."""
    world.put(1)
    world.consumer.flush_below = world.buffer.ticket()
    assert world.consumer.step() == 0.0
    world.put(2)
    assert world.consumer.step() == pytest.approx(0.5)
    assert world.sent() == [[1]]


def test_a_failed_batch_stays_at_the_head_of_the_line(world):
    """A retry sends the same records before any newer one, and not before its wait is over."""
    world.put(*range(10))
    world.sender.answers = [Outcome(tried=10, wait=5.0, requests=1, error="HTTP 500")]
    assert world.consumer.step() == 0.0
    world.put(*range(10, 30))
    assert world.consumer.step() == pytest.approx(5.0)
    world.consumer.flush_below = world.buffer.ticket()
    assert world.consumer.step() == pytest.approx(5.0), "a flush does not shorten a back-off"
    world.now += 5.0
    while world.consumer.step() == 0.0:
        pass
    assert world.sent() == [list(range(10)), list(range(10)), list(range(10, 20)), list(range(20, 30))]


def test_what_was_not_tried_goes_back_and_keeps_its_place(world):
    """Records beyond those tried are released, in order, and fill the next batch up."""
    world.put(*range(10))
    world.sender.answers = [Outcome(tried=4, delivered=range(4), requests=1)]
    world.consumer.step()
    world.put(*range(10, 14))
    world.consumer.step()
    assert world.sent() == [list(range(10)), list(range(4, 14))]
    assert world.balance() == 0


def test_drop_oldest_spares_a_batch_that_is_being_retried():
    """A batch stays leased while it is retried: eviction takes the oldest of the others."""
    world = World(max_messages=12, evict=True)
    world.put(*range(10))
    world.sender.answers = [Outcome(tried=10, wait=1.0, requests=1, error="HTTP 500")]
    world.consumer.step()
    world.put(*range(10, 16))
    world.now += 10
    while world.consumer.step() == 0.0:
        pass
    assert world.sent() == [list(range(10)), list(range(10)), [14, 15]]
    assert world.buffer.ledger.evicted == 4
    assert world.balance() == 0


def test_losses_are_counted_and_reported(world):
    """What the sender gives up is counted under its reason and told to `on_drop`, with the messages."""
    world.put(1, 2, 3)
    world.consumer.draining = True
    world.sender.answers = [
        Outcome(tried=3, delivered=(0, 2), losses=[Loss(DropReason.REJECTED, "bad", (1,))], requests=1)
    ]
    world.consumer.step()
    (drop,) = world.drops
    assert (drop.reason, drop.count, drop.detail, drop.messages[0]["n"]) == ("rejected", 1, "bad", 2)
    assert world.buffer.ledger.dropped[DropReason.REJECTED] == 1
    assert world.buffer.read().messages == 0


def test_messages_expire_while_they_wait(world):
    """A message older than `max_age` is dropped as expired, whether it waits or is retried; younger ones are sent."""
    world.put(*range(10))
    world.sender.answers = [Outcome(tried=10, wait=60.0, requests=1, error="HTTP 500")]
    world.consumer.step()
    world.now += 50
    world.put(10, 11)
    assert world.consumer.step() == pytest.approx(10.0)
    world.now += 10
    world.sender.answers = [Outcome(tried=10, wait=60.0, requests=1, error="HTTP 500")]
    assert world.consumer.step() == 0.0
    assert world.consumer.step() == pytest.approx(40.0), "the next one to expire wakes the consumer"
    world.now += 40
    world.consumer.step()
    assert [(drop.reason, drop.count) for drop in world.drops] == [("expired", 10)]
    world.now += 60
    while world.consumer.step() == 0.0:
        pass
    assert [(drop.reason, drop.count) for drop in world.drops] == [("expired", 10), ("expired", 2)]
    assert world.balance() == 0
    assert world.buffer.read().messages == 0


def test_thousands_of_expired_messages_go_in_one_step():
    """After a long outage the queue is cleaned at once, not one batch per wait."""
    world = World(max_messages=5_000)
    world.put(*range(3_500))
    world.now += 101
    assert world.consumer.step() is None
    assert sum(drop.count for drop in world.drops) == 3_500
    assert not world.sender.sent


def test_an_abandoned_batch_is_not_counted_twice(world):
    """What the end dropped while its request was in flight is not delivered too, whatever the answer says."""
    world.put(*range(10))
    send = world.sender.send

    def abandon_meanwhile(records, deadline):
        world.buffer.abandon(DropReason.EXIT)
        return send(records, deadline)

    world.sender.send = abandon_meanwhile
    world.consumer.step()
    ledger = world.buffer.ledger
    assert (ledger.delivered, ledger.dropped[DropReason.EXIT]) == (0, 10)
    world.now += 0.5
    assert world.consumer.step() is None


def test_a_step_hands_its_deadline_to_the_sender(world):
    """Where no thread can run, the flush's deadline bounds the request."""
    world.put(*range(10))
    world.consumer.step(1_007.0)
    assert world.sender.deadlines == [1_007.0]


def test_an_error_in_the_sender_loses_nothing(world):
    """The batch that was under way when a step failed is tried again, first."""
    world.put(*range(10))
    send = world.sender.send

    def broken(*_):
        raise RuntimeError

    world.sender.send = broken
    with pytest.raises(RuntimeError):
        world.consumer.step()
    world.sender.send = send
    world.put(10)
    world.consumer.step()
    assert world.sent() == [list(range(10))]
    assert world.balance() == 0
