"""What a command shows: bars and tables to a person, plain lines to a pipe, JSON to a machine.

Facts and tables go to standard output; the rest, what a pipe should not carry, to standard error. What draws may
not be installed: then, as without a terminal, everything comes as plain lines.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO

from ..text import printable
from .progress import PlainProgress, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.console import Console

DONE: Final = 0
FAILED: Final = 1
WRONG_USAGE: Final = 2
SOME_REFUSED: Final = 3

_SIGNALLED: Final = 128
_CHARACTERS: Final = 1_000


class Problem(Exception):  # noqa: N818 - it is what a person reads, and need be nobody's error
    """What went wrong, in words for a person.

    Args:
        what: The sentence.
        where: `FILE:LINE, column NAME`, or the setting.
        found: What is there.
        expected: What should be.
        hint: What to do about it.
        status: The exit status that it ends the command with.
    """

    def __init__(
        self, what: str, *, where: str = "", found: str = "", expected: str = "", hint: str = "", status: int = FAILED
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.found = found
        self.expected = expected
        self.hint = hint
        self.status = status

    @property
    def facts(self) -> dict[str, str]:
        """Its parts by name, but for empty ones."""
        names = ("what", "where", "found", "expected", "hint")
        return {name: text for name in names if (text := getattr(self, name))}


class _Terminated(KeyboardInterrupt):
    """SIGTERM came."""


class Face:
    """One command's output.

    Args:
        json: Facts as one JSON object in a line, errors too, and no tables.
        debug: Show where in the code an error arose.
        plain: Lines instead of bars; `None`: if standard error is no terminal, or a dumb one.
    """

    def __init__(self, *, json: bool = False, debug: bool = False, plain: bool | None = None) -> None:
        self.json = json
        self.debug = debug
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a name that the terminal cannot spell must not end the command
                stream.reconfigure(errors="backslashreplace")
        self._errors = None if plain else _console(sys.stderr)
        self._out = None if plain or json else _console(sys.stdout)

    @property
    def plain(self) -> bool:
        """Whether progress comes as lines."""
        return self._errors is None

    @property
    def draws(self) -> bool:
        """Whether facts and tables are drawn for a person."""
        return self._out is not None

    def say(self, line: str) -> None:
        """Print a line to standard output; with JSON nothing. On a terminal a long one is folded between words."""
        if not self.json:
            fitting = _fit(line)
            _write(sys.stdout, fitting if self._out is None else _folded(fitting, self._out.width))

    def note(self, text: str) -> None:
        """Print a line to standard error, above a bar that is there."""
        _show(self._errors, sys.stderr, _fit(text))

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table to standard output; with JSON nothing.

        Args:
            title: What stands above it; may be empty.
            head: The columns' names.
            rows: The cells.
        """
        if self.json:
            return
        cells = [[_fit(cell) for cell in row] for row in rows]
        if self._out is not None:
            from .drawing import table  # noqa: PLC0415 - it needs the extra

            self._out.print(table(title, head, cells))
            return
        widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
        for line in [[title]] * bool(title) + [list(head), *cells]:
            _write(sys.stdout, "  ".join(map(str.ljust, line, widths if line != [title] else [0])).rstrip())

    def result(self, facts: Mapping[str, Any], title: str = "") -> None:
        """Print what came of it to standard output: a line for each fact, or one JSON object.

        Args:
            facts: What is to be said, by name. A mapping from reasons to counts is shown as its sum and its parts.
            title: What stands above the lines on a terminal.
        """
        if self.json:
            _write(sys.stdout, json.dumps(facts, ensure_ascii=False, default=str))
            return
        shown = {name: _fit(_text(value, self.draws)) for name, value in facts.items() if value is not None}
        if self._out is not None:
            from .drawing import facts as drawn  # noqa: PLC0415 - it needs the extra

            self._out.print(drawn(title, shown))
            return
        for name, text in shown.items():
            _write(sys.stdout, f"{name}: {text}")

    @contextmanager
    def progress(self, title: str, total: int | None, *, start: int = 0, unit: str = "rows") -> Iterator[Progress]:
        """Show how a long work goes on, to standard error.

        Args:
            title: What is done.
            total: How many there are; `None` if that is not known.
            start: How many were done before; they do not count for the rate.
            unit: What is counted.
        """
        if self._errors is None:
            lines = PlainProgress(title, total, start=start, unit=unit, say=self.note)
            yield lines
            lines.close()
            return
        from .drawing import live  # noqa: PLC0415 - it needs the extra

        bar = Progress(title, total, start=start, unit=unit)
        with live(self._errors, bar):
            yield bar

    def error(self, problem: Problem) -> None:
        """Print what went wrong to standard error.

        Args:
            problem: What a person can do something about.
        """
        if self.debug:
            sys.stderr.write("".join(traceback.format_exception(problem)))
        if self.json:
            _write(sys.stderr, json.dumps({"error": problem.facts}, ensure_ascii=False))
            return
        parts = problem.facts
        _show(self._errors, sys.stderr, f"error: {_fit(parts.pop('what'))}", style="bold red")
        for name, text in parts.items():
            _show(self._errors, sys.stderr, f"  {name + ':':<10}{_fit(text)}")

    def run(self, work: Callable[[], int]) -> int:
        """Do a command's work, and say in words what ends it.

        SIGTERM ends it as Ctrl-C does. The work may catch `KeyboardInterrupt`, say how far it got, and raise it again.

        Args:
            work: Returns the exit status.
        """
        try:
            with _sigterm_as_interrupt():
                return work()
        except KeyboardInterrupt as interrupt:
            self.note("interrupted")
            return _SIGNALLED + (signal.SIGTERM if isinstance(interrupt, _Terminated) else signal.SIGINT)
        except BrokenPipeError:
            # Who read the output has gone; the interpreter would complain of it once more when it ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return FAILED
        except Exception as error:  # noqa: BLE001 - a person reads it, whatever it is
            problem = problem_of(error)
            self.error(problem)
            return problem.status


