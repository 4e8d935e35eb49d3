import dataclasses
import math
import random
import time
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_batcher import Retry
from analytics_batcher.retry import MAX_WAIT, Schedule, asked_wait

NOW = 1_767_323_045.0
RESET_HEADERS = ["ratelimit-reset", "x-ratelimit-reset"]
HEADERS = ["retry-after", *RESET_HEADERS]


def _waits(schedule, count):
    return [schedule.next() for _ in range(count)]


def _http_date(seconds, form="imf"):
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return {
        "imf": format_datetime(moment, usegmt=True),
        "rfc850": f"{moment:%A, %d-%b-%y %H:%M:%S} GMT",
        "asctime": f"{moment:%a %b} {moment.day:2d} {moment:%H:%M:%S %Y}",
    }[form]


# --- The settings -----------------------------------------------------------------------------------------------------


def test_defaults():
    """By default the first wait is up to half a second, the longest a minute, and all of it is jitter."""
    assert Retry() == Retry(base=0.5, cap=60.0, jitter="full", max_age="auto")


def test_settings_cannot_be_changed():
    """A `Retry` may be shared by clients, for nobody can change it."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Retry().base = 1


@pytest.mark.parametrize(
    ("max_age", "in_memory", "durable"),
    [("auto", 7_200, 259_200), (None, math.inf, math.inf), (5, 5, 5), (0.5, 0.5, 0.5)],
)
def test_age(max_age, in_memory, durable):
    """The greatest age is two hours in memory and three days on disk, unless another one, or none, is asked for."""
    retry = Retry(max_age=max_age)
    assert retry.age(durable=False) == in_memory
    assert retry.age(durable=True) == durable


# --- The schedule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "cap", "waits"),
    [
        (0.5, 60, [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]),
        (1, 8, [1, 2, 4, 8, 8]),
        (0.1, 0.5, [0.1, 0.2, 0.4, 0.5]),
        (10, 3, [3, 3, 3]),
        (2, 2, [2, 2]),
    ],
)
def test_waits_double_up_to_the_cap(base, cap, waits):
    """Without jitter the waits double from the base on, and none is longer than the cap."""
    assert _waits(Schedule(Retry(base=base, cap=cap, jitter="none")), len(waits)) == pytest.approx(waits)


@given(base=st.floats(0.001, 100), cap=st.floats(0.001, 1_000))
def test_jitter_stays_within_its_bound(base, cap):
    """With jitter each wait lies between nothing and what it would be without."""
    bounds = _waits(Schedule(Retry(base=base, cap=cap, jitter="none")), 12)
    waits = _waits(Schedule(Retry(base=base, cap=cap)), 12)
    assert all(0 <= wait <= bound <= cap for wait, bound in zip(waits, bounds, strict=True))
    assert all(earlier <= later for earlier, later in pairwise(bounds))


def test_jitter_is_full():
    """With jitter a wait may be any part of its bound: clients that failed together do not come back together."""
    waits = [Schedule(Retry(base=8, cap=8)).next() for _ in range(400)]
    assert len(set(waits)) > 390
    for quarter in range(4):
        assert any(quarter * 2 <= wait <= quarter * 2 + 2 for wait in waits)


def test_jitter_leaves_the_applications_generator_alone():
    """An application that seeded the shared generator draws from it what it would draw without us."""
    state = random.getstate()
    _waits(Schedule(Retry()), 3)
    assert random.getstate() == state


def test_schedule_begins_anew():
    """After a reset the next wait is the first one again."""
    schedule = Schedule(Retry(base=1, cap=60, jitter="none"))
    assert _waits(schedule, 3) == [1, 2, 4]
    schedule.reset()
    assert _waits(schedule, 3) == [1, 2, 4]


def test_schedule_never_ends():
    """A message that is kept for ever is tried for ever: no attempt is the last one."""
    schedule = Schedule(Retry(base=0.001, cap=60, jitter="none", max_age=None))
    assert _waits(schedule, 3_000)[-1] == 60


def test_schedules_do_not_share_their_place():
    """What one batch has waited changes nothing for another."""
    retry = Retry(base=1, cap=60, jitter="none")
    one, other = Schedule(retry), Schedule(retry)
    _waits(one, 4)
    assert other.next() == 1


# --- What an answer asks for ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize(
    ("text", "wait"),
    [("1", 1), ("120", 120), ("0.5", 0.5), (" 7 ", 7), ("300", 300), ("301", 300), ("86400", 300), ("999999999", 300)],
)
def test_seconds(header, text, wait):
    """A number of seconds is waited, but no more than 300."""
    assert asked_wait({header: text}, NOW) == wait


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize(("ahead", "wait"), [(1, 1), (42.5, 42.5), (300, 300), (301, 300), (10**9, 300)])
def test_moment_in_unix_seconds(header, ahead, wait):
    """A moment in Unix seconds is waited for, but no longer than 300 seconds."""
    assert asked_wait({header: str(NOW + ahead)}, NOW) == pytest.approx(wait)


@pytest.mark.parametrize("form", ["imf", "rfc850", "asctime"])
@pytest.mark.parametrize(("ahead", "wait"), [(1, 1), (90, 90), (300, 300), (3_600, 300)])
def test_http_date(form, ahead, wait):
    """An HTTP date, in any of the three forms that RFC 9110 has a client accept, is waited for."""
    assert asked_wait({"retry-after": _http_date(NOW + ahead, form)}, NOW) == wait


@pytest.mark.parametrize("zone", ["XST-5:30", "YST+8"])
@pytest.mark.parametrize("form", ["imf", "rfc850", "asctime"])
def test_http_date_is_in_utc_in_every_time_zone(form, zone):
    """An HTTP date is in UTC, also where the machine's local time is not and the date names no zone."""
    if not hasattr(time, "tzset"):
        pytest.skip("this system cannot change its time zone for a test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        wait = asked_wait({"retry-after": _http_date(NOW + 90, form)}, NOW)
    time.tzset()
    assert wait == 90


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize(
    "text",
    [
        *("0", "-0", "0.0", "-5", "-1e9", "inf", "-inf", "nan", "1e999", "", " ", "soon", "1,2", "5 s", "0x10"),
        *("Wed, 99 Foo 2026 99:99:99 GMT", "2026-01-02T03:04:05Z", "\x00", "9" * 400),
        str(NOW),
        str(NOW - 10),
        _http_date(NOW),
        _http_date(NOW - 1),
        _http_date(0),
    ],
)
def test_nothing_that_can_be_waited_for(header, text):
    """What is past, zero, negative, infinite or unreadable asks for nothing."""
    assert asked_wait({header: text}, NOW) is None


def test_no_header_asks_for_nothing():
    """An answer without such a header asks for nothing."""
    assert asked_wait({"content-type": "text/html", "date": _http_date(NOW + 60)}, NOW) is None


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({"retry-after": "5", "ratelimit-reset": "50", "x-ratelimit-reset": "60"}, 5),
        ({"ratelimit-reset": "50", "x-ratelimit-reset": "60"}, 50),
        ({"x-ratelimit-reset": "60", "ratelimit-reset": "50"}, 50),
        ({"retry-after": "soon", "ratelimit-reset": "50"}, 50),
        ({"retry-after": "-1", "x-ratelimit-reset": "60"}, 60),
        ({"retry-after": "nan", "ratelimit-reset": "?", "x-ratelimit-reset": "60"}, 60),
    ],
)
def test_first_readable_header_counts(headers, wait):
    """`Retry-After` comes before `RateLimit-Reset` and that before `X-RateLimit-Reset`; an unreadable one is passed."""
    assert asked_wait(headers, NOW) == wait


@pytest.mark.parametrize("header", HEADERS)
def test_moments_are_measured_by_the_wall_clock(header):
    """A moment is measured against the present one."""
    wait = asked_wait({header: str(time.time() + 100)})
    assert 90 < wait <= 100
    assert 90 < asked_wait({"retry-after": _http_date(time.time() + 100)}) <= 100


@given(st.sampled_from(HEADERS), st.text(max_size=30) | st.floats().map(str) | st.integers().map(str))
def test_whatever_is_asked(header, text):
    """Whatever a header says, the wait is above 0 and at most 300 seconds, or there is none."""
    wait = asked_wait({header: text}, NOW)
    assert wait is None or 0 < wait <= MAX_WAIT == timedelta(minutes=5).total_seconds()
