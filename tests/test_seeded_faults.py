"""The seeded faults are kept fit to be tried, and the command that tries them is not taken in."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from faults import FAULTS, Fault
from seeded_faults import PACKAGE, ROOT, Unproven, try_fault

QUICK = "test_retry.py::test_defaults"
NAMED = sorted({test for fault in FAULTS for test in fault.tests})


@pytest.mark.parametrize("file", sorted({fault.file for fault in FAULTS}))
def test_every_fault_still_applies(file):
    """What a fault replaces stands in the package exactly once, and what it makes of it is other Python."""
    text = (ROOT / PACKAGE / file).read_text(encoding="utf-8")
    assert [fault.name for fault in FAULTS if fault.file == file and fault.applied(text) == text] == []


def test_every_fault_has_a_name_of_its_own():
    """Faults are chosen and reported by their names."""
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 25


def test_every_named_test_exists():
    """The tests that are to catch faults stand in their files under these names."""
    names = {test.partition("[")[0] for test in NAMED}
    files = {name.partition("::")[0] for name in names}
    trees = {file: ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8")) for file in files}
    found = {f"{file}::{part.name}" for file in files for part in trees[file].body if hasattr(part, "name")}
    assert names - found == set()


def test_every_named_case_exists():
    """Where a single case of a test is named, pytest finds it; to collect all the others would take long."""
    tests = [f"tests/{test}" for test in NAMED if "[" in test]
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_fault_that_no_test_notices_is_not_caught():
    """A change that breaks nothing is not called caught."""
    assert try_fault(Fault("none", "retry.py", {"MAX_WAIT: Final = 300.0": "MAX_WAIT: Final = 300"}, [QUICK])) is None


@pytest.mark.parametrize(
    ("new", "tests"),
    [
        ("base: float = bas", [QUICK]),
        ("import nothing_such\n    base: float = 0.5", [QUICK]),
        ("base: float = 0.7", ["test_retry.py::test_that_is_not_there"]),
    ],
    ids=["wrong name", "wrong import", "wrong test"],
)
def test_a_badly_made_fault_is_an_error(new, tests):
    """A fault that keeps the package from being loaded, or whose test is not there, is not called caught."""
    with pytest.raises(Unproven):
        try_fault(Fault("bad", "retry.py", {"base: float = 0.5": new}, tests))


def test_a_fault_is_caught_by_the_test_that_fails():
    """The test that failed is named, with what it found."""
    test, why = try_fault(Fault("real", "retry.py", {"base: float = 0.5": "base: float = 0.7"}, [QUICK]))
    assert test == QUICK
    assert "assert Retry(" in why


@pytest.mark.parametrize("old", ["not to be found", "def "])
def test_a_fault_that_no_longer_applies_is_an_error(old):
    """An old text that is gone, or that has become two, is told."""
    with pytest.raises(ValueError, match="not once"):
        Fault("gone", "retry.py", {old: ""}, [QUICK]).applied((ROOT / PACKAGE / "retry.py").read_text(encoding="utf-8"))
