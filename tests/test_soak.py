from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from soak import Tally, judge_child, judge_growth, judge_parent, slope

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the application forks")

FACTS = {"tracked": 5, "delivered": 3, "dropped": {"queue_full": 2}, "pending": 0}
FACTS |= {"flushed": True, "late": 0.1, "grace": 1.0, "hung": 0}
ACCEPTED = bytes([1, 1, 0, 1, 0])
CHILD = {"process": "child-1", "tracked": 4, "delivered": 2, "dropped": {"exit": 2}, "pending": 0}


def tally(*numbers):
    """What was stored."""
    made = Tally()
    for number in numbers:
        made.add(number, f"id-{number}")
    return made


def samples(seconds=1_200, **growth):
    """Measurements of every second, of which some grow by so much in ten minutes."""
    usual = {"resident": 40 * 2**20, "threads": 8, "descriptors": 6}
    return [
        {"at": second, **{name: start + growth.get(name, 0) * second / 600 for name, start in usual.items()}}
        for second in range(seconds)
    ]


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_short_soak_finds_nothing_wrong(concurrency):
    """Five seconds of it run to their end, and every message is accounted for."""
    script = Path(__file__).parent / "soak.py"
    command = [sys.executable, str(script), "--seconds", "5", "--rate", "1000", "--seed", "7"]
    command += ["--concurrency", str(concurrency)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "nothing lost, nothing grew" in ended.stdout


def test_what_is_right_is_found_right():
    """Balanced books that the vendor's record bears out, and a memory that stays, are not complained of."""
    assert judge_parent(FACTS, ACCEPTED, tally(0, 1, 3)) == []
    assert judge_parent(FACTS, ACCEPTED, tally(0, 1, 3, 3)) == []  # a repeat, as after a lost answer
    assert judge_child(CHILD, tally(0, 1)) == judge_child(CHILD, tally(0, 1, 2)) == []
    assert judge_growth(samples(), 1_200) == []


@pytest.mark.parametrize(
    ("change", "numbers", "complaint"),
    [
        ({"delivered": 4}, (0, 1, 3), "do not balance"),
        ({"pending": 1, "delivered": 2}, (0, 1, 3), "still pending"),
        ({"flushed": False}, (0, 1, 3), "still pending"),
        ({}, (0, 1), "2 messages were stored and 3 counted as delivered"),
        ({}, (0, 1, 2, 3), "1 messages were stored that had not been accepted"),
        ({"dropped": {"rejected": 2}}, (0, 1, 3), "refused of 5"),
        ({"late": 1.5}, (0, 1, 3), "1.50 s late"),
        ({"hung": 1}, (0, 1, 3), "1 children did not end"),
    ],
)
def test_what_is_wrong_with_the_books_is_found(change, numbers, complaint):
    """A message that was lost, invented or miscounted, and what came late, are each complained of."""
    assert any(complaint in found for found in judge_parent(FACTS | change, ACCEPTED, tally(*numbers)))


@pytest.mark.parametrize(
    ("change", "numbers", "complaint"),
    [
        ({"tracked": 5}, (0, 1), "do not balance"),
        ({}, (0,), "1 messages of child-1 were stored"),
        ({"dropped": {}, "tracked": 2}, (0, 1, 2), "3 messages of child-1 were stored"),
    ],
)
def test_what_is_wrong_with_a_child_is_found(change, numbers, complaint):
    """A child that loses messages, or sends its parent's, is complained of."""
    assert any(complaint in found for found in judge_child(CHILD | change, tally(*numbers)))


@pytest.mark.parametrize("what", ["threads", "descriptors", "resident"])
def test_what_grows_is_found(what):
    """Threads, descriptors and memory that grow a little in ten minutes are complained of."""
    grown = samples(**{what: 2 * 2**20 if what == "resident" else 2})

    assert [what in found for found in judge_growth(grown, 1_200)] == [True]


def test_the_slope_is_in_megabytes_in_ten_minutes():
    """Memory that grows by 3 MB in ten minutes has the slope 3."""
    assert slope(samples(resident=3 * 2**20)) == pytest.approx(3.0)


def test_a_changed_id_is_found():
    """A message that comes again under another id is counted."""
    made = tally(0, 1)
    made.add(1, "another")

    assert made.other_ids == 1
