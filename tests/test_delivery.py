"""The vendor sender, over real connections to the local receiver."""

from __future__ import annotations

import json
import time

import pytest

from analytics_batcher import DropReason, Retry, Vitally
from analytics_batcher.batch import Limits
from analytics_batcher.before_send import BeforeSend
from analytics_batcher.delivery import HALT_PROBE, BatchSender
from analytics_batcher.message import encode
from analytics_batcher.receiver import Reply
from analytics_batcher.stamp import new_head
from analytics_batcher.transport import Transport

LIMITS = Limits(messages=100, bytes=500_000, message_bytes=32_768)
FAST = Retry(base=0.001, cap=0.002)


def track(number, **fields):
    """A message that can be told from others."""
    return {"type": "track", "userId": f"u{number}", "event": "e", "properties": {"n": number}, **fields}


def records_of(*messages):
    """The messages as a buffer holds them."""
    return [new_head() + encode(message) for message in messages]


@pytest.fixture
def make_sender(receiver):
    """Makes senders to the receiver."""
    transports = []

    def make(limits=LIMITS, *, retry=FAST, before_send=None, **options):
        transport = Transport(timeout=5.0)
        transports.append(transport)
        destination = Vitally(api_token="test-token", base_url=receiver.url)
        hook = before_send and BeforeSend(before_send, destination.check, None)
        return BatchSender(destination, transport, limits, retry, before_send=hook, **options)

    yield make
    for transport in transports:
        transport.close()


def run(sender, records, most=500):
    """Send until everything is settled or the sender halts; what the consumer does, in short."""
    delivered, losses, outcomes = [], [], []
    rest = list(records)
    while rest and len(outcomes) < most:
        outcome = sender.send(rest, None)
        outcomes.append(outcome)
        delivered += [rest[place] for place in outcome.delivered]
        losses += [(loss.reason, rest[place]) for loss in outcome.losses for place in loss.positions]
        gone = {*outcome.delivered, *(place for loss in outcome.losses for place in loss.positions)}
        rest = [record for place, record in enumerate(rest) if place not in gone]
        if outcome.halted:
            break
    return delivered, losses, outcomes, rest


def numbers(records):
    """Which messages these records are."""
    return [json.loads(record[24:])["properties"]["n"] for record in records]


def poison(*bad, status=400):
    """Refuse every request that has one of the bad messages in it."""
    return lambda messages: Reply(status) if any(message["properties"]["n"] in bad for message in messages) else None


def test_a_batch_is_packed_by_count(make_sender, receiver):
    """At most as many messages as the limit says go into one request, oldest first."""
    sender = make_sender(Limits(7, 500_000, 32_768))
    records = records_of(*(track(number) for number in range(20)))
    delivered, losses, outcomes, _ = run(sender, records)
    assert [len(request.messages) for request in receiver.requests] == [7, 7, 6]
    assert numbers(delivered) == list(range(20))
    assert not losses
    assert outcomes[0].tried == 7


def test_a_batch_is_packed_by_bytes(make_sender, receiver):
    """No body exceeds the limit of bytes, and each is as full as it can be."""
    sender = make_sender(Limits(100, 2_000, 1_900))
    run(sender, records_of(*(track(number, pad="x" * 300) for number in range(12))))
    sizes = [len(request.body) for request in receiver.requests]
    assert max(sizes) <= 2_000
    assert len(receiver.messages) == 12
    one = len(json.dumps(receiver.messages[0], separators=(",", ":"))) + 1
    assert all(size + one > 2_000 for size in sizes[:-1])


def test_one_refused_message_is_found_and_the_rest_is_delivered(make_sender, receiver):
    """A 400 bisects down to the guilty message, which alone is rejected; order is kept."""
    receiver.decide = poison(37)
    records = records_of(*(track(number) for number in range(100)))
    delivered, losses, outcomes, rest = run(make_sender(), records)
    assert losses == [(DropReason.REJECTED, records[37])]
    assert numbers(delivered) == [number for number in range(100) if number != 37]
    assert numbers_in_order(receiver) == numbers(delivered)
    assert not rest
    assert len(outcomes) <= 2 * 7 + 1


def numbers_in_order(receiver):
    """Which messages arrived."""
    return [message["properties"]["n"] for message in receiver.messages]


def test_413_splits_until_it_fits(make_sender, receiver):
    """A 413 halves the batch; nothing is lost as long as single messages fit."""
    receiver.decide = lambda messages: Reply(413) if len(messages) > 10 else None
    delivered, losses, _, rest = run(make_sender(), records_of(*(track(number) for number in range(100))))
    assert numbers_in_order(receiver) == list(range(100)) == numbers(delivered)
    assert not losses
    assert not rest