def problem_of(error: Exception) -> Problem:
    """An error in words, with itself as the cause."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, OSError):
        file = error.filename
        problem = Problem(error.strerror or str(error) or type(error).__name__, where="" if file is None else str(file))
    elif isinstance(error, (ValueError, ImportError)):
        problem = Problem(str(error))
    else:
        problem = Problem(f"unexpected {type(error).__name__}: {error}", hint="--debug shows where")
    problem.__cause__ = error
    return problem


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def stop(*_: object) -> NoReturn:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _console(stream: TextIO) -> Console | None:
    """What draws on a terminal; `None` where nothing does."""
    if not stream.isatty() or os.environ.get("TERM") in {"dumb", "unknown"}:
        return None
    try:
        from . import drawing  # noqa: PLC0415 - it needs the extra, which need not be there
    except ModuleNotFoundError:
        return None
    return drawing.console(stream)


def _show(console: Console | None, stream: TextIO, line: str, style: str | None = None) -> None:
    if console is None:
        _write(stream, line)
    else:
        console.print(line, style=style, soft_wrap=True)


def _write(stream: TextIO, line: str) -> None:
    stream.write(f"{line}\n")
    stream.flush()


def _folded(line: str, width: int) -> str:
    return textwrap.fill(line, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _fit(text: str) -> str:
    return printable(text, limit=_CHARACTERS)


def _text(value: Any, grouped: bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict) and all(isinstance(count, int) for count in value.values()):
        parts = ", ".join(f"{name} {_text(count, grouped)}" for name, count in sorted(value.items()))
        return f"{_text(sum(value.values()), grouped)} ({parts})" if parts else "0"
    if isinstance(value, float):
        return f"{value:,.1f}" if grouped else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) and grouped else str(value)
