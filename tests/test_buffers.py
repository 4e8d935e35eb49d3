import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

import analytics_batcher
from analytics_batcher import DropReason
from analytics_batcher.buffers import NEVER, Lease, memory
from analytics_batcher.buffers.memory import RECORD_OVERHEAD, MemoryBuffer
from analytics_batcher.buffers.sqlite import SqliteBuffer
from analytics_batcher.stamp import HEAD_BYTES, accepted_at, new_head
from analytics_batcher.stats import Loss

ROOT = Path(analytics_batcher.__file__).parents[1]
DEADLINE = 20.0
PAUSE = 0.1
EVERYTHING = 10**9


def _memory(_folder, max_messages, max_bytes, **policy):
    return MemoryBuffer(max_messages, max_bytes, **policy)


def _sqlite(folder, max_messages, max_bytes, **policy):
    buffer = SqliteBuffer(folder / "spool.db")
    buffer._max_messages, buffer._max_bytes = max_messages, max_bytes  # below what is of any use, but for a test
    return buffer.open("vitally", **policy)


# Each makes a buffer of its kind in a folder of its own: `(folder, max_messages, max_bytes, *, evict, keep_evicted)`.
BUFFERS = [
    pytest.param(_memory, id="memory"),
    pytest.param(
        _sqlite, id="sqlite", marks=pytest.mark.skipif(os.name != "posix", reason="it needs the locks of files")
    ),
]


@pytest.fixture(params=BUFFERS)
def make(request, tmp_path):
    """Makes empty buffers of each kind in turn."""
    numbers = itertools.count()

    def make(*, max_messages=1_000, max_bytes=2**20, **policy):
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        return request.param(folder, max_messages, max_bytes, **policy)

    return make


@pytest.fixture
def buffer(make):
    """An empty buffer with room for whatever a test puts there."""
    return make()


def _take(buffer, messages, size):
    """A lease of the oldest records, or None where there are none."""
    lease = Lease()
    buffer.take(lease, messages, size)
    return lease if lease.records else None


def _record(body=b"{}"):
    return new_head() + body


def _records(count):
    return [_record(b'{"n":%d}' % number) for number in range(count)]


def _fill(buffer, count):
    """Put `count` records, which are returned, into a buffer that has room for them."""
    records = _records(count)
    for record in records:
        assert buffer.put(record) is None
    return records


def _overhead(make):
    """What the buffer counts for a record beside its bytes."""
    buffer, record = make(), _record()
    buffer.put(record)
    return buffer.read().bytes - len(record)


def _taken(buffer, messages=EVERYTHING, size=EVERYTHING):
    """The records of a lease of at most `messages`."""
    lease = _take(buffer, messages, size)
    return [] if lease is None else lease.records


def _balance(reading):
    """What was accepted or refused, less all that became of it: 0 by the law of conservation."""
    ledger = reading.ledger
    return ledger.tracked + ledger.recovered - ledger.delivered - sum(ledger.dropped.values()) - reading.messages


def _finishes(target, *arguments):
    """Run a function in a thread that must end within the deadline, and return it started."""
    thread = threading.Thread(target=target, args=arguments, daemon=True)
    thread.start()
    return thread


def _joined(*threads):
    for thread in threads:
        thread.join(DEADLINE)
    return not any(thread.is_alive() for thread in threads)


def _inside(function, thread):
    """Whether a thread is in a function of that name."""
    frame = sys._current_frames().get(thread.ident)
    while frame is not None and frame.f_code.co_name != function:
        frame = frame.f_back
    return frame is not None


def _woken(buffer):
    """Whether the consumer would find itself woken; it has then waited, as one that looks again."""
    start = time.monotonic()
    buffer.wait(PAUSE)
    return time.monotonic() - start < PAUSE / 2


# --- Accepting --------------------------------------------------------------------------------------------------------


def test_new_buffer_is_empty(buffer):
    """A new buffer holds nothing, leases nothing and has empty books."""
    reading = buffer.read()
    assert (reading.messages, reading.bytes, reading.waiting, reading.waiting_bytes, reading.oldest) == (
        0,
        0,
        0,
        0,
        None,
    )
    assert _balance(reading) == reading.ledger.tracked == 0
    assert _take(buffer, EVERYTHING, EVERYTHING) is None
    assert buffer.settled_below() >= buffer.ticket()


def test_accepted_records_are_counted_and_measured(buffer, make):
    """Each accepted record counts as tracked and as waiting, with its bytes and its overhead."""
    records = _fill(buffer, 5)
    reading = buffer.read()
    size = sum(map(len, records)) + 5 * _overhead(make)
    assert (reading.messages, reading.waiting, reading.ledger.tracked) == (5, 5, 5)
    assert reading.bytes == reading.waiting_bytes == size
    assert _overhead(make) > 0


def test_order_is_that_of_acceptance(buffer):
    """Records are leased in the order in which they were put, whatever their stamps say."""
    records = _records(20)[::-1]
    for record in records:
        buffer.put(record)
    assert _taken(buffer, 7) + _taken(buffer) == records


def test_records_come_back_as_they_were(buffer):
    """A record is opaque bytes: it comes back to the bit, and two equal ones are two."""
    record = new_head(0x7000) + bytes(range(256))
    buffer.put(record)
    buffer.put(record)
    assert _taken(buffer) == [record, record]


def test_age_is_that_of_the_oldest(buffer):
    """The oldest record's moment of acceptance is read, whether it waits, is leased or was given back."""
    first, second = _fill(buffer, 2)
    assert buffer.read().oldest == accepted_at(first)
    lease = _take(buffer, 1, EVERYTHING)
    assert buffer.read().oldest == accepted_at(first)
    buffer.release(lease, 0)
    assert buffer.read().oldest == accepted_at(first)
    buffer.settle(_take(buffer, 1, EVERYTHING), [0], [])
    assert buffer.read().oldest == accepted_at(second)


