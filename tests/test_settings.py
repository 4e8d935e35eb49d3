import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_batcher import Retry
from analytics_batcher.settings import allowed, flag, hook, number, shown, whole


class _Unprintable:
    def __repr__(self):
        raise RuntimeError("not for display")


def _error(check, *arguments, **bounds):
    """What an error about a setting says."""
    with pytest.raises(ValueError, match=r"allowed is ") as caught:
        check("a_setting", *arguments, **bounds)
    return str(caught.value)


# --- Numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.5, 1, 10_000_000])
def test_number_is_taken(value):
    """A number within its bounds is taken, as a float."""
    taken = number("a_setting", value, above=0)
    assert taken == value
    assert isinstance(taken, float)


@pytest.mark.parametrize(
    ("value", "bounds", "wanted"),
    [
        (0, {"above": 0}, "above 0"),
        (-1, {"above": 0}, "above 0"),
        (0.25, {"above": 0.25}, "above 0.25"),
        (-0.001, {"at_least": 0}, "at least 0"),
        (0.49, {"at_least": 0.5}, "at least 0.5"),
        pytest.param(-(10**400), {"at_least": 0}, "at least 0", id="too great for a float"),
    ],
)
def test_number_out_of_bounds(value, bounds, wanted):
    """A number out of its bounds is an error that names the setting, the value and the bound."""
    text = _error(number, value, **bounds)
    assert text.startswith(f"a_setting={shown(value)}: ")
    assert text.endswith(f"a number {'of ' if 'least' in wanted else ''}{wanted}")


@pytest.mark.parametrize(("value", "bounds"), [(0, {"at_least": 0}), (0.5, {"at_least": 0.5}), (1e-9, {"above": 0})])
def test_least_number_is_taken(value, bounds):
    """`at_least` takes its bound, and `above` what is just over it."""
    assert number("a_setting", value, **bounds) == value


@pytest.mark.parametrize(
    "value",
    [True, False, math.nan, math.inf, -math.inf, None, "1", b"1", [1], (1, 2), 1j, Decimal(1), 10**400, _Unprintable()],
    ids=shown,
)
def test_no_number(value):
    """What is no finite number is an error that names the setting, the value and what is allowed."""
    for bounds in ({"above": 0}, {"at_least": 0}):
        assert _error(number, value, **bounds).startswith(f"a_setting={shown(value)}: allowed is a number ")


# --- Whole numbers ----------------------------------------------------------------------------------------------------


@given(value=st.integers(-5, 5), least=st.integers(-3, 3), span=st.integers(0, 3))
def test_whole_number_is_taken_within_its_bounds(value, least, span):
    """A whole number is taken if it lies between the bounds, both included, and only then."""
    most = least + span
    if least <= value <= most:
        assert whole("a_setting", value, at_least=least, at_most=most) == value
    else:
        text = _error(whole, value, at_least=least, at_most=most)
        assert text == f"a_setting={value}: allowed is a whole number from {least} to {most}"


@pytest.mark.parametrize("value", [1, 2, 10**30])
def test_whole_number_may_have_no_upper_bound(value):
    """Without an upper bound any number from the lower one on is taken."""
    assert whole("a_setting", value, at_least=1) == value


@pytest.mark.parametrize(
    "value", [0, -1, True, False, 1.0, 2.5, math.nan, None, "5", [], Decimal(2), _Unprintable()], ids=shown
)
def test_no_whole_number(value):
    """What is no whole number, or too small, is an error that names the setting, the value and what is allowed."""
    wanted = f"a_setting={shown(value)}: allowed is a whole number "
    assert _error(whole, value, at_least=1) == wanted + "of at least 1"
    assert _error(whole, value, at_least=1, at_most=9) == wanted + "from 1 to 9"


def test_whole_number_says_where_its_bound_comes_from():
    """An error repeats the reason that was given for the bound."""
    assert _error(whole, 101, at_least=1, at_most=100, why="the limit of vitally").endswith(
        "from 1 to 100 (the limit of vitally)"
    )