def test_413_for_a_single_message_drops_it_as_too_large(make_sender, receiver):
    """A message that is too large alone is dropped, and named."""
    receiver.decide = poison(3, status=413)
    records = records_of(*(track(number) for number in range(8)))
    delivered, losses, _, _ = run(make_sender(), records)
    assert losses == [(DropReason.TOO_LARGE, records[3])]
    assert len(delivered) == 7


def test_a_retry_repeats_the_same_bytes(make_sender, receiver):
    """After a failure the same body goes out again, id and time included, and counts as a retry."""
    receiver.script(Reply(500), Reply(503), Reply(429))
    _, _, outcomes, _ = run(make_sender(), records_of(*(track(number) for number in range(5))))
    assert len({request.body for request in receiver.requests}) == 1
    assert [outcome.retries for outcome in outcomes] == [0, 1, 1, 1]
    assert outcomes[-1].receipt.attempts == 4


def test_retry_after_is_the_wait(make_sender, receiver):
    """What the vendor asks for comes before our own schedule."""
    receiver.script(Reply(429, headers={"Retry-After": "17"}), Reply(503, headers={"RateLimit-Reset": "9"}))
    sender, records = make_sender(), records_of(track(1))
    assert sender.send(records, None).wait == 17.0
    assert sender.send(records, None).wait == 9.0


def test_a_delivery_begins_the_waits_anew(make_sender, receiver):
    """Waits grow from failure to failure; after a delivery the next failure is a first one again."""
    sender = make_sender(retry=Retry(base=1.0, jitter="none"))
    receiver.script(Reply(500), Reply(500), Reply(500), Reply(200), Reply(500))
    first, second = records_of(track(1)), records_of(track(2))
    assert [sender.send(first, None).wait for _ in range(4)] == [1.0, 2.0, 4.0, 0.0]
    assert sender.send(second, None).wait == 1.0


def test_a_401_halts_and_keeps_everything(make_sender, receiver):
    """A status about the request keeps the messages and waits for the probe, again and again."""
    receiver.decide = lambda _: Reply(401)
    sender, records = make_sender(), records_of(*(track(number) for number in range(5)))
    for _ in range(3):
        outcome = sender.send(records, None)
        assert outcome.halted
        assert outcome.wait == HALT_PROBE
        assert not outcome.delivered
        assert not outcome.losses


def test_two_batches_refused_whole_halt_the_third(make_sender, receiver):
    """When two batches of many are refused to the last message, it is not the messages: the third is kept."""
    receiver.decide = lambda _: Reply(400)
    sender = make_sender()
    for _ in range(2):
        delivered, losses, _, rest = run(sender, records_of(*(track(number) for number in range(20))))
        assert (len(delivered), len(losses), len(rest)) == (0, 20, 0)
    kept = records_of(*(track(number) for number in range(20)))
    _, losses, outcomes, rest = run(sender, kept)
    assert len(outcomes) == 1
    assert outcomes[0].halted
    assert rest == kept
    assert not losses
    receiver.decide = None
    delivered, _, _, _ = run(sender, kept)
    assert delivered == kept


def test_a_delivered_message_resets_the_count_of_refused_batches(make_sender, receiver):
    """Refused batches must follow each other to count."""
    sender = make_sender()
    for _ in range(3):
        receiver.decide = lambda _: Reply(422)
        _, losses, _, _ = run(sender, records_of(*(track(number) for number in range(20))))
        assert len(losses) == 20
        receiver.decide = None
        assert len(run(sender, records_of(track(1)))[0]) == 1


def test_a_403_for_one_payload_is_bisected_at_the_probe(make_sender, receiver):
    """A firewall that dislikes one message costs that message: the probe is searched, once."""
    receiver.decide = poison(5, status=403)
    sender, records = make_sender(), records_of(*(track(number) for number in range(16)))
    first = sender.send(records, None)
    assert first.halted
    delivered, losses, _, rest = run(sender, records)
    assert losses == [(DropReason.REJECTED, records[5])]
    assert len(delivered) == 15
    assert not rest


def test_a_403_for_everything_is_bisected_once_and_then_halts(make_sender, receiver):
    """A token without rights loses nothing, and is searched once, not at every probe."""
    receiver.decide = lambda _: Reply(403)
    sender, records = make_sender(), records_of(*(track(number) for number in range(16)))
    assert sender.send(records, None).halted
    delivered, losses, outcomes, rest = run(sender, records)
    assert (delivered, losses, rest) == ([], [], records)
    assert 1 < len(outcomes) < 16
    for _ in range(3):
        assert sender.send(records, None).halted
    receiver.decide = None
    assert run(sender, records)[0] == records


def test_an_unreachable_endpoint_is_retried(make_sender, receiver):
    """A network error is a retry with a word for what failed, and loses nothing."""
    receiver.stop()
    outcome = make_sender().send(records_of(track(1)), None)
    assert outcome.error.startswith("connect:")
    assert 0 <= outcome.wait <= 0.002
    assert not outcome.halted
    assert not outcome.losses