def test_reading_stays_as_it_is(buffer):
    """A reading is a picture of one moment: what comes after does not change its books."""
    reading = buffer.read()
    _fill(buffer, 1)
    buffer.refuse(DropReason.INVALID)
    buffer.count_requests(1, 1, 1, "error")
    assert (reading.ledger.tracked, reading.ledger.requests, reading.ledger.last_error) == (0, 0, None)
    assert not any(reading.ledger.dropped.values())


def test_refused_calls_are_counted(buffer):
    """What was refused before the buffer counts as tracked, as dropped and as refused, for its reason."""
    buffer.refuse(DropReason.INVALID)
    buffer.refuse(DropReason.TOO_LARGE, 3)
    ledger = buffer.read().ledger
    assert ledger.tracked == 4
    assert ledger.dropped[DropReason.INVALID] == ledger.refused[DropReason.INVALID] == 1
    assert ledger.dropped[DropReason.TOO_LARGE] == ledger.refused[DropReason.TOO_LARGE] == 3
    assert ledger.accepted_and_lost() == 0


def test_requests_are_counted(buffer):
    """Requests add up, and the last error stays until there is another."""
    buffer.count_requests(1, 0, 1, None)
    assert buffer.read().ledger.last_error is None
    buffer.count_requests(2, 1, 0, "HTTP 500")
    buffer.count_requests(4, 2, 1, None)
    ledger = buffer.read().ledger
    assert (ledger.requests, ledger.retries, ledger.batches, ledger.last_error) == (7, 3, 2, "HTTP 500")


# --- Bounds -----------------------------------------------------------------------------------------------------------


def test_count_is_bounded(make):
    """No more records than the bound are held, the leased ones too, and what finds no room counts for nothing."""
    buffer = make(max_messages=3)
    _fill(buffer, 3)
    _take(buffer, 2, EVERYTHING)
    assert buffer.put(_record()) is buffer.ledger.full
    assert (buffer.read().messages, buffer.read().ledger.tracked) == (3, 3)


@pytest.mark.parametrize(("slack", "accepted"), [(0, True), (-1, False), (1, True)])
def test_bytes_are_bounded(make, slack, accepted):
    """The bytes of all records, each with its overhead and the leased ones too, may reach the bound and not pass it."""
    records = [_record(b"x" * 100), _record(b"x" * 200), _record(b"x" * 300)]
    buffer = make(max_bytes=sum(map(len, records)) + 3 * _overhead(make) + slack)
    assert buffer.put(records[0]) is None
    assert buffer.put(records[1]) is None
    _take(buffer, 1, EVERYTHING)
    assert buffer.put(records[2]) is (None if accepted else buffer.ledger.full)


@pytest.mark.parametrize("evict", [False, True])
def test_record_larger_than_the_buffer(make, evict):
    """A record that could never fit is refused, and makes nobody else go."""
    buffer = make(max_bytes=1_000, evict=evict)
    records = _fill(buffer, 3)
    assert buffer.put(_record(b"x" * 1_000)) is buffer.ledger.full
    assert _taken(buffer) == records


def test_settled_records_make_room(make):
    """Room is there again when records are settled, delivered or lost, and not while they are leased or given back."""
    buffer = make(max_messages=3)
    _fill(buffer, 3)
    lease = _take(buffer, 3, EVERYTHING)
    buffer.release(lease, 2)
    assert buffer.put(_record()) is buffer.ledger.full
    buffer.settle(lease, [0], [Loss(DropReason.REJECTED, "", [1])])
    _fill(buffer, 2)
    assert buffer.put(_record()) is buffer.ledger.full


# --- The policy `drop_oldest` -----------------------------------------------------------------------------------------


def test_eviction_takes_the_oldest(make):
    """With `evict` a full buffer gives up its oldest record for a new one, and counts it as lost to the full queue."""
    buffer = make(max_messages=3, evict=True)
    records = [*_fill(buffer, 3), _record(), _record()]
    assert [buffer.put(record) for record in records[3:]] == [None, None]
    reading = buffer.read()
    assert (reading.messages, reading.ledger.tracked, reading.ledger.evicted) == (3, 5, 2)
    assert (reading.ledger.dropped[buffer.ledger.full], reading.ledger.refused[buffer.ledger.full]) == (2, 0)
    assert reading.ledger.accepted_and_lost() == 2
    assert _taken(buffer) == records[2:]


def test_eviction_makes_room_in_bytes(make):
    """As many of the oldest go as the new record needs bytes, and no more."""
    overhead = _overhead(make)
    records = [_record(b"x" * 100) for _ in range(4)]
    buffer = make(max_bytes=sum(map(len, records)) + 4 * overhead, evict=True)
    for record in records:
        buffer.put(record)
    large = _record(b"x" * (150 + overhead))
    assert buffer.put(large) is None
    assert _taken(buffer) == [*records[2:], large]


def test_eviction_spares_what_is_leased(make):
    """What is in flight is never evicted: the oldest record that is not leased goes."""
    buffer = make(max_messages=4, evict=True)
    records = _fill(buffer, 4)
    lease = _take(buffer, 2, EVERYTHING)
    newest = _record()
    assert buffer.put(newest) is None
    assert lease.records == records[:2]
    assert buffer.settle(lease, [0, 1], [])
    assert _taken(buffer) == [records[3], newest]


def test_eviction_takes_what_was_given_back_first(make):
    """A record that was given back is the oldest one again, and the first to go."""
    buffer = make(max_messages=4, evict=True)
    records = _fill(buffer, 4)
    buffer.release(_take(buffer, 3, EVERYTHING), 1)
    newest = _record()
    assert buffer.put(newest) is None
    assert _taken(buffer) == [records[2], records[3], newest]


def test_eviction_refuses_if_all_are_leased(make):
    """If everything is leased, a full buffer refuses the new record, `evict` or not."""
    buffer = make(max_messages=2, evict=True)
    records = _fill(buffer, 2)
    lease = _take(buffer, 2, EVERYTHING)
    assert buffer.put(_record()) is buffer.ledger.full
    assert lease.records == records
    assert buffer.read().ledger.evicted == 0


