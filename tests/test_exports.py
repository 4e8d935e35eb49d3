"""What real exports are like: tried with those of DATEV, banks, Jira, Google Trends, Excel, Slack, Superset and others.

The rows are made up; how they are written is not.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TOKEN

from analytics_batcher.imports.columns import moment_of, moments_in, zone_of
from analytics_batcher.imports.likely import formats_in, likely_in, option_for

pytest.importorskip("click", reason="the command needs the extra `cli`")

PREFIX = "ANALYTICS_BATCHER_"
ACCOUNT = ("--as", "account", "--id")
TRACK = ("--as", "track", "--event", "=Booked", "--id")


@pytest.fixture
def run(tmp_path, receiver):
    """Imports bytes as a file, and then once more, which delivers nothing; the status, the facts and the errors."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    own = {"DESTINATION": "vitally", "VITALLY_API_TOKEN": TOKEN, "BASE_URL": receiver.url}
    settings = {**kept, **{PREFIX + name: value for name, value in own.items()}}

    def command(path, *arguments):
        program = [sys.executable, "-m", "analytics_batcher", "import", str(path), *arguments]
        return subprocess.run(program, env=settings, capture_output=True, text=True, timeout=60, check=False)

    def run(data, *arguments, name="export.csv"):
        path = tmp_path / name
        path.write_bytes(data)
        done = command(path, *arguments, "--json")
        facts = json.loads(done.stdout) if done.stdout else {}
        if facts:
            assert facts["rows"] == facts["delivered"] + facts["rejected"] + facts["skipped"]
            assert len(receiver.messages) == facts["delivered"]
            again = json.loads(command(path, *arguments, "--json").stdout)
            assert again["earlier"] == facts["rows"]
            assert len(receiver.messages) == facts["delivered"]
        return done.returncode, facts, done.stderr

    run.dry = lambda path, *arguments: command(path, *arguments, "--dry-run")
    return run


def test_an_export_that_tells_excel_its_separator(run, receiver):
    """The line `sep=;` is none of the rows: the header is in line 2, and lines are still counted from the first one."""
    data = (
        b"\xef\xbb\xbfsep=;\r\n"
        b'Kundennummer;Firma;Telefon;"Umsatz";Rabatt;Anlage\r\n'
        b'00017;"M\xc3\xbcller; S\xc3\xb6hne";+49 30 1234;"1.234,50";5 %;31.12.2024\r\n'
        b"00018;'Acme;;-3,4;12,5 %;1.2.2025\r\n"
        b"00019;zu;viele;1,0;Zellen;1.2.2025;7\r\n"
    )
    types = ("--type", "Umsatz=comma_number", "--type", "Anlage=%d.%m.%Y", "--timezone", "Europe/Berlin")
    status, facts, errors = run(data, *ACCOUNT, "Kundennummer", *types)
    assert (status, facts["rows"], facts["rejected"]) == (3, 3, 1), errors
    one, two = receiver.messages
    assert (one["accountId"], one["traits"]) == (
        "00017",
        {
            "Firma": "Müller; Söhne",
            "Telefon": "+49 30 1234",
            "Umsatz": 1234.5,
            "Rabatt": "5 %",
            "Anlage": "2024-12-30T23:00:00.000Z",
        },
    )
    expected = {"Firma": "'Acme", "Umsatz": -3.4, "Rabatt": "12,5 %", "Anlage": "2025-01-31T23:00:00.000Z"}
    assert (two["accountId"], two["traits"]) == ("00018", expected)
    (place,) = facts["rejected_rows_in"]
    rows = [json.loads(line) for line in Path(place).read_text(encoding="utf-8").splitlines()]
    assert [(row["line"], row["found"]) for row in rows] == [(5, "7")]