def test_the_deadline_bounds_the_request(make_sender, receiver):
    """A hanging endpoint does not hold a request beyond the deadline."""
    receiver.script(Reply(hang=True))
    started = time.monotonic()
    outcome = make_sender().send(records_of(track(1)), started + 0.3)
    assert 0.25 < time.monotonic() - started < 0.9
    assert outcome.error.startswith("timeout:")


def test_before_send_changes_and_drops_messages_once(make_sender, receiver):
    """It sees each message once, over retries too; its result is what is sent; ids, times and types stay."""
    seen = []

    def before_send(message):
        seen.append(message["properties"]["n"])
        if message["properties"]["n"] == 2:
            return None
        return {**message, "type": "user", "messageId": "x", "timestamp": "y", "properties": {"n": 7}}

    receiver.script(Reply(500), Reply(500))
    records = records_of(*(track(number) for number in range(4)))
    delivered, losses, _, _ = run(make_sender(before_send=before_send), records)
    assert seen == [0, 1, 2, 3]
    assert losses == [(DropReason.FILTERED, records[2])]
    assert len(delivered) == 3
    assert {message["type"] for message in receiver.messages} == {"track"}
    assert {message["properties"]["n"] for message in receiver.messages} == {7}
    assert len({message["messageId"] for message in receiver.messages}) == 3
    assert len({request.body for request in receiver.requests}) == 1
    assert not receiver.faults


def test_before_send_sees_what_did_not_fit_once(make_sender, receiver):
    """The message that was read and did not fit is not shown again, though it waits in the buffer over retries."""
    seen = []

    def before_send(message):
        seen.append(message["properties"]["n"])
        return message

    receiver.script(Reply(500), Reply(500))
    sender = make_sender(Limits(100, 1_000, 900), before_send=before_send)
    records = records_of(*(track(number, pad="x" * 300) for number in range(4)))
    tried = sender.send(records, None).tried
    assert tried == 2
    run(sender, records[:tried])
    assert numbers(run(sender, records[tried:])[0]) == [2, 3]
    assert seen == [0, 1, 2, 3]


def test_before_send_sees_messages_once_though_it_is_interrupted(make_sender, receiver):
    """What it did with other messages of a batch is remembered when an interruption ends the attempt."""
    seen = []

    def before_send(message):
        seen.append(message["properties"]["n"])
        if seen == [0, 1, 2]:
            raise KeyboardInterrupt
        return None if message["properties"]["n"] == 0 else message

    sender, records = make_sender(before_send=before_send), records_of(*(track(number) for number in range(4)))
    with pytest.raises(KeyboardInterrupt):
        sender.send(records, None)
    delivered, losses, _, _ = run(sender, records)
    assert seen == [0, 1, 2, 2, 3]
    assert losses == [(DropReason.FILTERED, records[0])]
    assert numbers(delivered) == [1, 2, 3] == numbers_in_order(receiver)


@pytest.mark.parametrize("returned", [3, "text", [1], object()])
def test_before_send_fails_closed(make_sender, receiver, returned):
    """What is no message, or an exception, drops the message rather than send it unfiltered."""

    def raising(_):
        raise KeyError("secret")

    for hook in (lambda _: returned, raising):
        sender = make_sender(before_send=hook)
        outcome = sender.send(records_of(track(1)), None)
        assert outcome.losses[0].reason is DropReason.FILTERED
        assert "secret" not in outcome.losses[0].detail
    assert not receiver.requests


def test_a_message_that_before_send_blows_up_is_too_large(make_sender, receiver):
    """The limit of a message holds after `before_send` too."""
    sender = make_sender(before_send=lambda message: {**message, "pad": "x" * 40_000})
    outcome = sender.send(records_of(track(1)), None)
    assert outcome.losses[0].reason is DropReason.TOO_LARGE
    assert not receiver.requests


def test_settled_messages_are_forgotten(make_sender, receiver):
    """Nothing is remembered of messages that were settled: the sender's memory does not grow."""
    receiver.script(Reply(500))
    sender = make_sender(before_send=lambda message: message)
    for _ in range(3):
        run(sender, records_of(*(track(number) for number in range(50))))
    sender.send(records_of(track(1)), None)
    sender.send(records_of(track(2)), None)
    assert len(sender._attempts) <= 1
    assert len(sender._before_send._said) <= 1


def test_a_search_survives_messages_that_vanish(make_sender, receiver):
    """Messages that expire in the middle of a search are left out of it, and the search ends."""
    receiver.decide = poison(9)
    sender, records = make_sender(), records_of(*(track(number) for number in range(16)))
    assert not sender.send(records, None).delivered
    delivered, losses, _, rest = run(sender, records[4:])
    assert losses == [(DropReason.REJECTED, records[9])]
    assert numbers(delivered) == [number for number in range(4, 16) if number != 9]
    assert not rest
