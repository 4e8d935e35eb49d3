"""Reading ahead: rows become what calls are given, in a process of its own where a file is not small.

The calls and their delivery keep one interpreter busy. With another one that reads meanwhile, an import takes six
tenths of the time: `python benchmarks/imports.py`.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import pickle
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from .calls import Conversion, kinds_of
from .ids import ids_for
from .problems import ImportProblem, RowProblem, Stopped
from .rows import Rows
from .source import Source

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from .calls import Given
    from .look import Look
    from .mapping import Mapping as Plan

    Read = tuple[int, bytes, int, int, str, Given | list[str] | None]
    """A row: the line at which it begins, its bytes, the offset and the line of its end, its id, and what its call is
    given; or the parts of a `RowProblem`, or `None` if it is blank."""

LEAST_BYTES: Final = 2**19
"""What is shorter is read before another process has started, which takes some 0.1 s."""
_PIECE_ROWS: Final = 250
_PIECE_BYTES: Final = 2**16
_PIPE_BYTES: Final = 2**20  # so that the reader need not wait while a chunk is settled; where it can be had
_LENGTH: Final = struct.Struct("<I")
_ROOT: Final = str(
    Path(__file__).parents[2]
)  # what is installed to be edited may be found by other means than the path
# Isolated, as the current folder is nobody's to import from; and then with the very path that this process has.
_PROGRAM: Final = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from analytics_batcher.imports import reading; reading.main()"
)


@dataclass(frozen=True)
class Task:
    """What is to be read of a source.

    Attributes:
        path: The file.
        identity: What tells it from another one of the same name.
        plan: Which column becomes what.
        look: What the source looks like; without its cells.
        kinds: The columns' types.
        offset: The bytes that are settled.
        line: The lines that are settled.
        started: The moment of rows that have none of their own.
        id_field: Where a native message has its id.
    """

    path: str
    identity: tuple[int, int]
    plan: Plan
    look: Look
    kinds: Mapping[str, str]
    offset: int
    line: int
    started: str
    id_field: str

    @property
    def conversion(self) -> Conversion:
        """What makes of the rows what calls are given.

        Raises:
            ImportProblem: If there is no such.
        """
        return Conversion(
            *(self.plan, self.look),
            kinds=self.kinds,
            started=self.started,
            where=self.path,
            id_field=self.id_field,
        )


def task_of(source: Source, plan: Plan, look: Look, *, offset: int, line: int, started: str, id_field: str) -> Task:
    """What is to be read of a source, from an offset and a line on.

    Raises:
        ImportProblem: If the column of the timestamps has none.
    """
    kinds = kinds_of(plan, look, source.name)
    return Task(source.path, source.identity, plan, replace(look, cells={}), kinds, offset, line, started, id_field)


def rows_of(task: Task, source: Source, stream: BinaryIO) -> Generator[Read]:
    """The rows, read here or ahead; to be closed.

    Args:
        task: What is to be read.
        source: The source.
        stream: It, at the task's offset.

    Raises:
        ImportProblem: While it is read: if the file is another one by now.
        OSError: While it is read: if it cannot be.
        Stopped: While it is read: if the process that reads it was ended.
    """
    if source.is_file and sys.executable and not getattr(sys, "frozen", False):
        left = Path(task.path).stat().st_size - (0 if source.gzipped else task.offset)
        if left >= LEAST_BYTES:
            return _ahead(task, stream)
    return _read(task, stream)


def _read(task: Task, stream: BinaryIO) -> Generator[Read]:
    look, conversion, id_of = task.look, task.conversion, ids_for(task.plan.digest)
    rows = Rows(stream, look.form, offset=task.offset, line=task.line, width=len(look.columns))
    taken, own_id_of, given_of = rows.taken, conversion.own_id, conversion.given
    for line, row in rows:
        raw = taken[0] if len(taken) == 1 else b"".join(taken)
        own_id = ""
        given: Given | list[str] | None = None
        if type(row) is list or type(row) is dict:
            own_id = own_id_of(row) or id_of(line, raw)
            try:
                given = given_of(row, own_id)
            except RowProblem as problem:
                given = problem.parts
        elif row is not None:
            given = row.parts
        yield line, raw, rows.offset, rows.line, own_id, given


def _ahead(task: Task, stream: BinaryIO) -> Generator[Read]:
    try:
        process = subprocess.Popen(  # noqa: S603 - this Python, and our own program
            [sys.executable, "-I", "-c", _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is this process's matter
        )
    except OSError:  # no more processes here, or no such program
        yield from _read(task, stream)
        return
    assert process.stdin is not None  # noqa: S101 - for the type checker
    assert process.stdout is not None  # noqa: S101 - for the type checker
    try:
        _widen(process.stdout)
        with contextlib.suppress(BrokenPipeError), process.stdin as request:
            pickle.dump([*sys.path, _ROOT], request)
            pickle.dump(task, request)
        while piece := _next(process):
            yield from piece
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def _next(process: subprocess.Popen[bytes]) -> list[Read]:
    """The next rows; none at the end."""
    assert process.stdout is not None  # noqa: S101 - for the type checker
    length = process.stdout.read(_LENGTH.size)
    if len(length) == _LENGTH.size:
        (size,) = _LENGTH.unpack(length)
        data = process.stdout.read(size)
        if len(data) == size:
            piece: list[Read] | tuple[str, Any] = marshal.loads(data)  # noqa: S302 - of a process of our own
            if isinstance(piece, list):
                return piece
            raise _failure(*piece)
    raise Stopped(f"the process that reads the file has ended (status {process.wait()})")


def _failure(kind: str, parts: Any) -> Exception:
    return ImportProblem(parts[0], where=parts[1]) if kind == "problem" else OSError(*parts)


def _widen(pipe: Any) -> None:
    if sys.platform == "linux":
        import fcntl  # noqa: PLC0415 - not on Windows

        with contextlib.suppress(OSError):  # a user may have so many bytes in pipes, and no more
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


# In the other process


def main() -> None:
    """Read what standard input asks for, and write it to standard output."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # of the whole group: what they mean, the process that sends decides
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    task = pickle.load(sys.stdin.buffer)  # noqa: S301 - of the process that started this one
    out = sys.stdout.buffer
    try:
        try:
            _write(task, out)
        except ImportProblem as problem:
            _put(out, ("problem", [problem.what, problem.where]))
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            _put(out, ("error", [*error.args, error.filename][:3] if error.filename else [*error.args]))
    except BrokenPipeError:  # nobody reads any more
        os._exit(0)


def _write(task: Task, out: BinaryIO) -> None:
    source = Source(task.path, task.plan.encoding)
    try:
        if source.identity != task.identity:
            raise ImportProblem("the file was replaced while it was read", where=task.path)
        stream, _ = source.at(task.offset)
        piece: list[Read] = []
        begin = task.offset
        for row in _read(task, stream):
            piece.append(row)
            if len(piece) >= _PIECE_ROWS or row[2] - begin >= _PIECE_BYTES:
                _put(out, piece)
                piece, begin = [], row[2]
        if piece:
            _put(out, piece)
        _put(out, [])
    finally:
        source.close()


def _put(out: BinaryIO, piece: Any) -> None:
    data = marshal.dumps(piece)
    out.write(_LENGTH.pack(len(data)) + data)
    out.flush()