@pytest.mark.parametrize("separator", ["sep=;", "SEP=;", '"sep=;"'])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("header", [True, False])
def test_the_line_of_the_separator(run, receiver, separator, encoding, header):
    """It is found however it is written, in a wide encoding too, and decides though another delimiter fits better."""
    names, named = ("id;a\n", ("id",)) if header else ("", ("1", "--no-header"))
    data = f"{separator}\n{names}u1;1,2,3\nu2;4,5,6\nu3;7;8,9\n".encode(encoding)
    status, facts, errors = run(data, *ACCOUNT, *named)
    assert (status, facts["rows"]) == (3, 3), errors
    row = json.loads(Path(facts["rejected_rows_in"][0]).read_text(encoding="utf-8"))
    assert (row["line"], row["reason"]) == (5 if header else 4, "cells")
    column = "a" if header else "2"
    assert [(one["accountId"], one["traits"]) for one in receiver.messages] == [
        ("u1", {column: "1,2,3"}),
        ("u2", {column: "4,5,6"}),
    ]


def test_a_file_of_nothing_but_a_separator(run):
    """It is said that there is nothing in it."""
    status, _, errors = run(b"sep=;\r\n", *ACCOUNT, "id")
    assert (status, "there is nothing in it" in errors) == (1, True)


@pytest.mark.parametrize("above", [b"", b"sep=,\n"])
def test_titles_above_the_header(run, receiver, above):
    """The error names the line that has the columns' names, and what it says makes a file that is taken."""
    data = above + b'Category: All categories\n\nWeek,"Acme, Inc.: (Worldwide)"\n2024-01-07,31\n2024-01-14,48\n'
    line = 4 if above else 3
    arguments = (*TRACK, "=all", "--timestamp", "Week")
    status, _, errors = run(data, *arguments)
    error = json.loads(errors)["error"]
    assert (status, error["what"], error["found"]) == (1, "there is no column called Week", "Category: All categories")
    assert f"line {line} has it, and tail -n +{line} begins there" in error["expected"]
    rest = b"".join(data.splitlines(keepends=True)[line - 1 :])
    assert run(rest, *arguments, name="rest.csv")[0] == 0
    assert [(one["timestamp"], one["properties"]) for one in receiver.messages] == [
        ("2024-01-07T00:00:00.000Z", {"Acme, Inc.: (Worldwide)": 31}),
        ("2024-01-14T00:00:00.000Z", {"Acme, Inc.: (Worldwide)": 48}),
    ]


def test_columns_of_one_name(run, receiver):
    """Jira's watchers and comments, a column for each: the later ones are numbered, and no name is there twice."""
    data = (
        b"Summary,Issue key,Watchers,Watchers,Watchers,Comment 2,Comment,Comment\n"
        b'Export fails,A-1,w1,,w3,own,"22/Sep/25; ""Why?""\nSince May","so, what"\n'
    )
    status, _, errors = run(data, *TRACK, "Issue key")
    assert status == 0, errors
    assert receiver.messages[0]["properties"] == {
        "Summary": "Export fails",
        "Watchers": "w1",
        "Watchers 3": "w3",
        "Comment 2": "own",
        "Comment": '22/Sep/25; "Why?"\nSince May',
        "Comment 3": "so, what",
    }


def test_rows_that_end_with_a_delimiter(run, receiver):
    """Where all rows end with one and the header does not, the empty cells behind it are no cells too many."""
    data = "id\tname\tseats\na1\tOne\t1\t\na2\tTwo\t2\t\na3\t\t\t\n".encode("utf-16")
    status, facts, errors = run(data, *ACCOUNT, "id", name="export.tsv")
    assert (status, facts["rows"]) == (0, 3), errors
    assert [one["traits"] for one in receiver.messages] == [
        {"name": "One", "seats": 1},
        {"name": "Two", "seats": 2},
        {},
    ]