def test_eviction_in_vain_is_none(make):
    """If even without all that waits there would be no room, the new record is refused, and what waits stays."""
    buffer = make(max_bytes=2_000, evict=True)
    leased, waiting = _record(b"x" * 1_500), _record(b"x" * 10)
    buffer.put(leased)
    _take(buffer, 1, EVERYTHING)
    buffer.put(waiting)
    assert buffer.put(_record(b"x" * 1_500)) is buffer.ledger.full
    assert buffer.read().ledger.evicted == 0
    assert _taken(buffer) == [waiting]


def test_evicted_records_are_kept_to_be_reported(make):
    """With `keep_evicted` the evicted records are handed out once, oldest first."""
    buffer = make(max_messages=2, evict=True, keep_evicted=True)
    records = _fill(buffer, 5)
    assert buffer.take_evicted() == records[:3]
    assert buffer.take_evicted() == []
    buffer.put(_record())
    assert buffer.take_evicted() == [records[3]]


def test_evicted_records_are_not_kept_unasked(make):
    """Without `keep_evicted` nothing is kept of what was evicted."""
    buffer = make(max_messages=2, evict=True)
    _fill(buffer, 5)
    assert buffer.take_evicted() == []


# --- Leases -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "size", "taken"),
    [(1, 10**9, 1), (4, 10**9, 4), (5, 10**9, 5), (9, 10**9, 5), (9, 1, 1), (9, 124, 1), (9, 125, 2), (9, 249, 3)],
)
@pytest.mark.parametrize("returned", [0, 2, 5])
def test_lease_is_bounded(make, messages, size, taken, returned):
    """A lease has at most so many records, and none after the one with which the size was reached, new or returned."""
    buffer = make()
    for _ in range(5):
        buffer.put(new_head() + b"x" * 100)  # 124 bytes each
    if returned:
        buffer.release(_take(buffer, returned, EVERYTHING), 0)
    lease = _take(buffer, messages, size)
    assert len(lease.records) == len(lease.keys) == taken
    reading = buffer.read()
    assert (reading.messages, reading.waiting) == (5, 5 - taken)


def test_lease_counts_until_it_is_settled(buffer):
    """What is leased waits no more, but is still held, and counted in bytes."""
    _fill(buffer, 3)
    before = buffer.read()
    _take(buffer, 3, EVERYTHING)
    after = buffer.read()
    assert (after.messages, after.bytes, after.waiting, after.waiting_bytes) == (3, before.bytes, 0, 0)
    assert _balance(after) == 0


def test_settling_counts_what_became_of_each(buffer):
    """Settled records are gone, each counted as delivered or for its reason; the others stay leased, in their order."""
    records = _fill(buffer, 6)
    lease = _take(buffer, 6, EVERYTHING)
    losses = [Loss(DropReason.REJECTED, "bad", [4, 1]), Loss(DropReason.EXPIRED, "old", [2])]
    assert buffer.settle(lease, [0], losses)
    assert lease.records == [records[3], records[5]]
    reading = buffer.read()
    assert (reading.messages, reading.waiting, reading.ledger.delivered) == (2, 0, 1)
    assert (reading.ledger.dropped[DropReason.REJECTED], reading.ledger.dropped[DropReason.EXPIRED]) == (2, 1)
    assert not any(reading.ledger.refused.values())
    assert _balance(reading) == 0
    assert buffer.settle(lease, [1, 0], [])
    assert lease.records == []
    assert buffer.read().messages == buffer.read().bytes == 0


def test_settling_nothing_changes_nothing(buffer):
    """A lease of which nothing was settled stays whole."""
    records = _fill(buffer, 2)
    lease = _take(buffer, 2, EVERYTHING)
    assert buffer.settle(lease, [], [])
    assert lease.records == records
    assert buffer.read().messages == 2


def test_released_records_go_to_the_head(buffer):
    """Records that are given back come before those that were put meanwhile, in their old order."""
    records = _fill(buffer, 4)
    lease = _take(buffer, 3, EVERYTHING)
    records.append(_record())
    buffer.put(records[-1])
    buffer.release(lease, 0)
    assert lease.records == []
    assert buffer.read().waiting == 5
    assert _taken(buffer) == records


def test_part_of_a_lease_is_released(buffer):
    """Only the records from the given position on are given back; those before it stay leased."""
    records = _fill(buffer, 4)
    lease = _take(buffer, 4, EVERYTHING)
    buffer.release(lease, 2)
    assert lease.records == records[:2]
    assert _taken(buffer) == records[2:]
    assert buffer.settle(lease, [0, 1], [])
    assert buffer.read().messages == 2


def test_order_is_kept_with_gaps(buffer):
    """What is left of several leases, settled here and there and given back in any order, is in its old order."""
    records = _fill(buffer, 9)
    first, second, third = (_take(buffer, 3, EVERYTHING) for _ in range(3))
    buffer.settle(first, [1], [])
    buffer.settle(third, [0], [Loss(DropReason.REJECTED, "", [2])])
    buffer.release(third, 0)
    buffer.release(first, 0)
    buffer.release(second, 1)
    assert second.records == [records[3]]
    assert _taken(buffer) == [records[0], records[2], records[4], records[5], records[7]]


def test_a_lease_may_span_what_was_given_back_and_what_is_new(buffer):
    """A lease takes what was given back and goes on with what came after it."""
    records = _fill(buffer, 5)
    buffer.release(_take(buffer, 2, EVERYTHING), 0)
    assert _taken(buffer, 3) == records[:3]
    assert _taken(buffer) == records[3:]


def test_lease_survives_what_happens_beside_it(make):
    """Puts, evictions, refusals and other leases do not touch what a lease holds."""
    buffer = make(max_messages=4, evict=True)
    records = _fill(buffer, 4)
    lease = _take(buffer, 2, EVERYTHING)
    _fill(buffer, 3)
    _take(buffer, 1, EVERYTHING)
    buffer.refuse(DropReason.INVALID)
    buffer.close()
    assert lease.records == records[:2]
    assert buffer.settle(lease, [0, 1], [])
    assert _balance(buffer.read()) == 0


