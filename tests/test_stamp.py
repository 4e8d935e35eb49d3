import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from datetime import datetime, timedelta, timezone
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import analytics_batcher
from analytics_batcher import stamp
from analytics_batcher.stamp import (
    HEAD_BYTES,
    ID_GIVEN,
    NATIVE,
    STAMP_BYTES,
    TIME_GIVEN,
    accepted_at,
    flags_of,
    iso_milliseconds,
    iso_text,
    new_head,
    reseed,
    uuid_text,
)

ROOT = Path(analytics_batcher.__file__).parents[1]
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
ALL_FLAGS = [a | b | c for a, b, c in product((0, NATIVE), (0, ID_GIVEN), (0, TIME_GIVEN))]
LAST_MILLISECOND = 253_402_300_799_999
RANDOM_BITS = range(60)


def _random_part(record):
    """What is random in a stamp: all of it but the time and the flags."""
    return int.from_bytes(record[:STAMP_BYTES], "big") & (1 << 60) - 1


def _random_parts(count):
    return [_random_part(new_head()) for _ in range(count)]


def _milliseconds_of(text):
    """The time in the text of a UUIDv7."""
    return uuid.UUID(text).int >> 80


def _at(wall, flags=0):
    """A head taken at `wall` by the wall clock."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stamp, "_wall", lambda: wall)
        return new_head(flags)


# --- What a head holds ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", ALL_FLAGS)
def test_head_carries_the_flags(flags):
    """A head is of fixed size and gives back exactly the flags that it was made with."""
    record = new_head(flags) + b"{}"
    assert len(record) == HEAD_BYTES + 2
    assert flags_of(record) == flags


def test_head_carries_the_moment_of_acceptance():
    """A head gives back when it was taken, to the bit, by the monotonic clock."""
    before = time.monotonic()
    record = new_head()
    after = time.monotonic()
    assert before <= accepted_at(record) <= after


def test_stamp_tells_the_time_of_the_call():
    """A stamp's moment is that of the wall clock at the call."""
    before = int(time.time() * 1000)
    record = new_head()
    after = int(time.time() * 1000)
    assert before <= _milliseconds_of(uuid_text(record)) <= after


@pytest.mark.parametrize("flags", ALL_FLAGS)
def test_id_is_a_version_7_uuid(flags):
    """Whatever the flags, an id is a UUID of RFC 9562, version 7, in its canonical text."""
    for _ in range(200):
        text = uuid_text(new_head(flags) + b'{"a":1}')
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122


@given(wall=st.floats(0, LAST_MILLISECOND / 1000), flags=st.sampled_from(ALL_FLAGS))
def test_id_and_time_tell_the_same_moment(wall, flags):
    """The time in the id and the time in the text are one moment: that of the call, to the millisecond."""
    record = _at(wall, flags)
    assert iso_text(record) == iso_milliseconds(_milliseconds_of(uuid_text(record)))
    moment = datetime.fromisoformat(iso_text(record).replace("Z", "+00:00"))
    assert abs((moment - EPOCH).total_seconds() - wall) <= 0.001
    assert flags_of(record) == flags


def test_one_record_always_reads_the_same():
    """The same record gives the same id and the same time for ever, whatever was read in between."""
    records = [_at(wall) for wall in (1.0, 1_700_000_000.123, 1.5, 1_700_000_000.999)]
    first = [(uuid_text(record), iso_text(record)) for record in records]
    assert [(uuid_text(record), iso_text(record)) for record in reversed(records)] == first[::-1]


def test_id_does_not_depend_on_the_flags():
    """What the flags' bits hold does not show in the id."""
    record = new_head()
    texts = {uuid_text(record[:8] + bytes([flags >> 8 | record[8] & 0x0F]) + record[9:]) for flags in ALL_FLAGS}
    assert texts == {uuid_text(record)}


def test_every_random_bit_is_random():
    """Each of an id's last 60 bits takes both values."""
    numbers = [uuid.UUID(uuid_text(new_head())).int for _ in range(500)]
    for bit in RANDOM_BITS:
        assert {number >> bit & 1 for number in numbers} == {0, 1}, f"bit {bit}"


def test_ids_of_one_millisecond_differ_by_what_is_left_of_the_moment(monkeypatch):
    """Two calls that draw the same random bits, a microsecond apart, get different ids of the same millisecond."""
    monkeypatch.setattr(stamp, "_bits", lambda bits: (1 << bits) - 1)
    wall = 1_767_323_045.6785
    first, second = _at(wall), _at(wall + 0.000_001)
    assert iso_text(first) == iso_text(second)
    assert uuid_text(first) != uuid_text(second)
    assert uuid_text(first)[-17:] == uuid_text(second)[-17:] == "8fff-ffffffffffff"