@pytest.mark.parametrize(
    ("data", "refused"),
    [
        (b"id,name,city,note\na1,One,Rome,x\na2,Smith, Inc.,Oslo,\na3,Three,Bonn,y\n", 1),
        (b"id,a\nb1,1,x\nb2,2,\nb3,3,\n", 3),
        (b"id,a\nb1,1\nb2,2\nb3,3,\n", 1),
    ],
    ids=["a delimiter within a name", "something behind the header", "one row only"],
)
def test_a_cell_too_many_is_still_refused(run, data, refused):
    """A row whose cells may have been shifted is refused, though the last of them is empty."""
    status, facts, errors = run(data, *ACCOUNT, "id")
    assert (status, facts["rejected"]) == (3, refused), errors


@pytest.mark.parametrize("name", ["export.json", "export.jsonl"])
def test_a_json_array_is_no_json_lines(run, name):
    """An array of objects, in one line or in many, is called by its name, with what makes lines of it."""
    for data in (b'[{"id": 1}, {"id": 2}]', b'\n[\n  {"id": 1},\n  {"id": 2}\n]\n'):
        status, _, errors = run(data, *ACCOUNT, "id", name=name)
        assert (status, "one JSON array" in errors, "jq -c '.[]'" in errors) == (1, True, True)


def test_lines_that_end_with_a_carriage_return(run):
    """What an old Excel for Mac wrote is refused whole, with what makes newlines of it."""
    status, _, errors = run(b"id,name\ra1,One\r", *ACCOUNT, "id")
    assert (status, "carriage return" in errors, "tr '" in errors) == (1, True, True)


def test_unix_time_with_a_fraction(run, receiver):
    """Slack's and Python's way to write seconds is recognised, and no less exact than a millisecond."""
    data = b"ts,user\n1594058332.037400,u1\n1594058333.5,u2\n1594058334,u3\n"
    status, _, errors = run(data, *TRACK, "user", "--timestamp", "ts")
    assert status == 0, errors
    moments = ["2020-07-06T17:58:52.037Z", "2020-07-06T17:58:53.500Z", "2020-07-06T17:58:54.000Z"]
    assert [one["timestamp"] for one in receiver.messages] == moments


def test_unix_time_is_recognised_by_its_whole_seconds():
    """A number with a point is a moment if it has ten digits before it, and no other one is."""
    assert moments_in(["1594058332.0374", "1594058333"]).kind == "epoch_s"
    assert moments_in(["159405833.5"]) is None
    with pytest.raises(ValueError, match=r".*"):
        moment_of("epoch_ms", zone_of("UTC"))("1594058332.5")


BANK = (
    "Konto;Gebucht;Betrag;Saldo;Punkte;Menge;Text\r\n"
    "17;31.12.2024;-24,95;1.200,5;1.234;3,125;M\xfcller\r\n"
    "17;2.1.2025;5950,00;7;12.000;1,500;\r\n"
).encode("cp1252")


def test_a_dry_run_tells_what_text_may_be_meant_as(tmp_path, run, receiver):
    """Decimal commas, dates and a guessed encoding are told with the option for each, and the options work."""
    path = tmp_path / "bank.csv"
    path.write_bytes(BANK)
    done = run.dry(path, *TRACK, "Konto")
    assert done.returncode == 0
    notes = done.stderr.splitlines()
    assert notes == [
        f"{path} is not UTF-8, and is taken for cp1252; --encoding says another, such as cp1250",
        f"{path}, column Gebucht is taken as text; --type Gebucht=%d.%m.%Y fits",
        f"{path}, column Betrag is taken as text; --type Betrag=comma_number fits; likewise Saldo",
        f"{path}, column Punkte is taken as number; --type Punkte=comma_number fits",
    ]
    types = [f"{name}=comma_number" for name in ("Betrag", "Saldo", "Punkte", "Menge")] + ["Gebucht=%d.%m.%Y"]
    options = [word for one in types for word in ("--type", one)]
    assert run.dry(path, *TRACK, "Konto", *options, "--encoding", "cp1252").stderr == ""
    said = run.dry(path, *TRACK, "Konto", "--type", "Betrag=text", "--type", "Gebucht=text").stderr.splitlines()
    assert [one for one in said if "column" in one] == [
        f"{path}, column Saldo is taken as text; --type Saldo=comma_number fits",
        notes[3],
    ]
    assert run(BANK, *TRACK, "Konto", *options)[0] == 0
    assert [one["properties"] for one in receiver.messages] == [
        {
            "Gebucht": "2024-12-31T00:00:00.000Z",
            "Betrag": -24.95,
            "Saldo": 1200.5,
            "Punkte": 1234,
            "Menge": 3.125,
            "Text": "Müller",
        },
        {"Gebucht": "2025-01-02T00:00:00.000Z", "Betrag": 5950.0, "Saldo": 7, "Punkte": 12000, "Menge": 1.5},
    ]


