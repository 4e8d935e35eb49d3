"""What `from analytics_batcher import Client, Vitally` costs, beside `import segment.analytics` in the same run.

Each import runs in a fresh interpreter, alternating; an interpreter that imports nothing is subtracted; medians.
`python benchmarks/imports.py [ROUNDS]`.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

STATEMENTS = {
    "nothing": "pass",
    "analytics-batcher": "from analytics_batcher import Client, Vitally",
    "orjson alone": "import orjson",
    "segment": "import segment.analytics",
}

# The first round compiles what is not compiled yet, for the later ones to find.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(statement: str) -> float:
    """The time of an interpreter that runs one statement."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True, timeout=60, env=ENVIRONMENT)
    return time.perf_counter() - started


def main() -> None:
    """Alternate, then print medians and the ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for statement in STATEMENTS.values():
        seconds(statement)
    for _ in range(rounds):
        for name, statement in STATEMENTS.items():
            times[name].append(seconds(statement))
    nothing = statistics.median(times.pop("nothing"))
    cost = {name: statistics.median(values) - nothing for name, values in times.items()}
    print(f"Imports in fresh interpreters, medians of {rounds} alternating rounds, less an empty one.")
    for name, value in cost.items():
        print(f"{name:34}{value * 1e3:12.1f} ms{cost['segment'] / value:8.1f}x cheaper than segment")


if __name__ == "__main__":
    main()