# --- The time's text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1, "1970-01-01T00:00:00.001Z"),
        (999, "1970-01-01T00:00:00.999Z"),
        (1_000, "1970-01-01T00:00:01.000Z"),
        (951_782_400_050, "2000-02-29T00:00:00.050Z"),
        (1_767_323_045_678, "2026-01-02T03:04:05.678Z"),
        (LAST_MILLISECOND, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_milliseconds_as_text(milliseconds, text):
    """A moment is written in ISO 8601, in UTC, with three digits of milliseconds and a `Z`."""
    assert iso_milliseconds(milliseconds) == text


@given(st.lists(st.integers(0, LAST_MILLISECOND), min_size=1, max_size=5))
def test_milliseconds_as_text_and_back(moments):
    """The text of any moment from 1970 to 9999 reads back as that moment, however others come between."""
    for milliseconds in [*moments, *moments]:
        text = iso_milliseconds(milliseconds)
        assert datetime.fromisoformat(text.replace("Z", "+00:00")) - EPOCH == timedelta(milliseconds=milliseconds)


@pytest.fixture
def far_east(monkeypatch):
    """A machine whose local time is five and a half hours ahead of UTC."""
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change its time zone for a test")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "XST-5:30")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_text_is_in_utc_in_every_time_zone():
    """The machine's time zone does not show in the text."""
    assert iso_milliseconds(1_767_323_045_678) == "2026-01-02T03:04:05.678Z"
    assert iso_milliseconds(0) == "1970-01-01T00:00:00.000Z"


# --- No id twice ------------------------------------------------------------------------------------------------------


def test_stamps_of_many_threads_are_unique():
    """Eight threads that take 20,000 stamps each at once get 160,000 different ids."""
    threads, each = 8, 20_000
    start = threading.Barrier(threads)
    taken = []

    def take():
        start.wait(10)
        taken.append([new_head()[:STAMP_BYTES] for _ in range(each)])

    running = [threading.Thread(target=take) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(30)
    assert len({one for some in taken for one in some}) == threads * each


def test_seeding_by_the_application_repeats_nothing():
    """An application that seeds the shared generator, twice alike, gets no id twice."""
    state = random.getstate()
    try:
        random.seed(1)
        first = _random_parts(50)
        random.seed(1)
        assert not {*first} & {*_random_parts(50)}
    finally:
        random.setstate(state)


def test_stamps_take_nothing_from_the_applications_generator():
    """Taking stamps does not change what an application that seeded the shared generator draws from it."""
    state = random.getstate()
    _random_parts(5)
    reseed()
    assert random.getstate() == state


FORKS = """
import json, os, sys
from analytics_batcher.stamp import new_head, reseed

new_head()
pipes = []
for _ in range(4):
    reader, writer = os.pipe()
    if os.fork() == 0:
        if sys.argv[1] == "reseed":
            reseed()
        with os.fdopen(writer, "w") as file:
            json.dump([new_head().hex() for _ in range(500)], file)
        os._exit(0)
    os.close(writer)
    pipes.append(reader)
taken = [[new_head().hex() for _ in range(500)]]
for reader in pipes:
    with os.fdopen(reader) as file:
        taken.append(json.load(file))
    os.wait()
print(json.dumps(taken))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.parametrize("then", ["reseed", "nothing"])
def test_forked_children_repeat_nothing(then):
    """Children share no random part with their parent or with one another, and need not reseed for that by hand."""
    command = [sys.executable, "-W", "error", "-c", FORKS, then]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60)
    taken = [{_random_part(bytes.fromhex(text)) for text in some} for some in json.loads(done.stdout)]
    assert [len(some) for some in taken] == [500] * 5
    assert len(set.union(*taken)) == 2_500


@pytest.fixture
def machine(monkeypatch):
    """A machine that can be snapshot and resumed: its clocks, and the state of the generator."""

    class Machine:
        wall = 1_700_000_000.0
        monotonic = 5_000.0

        def snapshot(self):
            self.state = stamp._random.getstate()

        def resume(self, wall=0.0, monotonic=0.0):
            stamp._random.setstate(self.state)
            self.wall += wall
            self.monotonic += monotonic

    machine = Machine()
    monkeypatch.setattr(stamp, "_wall", lambda: machine.wall)
    monkeypatch.setattr(stamp, "_monotonic", lambda: machine.monotonic)
    reseed()
    return machine


@pytest.mark.parametrize(
    ("wall", "monotonic"), [(1.5, 0.0), (-1.5, 0.0), (0.0, 1.5), (0.0, -1.5), (86_400.0, 3.0), (-86_400.0, 0.0)]
)
def test_resumed_snapshot_repeats_nothing(machine, wall, monotonic):
    """A copy of the machine that is resumed, so that its clocks drift apart by over a second, repeats no id."""
    machine.snapshot()
    first = _random_parts(20)
    machine.resume()
    assert _random_parts(20) == first, "clocks that keep step are no sign of a resumption: the test would show nothing"
    machine.resume(wall, monotonic)
    assert not {*first} & {*_random_parts(20)}


def test_snapshot_resumed_again_repeats_nothing(machine):
    """A snapshot may be resumed more than once, and each resumption takes fresh randomness."""
    machine.snapshot()
    taken = [_random_parts(20)]
    for drift in (2.0, 2.0, -2.0, 60.0):
        machine.resume(wall=drift)
        taken.append(_random_parts(20))
    assert len({part for some in taken for part in some}) == 100


def test_slow_drift_adds_up(machine):
    """Steps of under a second each count together."""
    machine.snapshot()
    first = _random_parts(20)
    machine.resume(wall=0.6)
    assert _random_parts(20) == first
    machine.resume(wall=0.6)
    assert not {*first} & {*_random_parts(20)}


def test_clocks_in_step_cost_no_randomness(machine):
    """While both clocks go at the same pace nothing is reseeded, however much time goes by."""
    machine.snapshot()
    first = _random_parts(20)
    machine.resume(wall=86_400.0, monotonic=86_400.0)
    assert _random_parts(20) == first
