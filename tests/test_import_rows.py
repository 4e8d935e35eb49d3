"""The parts of an import: rows and their lines, columns and their types, ids, the checkpoint, the refused rows."""

from __future__ import annotations

import io
import json
import os
from datetime import timezone
from uuid import UUID

import pytest

from analytics_batcher.imports import checkpoint as checkpoints
from analytics_batcher.imports.checkpoint import Checkpoint
from analytics_batcher.imports.columns import found_in, moments_in, trait_of
from analytics_batcher.imports.ids import ids_for
from analytics_batcher.imports.look import look_at
from analytics_batcher.imports.mapping import Mapping
from analytics_batcher.imports.mapping_file import from_toml, to_toml
from analytics_batcher.imports.problems import ImportProblem, RowProblem
from analytics_batcher.imports.rejected import Rejected
from analytics_batcher.imports.rows import MOST_LINE_BYTES, Form, Rows
from analytics_batcher.imports.source import Source


def rows_of(data, form=Form(), width=3):  # noqa: B008 - it cannot change
    """The rows of some bytes, each with its line, and what of a bad one was said; and the reader."""
    rows = Rows(io.BufferedReader(io.BytesIO(data)), form, width=width)
    return [(line, row.reason if isinstance(row, RowProblem) else row) for line, row in rows], rows


def test_lines_are_those_of_the_file():
    """A row is told by the line at which it begins, over quoted newlines, blank lines and either end of a line."""
    data = b'a,"b\nb",c\r\n\r\nd,e,f\n1,2\n7,8,9'
    found, rows = rows_of(data)
    assert found == [(1, ["a", "b\nb", "c"]), (3, None), (4, ["d", "e", "f"]), (5, "cells"), (6, ["7", "8", "9"])]
    assert (rows.line, rows.offset) == (6, len(data))


@pytest.mark.parametrize("bad", [b'x,"y,z\n', b'x,"y" z,z\n', b'"x,y,z\n'])
def test_a_quote_without_an_end_costs_its_own_row(bad):
    """The rows behind a row with a quote too much are read as rows, whether quotes follow or not."""
    good = b'1,2,3\n4,"5",6\n' * 3
    found, rows = rows_of(good + bad + good)
    assert [line for line, row in found if row == "unreadable"] == [7]
    assert [row for _, row in found if row != "unreadable"] == [["1", "2", "3"], ["4", "5", "6"]] * 6
    assert rows.offset == len(good + bad + good)


def test_a_quote_without_an_end_does_not_read_the_file_into_memory():
    """What such a quote takes in is bounded, and given back."""
    good = b"1,2,3\n" * 50_000
    found, rows = rows_of(b'x,"y,z\n' + good)
    assert [row for _, row in found[:2]] == ["unreadable", ["1", "2", "3"]]
    assert (len(found), rows.offset) == (50_001, len(good) + 7)


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_line_without_an_end_is_refused(kind):
    """A line over a megabyte is passed over, and not kept."""
    data = b'{"a":1}\n{"' + b"x" * (3 * MOST_LINE_BYTES) + b'":1}\n{"a":2}\n'
    found, rows = rows_of(data, Form(kind), width=1)
    assert [line for line, _ in found] == [1, 2, 3]
    assert found[1][1] == "unreadable"
    assert rows.offset == len(data)
    assert max(len(one) for one in rows.taken or [b""]) <= MOST_LINE_BYTES


@pytest.mark.parametrize(
    ("encoding", "bad"),
    [("utf-16-le", b"\x00\xd8"), ("utf-16-be", b"\xd8\x00"), ("utf-32-le", b"\x00\x00\x11\x00"), ("utf-8", b"\xff")],
)
@pytest.mark.parametrize("named", [True, False])
def test_bytes_that_are_no_text_cost_their_row(tmp_path, encoding, bad, named):
    """In any encoding, what cannot be decoded is refused with its row and the bytes, and never replaced."""
    path = tmp_path / "x.csv"
    good = "\ufeffid,name\nu1,Zoë\n".encode(encoding)
    path.write_bytes(good + "u2,".encode(encoding) + bad + "x\nu3,y\n".encode(encoding) + b"\xff")
    source = Source(str(path), encoding if named else None)
    look = look_at(source)
    rows = Rows(source.at(look.offset)[0], look.form, offset=look.offset, line=look.line, width=2)
    found = [(line, row, look.form.text_of(b"".join(rows.taken))) for line, row in rows]
    source.close()
    assert look.columns == ("id", "name")
    assert [row for _, row, _ in found if isinstance(row, list)] == [["u1", "Zoë"], ["u3", "y"]]
    (line, problem, text), (_, last, rest) = [one for one in found if isinstance(one[1], RowProblem)]
    assert (line, problem.reason, problem.found) == (3, "unreadable", f"byte {bad.hex(' ')}")
    assert problem.detail.startswith(f"is not {encoding[:6].rstrip('-')}")
    assert text == f"u2,{''.join(chr(0xDC00 + byte) for byte in bad)}x\n"
    assert (last.found, rest) == ("byte ff", "\udcff")


