"""Runs one case: a server, a process with a time limit, and what was seen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .libraries import ROOT
from .server import ELSEWHERE, Recorder
from .verdict import Cell, Seen, cell

if TYPE_CHECKING:
    from .row import Row

_SETTLE = 0.3


def run(row: Row, library: str) -> tuple[Cell, Seen]:
    """Work through one row with one library, in a process that is gone afterwards."""
    if library in row.absent:
        return Cell(row.absent[library], None), Seen(ended=True, limit=row.limit)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hazard-", ignore_cleanup_errors=True)))
        server = stack.enter_context(closing(row.server(row.weather) if row.server is Recorder else row.server()))
        elsewhere = stack.enter_context(closing(_elsewhere()))
        server.elsewhere = elsewhere.url
        row.prepare(folder)
        began = time.monotonic()
        status, end = _work(row, library, server.url, folder)
        seen = Seen(
            status is not None, row.limit, _facts(folder / "facts"), log=(folder / "log").read_text(errors="replace")
        )
        seen.status, seen.end, seen.seconds = status or 0, end, end - began
        time.sleep(_SETTLE)  # a request that is still under way is part of what was seen
        seen.requests, seen.elsewhere = list(server.requests), list(elsewhere.requests)
    if seen.ended and "stage" not in seen.facts:
        return cell(False, f"did not start: {seen.log.strip().splitlines()[-1:]}"), seen
    return row.judge(seen), seen


def _work(row: Row, library: str, url: str, folder: Path) -> tuple[int | None, float]:
    """Run the process; its status, `None` if it did not end by itself, and the end's moment."""
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)]),
        "HOME": str(folder),
        "TMPDIR": str(folder),
    }
    command = [sys.executable, "-m", "hazard.child", row.name, library, url, str(folder / "facts"), str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            status = process.wait(row.limit)
            return status, time.monotonic()
        except subprocess.TimeoutExpired:
            return None, time.monotonic()
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and what it forked are a group of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _elsewhere() -> Recorder:
    try:
        return Recorder(host=ELSEWHERE)
    except OSError:  # a system with one loopback address: another port is another origin too
        return Recorder()


def _facts(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if path.exists():
        for line in path.read_text().splitlines():
            facts |= json.loads(line)
    return facts
