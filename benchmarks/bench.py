"""What analytics costs, measured beside other libraries in one interleaved run: `python benchmarks/bench.py [--help]`.

`make bench` installs the others and runs it. It writes `results.md` and two plots beside this file.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import cost
import floor
from measure import plots, report
from measure.far_end import flood
from measure.goals import goals, weathers
from measure.imports import imports
from measure.libraries import COMPARED, DURABLE, NOTHING, OURS, SEGMENT, WITHOUT_ORJSON, Snowplow, version
from measure.rounds import Rounds, beside, interleave, run_round
from measure.workload import EVENT, properties, user

HERE = Path(__file__).parent
WEATHERS: dict[str, list[Any]] = {
    "1 s of 500s": [1, 500],
    "1 s of 429s": [1, 429],
    "1 s of resets": [1, "reset"],
    "1 s of answers that take 2 s": [1, "slow"],
    "8 s of 500s": [8, 500],
    "1 s of resets after the events were stored": [1, "lost"],
}
_FULL: dict[str, Any] = {
    "rounds": 5,
    "caller": 20_000,
    "through_rounds": 3,
    "through": 100_000,
    "memory": 100_000,
    "few": 3,
    "pairs": 20,
    "web": 2.0,
    "late": 2.0,
    "imports": 11,
    "idle": 6.0,
    "weather": 5_000,
    "floor": (0.05, 11),
    "slow": 20_000,
}
_QUICK = _FULL | {
    "rounds": 2,
    "caller": 8_000,
    "through_rounds": 1,
    "through": 20_000,
    "memory": 20_000,
    "few": 1,
    "pairs": 3,
    "web": 0.7,
    "late": 1.0,
    "imports": 3,
    "idle": 5.0,
    "weather": 2_000,
    "floor": (0.01, 3),
    "slow": 2_400,
}
_PATIENCE = 30.0
"""Seconds after the last call until what has not arrived is called lost."""


def main() -> int:
    """Run everything, print and write it."""
    options = _options()
    compared = [library for library in COMPARED if library in options.library]
    missing = [library for library in compared if version(library) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}; `make bench` installs them, --library chooses", file=sys.stderr)
        return 2
    began = time.monotonic()
    size = (_QUICK if options.quick else _FULL) | ({"rounds": options.rounds} if options.rounds else {})
    results = figures(compared, size, options.only)
    found = bad_weather(compared, size) if options.only in {None, "weather"} else {}
    lines = json.dumps(
        {"type": "track", "event": EVENT, "properties": properties(50), "userId": user(5)}, separators=(",", ":")
    )
    rows = goals(results, len(lines)) + weathers(found, size["weather"])
    parts = [report.table([row for row in rows if options.only is None or row.met is not None], compared)]
    if options.only is None:
        parts += [report.variants(results["caller"]), report.sink(flood(1.0), results, OURS), report.CAVEATS]
        parts += ["## How far it is from the limit", floor.text(*size["floor"])]
        parts += ["## How it grows", cost.text(quick=options.quick)]
    command = "make bench" + (f' ARGS="{shlex.join(sys.argv[1:])}"' if sys.argv[1:] else "")
    text = "\n\n".join([report.heading(command, compared, size), *parts]) + "\n"
    print(f"\n{text}\n{time.monotonic() - began:.0f} seconds")
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / "results.md").write_text(text)
        if "caller" in results:
            plots.draw(results["caller"], compared, options.write)
    return 0


def figures(compared: list[str], size: dict[str, Any], only: str | None) -> dict[str, Rounds]:
    """The rounds of all figures that are wanted, by their names."""
    web = {"rate": 500, "events": 4, "seconds": size["web"], "clients": 4}
    variants = [*compared, WITHOUT_ORJSON, DURABLE] if OURS in compared else compared
    flushing = [*compared, Snowplow.name] if version(Snowplow.name) else compared
    handled = [NOTHING, *(library for library in (OURS, SEGMENT) if library in compared)]
    through = {"events": size["through"]}
    plan: dict[str, tuple[str, list[str], int, dict[str, Any]]] = {
        "caller": ("caller", [*variants, NOTHING], size["rounds"], {"events": size["caller"]}),
        "throughput-1": ("throughput", compared, size["through_rounds"], through | {"threads": 1}),
        "throughput-4": ("throughput", compared, size["through_rounds"], through | {"threads": 4}),
        "memory": ("memory", compared, 1, {"events": size["memory"]}),
        "late": ("late", [NOTHING, *compared], size["few"], {"rate": 2_000, "seconds": size["late"]}),
        "flush": ("flush", flushing, size["few"], {"events": 1_050}),
        "web": ("web", handled, size["pairs"], web),
    }
    results = {}
    for name, (figure, libraries, rounds, options) in plan.items():
        if only in {None, name}:
            results[name] = _told(name, lambda f=figure, ls=libraries, r=rounds, o=options: interleave(f, ls, r, o))  # type: ignore[misc]
            for one in (one for each in results[name].found.values() for one in each):
                one["wanted"] = options.get("events", 0)
    if only in {None, "slow"} and OURS in compared:
        results["slow"] = _told("slow", lambda: _slow(size["slow"]))
    if only in {None, "import"}:
        results["import"] = _told("import", lambda: imports(compared, size["imports"]))
    if only in {None, "idle"}:
        results["idle"] = _told("idle", lambda: _idle([NOTHING, *compared], size["idle"]))
    return results


def _told(name: str, run: Any) -> Rounds:
    began = time.monotonic()
    print(f"{name:14}", end="", flush=True)
    rounds: Rounds = run()
    print(f"{time.monotonic() - began:6.0f} s", flush=True)
    for library, why in rounds.failed.items():
        print(f"{'':14}{library}: {why[0]}", flush=True)
    return rounds


def _slow(events: int) -> Rounds:
    """Ours at an endpoint that answers after 200 ms, under the names of the requests in flight."""
    rounds = Rounds()
    for concurrency in (1, 8):
        options = {"events": events, "concurrency": concurrency}
        rounds.add(str(concurrency), run_round("slow", OURS, options))
    return rounds


def _idle(libraries: list[str], seconds: float) -> Rounds:
    """All at the same time: none of them does anything."""
    rounds = Rounds()
    results = beside("idle", [(library, {"seconds": seconds}) for library in libraries], len(libraries))
    for library, result in zip(libraries, results, strict=True):
        rounds.add(library, result)
    return rounds


def bad_weather(libraries: list[str], size: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What arrived of events at 1,000 a second, by weather and library."""
    base = {"events": size["weather"], "rate": 1_000, "patience": _PATIENCE, "settle": 2.5}
    cases = [(library, base | {"weather": weather}) for weather in WEATHERS.values() for library in libraries]
    began = time.monotonic()
    results = iter(beside("weather", cases, 9))
    print(f"{'weather':14}{time.monotonic() - began:6.0f} s", flush=True)
    return {title: {library: next(results) for library in libraries} for title in WEATHERS}


def _options() -> argparse.Namespace:
    names = ["caller", "throughput-1", "throughput-4", "memory", "late", "flush", "web", "slow"]
    names += ["import", "idle", "weather"]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about two minutes; rougher")
    parser.add_argument("--only", choices=names, help="one figure")
    parser.add_argument("--library", action="append", choices=COMPARED, help="some libraries")
    parser.add_argument("--rounds", type=int, help="of the caller's figures (5)")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write results.md and the plots")
    options = parser.parse_args()
    options.library = options.library or list(COMPARED)
    return options


if __name__ == "__main__":
    sys.exit(main())