# --- Choices, hooks, flags --------------------------------------------------------------------------------------------


def test_choice_is_taken():
    """One of the choices is taken."""
    assert allowed("a_setting", "b", ("a", "b")) == "b"


@pytest.mark.parametrize("value", ["c", "A", "", "a ", None, 1, True, ["a"], {"a"}, ("a", "b"), b"a", _Unprintable()])
def test_no_choice(value):
    """Anything else is an error that names the setting, the value and the choices."""
    assert _error(allowed, value, ("a", "b")) == f"a_setting={shown(value)}: allowed is 'a' or 'b'"


@pytest.mark.parametrize("value", [None, len, int, lambda _: None])
def test_hook_is_taken(value):
    """A hook may be anything that can be called, or nothing."""
    assert hook("a_setting", value) is None


@pytest.mark.parametrize("value", [0, False, "print", {}, object()], ids=["zero", "false", "text", "dict", "object"])
def test_no_hook(value):
    """What cannot be called is an error, also if it is false."""
    assert _error(hook, value) == f"a_setting={shown(value)}: allowed is a function or None"


@pytest.mark.parametrize("value", [True, False])
def test_flag_is_taken(value):
    """A flag is a bool."""
    assert flag("a_setting", value) is value


@pytest.mark.parametrize("value", [None, 0, 1, "", "yes", "false", [], _Unprintable()], ids=shown)
def test_no_flag(value):
    """Nothing else is a flag, whatever its truth: `"false"` is true."""
    assert _error(flag, value) == f"a_setting={shown(value)}: allowed is True or False"


# --- How a value is shown ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "'a'"),
        (1.5, "1.5"),
        (None, "None"),
        ("x" * 78, "'" + "x" * 78 + "'"),
        ("x" * 79, "'" + "x" * 76 + "..."),
        ("a\nb", "'a\\nb'"),
        (_Unprintable(), "<_Unprintable>"),
        (10**100_000, "<int>"),
    ],
    ids=["text", "float", "none", "longest", "too long", "newline", "unprintable", "digits"],
)
def test_value_is_shown_in_short(value, text):
    """A value is shown as Python writes it, in at most 80 characters, and a broken `repr` breaks nothing."""
    assert shown(value) == text
    assert len(shown(value)) <= 80


# --- The settings of `Retry` ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "wanted"),
    [
        ("base", 0, "a number above 0"),
        ("base", -1, "a number above 0"),
        ("base", "fast", "a number above 0"),
        ("cap", 0, "a number above 0"),
        ("cap", math.inf, "a number above 0"),
        ("cap", None, "a number above 0"),
        ("jitter", "half", "'full' or 'none'"),
        ("jitter", None, "'full' or 'none'"),
        ("jitter", True, "'full' or 'none'"),
        ("max_age", 0, "a number above 0"),
        ("max_age", True, "a number above 0"),
        ("max_age", math.nan, "a number above 0"),
        ("max_age", "never", "'auto'"),
    ],
)
def test_wrong_retry_setting(setting, value, wanted):
    """A wrong setting of `Retry` is an error that names the setting, the value and what is allowed."""
    with pytest.raises(ValueError, match=r"allowed is ") as caught:
        Retry(**{setting: value})
    assert str(caught.value) == f"Retry.{setting}={shown(value)}: allowed is {wanted}"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"base": 0.001, "cap": 1},
        {"base": 60, "cap": 0.5},
        {"jitter": "none"},
        {"max_age": None},
        {"max_age": 1},
        {"max_age": 2.5},
        {"max_age": "auto"},
    ],
    ids=str,
)
def test_right_retry_settings(settings):
    """Settings within their bounds are kept as they were given."""
    retry = Retry(**settings)
    assert {name: getattr(retry, name) for name in settings} == settings