# --- Giving up --------------------------------------------------------------------------------------------------------


@pytest.fixture
def abandoned(make):
    """A memory buffer's kind: one whose records do not outlive it, with leased, returned and waiting records."""
    buffer = make()
    if buffer.durable:
        pytest.skip("a durable buffer keeps all")
    records = _fill(buffer, 7)
    first = _take(buffer, 2, EVERYTHING)
    lease = _take(buffer, 2, EVERYTHING)
    buffer.release(first, 0)
    other = _take(buffer, 1, EVERYTHING)
    return buffer, records, [lease, other]


def test_abandoned_records_are_handed_over_in_order(abandoned):
    """Everything that is held, leased or not, is given up for one reason and handed over in its old order."""
    buffer, records, _ = abandoned
    assert buffer.abandon(DropReason.EXIT) == records
    reading = buffer.read()
    assert reading[:5] == (0, 0, 0, 0, None)
    assert reading.ledger.dropped[DropReason.EXIT] == reading.ledger.accepted_and_lost() == 7
    assert _balance(reading) == 0
    assert buffer.abandon(DropReason.EXIT) == []


def test_abandoned_leases_are_void(abandoned):
    """What the consumer learns of a lease that was abandoned counts for nothing, for it was counted already."""
    buffer, _, (lease, other) = abandoned
    buffer.abandon(DropReason.EXIT)
    before = buffer.read()
    assert not buffer.settle(lease, [0], [Loss(DropReason.REJECTED, "", [1])])
    buffer.release(other, 0)
    after = buffer.read()
    assert after[:5] == before[:5]
    assert after.ledger.delivered == 0
    assert after.ledger.dropped == before.ledger.dropped
    assert _take(buffer, EVERYTHING, EVERYTHING) is None


def test_abandoned_records_are_settled_for_a_flush(abandoned):
    """A flush that waits for what was accepted is done when it was abandoned."""
    buffer, _, _ = abandoned
    ticket = buffer.ticket()
    assert buffer.settled_below() < ticket
    buffer.abandon(DropReason.EXIT)
    assert buffer.settled_below() >= ticket


def test_abandoned_buffer_goes_on(abandoned):
    """A buffer that was not closed takes records after it was abandoned, and leases them."""
    buffer, _, (lease, _) = abandoned
    buffer.abandon(DropReason.EXIT)
    records = _fill(buffer, 2)
    assert not buffer.settle(lease, [0, 1], [])
    assert _taken(buffer) == records


# --- Tickets ----------------------------------------------------------------------------------------------------------


def test_ticket_is_above_all_that_was_accepted(buffer):
    """A ticket is passed when what was accepted before it is settled, and not earlier."""
    _fill(buffer, 3)
    ticket = buffer.ticket()
    _fill(buffer, 2)
    first = _take(buffer, 2, EVERYTHING)
    assert buffer.settled_below() < ticket
    second = _take(buffer, 1, EVERYTHING)
    buffer.settle(second, [0], [])
    assert buffer.settled_below() < ticket
    buffer.settle(first, [1], [])
    assert buffer.settled_below() < ticket
    buffer.release(first, 0)
    assert buffer.settled_below() < ticket
    buffer.settle(_take(buffer, 1, EVERYTHING), [], [Loss(DropReason.EXPIRED, "", [0])])
    assert ticket <= buffer.settled_below() < buffer.ticket()


def test_ticket_waits_for_the_oldest_of_all_leases(buffer):
    """A ticket is not passed while its record is leased, even if that lease was taken after another."""
    _fill(buffer, 1)
    ticket = buffer.ticket()
    _fill(buffer, 1)
    first, second = _take(buffer, 1, EVERYTHING), _take(buffer, 1, EVERYTHING)
    buffer.release(first, 0)
    again = _take(buffer, 1, EVERYTHING)
    assert buffer.settled_below() < ticket
    buffer.settle(again, [0], [])
    assert ticket <= buffer.settled_below() < buffer.ticket()
    buffer.settle(second, [0], [])
    assert buffer.settled_below() >= buffer.ticket()


def test_ticket_is_not_passed_by_what_came_later(buffer):
    """What was accepted after a ticket and settled first does not pass it."""
    _fill(buffer, 2)
    ticket = buffer.ticket()
    _fill(buffer, 2)
    older, newer = _take(buffer, 2, EVERYTHING), _take(buffer, 2, EVERYTHING)
    buffer.settle(newer, [0, 1], [])
    assert buffer.settled_below() < ticket
    buffer.settle(older, [0, 1], [])
    assert buffer.settled_below() >= buffer.ticket()


def test_ticket_is_passed_by_eviction(make):
    """What was evicted is settled too: a flush does not wait for it."""
    buffer = make(max_messages=2, evict=True)
    _fill(buffer, 2)
    ticket = buffer.ticket()
    _fill(buffer, 2)
    assert buffer.settled_below() >= ticket


# --- Waking the consumer ----------------------------------------------------------------------------------------------


def test_wake_is_remembered(buffer):
    """A wake that comes before the wait ends it at once; two of them are one."""
    buffer.wake()
    buffer.wake()
    assert _woken(buffer)
    assert not _woken(buffer)


def test_wait_ends_when_woken(buffer, wait_until):
    """A consumer that waits for ever is woken from another thread."""
    waiting = _finishes(buffer.wait, None)
    wait_until(lambda: _inside("wait", waiting))
    buffer.wake()
    assert _joined(waiting)


@pytest.mark.parametrize("timeout", [0, -5.0])
def test_wait_of_no_time(buffer, timeout):
    """A wait that is over before it began returns."""
    assert _joined(_finishes(buffer.wait, timeout))


@pytest.mark.parametrize("timeout", [1e10, math.inf])
def test_wait_of_any_length(buffer, timeout):
    """No wait is too long for the system to be told."""
    waiting = _finishes(buffer.wait, timeout)
    buffer.wake()
    assert _joined(waiting)


