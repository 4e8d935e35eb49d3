"""A first look at a source: how its rows are written, what its columns are called, and what is in them."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, cast

from .problems import ImportProblem, RowProblem
from .rows import Form, Rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .mapping import Mapping as Plan
    from .source import Head, Source

SAMPLE_ROWS: Final = 1_000
_DELIMITERS: Final = (",", ";", "\t", "|")
_NAMED: Final = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "\\t": "\t"}
_JSON_ENDINGS: Final = (".jsonl", ".ndjson", ".jsonlines")
_TRIED_LINES: Final = 200
_EARLY_LINES: Final = 20
_SEPARATOR: Final = re.compile(rb'"?sep=([\t -~])"?\r?\n', re.IGNORECASE)
_ARRAY: Final = re.compile(rb"\s*\[\s*\{")


@dataclass(frozen=True)
class Look:
    """What a first look found.

    Attributes:
        form: How rows are written.
        columns: The columns' names, in their order.
        cells: The first cells of each column, by its name; what JSON says is no text stands here as it is.
        offset: The bytes before the first row of data.
        line: The lines before it.
        whole: Whether all of the source was seen.
    """

    form: Form
    columns: tuple[str, ...]
    cells: Mapping[str, Sequence[Any]]
    offset: int
    line: int
    whole: bool


def look_at(
    source: Source,
    *,
    kind: str | None = None,
    delimiter: str | None = None,
    quote: str | None = None,
    header: bool = True,
    wanted: Iterable[str] = (),
) -> Look:
    """Look at a source's beginning.

    Args:
        source: The source.
        kind: `csv` or `jsonl`; `None`: by the file's name, or else by its first character.
        delimiter: What separates cells; `None`: found out.
        quote: What encloses them, or an empty string; `None`: found out.
        header: Whether the first row has the columns' names; if not, they are called by their numbers.
        wanted: Names that columns must have: where the first row has not all of them, the error tells which one has.

    Raises:
        ImportProblem: If no sense can be made of it.
    """
    head, said = _without_separator(source.head)
    if not head.data.strip():
        raise ImportProblem("there is nothing in it", where=source.name)
    if kind is None:
        kind = "jsonl" if _is_json(source.path, head) else "csv"
    if kind == "jsonl":
        return _look_at_json(source, source.head)
    above = 1 if said else 0
    form = _form(head, delimiter or said, quote, source.name)
    rows = Rows(_stream(head), form, offset=head.skipped, line=above)
    found = [(row, rows.offset, rows.line) for _, row in islice(rows, SAMPLE_ROWS + 1) if row is not None]
    if not head.whole and len(found) > 1 and rows.offset == head.skipped + len(head.data):
        found.pop()  # it may go on beyond what was read
    first, offset, line = found[0]
    if isinstance(first, RowProblem):
        raise ImportProblem(f"the first row cannot be read: {first.detail}", where=f"{source.name}:1")
    if header:
        names, sample = _names(first), found[1:]
        _check_line(head, names, set(wanted), where=source.name, above=above)
        names += ("",) * _unnamed(names, [row for row, _, _ in sample])
    else:
        names, sample = tuple(str(place + 1) for place in range(len(first))), found
        offset, line = head.skipped, above
    good = [row for row, _, _ in sample if isinstance(row, list) and len(row) == len(names)]
    cells = {name: [row[place] for row in good] for place, name in enumerate(names) if name}
    return Look(form, names, cells, offset, line, head.whole and len(found) <= SAMPLE_ROWS)


def look_of(source: Source, plan: Plan) -> Look:
    """A look at a source as a mapping says that it is written.

    Raises:
        ImportProblem: If the mapping does not fit.
    """
    how: dict[str, Any] = {"kind": plan.format, "delimiter": plan.delimiter, "quote": plan.quote}
    look = look_at(source, **how, header=plan.header, wanted=plan.columns)
    plan.checked(look.columns, source.name)
    return look


def _stream(head: Head) -> io.BufferedReader:
    return io.BufferedReader(cast("io.RawIOBase", io.BytesIO(head.data)))


def _without_separator(head: Head) -> tuple[Head, str | None]:
    """What stands behind the line by which a file tells Excel what its cells are separated by, and what that is."""
    found = _SEPARATOR.match(head.data)
    if found is None:
        return head, None
    return head._replace(data=head.data[found.end() :], skipped=head.skipped + found.end()), found[1].decode()


def _is_json(path: str, head: Head) -> bool:
    name = path.lower().removesuffix(".gz")
    return name.endswith(_JSON_ENDINGS) or (
        not name.endswith((".csv", ".tsv", ".txt"))
        and (head.data.lstrip()[:1] == b"{" or _ARRAY.match(head.data) is not None)
    )


def _look_at_json(source: Source, head: Head) -> Look:
    if _ARRAY.match(head.data):
        raise ImportProblem(
            "all of it is one JSON array",
            where=f"{source.name}:1",
            expected="JSON Lines, an object in each line, as jq -c '.[]' makes them",
        )
    form = Form("jsonl", head.encoding, wide=head.wide)
    rows = [row for _, row in islice(Rows(_stream(head), form), SAMPLE_ROWS) if isinstance(row, dict)]
    if not rows:
        raise ImportProblem(
            "the beginning has no JSON object", where=f"{source.name}:1", expected="an object in each line"
        )
    names = tuple(dict.fromkeys(name for row in rows for name in row))
    cells = {name: [row[name] for row in rows if row.get(name) is not None] for name in names}
    return Look(form, names, cells, head.skipped, 0, head.whole)


def _names(row: Sequence[str]) -> tuple[str, ...]:
    """The columns' names; where several are called the same, as in Jira's exports, the later ones are numbered."""
    names = [name.strip() for name in row]
    taken, seen = set(names), set()
    for place, name in enumerate(names):
        if name and name in seen:
            number = 2
            while f"{name} {number}" in taken:
                number += 1
            names[place] = f"{name} {number}"
            taken.add(names[place])
        seen.add(name)
    return tuple(names)


def _unnamed(names: Sequence[str], rows: Sequence[Any]) -> int:
    """How many columns stand behind the header's last one: most rows end with a delimiter, and the header does not.

    What is in them would be sent nowhere, so they are empty ones, or else there are none.
    """
    lists = [row for row in rows if isinstance(row, list)]
    ((width, _),) = Counter(map(len, lists)).most_common(1) or [(0, 0)]
    behind = (cell for row in lists if len(row) == width for cell in row[len(names) :])
    return 0 if any(behind) else max(width - len(names), 0)


def _check_line(head: Head, names: Sequence[str], wanted: set[str], *, where: str, above: int) -> None:
    """Say which line has the names that the first one has not: in many exports titles stand before them."""
    missing = wanted - set(names)
    lines = head.data.decode(head.encoding, "replace").split("\n")[1:_EARLY_LINES] if missing else []
    for number, line in enumerate(lines, above + 2):
        for delimiter in _DELIMITERS:
            cells = next(csv.reader([line.rstrip("\r")], delimiter=delimiter), [])
            if wanted <= {cell.strip() for cell in cells}:
                raise ImportProblem(
                    f"there is no column called {min(missing)}",
                    where=f"{where}:{above + 1}",
                    found=", ".join(name for name in names if name),
                    expected=f"it in the first line; line {number} has it, and tail -n +{number} begins there",
                )


def _form(head: Head, delimiter: str | None, quote: str | None, where: str) -> Form:
    """The form in which the first rows have the same number of cells, and of such forms that with the most cells."""
    if delimiter is not None:
        delimiter = _NAMED.get(delimiter.lower(), delimiter)
        if len(delimiter) != 1:
            raise ImportProblem("a delimiter is one character, or tab", where="delimiter", found=delimiter)
    if quote is not None and len(quote) > 1:
        raise ImportProblem("a quote is one character, or nothing", where="quote", found=quote)
    if b"\n" not in head.data and b"\r" in head.data:
        raise ImportProblem(
            "its lines end with a carriage return alone", where=where, expected="newlines, as tr '\\r' '\\n' makes them"
        )
    best, form = (0.0, 0), Form("csv", head.encoding, delimiter or ",", '"' if quote is None else quote, head.wide)
    for one in _DELIMITERS if delimiter is None else (delimiter,):
        for other in ('"', "'", "") if quote is None else (quote,):
            tried = Form("csv", head.encoding, one, other, head.wide)
            score = _score(head, tried)
            if score > best:
                best, form = score, tried
    return form


def _score(head: Head, form: Form) -> tuple[float, int]:
    if form.quote == "'" and form.quote.encode() not in head.data:
        return 0.0, 0
    widths = []
    for _, row in islice(Rows(_stream(head), form), _TRIED_LINES):
        if row is not None:
            widths.append(len(row) if isinstance(row, list) else 0)
    width = widths[0] if widths else 0
    if width < 2:  # noqa: PLR2004 - one cell in a row is what every wrong delimiter finds
        return 0.0, 0
    return round(widths.count(width) / len(widths), 1), width
