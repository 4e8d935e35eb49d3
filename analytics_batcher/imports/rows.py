"""Rows out of a stream, each with the line at which it begins and the bytes that it is made of."""

from __future__ import annotations

import csv
import io
import re
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, cast

from ..encoding import loads
from .problems import RowProblem

if TYPE_CHECKING:
    from collections.abc import Iterator

    Row = tuple[int, Any]

_SURROGATES: Final = re.compile("[\udc00-\udcff]+")
MOST_LINE_BYTES: Final = 2**20
"""A line beyond it is refused, and not kept in memory: no vendor takes a message that large."""


class Form(NamedTuple):
    """How rows are written.

    Attributes:
        kind: `csv` or `jsonl`.
        encoding: The encoding of the lines.
        delimiter: What separates cells.
        quote: What encloses cells; empty if nothing does.
        wide: The source's own encoding, as `Head` has it.
    """

    kind: str = "csv"
    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str = '"'
    wide: str = ""

    def text_of(self, raw: bytes) -> str:
        """Bytes of the source as text, of which each one that cannot be decoded is a lone surrogate."""
        try:
            return raw.decode(self.encoding, "surrogatepass" if self.wide else "surrogateescape")
        except UnicodeDecodeError:  # cut within a character, or of an encoding in which such a byte is below 128
            return raw.decode(self.encoding, "replace")


class Rows:
    """The rows of a stream.

    Iterating yields a line's number with the row: a list of cells, a decoded JSON object, `None` of a blank line, or
    the `RowProblem` of one that cannot be read. After each, `offset`, `line` and `taken` say where it ended.

    Args:
        stream: The bytes, from a row's beginning on.
        form: How they are written.
        offset: The bytes of the source before them.
        line: The lines before them.
        width: How many cells a row has; 0: not known.

    Attributes:
        offset: The bytes of the source that were read, up to the last row's end.
        line: The lines, likewise.
        taken: The lines of the last row, as they were read.
    """

    def __init__(self, stream: BinaryIO, form: Form, *, offset: int = 0, line: int = 0, width: int = 0) -> None:
        self._stream = stream
        self._form = form
        self._width = width
        self.offset = offset
        self.line = line
        self.taken: list[bytes] = []
        self._again: list[bytes] = []
        self._fault: RowProblem | None = None

    def __iter__(self) -> Iterator[Row]:
        return self._json_rows() if self._form.kind == "jsonl" else self._csv_rows()

    def _raw_lines(self) -> Iterator[bytes]:
        readline, again, taken = self._stream.readline, self._again, self.taken
        while True:
            known = bool(again)
            raw = again.pop() if known else readline(MOST_LINE_BYTES)
            if not raw:
                return
            self.line += 1
            self.offset += len(raw)
            taken.append(raw)
            if len(raw) == MOST_LINE_BYTES and is_cut(raw):
                self._fault = RowProblem("unreadable", f"the line has over {MOST_LINE_BYTES} bytes")
                if not known:
                    self._pass_over(readline)
            yield raw

    def _pass_over(self, readline: Any) -> None:
        while rest := readline(MOST_LINE_BYTES):
            self.offset += len(rest)
            if rest.endswith(b"\n"):
                return

    def _lines(self) -> Iterator[str]:
        encoding = self._form.encoding
        for raw in self._raw_lines():
            if b"\0" in raw:  # Python 3.10 reads no such row, and later ones make text of it that databases refuse
                self._fault = RowProblem("unreadable", "has a NUL character", expected="text; --encoding says which")
                raw = raw.replace(b"\0", b"?")  # noqa: PLW2901 - it is refused
            try:
                yield raw.decode(encoding)
            except UnicodeDecodeError:
                self._fault = _undecodable(raw, self._form)
                yield raw.decode(encoding, "replace")

    def _csv_rows(self) -> Iterator[Row]:
        form, taken = self._form, self.taken
        quoting = csv.QUOTE_MINIMAL if form.quote else csv.QUOTE_NONE
        dialect: Any = {"delimiter": form.delimiter, "quotechar": form.quote or None, "quoting": quoting}
        begin = self.line + 1
        while True:  # anew after an error: a generator that came to the file's end within quotes is not resumed
            try:
                for cells in csv.reader(self._lines(), strict=True, **dialect):
                    if self._fault is not None:
                        yield begin, self._refused()
                    elif not cells:
                        yield begin, None
                    elif self._width and len(cells) != self._width:
                        yield begin, self._of_wrong_width(cells)
                    else:
                        yield begin, cells
                    taken.clear()
                    begin = self.line + 1
            except csv.Error as error:  # noqa: PERF203 - one for all rows up to the next error
                problem = self._refused() if self._fault is not None else _unreadable(error)
                self._give_back()
                yield begin, problem
                taken.clear()
                begin = self.line + 1
            else:
                return

    def _refused(self) -> RowProblem:
        fault, self._fault = self._fault, None
        assert fault is not None  # noqa: S101 - for the type checker
        return fault

    def _of_wrong_width(self, cells: list[str]) -> RowProblem:
        return RowProblem(
            "cells", "has another number of cells than the header", found=str(len(cells)), expected=str(self._width)
        )

    def _give_back(self) -> None:
        """Read again all lines but the first of a row whose quotes are wrong: they may be rows of their own."""
        given = self.taken[:0:-1]
        self._again += given
        self.offset -= sum(map(len, given))
        self.line -= len(given)
        del self.taken[1:]

    def _json_rows(self) -> Iterator[Row]:
        taken = self.taken
        for raw in self._raw_lines():
            row: Any = None
            if self._fault is not None:
                row = self._refused()
            elif not raw.isspace():
                try:
                    row = loads(raw)
                except ValueError as error:
                    row = _undecodable(raw, self._form) or RowProblem("unreadable", f"is not JSON: {error}")
                if not isinstance(row, (dict, RowProblem)):
                    row = RowProblem(
                        "unreadable", "is no JSON object", found=type(row).__name__, expected="an object in a line"
                    )
            yield self.line, row
            taken.clear()


def row_of(raw: bytes, form: Form) -> Any:
    """One row, read again out of the bytes that it is made of."""
    stream = io.BufferedReader(cast("io.RawIOBase", io.BytesIO(raw)))
    return next(iter(Rows(stream, form)))[1]


def is_cut(raw: bytes) -> bool:
    """Whether lines end with one of which only the beginning was kept."""
    return len(raw) >= MOST_LINE_BYTES and not raw.endswith(b"\n")


def _undecodable(raw: bytes, form: Form) -> RowProblem | None:
    """What of a line is no text, if anything."""
    try:
        raw.decode(form.encoding)
    except UnicodeDecodeError as error:
        octets = error.object[error.start : error.end]
        if form.wide:
            marked = _SURROGATES.search(form.text_of(raw))
            octets = bytes(ord(one) & 0xFF for one in marked[0]) if marked else octets
        name = form.wide or form.encoding
        return RowProblem("unreadable", f"is not {name}", found=f"byte {octets[:4].hex(' ')}", expected=name)
    return None


def _unreadable(error: csv.Error) -> RowProblem:
    text = str(error)
    if "end of data" in text:
        text = "a quoted cell has no end"
    elif "expected after" in text:
        text = "a quoted cell goes on after its closing quote, or an earlier one has no end"
    elif "field limit" in text:
        text = f"a cell has over {csv.field_size_limit()} characters, or a quoted one has no end"
    return RowProblem("unreadable", text)
