"""What breaks analytics libraries, run against ours and five others: `python benchmarks/hazards.py [--help]`.

It exits with 1 if a cell of ours is not fine. `make hazards` installs the others and runs it.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from hazard.libraries import LIBRARIES, OURS, version
from hazard.rows import ROWS
from hazard.run import run
from hazard.table import markdown


def main() -> int:
    """Run the cases, print cells as they come, then the table."""
    options = _options()
    rows = [row for row in ROWS.values() if not options.only or row.name in options.only]
    libraries = [library for library in LIBRARIES if not options.peer or library in options.peer]
    missing = [library for library in libraries if version(library) is None]
    if missing:
        print(f"not installed: {', '.join(missing)}; `make hazards` installs them, --peer chooses", file=sys.stderr)
        return 2
    began, cells = time.monotonic(), {}
    with ThreadPoolExecutor(options.jobs) as pool:
        futures: dict[tuple[str, str], Future] = {
            (row.name, library): pool.submit(run, row, library) for row in rows for library in libraries
        }
        for (name, library), future in futures.items():
            found, seen = future.result()
            cells[name, library] = found
            print(f"{name:16}{library:20}{seen.seconds:5.1f} s  {found}", flush=True)
            if options.log and found.fine is False:
                print(seen.log)
    text = markdown(cells, rows, libraries, f"{datetime.now().astimezone().date().isoformat()}, `{_command(options)}`")
    print(f"\n{text}\n{time.monotonic() - began:.0f} seconds")
    if options.write:
        options.write.write_text(text)
    broken = [name for (name, library), found in cells.items() if library == OURS and found.fine is False]
    if broken:
        print(f"{OURS} is not fine: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=ROWS, metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--peer", action="append", choices=LIBRARIES, metavar="NAME", help=f"of {', '.join(LIBRARIES)}")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the table as Markdown")
    parser.add_argument("--jobs", type=int, default=4, help="cases at the same time, which mostly wait (4)")
    parser.add_argument("--log", action="store_true", help="show what cases that are not fine wrote to their logs")
    return parser.parse_args()


def _command(options: argparse.Namespace) -> str:
    """What makes the same table."""
    chosen = [
        word for option in ("only", "peer") for name in getattr(options, option) or () for word in (f"--{option}", name)
    ]
    return shlex.join(["python", "benchmarks/hazards.py", *chosen]) if chosen else "make hazards"


if __name__ == "__main__":
    sys.exit(main())