@pytest.mark.parametrize(("puts", "woken"), [(1, False), (2, False), (3, True), (4, True)])
def test_put_wakes_when_a_batch_is_full(buffer, puts, woken):
    """The consumer is woken when as many records wait as it asked for, and not before."""
    assert not buffer.arm(3, NEVER)
    _fill(buffer, puts)
    assert _woken(buffer) is woken


@pytest.mark.parametrize(("puts", "woken"), [(1, False), (2, True)])
def test_put_wakes_when_a_batch_is_full_in_bytes(buffer, make, puts, woken):
    """The consumer is woken when as many bytes wait, overhead included, as it asked for."""
    record = _record(b"x" * 100)
    assert not buffer.arm(NEVER, 2 * (len(record) + _overhead(make)))
    for _ in range(puts):
        buffer.put(record)
    assert _woken(buffer) is woken


def test_put_wakes_nobody_unasked(buffer):
    """Before the consumer asks to be woken nothing wakes it."""
    _fill(buffer, 3)
    assert not _woken(buffer)


def test_put_wakes_once(buffer):
    """Once woken the consumer is not woken again, at every further message, until it asks anew."""
    buffer.arm(1, NEVER)
    _fill(buffer, 3)
    assert _woken(buffer)
    _fill(buffer, 3)
    assert not _woken(buffer)


def test_never_is_not_reached(buffer):
    """A threshold of `NEVER` is no threshold."""
    assert not buffer.arm(NEVER, NEVER)
    _fill(buffer, 50)
    assert not _woken(buffer)


@pytest.mark.parametrize(
    ("messages", "size", "there"),
    [(3, NEVER, True), (2, NEVER, True), (4, NEVER, False), (NEVER, 1, True), (NEVER, 10**6, False), (4, 1, True)],
)
def test_arm_says_what_is_there(buffer, messages, size, there):
    """Whether that much waits already is said at once; then nobody is woken for it."""
    _fill(buffer, 3)
    assert buffer.arm(messages, size) is there
    _fill(buffer, 1)
    assert _woken(buffer) is (messages == 4 and not there)


def test_arm_forgets_what_was_asked_before(buffer):
    """A consumer that finds enough waiting is not woken for what it asked for earlier."""
    _fill(buffer, 3)
    assert not buffer.arm(5, NEVER)
    assert buffer.arm(1, NEVER)
    _fill(buffer, 3)
    assert not _woken(buffer)


def test_leased_records_are_no_company(buffer):
    """What is leased does not count towards what waits."""
    _fill(buffer, 3)
    _take(buffer, 2, EVERYTHING)
    assert not buffer.arm(2, NEVER)
    _fill(buffer, 1)
    assert _woken(buffer)


def test_leased_records_wake_nobody(buffer):
    """A message that alone waits beside leased ones does not make a batch of them."""
    _fill(buffer, 3)
    _take(buffer, 3, EVERYTHING)
    assert not buffer.arm(2, NEVER)
    _fill(buffer, 1)
    assert not _woken(buffer)


def test_full_buffer_wakes(make):
    """When a record finds no room the consumer is woken: there is no company to wait for."""
    buffer = make(max_messages=3)
    _fill(buffer, 3)
    assert not buffer.arm(100, NEVER)
    buffer.put(_record())
    assert _woken(buffer)
    assert buffer.arm(100, NEVER), "the buffer is full"


def test_full_buffer_is_forgotten_when_there_is_room(make):
    """After a lease a buffer that was full is not called full again until it refuses another record."""
    buffer = make(max_messages=3)
    _fill(buffer, 3)
    buffer.put(_record())
    buffer.settle(_take(buffer, 2, EVERYTHING), [0, 1], [])
    assert not buffer.arm(100, NEVER)


# --- The policy `block`: waiting for room -----------------------------------------------------------------------------


def _full(make):
    buffer = make(max_messages=2)
    _fill(buffer, 2)
    return buffer, _take(buffer, 2, EVERYTHING)


def test_room_that_is_there_is_not_waited_for(make):
    """Where a record fits a caller goes on at once."""
    buffer = make(max_messages=2)
    _fill(buffer, 1)
    assert _joined(_finishes(buffer.wait_for_room, 30, NEVER))


def test_room_is_waited_for_as_long_as_asked(make):
    """A full buffer makes a caller wait for all of its time and no longer."""
    buffer, _ = _full(make)
    start = time.monotonic()
    buffer.wait_for_room(30, PAUSE)
    assert PAUSE * 0.9 <= time.monotonic() - start < DEADLINE
    buffer.wait_for_room(30, 0)
    buffer.wait_for_room(30, -1.0)


@pytest.mark.parametrize(
    "event",
    [
        lambda buffer, lease: buffer.settle(lease, [0], []),
        lambda buffer, lease: buffer.settle(lease, [], [Loss(DropReason.EXPIRED, "", [1])]),
        lambda buffer, _: buffer.abandon(DropReason.EXIT),
        lambda buffer, _: buffer.close(),
    ],
    ids=["delivered", "lost", "abandoned", "closed"],
)
def test_all_that_wait_for_room_are_let_in(make, event, wait_until):
    """Room that is made, or the end, ends every caller's wait."""
    buffer, lease = _full(make)
    waiting = [_finishes(buffer.wait_for_room, 30, 1_000) for _ in range(4)]
    wait_until(lambda: all(_inside("wait_for_room", thread) for thread in waiting))
    event(buffer, lease)
    assert _joined(*waiting)


def test_room_that_can_never_be_is_not_waited_for(make):
    """For a record larger than the buffer, and in a closed buffer, nobody waits."""
    buffer, _ = _full(make)
    assert _joined(_finishes(buffer.wait_for_room, 2**21, 1_000))
    assert buffer.wait_for_room(2**21, 1_000) is False, "there is no use in trying again"
    assert buffer.wait_for_room(30, 0) is True
    buffer.close()
    assert _joined(_finishes(buffer.wait_for_room, 30, 1_000))