def test_a_row_with_a_nul_is_refused():
    """No Python makes text of it that a vendor's database would refuse; the rows around it are read."""
    found = [
        row if isinstance(row, list) else (row.reason, row.detail)
        for _, row in Rows(io.BytesIO(b"a,b\n1,\0\n2,3\n"), Form())
    ]
    assert found == [["a", "b"], ("unreadable", "has a NUL character"), ["2", "3"]]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-20", "0"], "integer"),
        (["1", "02"], "text"),
        (["01234", "99999"], "text"),
        (["1", "2.50", "1e3"], "number"),
        (["1234567890123456"], "text"),
        (["true", "False", ""], "boolean"),
        (["0", "1"], "integer"),
        (["NO", "SE"], "text"),
        (["2024-01-02", "2024-02-29"], "date"),
        (["2024-02-30"], "text"),
        (["2024-01-02T03:04:05Z", "2024-01-02 03:04:05.123+01:00"], "datetime"),
        (["nan"], "text"),
        (["inf", "1"], "text"),
        (["1_000"], "text"),
        (["٣"], "text"),
        ([], "text"),
        (["1"] * 199 + ["n/a"], "integer"),
        (["1"] * 50 + ["n/a"], "text"),
        (["1"] * 199 + ["007"], "text"),
    ],
)
def test_types_are_columns(cells, kind):
    """A column has a type if all its cells, but for one in a hundred, are of it; leading zeros make it text."""
    assert found_in(cells).kind == kind


@pytest.mark.parametrize(
    ("kind", "cell", "value"),
    [
        ("integer", " 12 ", 12),
        ("number", "1e3", 1000.0),
        ("comma_number", "1.234,5", 1234.5),
        ("boolean", "Yes", True),
        ("date", "2024-02-29", "2024-02-29"),
        ("datetime", "2024-01-02 03:04", "2024-01-02T03:04:00.000Z"),
        ("datetime", "2024-01-02T03:04:05.1234567+0130", "2024-01-02T01:34:05.123Z"),
        ("datetime", "2024-01-02 03:04:05 UTC", "2024-01-02T03:04:05.000Z"),
        ("epoch_ms", "1704164645678", "2024-01-02T03:04:05.678Z"),
        ("epoch_s", "1704164645", "2024-01-02T03:04:05.000Z"),
        ("%d/%m/%Y", "31/12/2023", "2023-12-31T00:00:00.000Z"),
    ],
)
def test_cells_become_values(kind, cell, value):
    """A cell becomes the value that its column's type says, on every Python."""
    assert trait_of(kind, timezone.utc)(cell) == value


@pytest.mark.parametrize(
    ("kind", "cell"),
    [
        ("integer", "007"),
        ("integer", "1.5"),
        ("number", "NaN"),
        ("number", "0x1"),
        ("boolean", "si"),
        ("date", "2024-13-01"),
    ],
)
def test_cells_of_another_type_are_refused(kind, cell):
    """A cell that is not of its column's type becomes no other value."""
    with pytest.raises(ValueError, match=r".*"):
        trait_of(kind, timezone.utc)(cell)


def test_moments_are_recognised():
    """Unix times by their digits, and ISO 8601; a column of which most is neither has none."""
    assert moments_in(["1704164645", "bad", "1704164645"]).kind == "epoch_s"
    assert moments_in(["1704164645678901"]).kind == "epoch_us"
    assert moments_in(["2024-01-02", "2024-01-02T00:00:00"]).kind == "datetime"
    assert moments_in(["31/12/2023"]) is None


@pytest.mark.parametrize(
    ("text", "delimiter", "quote"),
    [
        ("a;b\n1,5;2\n", ";", '"'),
        ("a\tb\n1,5\t2;3\n", "\t", '"'),
        ("a|b|c\n1|2|3\n", "|", '"'),
        ('a,b\n"x;y;z",2\n', ",", '"'),
        ("a,b\n'x,y',2\n'z,z',3\n", ",", "'"),
        ('a\tb\n5" pipe\t1\n"half\t2\n6" x\t3\n', "\t", ""),
        ("a\n1\n2\n", ",", '"'),
    ],
)
def test_the_form_is_found(tmp_path, text, delimiter, quote):
    """Delimiter and quotes are those with which all rows have as many cells as the header."""
    path = tmp_path / "x.csv"
    path.write_text(text)
    source = Source(str(path))
    look = look_at(source)
    source.close()
    assert (look.form.delimiter, look.form.quote) == (delimiter, quote)
    assert look.columns[0] == "a"


