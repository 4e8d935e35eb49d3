"""What importing a library costs: fresh interpreters, alternating, less one that imports nothing."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from .libraries import LIBRARIES, NOTHING, ROOT
from .rounds import Rounds

if TYPE_CHECKING:
    from collections.abc import Sequence

_LIMIT = 60.0


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
    with subprocess.Popen([sys.executable, "-c", statement], env=environment) as process:
        guard = threading.Timer(_LIMIT, process.kill)
        guard.start()
        status = process.wait()  # not with a timeout: then it looks whether it is over but now and then, 50 ms apart
        took = time.perf_counter() - started
        guard.cancel()
    if status:
        raise subprocess.CalledProcessError(status, statement)
    return took
