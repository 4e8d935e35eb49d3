"""What an import costs: `python benchmarks/imports.py [--rows N]`.

Rows a second of an import, from the file to a server's answers, beside two plain loops over the same file in the same
run: `csv.reader` with `json.dumps` of each row as it is; and the same with what a message needs besides, which is the
columns' types, the time and an id. And what of it the public calls take with the delivery, given the same messages out
of memory. Medians of alternating repeats; the server is a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

from analytics_batcher import Client, Vitally
from analytics_batcher.imports.connecting import connected
from analytics_batcher.imports.mapping import Mapping
from analytics_batcher.imports.one_file import CHUNK_ROWS
from analytics_batcher.imports.results import Job
from analytics_batcher.imports.run import Import

if TYPE_CHECKING:
    from collections.abc import Callable

SINK = Path(__file__).parent / "measure" / "sink.py"
HEADER = "user_id,account_id,event,at,plan,seats,price,trial\n"
MAPPING = Mapping("track", {"id": "user_id", "account_id": "account_id", "event": "event", "timestamp": "at"})


def write(path: Path, rows: int) -> None:
    """A file of tracks."""
    with path.open("w", encoding="utf-8") as file:
        file.write(HEADER)
        for n in range(rows):
            at = f"2024-01-{1 + n % 28:02d}T10:{n % 60:02d}:00Z"
            file.write(
                f"u-{n},a-{n % 100},Report opened,{at},team,{n % 90},{n % 90}.5,{'true' if n % 2 else 'false'}\n"
            )


def plain(path: Path) -> int:
    """The least: each row as JSON, its cells as they are."""
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader)
        return sum(bool(json.dumps(dict(zip(header, row, strict=True)))) for row in reader)


def as_messages(path: Path) -> int:
    """The least that a script does that makes the same messages."""
    count = 0
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        next(reader)
        for user, account, event, at, plan, seats, price, trial in reader:
            message = {
                "type": "track",
                "userId": user,
                "accountId": account,
                "event": event,
                "properties": {"plan": plan, "seats": int(seats), "price": float(price), "trial": trial == "true"},
                "timestamp": datetime.fromisoformat(at.replace("Z", "+00:00")).isoformat(),
                "messageId": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{count}{user}{event}{at}")),
            }
            count += bool(json.dumps(message))
    return count


def imported(path: Path, url: str) -> int:
    """The import."""
    job = Job(str(path), MAPPING)
    work = Import([job], connect=partial(connected, [Vitally(api_token="t", base_url=url)]))
    result = work.run()
    if job.checkpoint_path is not None:
        job.checkpoint_path.unlink()
    return result.sums.delivered


def called(count: int, url: str) -> int:
    """The calls alone, with their delivery: so many of the same messages, out of memory."""
    messages = [
        (f"u-{n}", {"plan": "team", "seats": n % 90, "price": n % 90 + 0.5, "trial": n % 2 == 1}, str(uuid.uuid4()))
        for n in range(CHUNK_ROWS)
    ]
    with Client(Vitally(api_token="t", base_url=url), strict=True) as client:
        for begin in range(0, count, CHUNK_ROWS):
            for user, properties, own_id in messages[: count - begin]:
                client.track(
                    *(user, "Report opened", properties),
                    account_id="a-1",
                    timestamp="2024-01-05T10:05:00Z",
                    message_id=own_id,
                )
            client.flush()
        return client.stats().delivered


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, SINK, "{}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as sink,
    ):
        assert sink.stdout is not None  # noqa: S101 - for the type checker
        url = f"http://127.0.0.1:{sink.stdout.readline().strip()}"
        path = Path(folder) / "tracks.csv"
        write(path, given.rows)
        ways: dict[str, Callable[[], int]] = {
            "csv.reader and json.dumps": lambda: plain(path),
            "the same, as the messages": lambda: as_messages(path),
            "import, to the answers": lambda: imported(path, url),
            "of it the calls, to the answers": lambda: called(given.rows, url),
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.repeats):
            for name, way in ways.items():
                started = time.perf_counter()
                count = way()
                rates[name].append(count / (time.perf_counter() - started))
                if count != given.rows:
                    raise SystemExit(f"{name}: {count} of {given.rows} rows")
    first = statistics.median(next(iter(rates.values())))
    print(f"{given.rows:,} rows, {given.repeats} repeats\n\n| | rows/s | of the first |\n|---|---:|---:|")
    for name, each in rates.items():
        rate = statistics.median(each)
        print(f"| {name} | {rate:,.0f} | {rate / first:.2f} |")


if __name__ == "__main__":
    main()
