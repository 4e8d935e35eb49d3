import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import analytics_batcher
from analytics_batcher.log import Damper, logger
from analytics_batcher.text import printable

ROOT = Path(analytics_batcher.__file__).parents[1]
INTERVAL = 10.0


class _Clock:
    now = 1_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    """A clock that goes on when it is told."""
    return _Clock()


@pytest.fixture
def damper(clock):
    """A damper by that clock."""
    return Damper(clock)


# --- The damper -------------------------------------------------------------------------------------------------------


def test_first_line_comes_at_once(damper):
    """What happens for the first time is said there and then."""
    assert damper.count("queue_full") == 1
    assert damper.count("rejected", 7) == 7


def test_repeats_are_held_back_for_ten_seconds(clock, damper):
    """What happens again within ten seconds is counted, and said with the first that comes after."""
    damper.count("queue_full")
    clock.now += INTERVAL - 0.001
    assert damper.count("queue_full") == 0
    assert damper.count("queue_full", 5) == 0
    clock.now += 0.001
    assert damper.count("queue_full") == 7
    assert damper.count("queue_full") == 0


def test_what_was_held_back_can_be_asked_for(clock, damper):
    """A count of 0 asks for what was held back, and adds nothing."""
    damper.count("queue_full")
    damper.count("queue_full", 3)
    assert damper.count("queue_full", 0) == 0
    clock.now += INTERVAL
    assert damper.count("queue_full", 0) == 3
    assert damper.count("queue_full", 0) == 0


def test_asking_for_nothing_is_no_line(damper):
    """To ask where nothing is held back does not use up the reason's line."""
    assert damper.count("queue_full", 0) == 0
    assert damper.count("queue_full", 0, now=True) == 0
    assert damper.count("queue_full") == 1


def test_reasons_are_damped_apart(damper):
    """A reason that was just spoken of does not silence another one."""
    assert damper.count("queue_full") == 1
    assert damper.count("rejected") == 1
    assert damper.count("queue_full") == 0
    assert damper.held() == ("queue_full",)


def test_urgent_lines_are_not_held_back(clock, damper):
    """At the end all is said at once, what was held back with it; the ten seconds then run from there."""
    damper.count("exit")
    damper.count("exit", 3)
    clock.now += 5
    assert damper.count("exit", 2, now=True) == 5
    clock.now += 9
    assert damper.count("exit") == 0
    clock.now += 1
    assert damper.count("exit", 0) == 1


def test_held_names_what_is_left_to_say(clock, damper):
    """Only reasons of which something is unsaid are named."""
    assert damper.held() == ()
    damper.count("a")
    assert damper.held() == ()
    damper.count("a")
    damper.count("b")
    damper.count("b")
    assert sorted(damper.held()) == ["a", "b"]
    clock.now += INTERVAL
    damper.count("a", 0)
    assert damper.held() == ("b",)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 3), st.booleans(), st.integers(0, 12)), max_size=40),
)
def test_damper_loses_no_count_and_floods_nothing(calls):
    """All that happened is said or held back, and a reason has one line in ten seconds, or an urgent one."""
    clock = _Clock()
    damper = Damper(clock)
    happened, said, last = Counter(), Counter(), {}
    for reason, count, urgent, pause in calls:
        clock.now += pause
        happened[reason] += count
        unsaid = happened[reason] - said[reason]
        spoken = damper.count(reason, count, now=urgent)
        due = urgent or clock.now - last.get(reason, -INTERVAL) >= INTERVAL
        assert spoken == (unsaid if due else 0)
        said[reason] += spoken
        if spoken:
            last[reason] = clock.now
        assert set(damper.held()) == {name for name in happened if happened[name] > said[name]}