def test_ids_are_of_content_and_position():
    """The same row at the same line has the same UUID of version 5; another line, row or mapping has another."""
    id_of = ids_for("m")
    one = id_of(2, b"u1,x\n")
    assert one == ids_for("m")(2, b"u1,x\r\n")
    assert len({one, id_of(3, b"u1,x"), id_of(2, b"u2,x"), ids_for("n")(2, b"u1,x")}) == 4
    assert (UUID(one).version, str(UUID(one))) == (5, one)


def test_a_mapping_survives_its_file(tmp_path):
    """What is written as TOML is read as the same mapping, whatever the columns are called."""
    columns = ("id", 'na"me', "ta\\b\t", "é😀", "at")
    mapping = Mapping("user", {"id": "id", "account_id": "=acme"}, drop=("at",), types={"id": "text"})
    path = tmp_path / "m.toml"
    path.write_text(to_toml(mapping, columns, {"id": found_in(["1"])}), encoding="utf-8")
    read = from_toml(str(path))
    assert read.traits == {name: name for name in columns[1:4]}
    assert (read.kind, read.fields, read.drop, read.types) == ("user", mapping.fields, ("at",), {"id": "text"})


@pytest.mark.parametrize(
    "text", ["as = 5", 'as = "user"\nidd = "x"', 'id = "x"', "as = [", 'as = "user"\nid = "i"\ndrop = "x"']
)
def test_a_wrong_mapping_is_named(tmp_path, text):
    """A mapping that makes no sense is refused, with its file."""
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(ImportProblem, match=r"m\.toml"):
        from_toml(str(path))


def test_a_checkpoint_is_replaced_whole(tmp_path):
    """What is read is what was written; what is none is refused; a half-written one is never seen."""
    path = tmp_path / "c.json"
    assert checkpoints.read(path) is None
    one = Checkpoint(1, "h", "m", "2024-01-01T00:00:00+00:00", 10, 2)
    checkpoints.write(path, one)
    (tmp_path / "c.json.new").write_text("{")  # as a kill leaves it
    assert checkpoints.read(path) == one
    two = one.moved(offset=20, line=3, last=b"x")
    checkpoints.write(path, two)
    assert checkpoints.read(path) == two
    path.write_text("{}")
    with pytest.raises(ImportProblem):
        checkpoints.read(path)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(tmp_path, monkeypatch):
    """Whatever ends it in the middle of the writing, the one before is there whole."""
    path = tmp_path / "c.json"
    one = Checkpoint(1, "h", "m", "2024-01-01T00:00:00+00:00", 10, 2)
    checkpoints.write(path, one)

    def fail(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        checkpoints.write(path, one.moved(offset=20, line=3, last=b"x"))
    assert checkpoints.read(path) == one


def test_what_the_checkpoint_does_not_know_is_cut_off(tmp_path):
    """Refused rows that were written before a kill, and will be met again, are not there twice; two imports exclude."""
    path = tmp_path / "r.jsonl"
    first = Rejected(path)
    size = first.add([{"line": 2}])
    first.add([{"line": 3}])
    if os.name == "posix":  # where there are locks of files
        with pytest.raises(ImportProblem, match="at work"):
            Rejected(path)
    first.close()
    second = Rejected(path)
    second.keep(size)
    second.add([{"line": 3}])
    second.close()
    assert [json.loads(line)["line"] for line in path.read_text().splitlines()] == [2, 3]
    third = Rejected(path)
    third.keep(0)
    third.close()
    assert not path.exists()


def test_a_new_file_is_on_the_disk_with_its_name(tmp_path, monkeypatch):
    """The folder of the refused rows, and that of the checkpoint, are written back once, with the first content."""
    if os.name != "posix":
        pytest.skip("folders cannot be written back here")
    synced, fsync = [], os.fsync

    def noted(file):
        synced.append(os.fstat(file).st_ino)
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    (tmp_path / "other").mkdir()
    rejected = Rejected(tmp_path / "other" / "r.jsonl")
    for line in (2, 3):
        rejected.add([{"line": line}])
    rejected.close()
    for line in (2, 3):
        checkpoints.write(tmp_path / "c.json", Checkpoint(1, "h", "m", "2024-01-01T00:00:00+00:00", 10, line))
    assert synced.count((tmp_path / "other").stat().st_ino) == 1
    assert synced.count(tmp_path.stat().st_ino) == 1
    assert len(synced) == 6


def test_no_row_is_noted_in_a_file_that_another_import_has_just_removed(tmp_path, monkeypatch):
    """An import ends, and removes its empty file, just when the next one has opened that."""
    fcntl = pytest.importorskip("fcntl", reason="this system has no such locks")
    path, flock, held = tmp_path / "r.jsonl", fcntl.flock, [Rejected(tmp_path / "r.jsonl")]

    def late(*arguments):
        if held:
            held.pop().close()
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    second = Rejected(path)
    second.add([{"line": 2}])
    with pytest.raises(ImportProblem, match="at work"):
        Rejected(path)
    second.close()
    assert path.read_text() == '{"line": 2}\n'