def test_a_format_is_proposed_for_timestamps(run):
    """The error for a column of moments names the option that takes them, quoted for the shell."""
    data = b"id,Order Date\nu1,1/18/2024\nu2,2/3/2024\n"
    status, _, errors = run(data, *TRACK, "id", "--timestamp", "Order Date")
    assert (status, "--type 'Order Date=%m/%d/%Y' fits\"" in errors) == (1, True)


@pytest.mark.parametrize(
    ("cells", "formats"),
    [
        (["31.12.2013", "", "2.1.2014"], ["%d.%m.%Y"]),
        (["20.02.18"], ["%d.%m.%y"]),
        (["1.2.24"], []),
        (["1/18/2018"], ["%m/%d/%Y"]),
        (["28/02/2018"], ["%d/%m/%Y"]),
        (["01/02/2018"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["10/31/2016 11:07:15 PM", "05/27/2011 12:00:00 AM"], ["%m/%d/%Y %I:%M:%S %p"]),
        (["22/Sep/25 9:26 AM"], ["%d/%b/%y %I:%M %p"]),
        (["23-Sep-11"], ["%d-%b-%y"]),
        (["20240620"], ["%Y%m%d"]),
        (["2012011"], []),
        (["2004-01"], ["%Y-%m"]),
        (["31.12.2013", "soon"], []),
        (["1111/11/11"], []),
        (["Kennedyplatz 1"], []),
        ([], []),
    ],
)
def test_formats_of_moments(cells, formats):
    """A format is one in which all of the cells are days of our time; of two that fit, both are told."""
    assert formats_in(cells) == formats


@pytest.mark.parametrize(
    ("columns", "likely"),
    [
        ({"a": ("text", ["24,95", "", "1.000"])}, {"a": ["comma_number"]}),
        ({"a": ("text", ["6,718", "26,822"])}, {}),
        ({"a": ("text", ["6,718", "12,345,678"])}, {}),
        ({"a": ("text", ["24,95", "n/a"])}, {}),
        ({"a": ("text", ["12,5 %"])}, {}),
        ({"a": ("integer", ["1"]), "b": ("number", ["1.234"])}, {}),
        ({"a": ("text", ["1,5"]), "b": ("number", ["1.234", "7"])}, {"a": ["comma_number"], "b": ["comma_number"]}),
        ({"a": ("text", ["1,5"]), "b": ("number", ["1.234", "7.5"])}, {"a": ["comma_number"]}),
    ],
)
def test_columns_of_decimal_commas(columns, likely):
    """What may be thousands in English is not taken for a fraction; points are doubted only beside decimal commas."""
    assert likely_in(columns) == likely


def test_the_option_as_it_is_typed():
    """What a shell would take apart is quoted."""
    assert option_for("P1 [kW]", ["comma_number"]) == "--type 'P1 [kW]=comma_number' fits"
    assert option_for("at", ["%d/%m/%y", "%m/%d/%y"]) == "--type at=%d/%m/%y fits, and so does %m/%d/%y"