# --- The end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("evict", [False, True])
def test_closed_buffer_refuses(make, evict):
    """A closed buffer refuses every record as `closed` and counts nothing; what it holds can still be sent."""
    buffer = make(evict=evict)
    records = _fill(buffer, 3)
    buffer.close()
    assert buffer.put(_record()) is DropReason.CLOSED
    assert (buffer.read().ledger.tracked, buffer.read().messages) == (3, 3)
    lease = _take(buffer, 2, EVERYTHING)
    buffer.release(lease, 1)
    assert buffer.settle(lease, [0], [])
    assert _taken(buffer) == records[1:]


def test_closed_buffer_still_counts_refusals(make):
    """What is refused after the end is counted, and the books still balance."""
    buffer = make()
    _fill(buffer, 1)
    buffer.close()
    buffer.refuse(buffer.put(_record()))
    reading = buffer.read()
    assert (reading.ledger.tracked, reading.ledger.refused[DropReason.CLOSED]) == (2, 1)
    assert _balance(reading) == 0


# --- Many threads -----------------------------------------------------------------------------------------------------


def _produce(buffer, producer, count):
    for number in range(count):
        record = _record(b"%d:%d" % (producer, number))
        while buffer.put(record) is not None:
            buffer.wait_for_room(len(record), DEADLINE)


def _consume(buffer, done, delivered):
    """Deliver everything, by halves now and then, until `done` is set and nothing is left."""
    for turn in itertools.count():
        ended = done.is_set()
        lease = _take(buffer, 7, EVERYTHING)
        if lease is not None:
            if turn % 3 == 0:
                buffer.release(lease, len(lease.records) // 2)
            delivered += lease.records
            buffer.settle(lease, range(len(lease.records)), [])
        elif ended:
            return
        elif not buffer.arm(1, NEVER):
            buffer.wait(DEADLINE)


def _watch(buffer, done, readings):
    while not done.is_set():
        reading = buffer.read()
        if _balance(reading) or reading.messages > 40:
            readings.append(reading)


@pytest.mark.parametrize("evict", [False, True])
def test_threads_lose_nothing(make, evict):
    """Four threads that put as fast as there is room, and a consumer, lose nothing, double nothing and keep order."""
    buffer = make(max_messages=40, evict=evict)
    done, delivered, unbalanced = threading.Event(), [], []
    count = 150 if buffer.durable else 1_500  # as a thread that waits for the disk has to wait for the interpreter, too
    producers = [_finishes(_produce, buffer, producer, count) for producer in range(4)]
    others = [_finishes(_consume, buffer, done, delivered), _finishes(_watch, buffer, done, unbalanced)]
    assert _joined(*producers)
    done.set()
    buffer.wake()
    assert _joined(*others)
    ledger = buffer.read().ledger
    assert not unbalanced
    assert (ledger.tracked, ledger.delivered) == (4 * count, len(delivered))
    assert len(delivered) + ledger.evicted == 4 * count
    numbers = [tuple(map(int, record[HEAD_BYTES:].split(b":"))) for record in delivered]
    for producer in range(4):
        own = [number for name, number in numbers if name == producer]
        assert own == sorted(set(own))


# --- Against a model --------------------------------------------------------------------------------------------------


class _Model(RuleBasedStateMachine):
    """Does to a buffer, and to lists, whatever can be done to a buffer, and compares them at every step."""

    MESSAGES = 5
    BYTES = 6_000

    def __init__(self, make, *, evict):
        super().__init__()
        self.overhead = _overhead(make)
        self.buffer = make(max_messages=self.MESSAGES, max_bytes=self.BYTES, evict=evict, keep_evicted=True)
        self.evict = evict
        self.numbers = itertools.count()
        self.waiting = []  # records by their number of acceptance, oldest first
        self.leases = []
        self.void = []
        self.tickets, self.keys = {}, {}
        self.evicted, self.unreported = 0, []
        self.tracked = self.delivered = 0
        self.dropped, self.refused = Counter(), Counter()
        self.requests = [0, 0, 0, None]

    def held(self):
        leased = [pair for _, pairs in self.leases for pair in pairs]
        return sorted([*leased, *self.waiting])

    def weight(self, pairs):
        return sum(len(record) + self.overhead for _, record in pairs)

    def fits(self, pairs, record):
        return len(pairs) < self.MESSAGES and self.weight(pairs) + len(record) + self.overhead <= self.BYTES

    @rule(size=st.integers(0, 1_500) | st.sampled_from([5_000, 5_900, 6_000, 9_000]))
    def put(self, size):
        record = _record(b"x" * size)
        leased = [pair for _, pairs in self.leases for pair in pairs]
        if self.evict and self.waiting and self.fits([], record) and not self.fits(leased, record):
            return  # see `test_eviction_in_vain_is_none`
        before = self.buffer.ticket()
        reason = self.buffer.put(record)
        if self.fits(self.held(), record) or (self.evict and self.fits(leased, record)):
            assert reason is None
            while not self.fits(self.held(), record):
                self.evicted += 1
                self.unreported.append(self.waiting.pop(0)[1])
                self.dropped[self.buffer.ledger.full] += 1
            number = next(self.numbers)
            self.tracked += 1
            self.tickets[number] = (before, self.buffer.ticket())
            self.waiting.append((number, record))
        else:
            assert reason is self.buffer.ledger.full

    @rule(messages=st.integers(1, 6), size=st.integers(1, 4_000))
    def take(self, messages, size):
        expected = []
        for pair in self.waiting[:messages]:
            expected.append(pair)
            if sum(len(record) for _, record in expected) >= size:
                break
        lease = _take(self.buffer, messages, size)
        if not expected:
            assert lease is None
            return
        assert lease.records == [record for _, record in expected]
        for (number, _), key in zip(expected, lease.keys, strict=True):
            assert self.keys.setdefault(number, key) == key, "a record's key changed"
            assert key < self.tickets[number][1], "a ticket is above what was accepted before it"
        keys = [key for _, key in sorted(self.keys.items())]
        assert keys == sorted(set(keys)), "keys are not in the order of acceptance"
        del self.waiting[: len(expected)]
        self.leases.append((lease, expected))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def settle(self, data):
        place = data.draw(st.integers(0, len(self.leases) - 1))
        lease, pairs = self.leases[place]
        fates = data.draw(
            st.lists(
                st.sampled_from(["delivered", DropReason.REJECTED, DropReason.EXPIRED, "kept"]),
                min_size=len(pairs),
                max_size=len(pairs),
            )
        )
        delivered = [position for position, fate in enumerate(fates) if fate == "delivered"]
        losses = [
            Loss(reason, "", [position for position, fate in enumerate(fates) if fate is reason])
            for reason in (DropReason.EXPIRED, DropReason.REJECTED)
        ]
        assert self.buffer.settle(lease, delivered, losses)
        self.delivered += len(delivered)
        for loss in losses:
            self.dropped[loss.reason] += len(loss.positions)
        kept = [pair for pair, fate in zip(pairs, fates, strict=True) if fate == "kept"]
        self.keep(place, kept)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data):
        place = data.draw(st.integers(0, len(self.leases) - 1))
        lease, pairs = self.leases[place]
        start = data.draw(st.integers(0, len(pairs)))
        self.buffer.release(lease, start)
        self.waiting = sorted([*self.waiting, *pairs[start:]])
        self.keep(place, pairs[:start])

    def keep(self, place, pairs):
        lease, _ = self.leases.pop(place)
        assert lease.records == [record for _, record in pairs]
        assert lease.keys == [self.keys[number] for number, _ in pairs]
        if pairs:
            self.leases.insert(place, (lease, pairs))

    @precondition(lambda self: not self.buffer.durable)
    @rule()
    def abandon(self):
        held = self.held()
        assert self.buffer.abandon(DropReason.EXIT) == [record for _, record in held]
        self.dropped[DropReason.EXIT] += len(held)
        self.void += [lease for lease, _ in self.leases]
        self.waiting, self.leases = [], []

    @precondition(lambda self: self.void)
    @rule(data=st.data())
    def touch_void_lease(self, data):
        lease = data.draw(st.sampled_from(self.void))
        assert not self.buffer.settle(lease, range(len(lease.records)), [])
        self.buffer.release(lease, 0)

    @rule(reason=st.sampled_from(DropReason), count=st.integers(1, 3))
    def refuse(self, reason, count):
        self.buffer.refuse(reason, count)
        self.tracked += count
        self.dropped[reason] += count
        self.refused[reason] += count

    @rule(counts=st.tuples(*[st.integers(0, 3)] * 3), error=st.none() | st.sampled_from(["HTTP 500", "timeout"]))
    def count_requests(self, counts, error):
        self.buffer.count_requests(*counts, error)
        self.requests[:3] = [known + new for known, new in zip(self.requests, counts, strict=False)]
        self.requests[3] = error or self.requests[3]

    @rule()
    def report_evicted(self):
        kept = self.buffer.take_evicted()
        left = iter(self.unreported)
        assert all(record in left for record in kept), "not in the order of their eviction"
        self.unreported = []

    @invariant()
    def holds_what_it_should(self):
        held = self.held()
        reading = self.buffer.read()
        assert (reading.messages, reading.bytes) == (len(held), self.weight(held))
        assert (reading.waiting, reading.waiting_bytes) == (len(self.waiting), self.weight(self.waiting))
        assert reading.messages <= self.MESSAGES
        assert reading.bytes <= self.BYTES
        assert reading.oldest == min((accepted_at(record) for _, record in held), default=None)

    @invariant()
    def books_balance(self):
        reading = self.buffer.read()
        ledger = reading.ledger
        assert _balance(reading) == 0
        assert (ledger.tracked, ledger.delivered, ledger.evicted) == (self.tracked, self.delivered, self.evicted)
        assert +Counter(ledger.dropped) == +self.dropped
        assert +Counter(ledger.refused) == +self.refused
        assert [ledger.requests, ledger.retries, ledger.batches, ledger.last_error] == self.requests

    @invariant()
    def tickets_are_passed_in_time(self):
        held = self.held()
        below = self.buffer.settled_below()
        if held:
            before, after = self.tickets[held[0][0]]
            assert before <= below < after
        else:
            assert below >= self.buffer.ticket()


