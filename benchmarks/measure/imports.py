"""What importing a library costs: fresh interpreters, alternating, less one that imports nothing."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from .libraries import LIBRARIES, NOTHING, ROOT
from .rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Sequence


def imports(libraries: Sequence[str], rounds: int) -> Rounds:
    """Milliseconds of each library's import; the first round compiles what is not compiled, and does not count."""
    both = (NOTHING, *libraries)
    times: dict[str, list[float]] = {library: [] for library in both}
    for turn in range(rounds + 1):
        for library in both if turn % 2 else reversed(both):
            times[library].append(_seconds(LIBRARIES[library].statement))
    nothing = statistics.median(times[NOTHING][1:])
    result = Rounds()
    for library in libraries:
        result.found[library] = [{"ms": (one - nothing) * 1e3} for one in times[library][1:]]
    return result


def _seconds(statement: str) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(ROOT)
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, timeout=60, env=environment)
    return time.perf_counter() - started
