"""What a call costs its caller, and a message its process, beside segment-analytics-python in the same run.

Both deliver to the same kind of loopback server, which answers at once, in a process of its own. Rounds alternate
between the libraries; the figures are medians over the rounds. `python benchmarks/caller.py [ROUNDS]`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

EVENTS = 8_000
ROUND = Path(__file__).with_name("caller_round.py")
LIBRARIES = ("analytics_batcher", "segment")


def run_round(library: str) -> dict[str, float]:
    """One process that tracks `EVENTS` events and delivers them all."""
    done = subprocess.run(
        [sys.executable, str(ROUND), library, str(EVENTS)], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


def main() -> None:
    """Alternate, then print medians and their ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    figures: dict[str, list[dict[str, float]]] = {library: [] for library in LIBRARIES}
    for turn in range(rounds):
        for library in LIBRARIES if turn % 2 else reversed(LIBRARIES):
            figures[library].append(run_round(library))
    print(f"An 8-property track, {EVENTS} of them in a tight loop, medians of {rounds} alternating rounds.")
    print(f"{'':34}{'analytics-batcher':>18}{'segment':>12}{'ratio':>8}")
    for key, title in (
        ("p50", "caller p50, microseconds"),
        ("p99", "caller p99, microseconds"),
        ("cpu", "CPU of the process per message, us"),
        ("seconds", "all delivered after, seconds"),
    ):
        ours, theirs = (statistics.median(one[key] for one in figures[library]) for library in LIBRARIES)
        print(f"{title:34}{ours:18.2f}{theirs:12.2f}{theirs / ours:8.1f}")
    for library in LIBRARIES:
        short = [one["delivered"] for one in figures[library] if one["delivered"] != EVENTS]
        if short:
            print(f"{library} did not deliver everything in {len(short)} rounds: {short}")


if __name__ == "__main__":
    main()