# --- Text from outside ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("Bad request: é, 日本, 😀", "Bad request: é, 日本, 😀"),
        ("a\nERROR forged", "a\\nERROR forged"),
        ("a\r\n\tb", "a\\r\\n\\tb"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\x00\x7f\x85", "\\x00\\x7f\\x85"),
        ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
        ("\u202eevil", "\\u202eevil"),
        ("\ufeff\xa0\xad", "\\ufeff\\xa0\\xad"),
        ("\ud800", "\\ud800"),
        ("\U000e0001", "\\U000e0001"),
        (b"plain", "plain"),
        (b"a\nb", "a\\nb"),
        (b"a\xff\xfeb", "a\ufffd\ufffdb"),
        ("日本".encode(), "日本"),
    ],
    ids=ascii,
)
def test_text_from_outside_is_escaped(text, shown):
    """What prints stays as it is; what does not, a newline above all, is written as Python escapes it."""
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("x" * 200, 200, "x" * 200),
        ("x" * 201, 200, "x" * 200 + "..."),
        ("\n" * 3, 2, "\\n\\n..."),
        ("日" * 3, 2, "日日..."),
        (b"x" * 3, 2, "xx..."),
        (b"x" * 1000, 2, "xx..."),
    ],
)
def test_text_from_outside_is_cut(text, limit, shown):
    """No more characters than the limit are kept, and an ellipsis says that there was more."""
    assert printable(text, limit) == shown


def test_text_from_outside_is_cut_by_default():
    """Without a limit 200 characters are kept: a server's page does not fill a log."""
    assert printable("<html>" * 1000) == printable("<html>" * 1000, 200)


@given(st.text(), st.integers(1, 20))
def test_no_text_forges_a_line(text, limit):
    """Whatever is said takes one line, and no more room than its characters' escapes."""
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit * len("\\U0001f600") + len("...")


@given(st.binary(), st.integers(1, 20))
def test_no_bytes_forge_a_line(data, limit):
    """Bytes, also such as are no text, are as safe as text."""
    shown = printable(data, limit)
    assert shown.isprintable()
    assert len(shown) <= limit * len("\\U0001f600") + len("...")


@given(st.text(), st.integers(1, 20))
@example("\U0001f600" * 3, 2)
def test_bytes_show_as_the_text_that_they_are(text, limit):
    """Text in UTF-8 is shown as the same text decoded is, cut at the same place and with the same ellipsis."""
    text = text.encode(errors="replace").decode()
    assert printable(text.encode(), limit) == printable(text, limit)


@pytest.mark.parametrize(
    ("text", "limit", "shown"),
    [
        ("no secret here", 200, "no secret here"),
        ("bad token a+B(1 given", 200, "bad token [secret] given"),
        ("A+b(1, a+B(1", 200, "[secret], [secret]"),
        ("aaB(1", 200, "aaB(1"),
        ("xxxxa+B(1", 6, "xxxx[s..."),
        ("a+B(1\n", 200, "[secret]\\n"),
    ],
)
def test_secrets_are_hidden(text, limit, shown):
    """A secret that a server repeats, in any case of letters, is hidden before the text is cut: no part of it shows."""
    assert printable(text, limit, hide=("unrelated", "a+B(1")) == shown


# --- The logger -------------------------------------------------------------------------------------------------------


def test_logger_leaves_the_settings_to_the_application():
    """The library's logger has no level and no handler of its own but one that does nothing, and propagates."""
    assert logger.name == "analytics_batcher"
    assert logger.level == logging.NOTSET
    assert logger.propagate
    assert [type(handler) for handler in logger.handlers if type(handler).__module__ == "logging"] == [
        logging.NullHandler
    ]


def test_library_is_silent_unless_the_application_listens():
    """Where nobody set logging up a warning of ours is not printed, and logging is not set up by us."""
    program = (
        "from analytics_batcher.log import logger; import logging\n"
        "logger.warning('unheard')\n"
        "assert not logging.getLogger().handlers\n"
        "logging.basicConfig()\n"
        "logger.warning('heard')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=True, timeout=60)
    assert b"unheard" not in done.stdout + done.stderr
    assert b"heard" in done.stderr