@pytest.mark.parametrize("evict", [False, True])
def test_buffer_agrees_with_a_simple_model(make, evict):
    """Whatever is done to a buffer, in whatever order, it holds, counts and answers what a pair of lists would."""
    run_state_machine_as_test(
        lambda: _Model(make, evict=evict), settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
    )


# --- In memory --------------------------------------------------------------------------------------------------------


def test_memory_is_not_durable():
    """What is in memory does not survive the process."""
    assert MemoryBuffer(10, 10_000).durable is False


def test_memory_takes_no_more_than_it_says():
    """What a buffer says that it holds is at least what its records take, measured: the overhead is no guess."""
    count = 4_000
    buffer = MemoryBuffer(count, 2**30)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            buffer.put(new_head() + b"x" * (number % 97))
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    counted = buffer.read().bytes
    assert counted - count * RECORD_OVERHEAD < after - before <= counted


def test_memory_for_evicted_records_is_bounded():
    """Evicted records are kept for a report within a sixteenth of the buffer's bytes, the first ones of a flood."""
    size = len(_record()) + RECORD_OVERHEAD
    buffer = MemoryBuffer(10, 64 * size, evict=True, keep_evicted=True)
    records = [_record() for _ in range(30)]
    for record in records:
        buffer.put(record)
    assert buffer.take_evicted() == records[:4]
    later = [_record() for _ in range(2)]
    for record in later:
        buffer.put(record)
    assert buffer.take_evicted() == records[20:22]


@pytest.mark.parametrize(
    "event",
    [
        lambda _buffer, _lease: None,
        lambda buffer, lease: buffer.settle(lease, [0], []),
        lambda buffer, _: buffer.abandon(DropReason.EXIT),
        lambda buffer, _: buffer.close(),
    ],
    ids=["timeout", "settled", "abandoned", "closed"],
)
def test_memory_of_gates_is_given_back(event, wait_until):
    """A caller that waited for room leaves nothing behind, however its wait ended."""
    buffer = MemoryBuffer(1, 10_000)
    _fill(buffer, 1)
    lease = _take(buffer, 1, EVERYTHING)
    waiting = _finishes(buffer.wait_for_room, 30, 2 * PAUSE)
    wait_until(lambda: buffer._gates or not waiting.is_alive())
    event(buffer, lease)
    assert _joined(waiting)
    assert buffer._gates == {}


