"""What a fleet carries: `python benchmarks/fleet.py [--help]`.

Producers ship to a Redis server with an append-only file, then relays deliver what is there to a sink that answers at
once, each in processes of their own on this machine: messages a second, processor time per message of producers, server
and relays, bytes in the server. Rounds alternate; medians. A small model is made of the costs of the smallest fleet and
held against the others, and says what larger ones need.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fleets.report import text
from fleets.rounds import FLEETS, SLOW_FLEETS, Point, run_direct, run_fleet


def main() -> None:
    """Measure, and print or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000, help="messages of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each fleet (default: %(default)s)")
    parser.add_argument("--few", action="store_true", help="three small fleets only, to try the command")
    parser.add_argument("--write", metavar="FILE", help="write the page there instead of printing it")
    options = parser.parse_args()
    began = time.monotonic()
    found: dict[Point, list[dict[str, float]]] = {}
    direct: list[dict[str, float]] = []
    for _ in range(options.rounds):
        direct.append(run_direct(options.messages))
        for point in (*FLEETS[:2], *SLOW_FLEETS[:1]) if options.few else (*FLEETS, *SLOW_FLEETS):
            found.setdefault(point, []).append(run_fleet(point, options.messages))
            print(point, f"{time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    page = text(
        {point: _medians(rounds) for point, rounds in found.items()},
        _medians(direct),
        rounds=options.rounds,
        messages=options.messages,
    )
    if options.write:
        Path(options.write).write_text(page, encoding="utf-8")
    else:
        print(page)


def _medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: median([one[name] for one in rounds]) for name in rounds[0]}


if __name__ == "__main__":
    main()
