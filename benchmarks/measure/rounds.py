"""Runs rounds, each in a process of its own, the libraries in alternating order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .libraries import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_LIMIT = 180.0


@dataclass
class Rounds:
    """What the rounds of one figure found.

    Attributes:
        found: The figures of each library's rounds.
        failed: Why rounds of a library found nothing.
    """

    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failed: dict[str, list[str]] = field(default_factory=dict)

    def values(self, library: str, key: str) -> list[float]:
        """One figure of each round."""
        return [figures[key] for figures in self.found.get(library, [])]

    def add(self, library: str, result: dict[str, Any] | str) -> None:
        """Keep a round's figures, or why there are none."""
        if isinstance(result, str):
            self.failed.setdefault(library, []).append(result)
        else:
            self.found.setdefault(library, []).append(result)


def run_round(figure: str, library: str, options: dict[str, Any]) -> dict[str, Any] | str:
    """Run one round; its figures, or why there are none."""
    command = [sys.executable, "-m", "measure.round", figure, library, json.dumps(options)]
    began = time.time()
    path = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])
    with tempfile.TemporaryDirectory() as folder:  # for what a round leaves behind, which ends at once
        environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": folder}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT, env=environment, check=False)
        except subprocess.TimeoutExpired:
            return f"did not end within {_LIMIT:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
    return {**json.loads(done.stdout.splitlines()[-1]), "began": began}


def interleave(figure: str, libraries: Sequence[str], rounds: int, options: dict[str, Any]) -> Rounds:
    """Run rounds of all the libraries one after the other, there and back again."""
    result = Rounds()
    for turn in range(rounds):
        for library in libraries if turn % 2 == 0 else reversed(libraries):
            result.add(library, run_round(figure, library, options))
    return result


def beside(figure: str, cases: Iterable[tuple[str, dict[str, Any]]], jobs: int) -> list[dict[str, Any] | str]:
    """Run rounds that mostly wait, and of which no time is taken, at the same time; the results in their order."""
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda case: run_round(figure, *case), cases))