def test_memory_of_leases_is_given_back():
    """A lease of which nothing is left, settled or given back, leaves nothing behind."""
    buffer = MemoryBuffer(10, 10_000)
    _fill(buffer, 5)
    settled, released, both = (_take(buffer, count, EVERYTHING) for count in (1, 2, 2))
    buffer.settle(settled, [0], [])
    buffer.release(released, 0)
    buffer.release(both, 1)
    buffer.settle(both, [], [Loss(DropReason.EXPIRED, "", [0])])
    assert buffer._leases == ()


@pytest.mark.parametrize("woken", [False, True])
def test_memory_after_a_fork_begins_anew(woken):
    """A forked child's buffer is empty and open, with free locks, whatever the parent's threads held at the fork."""
    buffer = MemoryBuffer(5, 10_000, evict=True)
    _fill(buffer, 4)
    lease = _take(buffer, 2, EVERYTHING)
    buffer.refuse(DropReason.INVALID)
    if woken:
        buffer.wake()
    buffer.close()
    held = threading.Event()
    leave = threading.Event()

    def hold():
        with buffer._lock:
            held.set()
            leave.wait(10 * DEADLINE)

    holder = _finishes(hold)
    try:
        assert held.wait(DEADLINE)
        child = _finishes(lambda: [buffer.reset(), _fill(buffer, 5)])
        assert _joined(child)
    finally:
        leave.set()
    assert _joined(holder)
    reading = buffer.read()
    assert (reading.messages, reading.ledger.tracked, sum(reading.ledger.dropped.values())) == (5, 5, 0)
    assert not _woken(buffer)
    assert not buffer.settle(lease, [0, 1], [])
    assert buffer.put(_record()) is None, "the bounds and the policy are as before"
    assert buffer.read().messages == 5


INTERRUPTED = """
import signal, sys, threading, time
from analytics_batcher.buffers import memory, Lease
from analytics_batcher.buffers.memory import MemoryBuffer
from analytics_batcher.stamp import new_head

class Thrown(BaseException):
    pass

def handle(*_):
    global armed, happened
    if armed:
        happened += 1
        if sys.argv[1] == "calls":
            buffer.put(new_head() + b"from the handler")
        else:
            armed = False
            raise Thrown

buffer = MemoryBuffer(300, 2**30, evict=True)
armed, happened = False, 0
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0001, 0.0001)
end = time.monotonic() + 0.6
while time.monotonic() < end:
    try:
        armed = True
        for _ in range(100):
            buffer.put(new_head() + b"{}")
        armed = False
    except Thrown:
        pass
    lease = Lease()
    buffer.take(lease, 50, 10**9)
    if lease.records:
        buffer.release(lease, len(lease.records) // 2)
        buffer.settle(lease, range(len(lease.records)), [])
signal.setitimer(signal.ITIMER_REAL, 0)

other = threading.Thread(target=buffer.put, args=(new_head() + b"{}",), daemon=True)
other.start()
other.join(10)
assert not other.is_alive(), "the lock was left locked"
reading = buffer.read()
ledger = reading.ledger
held = len(buffer.abandon("exit"))
assert held == reading.messages, (held, reading)
assert ledger.tracked == ledger.delivered + ledger.dropped["queue_full"] + held, ledger.tracked
assert buffer.read()[:4] == (0, 0, 0, 0)
assert happened > 100, happened
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that send signals")
@pytest.mark.parametrize("handler", ["calls", "throws"])
def test_memory_is_safe_against_signal_handlers(handler):
    """A signal handler that puts, or throws, in the middle of a put neither deadlocks nor upsets the books."""
    command = [sys.executable, "-c", INTERRUPTED, handler]
    done = subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr.decode()


def test_where_statements_are_not_whole_a_put_takes_the_lock(monkeypatch):
    """On an interpreter that lets other threads in anywhere, a record waits until no other thread holds the lock."""
    monkeypatch.setattr(memory, "_WHOLE", False)
    buffer = MemoryBuffer(2, 10_000)
    assert buffer.put(new_head() + b"{}") is None
    done = threading.Event()
    thread = threading.Thread(target=lambda: (buffer.put(new_head() + b"{}"), done.set()))
    with buffer._lock:
        thread.start()
        assert not done.wait(0.1)
    thread.join(10)
    assert done.is_set()
    assert buffer.read().messages == 2
    assert buffer.put(new_head() + b"{}") is DropReason.QUEUE_FULL


@pytest.mark.parametrize(("room", "evict"), [(1_000, False), (1_000, True), (1_000_000, False)])
def test_threads_put_while_the_consumer_takes(room, evict):
    """However often threads switch, no bound is passed, nothing is miscounted, and the consumer is not disturbed."""
    buffer = MemoryBuffer(room, room * 100, evict=evict)
    record, end, taken, beyond = new_head() + b"x" * 20, threading.Event(), [], []

    def put():
        while not end.is_set():
            taken.append(buffer.put(record) is None)
            if buffer._messages > room or buffer._bytes > room * 100:
                beyond.append((buffer._messages, buffer._bytes))

    threads = [threading.Thread(target=put) for _ in range(4)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.000_001)
    try:
        for thread in threads:
            thread.start()
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            lease = Lease()
            buffer.take(lease, 20, 100_000)
            assert buffer.settle(lease, range(len(lease.records)), ()) or not lease.records
            assert _balance(buffer.read()) == 0
    finally:
        end.set()
        for thread in threads:
            thread.join(10)
        sys.setswitchinterval(interval)
    reading = buffer.read()
    assert (beyond, _balance(reading), reading.ledger.tracked) == ([], 0, sum(taken))
    assert reading.ledger.delivered > 0
