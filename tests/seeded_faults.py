"""Breaks copies of the package on purpose, one fault at a time, and says which test notices: `make faults`.

A suite that passes says nothing of what it would let pass. The faults stand in `faults.py`. The package as it is must
pass all the tests named there first, or nothing would be shown. The working tree is never touched.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults import FAULTS

ROOT = Path(__file__).parents[1]
PACKAGE = "analytics_batcher"
NEEDED = [PACKAGE, "tests", "pyproject.toml", "README.md"]
# Seconds. A test that hangs must fail by itself: to run out of them is no catch.
FAULT_LIMIT, SOUND_LIMIT = 120.0, 600.0
PASSED, FAILED = 0, 1  # pytest's statuses; with any other it could not do its work
# A failure by one of these is no test's word on what the code does: the fault itself is badly made.
BADLY_MADE = re.compile(r"^(?:\w+\.)*(?:Attribute|Name|UnboundLocal|Import|ModuleNotFound|Syntax|Indentation)Error\b")


class Unproven(Exception):  # noqa: N818 - nothing of the package's is wrong
    """A run that shows nothing."""


@dataclass(frozen=True)
class Result:
    """What a run of pytest came to: the tests that passed, and those that failed with the first line of the reason."""

    passed: list[str]
    failed: list[tuple[str, str]]


@contextmanager
def copied(fault=None):
    """Copy the package and its tests, with the fault in them."""
    with tempfile.TemporaryDirectory(prefix="fault-") as folder:
        copy = Path(folder)
        for name in NEEDED:
            if (ROOT / name).is_dir():
                # Without bytecode: it is believed by its source's time and size, which a fault need not change.
                shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
            else:
                shutil.copy(ROOT / name, copy / name)
        if fault is not None:
            broken = copy / PACKAGE / fault.file
            broken.write_text(fault.applied(broken.read_text(encoding="utf-8")), encoding="utf-8")
        yield copy


def run_tests(copy, tests, limit=FAULT_LIMIT):
    """Run tests of a copy, up to the first that fails.

    Raises:
        Unproven: They did not end in time, or not by passing or failing.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--junit-xml=report.xml"]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_ADDOPTS": ""}
    with (copy / "output").open("w+b") as output:  # not a pipe: a grandchild that lives on would hold it open
        try:
            status = subprocess.run(
                [*command, *(f"tests/{test}" for test in tests)],
                cwd=copy,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=limit,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise Unproven(f"no end within {limit:g} s") from None
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    if status not in {PASSED, FAILED}:
        raise Unproven(f"pytest ended with status {status}: {said.strip()[-1_000:]}")
    return _read(copy / "report.xml")


def _read(report):
    passed, failed = [], []
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest has just written it
        test = f"{case.get('classname').removeprefix('tests.')}.py::{case.get('name')}"
        failure = case.find("failure")
        if failure is not None:
            lines = [line[1:].strip() for line in (failure.text or "").splitlines() if line.startswith("E ")]
            if badly_made := [line for line in lines if BADLY_MADE.search(line)]:
                raise Unproven(f"{test} failed for how the fault is made: {badly_made[0]}")
            failed.append((test, lines[0] if lines else ""))
        elif case.find("error") is None and case.find("skipped") is None:
            passed.append(test)
    return Result(passed, failed)


def prove_sound(tests, jobs):
    """Run tests of the package as it is.

    Raises:
        Unproven: One of them does not pass, or does not run here.
    """

    def run(share):
        with copied() as copy:
            result = run_tests(copy, share, SOUND_LIMIT)
        if result.failed:
            raise Unproven(f"the package as it is fails {result.failed}")
        passed = {*result.passed, *(test.partition("[")[0] for test in result.passed)}
        if left := [test for test in share if test not in passed]:
            raise Unproven(f"these do not run here: {left}")

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, filter(None, (tests[place::jobs] for place in range(jobs)))))


def try_fault(fault):
    """Run the tests that should catch a fault; the one that did and its reason, or `None`.

    Raises:
        Unproven: They show nothing.
        ValueError: The fault no longer applies.
    """
    with copied(fault) as copy:
        result = run_tests(copy, fault.tests)
    if not result.failed and not result.passed:
        raise Unproven("no test ran to its end")
    return result.failed[0] if result.failed else None


def _timed(fault):
    begun = time.monotonic()
    try:
        caught = try_fault(fault)
    except (Unproven, ValueError) as error:
        return False, f"ERROR       {error}", time.monotonic() - begun
    said = f"{caught[0]}\n{caught[1][:110]}" if caught else f"NOT CAUGHT  by {' '.join(fault.tests)}"
    return caught is not None, said, time.monotonic() - begun


def _chosen(names):
    if unknown := [name for name in names if not any(name in fault.name for fault in FAULTS)]:
        raise SystemExit(f"no fault has {unknown[0]!r} in its name")
    return [fault for fault in FAULTS if not names or any(name in fault.name for name in names)]


def main():
    """Try the faults, print a line for each, and say how many were caught."""
    parser = argparse.ArgumentParser(description="Break copies of the package, and see which test notices.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of a fault's name (default: all faults)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once (default: %(default)s)")
    arguments = parser.parse_args()
    faults, jobs = _chosen(arguments.names), max(arguments.jobs, 1)
    tests = sorted({test for fault in faults for test in fault.tests})
    begun, count = time.monotonic(), 0
    try:
        prove_sound(tests, jobs)
    except Unproven as error:
        print(f"Nothing can be shown: {error}")
        return 1
    print(f"As it is, the package passes the {len(tests)} tests that are to fail ({time.monotonic() - begun:.0f} s).\n")
    width = max(len(fault.name) for fault in faults)
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(_timed, fault): fault for fault in faults}
        for future in as_completed(running):
            is_caught, said, seconds = future.result()
            count += is_caught
            indented = said.replace("\n", f"\n{'':{width + 10}}")
            print(f"{running[future].name:{width}} {seconds:5.1f} s  {indented}", flush=True)
    print(f"\n{count} of {len(faults)} caught ({time.monotonic() - begun:.0f} s).")
    return 0 if count == len(faults) else 1


if __name__ == "__main__":
    sys.exit(main())
