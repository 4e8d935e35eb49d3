"""Importing files by the command: sums, refused rows, kills, stops, memory, shapes of real exports."""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import TOKEN
from import_files import ACCOUNTS, ROWS, TRACKS, message_of, write_accounts, write_tracks

from analytics_batcher.receiver import Reply

pytest.importorskip("click", reason="the command needs the extra `cli`")

PREFIX = "ANALYTICS_BATCHER_"
SECONDS = 60 + ROWS / 500
TRACK = ("--as", "track", "--id", "user_id", "--account-id", "account_id", "--event", "event", "--timestamp", "at")


@pytest.fixture
def settings(receiver):
    """The environment of a command whose client delivers to the receiver."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    own = {"DESTINATION": "vitally", "VITALLY_API_TOKEN": TOKEN, "BASE_URL": receiver.url}
    return {**kept, **{PREFIX + name: value for name, value in own.items()}}


def started(settings, *arguments, **options):
    """Start the command."""
    program = [sys.executable, "-m", "analytics_batcher", "import", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(program, env=settings, stdin=pipe, stdout=pipe, stderr=pipe, **options)


def command(settings, *arguments, given=b""):
    """Run the command; its status, what it said of its result, and its standard error."""
    process = started(settings, *arguments, "--json")
    try:
        out, errors = process.communicate(given, timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert b"unexpected" not in errors, errors  # what is no error of a person's
    return process.returncode, json.loads(out) if out else {}, errors.decode()


def sums(facts):
    """The rows, the delivered ones, the refused ones and the skipped ones; which add up."""
    assert facts["rows"] == facts["delivered"] + facts["rejected"] + facts["skipped"]
    return facts["rows"], facts["delivered"], facts["rejected"], facts["skipped"]


def refused(path):
    """The refused rows of a file: their reasons by their lines, none of which is there twice."""
    file = path.with_name(f"{path.name}.rejected.jsonl")
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    reasons = {line["line"]: line["reason"] for line in lines}
    assert len(reasons) == len(lines)
    return reasons


class Books:
    """What the vendor took, by message id, and how often; with faults on the way. It is the receiver's `decide`.

    Locking: the receiver calls it in one connection's thread at a time.
    """

    def __init__(self, receiver, seed=7, faults=0.1):
        self.receiver = receiver
        self.chance = random.Random(seed)
        self.faults = faults
        self.counts = Counter()
        self.first = {}

    def __call__(self, messages):
        """Decide what becomes of a request."""
        if any(one.get("event") == "Poison" for one in messages):
            return Reply(400, body=b'{"error":"the event is not known"}')
        fault = self.chance.random()
        if fault < self.faults:
            if fault > self.faults / 3:
                return Reply(random.Random(fault).choice((429, 500, 503)), headers={"Retry-After": "0"})
            self._note(messages)
            return Reply(reset="after")
        self._note(messages)
        return None

    def _note(self, messages):
        for message in messages:
            own_id = message["messageId"]
            self.counts[own_id] += 1
            self.first.setdefault(own_id, message)
        with self.receiver._change:  # a million messages are kept here once, and not there again
            self.receiver._stored.clear()
            self.receiver._requests.clear()


def check_tracks(books, path, bad, rows=ROWS):
    """Every good row's message has arrived as it should be, and nothing else."""
    arrived = {}
    for message in books.first.values():
        if message["type"] == "track":
            number = int(message["userId"])
            assert number not in arrived
            arrived[number] = {name: value for name, value in message.items() if name != "messageId"}
    assert {number for number in range(rows) if number + 2 not in bad} == arrived.keys()
    for number, message in arrived.items():
        if rows <= 10_000 or number % 97 == 0:
            assert message == message_of(number)
    assert refused(path) == bad


def test_every_row_is_accounted_for(tmp_path, settings, receiver):
    """Accounts and then tracks, with faults on the way: sums are exact, each bad row is in its file with its reason."""
    tracks, accounts = tmp_path / "tracks.csv", tmp_path / "accounts.csv"
    bad, nameless = write_tracks(tracks), write_accounts(accounts, ROWS // 10)
    (tmp_path / "tracks.csv.mapping.toml").write_text(TRACKS)
    (tmp_path / "accounts.csv.mapping.toml").write_text(ACCOUNTS)
    kinds = []
    books = receiver.decide = Books(receiver)
    note = books._note
    books._note = lambda messages: (kinds.extend({one["type"] for one in messages}), note(messages))
    status, facts, errors = command(settings, tracks, accounts)
    assert status == 3, errors
    assert set(bad.values()) == {"cells", "invalid", "type", "unreadable", "too_large", "rejected"}
    assert sums(facts) == (ROWS + ROWS // 10, ROWS + ROWS // 10 - len(bad) - len(nameless), len(bad) + len(nameless), 0)
    assert facts["retries"] > 0
    check_tracks(books, tracks, bad)
    assert refused(accounts) == nameless
    assert kinds == sorted(kinds)  # the accounts before the tracks
    account = next(one for one in books.first.values() if one.get("accountId") == "a-1" and one["type"] == "account")
    assert account["traits"] == {"name": 'Inc., "1"', "zip": "00001"}
    assert not receiver.faults
    # Again: it knows that all is done, and sends nothing.
    before = books.counts.total()
    status, facts, _ = command(settings, tracks, accounts)
    assert (status, facts["earlier"], books.counts.total()) == (3, ROWS + ROWS // 10, before)
    check_tracks(books, tracks, bad)


def test_refused_rows_say_what_was_wrong(tmp_path, settings, receiver):
    """A refused row stands in its file with the column, what was found and expected, or the vendor's own words."""
    path = tmp_path / "t.csv"
    bad = write_tracks(path, 400, 20)
    receiver.decide = Books(receiver, faults=0)
    assert command(settings, path, *TRACK)[0] == 3
    file = tmp_path / "t.csv.rejected.jsonl"
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert {line["line"]: line["reason"] for line in lines} == bad
    of = {(line["reason"], line.get("column")): line for line in lines}
    assert (of["type", "seats"]["found"], of["type", "seats"]["expected"]) == ("'12x'", "integer")
    assert of["type", "at"]["found"] == "'yesterday'"
    assert "from 1970 to 9999" in of["invalid", "at"]["detail"]
    assert of["invalid", "at"]["found"] == "'1961-04-12T06:07:00Z'"
    assert "the event is not known" in of["rejected", None]["detail"]
    assert "Poison" in of["rejected", None]["row"]
    if os.name == "posix":
        assert file.stat().st_mode & 0o077 == 0


def test_a_refused_row_is_kept_whole(tmp_path, settings):
    """A refused row can be had back from its file to the byte; of one too long, it is said where it ends."""
    path = tmp_path / "t.csv"
    rows = [b"u1,caf\xe9,1", b"u2," + b"x" * 30_000 + b",1", b'u3,"\xe9\r\n\xe9",1', b"u4," + b"x" * 3 * 2**20]
    path.write_bytes(b"id,\xe9\n" + b"\n".join(rows) + b"\n")
    arguments = ("--as", "user", "--id", "id", "--account-id", "=a", "--quote", '"', "--encoding", "cp1252")
    assert command(settings, path, *arguments)[0] == 3
    file = tmp_path / "t.csv.rejected.jsonl"
    one, two, three, four = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [line["row"].encode("cp1252") for line in (one, two, three)] == rows[:3]
    assert "row_cut_after_bytes" not in three
    assert (four["row_cut_after_bytes"], four["row"].encode()) == (2**20, rows[3][: 2**20])
    raw = b"u1\xff\xfe,x,1"
    path.write_bytes(b"id,name\n" + raw + "\nu2,Zoë\nu3,é\n".encode())
    assert command(settings, path, *arguments[:-2], "--restart")[0] == 3
    (line,) = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert line["row"].encode("utf-8", "surrogateescape") == raw


def test_rows_with_the_same_id_are_told_apart(tmp_path, settings, receiver):
    """Rows of one chunk that bring the same id are both accounted for, also where the vendor refuses both."""
    path = tmp_path / "t.csv"
    path.write_text("own,user,event\nm,u,Poison\nn,u,Fine\nm,u,Poison\nn,u,Fine\n")
    receiver.decide = Books(receiver, faults=0)
    arguments = ("--as", "track", "--id", "user", "--event", "event", "--message-id", "own")
    status, facts, _ = command(settings, path, *arguments)
    assert (status, sums(facts)) == (3, (4, 2, 2, 0))
    assert refused(path) == {2: "rejected", 4: "rejected"}
    assert receiver.decide.counts == {"n": 2}


def test_a_second_run_repeats_the_same_messages(tmp_path, settings, receiver):
    """A row that was sent in a run that could not know it goes out again in the next with the same id and time."""
    path = tmp_path / "users.csv"
    path.write_text("id,account\nu1,a\n")
    arguments = (path, "--as", "user", "--id", "id", "--account-id", "account", "--patience", "0.3")
    receiver.decide = lambda _: Reply(503, store=True)
    assert command(settings, *arguments)[0] == 1
    receiver.decide = None
    assert command(settings, *arguments)[0] == 0
    first, *others = receiver.messages
    assert others
    assert all(one == first for one in others)


def test_kills_lose_nothing(tmp_path, settings, receiver):
    """Killed at 20 random moments and begun again each time: every good row arrives, each refused row is noted once."""
    tracks, accounts = tmp_path / "tracks.csv", tmp_path / "accounts.csv"
    rows = max(ROWS, 36_000)
    bad, nameless = write_tracks(tracks, rows), write_accounts(accounts, rows // 10)
    every = rows + rows // 10
    good = every - len(bad) - len(nameless)
    (tmp_path / "tracks.csv.mapping.toml").write_text(TRACKS)
    (tmp_path / "accounts.csv.mapping.toml").write_text(ACCOUNTS)
    books = receiver.decide = Books(receiver, faults=0.02)
    chance = random.Random(11)
    # Moments are told by what has arrived, on a machine of any speed, and lie in the whole of the import.
    for arrived in sorted(chance.sample(range(1, good - 2_500), 20)):
        if chance.random() < 0.2:
            kill(started(settings, tracks, accounts, "--json"), after=chance.random() * 0.4)
        kill(started(settings, tracks, accounts, "--json"), when=lambda goal=arrived: len(books.counts) >= goal)
    status, facts, errors = command(settings, tracks, accounts)
    assert status == 3, errors
    assert sums(facts) == (every, good, len(bad) + len(nameless), 0)
    check_tracks(books, tracks, bad, rows)
    assert refused(accounts) == nameless
    known = {int(one["accountId"][2:]) for one in books.first.values() if one["type"] == "account"}
    assert known == {number for number in range(rows // 10) if number + 2 not in nameless}
    # A kill repeats at most the chunk that was under way, by the same ids; so do the receiver's faults, with a batch.
    assert len(books.counts) == good
    assert books.counts.total() - good <= 20 * 2_500 + books.counts.total() * 0.02


def kill(process, *, after=0.0, when=None):
    """Kill an import in its midst: some time after its start, or as soon as something has come about."""
    try:
        threading.Event().wait(after)
        until = time.monotonic() + SECONDS
        while when is not None and not when():
            assert process.poll() is None, "it has ended before"
            assert time.monotonic() < until
            threading.Event().wait(0.01)
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_settles_what_is_in_flight(tmp_path, settings, receiver, number, status):
    """After Ctrl-C or SIGTERM it says how far it got; the same command goes on there, and sends nothing twice."""
    path = tmp_path / "tracks.csv"
    bad = write_tracks(path, 12_000)
    books = receiver.decide = Books(receiver, faults=0)
    process = started(settings, path, *TRACK, "--json")
    try:
        assert receiver.wait_for(lambda _: books.counts.total() > 500)
        process.send_signal(number)
        out, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == status, errors
    assert b"goes on where it was" in errors
    assert 0 < sums(json.loads(out))[0] < 12_000
    status, facts, errors = command(settings, path, *TRACK)
    assert (status, sums(facts)) == (3, (12_000, 12_000 - len(bad), len(bad), 0))
    assert set(books.counts.values()) == {1}
    check_tracks(books, path, bad, 12_000)


PEAK = """
import re, subprocess, sys, threading
from pathlib import Path
from analytics_batcher.cli import main

def peak(pid):
    if Path("/proc/self/status").exists():  # `ru_maxrss` begins with what the process had that started this one
        try:
            found = re.search(r"VmHWM:\\s+(\\d+) kB", Path(f"/proc/{pid}/status").read_text())
        except OSError:  # it has ended
            return 0
        return int(found[1]) * 1024 if found else 0
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

class Popen(subprocess.Popen):  # of the process that reads
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        threading.Thread(target=self.look, daemon=True).start()

    def look(self):
        while found := peak(self.pid):
            peaks[self.pid] = found
            threading.Event().wait(0.01)

peaks, subprocess.Popen = {}, Popen
status = main(["import", *sys.argv[1:]])
print(len(peaks), peak("self") + sum(peaks.values()), file=sys.stderr)
sys.exit(status)
"""


def test_memory_does_not_grow_with_the_file(tmp_path, settings, receiver):
    """An import of a file a hundred times as long has the same peak of memory, all processes together, within 20 MB."""
    peaks = []
    receiver.decide = Books(receiver, faults=0)
    for rows in (10_000, max(ROWS, 60_000)):
        path = tmp_path / f"{rows}.csv"
        write_tracks(path, rows, every=rows)
        program = [sys.executable, "-c", PEAK, str(path), *TRACK]
        done = subprocess.run(program, env=settings, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode in {0, 3}, done.stderr
        readers, peak = map(int, done.stderr.split()[-2:])
        assert readers == 1
        peaks.append(peak)
    assert peaks[0] < 200 * 2**20
    assert peaks[1] - peaks[0] < 20 * 2**20


@pytest.mark.parametrize("form", ["stdin", "gzip", "gzip on stdin", "utf-16", "tsv"])
def test_forms_of_the_same_rows(tmp_path, settings, receiver, form):
    """Rows arrive the same from standard input, gzipped, in UTF-16 and with tabs, without a word on that."""
    text = "user_id,account_id,event,at,plan\n007,a,Opened,2024-01-02T03:04:05Z,Größe\n8,a,Closed,2024-01-02,\n"
    data = (text.replace(",", "\t") if form == "tsv" else text).encode("utf-16" if form == "utf-16" else "utf-8")
    data = gzip.compress(data) if "gzip" in form else data
    if "stdin" in form:
        status, facts, errors = command({**settings}, "-", *TRACK, "--rejected", tmp_path / "r", given=data)
    else:
        path = tmp_path / ("rows.csv.gz" if form == "gzip" else "rows.csv")
        path.write_bytes(data)
        status, facts, errors = command(settings, path, *TRACK)
    assert (status, sums(facts)) == (0, (2, 2, 0, 0)), errors
    one, two = receiver.messages
    assert (one["userId"], one["properties"], one["timestamp"]) == (
        "007",
        {"plan": "Größe"},
        "2024-01-02T03:04:05.000Z",
    )
    assert (two["event"], two["properties"], two["timestamp"]) == ("Closed", {}, "2024-01-02T00:00:00.000Z")
    assert not (tmp_path / "r").exists()


def test_a_crm_export(tmp_path, settings, receiver):
    """A CRM's: a byte-order mark, semicolons, every cell in quotes, decimal commas, dates of the country."""
    path = tmp_path / "crm.csv"
    rows = '"Kunden-Nr.";"Firma";"PLZ";"Umsatz";"Seit"\r\n"00017";"Müller; Söhne";"01067";"1.234,50";"31.12.2019"\r\n'
    path.write_bytes(b"\xef\xbb\xbf" + rows.encode())
    types = ("--type", "Umsatz=comma_number", "--type", "Seit=%d.%m.%Y")
    where = ("--as", "account", "--id", "Kunden-Nr.", "--trait", "name=Firma", "--trait", "zip=PLZ")
    more = ("--trait", "revenue=Umsatz", "--trait", "since=Seit", "--timezone", "Europe/Berlin")
    assert command(settings, path, *where, *more, *types)[0] == 0
    (message,) = receiver.messages
    assert message["accountId"] == "00017"
    since = "2019-12-30T23:00:00.000Z"
    assert message["traits"] == {"name": "Müller; Söhne", "zip": "01067", "revenue": 1234.5, "since": since}


def test_a_spreadsheet_export(tmp_path, settings, receiver):
    """A spreadsheet's: Windows' line ends, quoted newlines and quotes, an empty last column, a blank line."""
    path = tmp_path / "sheet.csv"
    rows = 'id,company,notes,seats,\r\nu1,acme,"first\r\nsecond, ""quoted""",5,\r\nu2,acme,"",x,\r\nu3,acme,,7,\r\n\r\n'
    path.write_bytes(rows.encode("cp1252"))
    arguments = ("--as", "user", "--id", "id", "--account-id", "company", "--type", "seats=integer")
    status, facts, _ = command(settings, path, *arguments)
    assert (status, sums(facts)) == (3, (4, 2, 1, 1))
    one, two = receiver.messages
    assert one["traits"] == {"notes": 'first\r\nsecond, "quoted"', "seats": 5}
    assert (two["userId"], two["traits"]) == ("u3", {"seats": 7})
    assert refused(path) == {4: "type"}


def test_a_warehouse_export(tmp_path, settings, receiver):
    """A warehouse's: moments in Unix milliseconds, big numbers that are ids, a mapping of event names."""
    path = tmp_path / "part-0000.csv"
    path.write_text(
        "user_id,account_id,event_name,event_ts,session,value\n"
        "12345678901234567890,1,open,1704164645678,98765432109876543210,1e3\n"
        "2,1,close,1704164646000,98765432109876543211,0.5\n"
    )
    arguments = ("--as", "track", "--id", "user_id", "--account-id", "account_id", "--event", "event_name")
    assert command(settings, path, *arguments, "--timestamp", "event_ts")[0] == 0
    one, _ = receiver.messages
    assert (one["userId"], one["timestamp"]) == ("12345678901234567890", "2024-01-02T03:04:05.678Z")
    assert one["properties"] == {"session": "98765432109876543210", "value": 1000.0}


def test_a_shop_export(tmp_path, settings, receiver):
    """Shopify's orders: an offset behind a space, notes of two lines, and more lines of an order with hardly a cell."""
    path = tmp_path / "orders_export_1.csv"
    path.write_text(
        "Name,Email,Financial Status,Paid at,Currency,Total,Created at,Lineitem quantity,Lineitem name,"
        "Billing Zip,Notes\n"
        '#1050,k@example.com,paid,2026-05-01 10:00:00 +0200,EUR,100.90,2026-05-01 09:59:00 +0200,1,Tea,\'02801,"a\nb"\n'
        "#1050,k@example.com,,,,,2026-05-01 09:59:00 +0200,2,Cup,,\n"
        "#1051,l@example.com,paid,2026-05-02 10:00:00 -0530,EUR,7.00,2026-05-02 10:00:00 -0530,1,Tea,'12345,\n"
    )
    arguments = ("--as", "track", "--id", "Email", "--event", "=Item bought", "--timestamp", "Created at")
    assert command(settings, path, *arguments)[0] == 0
    one, two, three = receiver.messages
    assert [(row["userId"], row["timestamp"]) for row in (one, two, three)] == [
        ("k@example.com", "2026-05-01T07:59:00.000Z"),
        ("k@example.com", "2026-05-01T07:59:00.000Z"),
        ("l@example.com", "2026-05-02T15:30:00.000Z"),
    ]
    assert one["properties"] == {
        "Name": "#1050",
        "Financial Status": "paid",
        "Paid at": "2026-05-01T08:00:00.000Z",
        "Currency": "EUR",
        "Total": 100.9,
        "Lineitem quantity": 1,
        "Lineitem name": "Tea",
        "Billing Zip": "'02801",
        "Notes": "a\nb",
    }
    assert two["properties"] == {"Name": "#1050", "Lineitem quantity": 2, "Lineitem name": "Cup"}


def test_a_website_export(tmp_path, settings, receiver):
    """Google Analytics 4 out of BigQuery: Unix microseconds, JSON of many lines in a cell, ids like numbers."""
    path = tmp_path / "ga4.csv"
    params = '"{\n  ""event_params"": [{\n    ""key"": ""page"",\n    ""value"": {""string_value"": ""a, b""}\n  }]\n}"'
    path.write_text(
        "event_date,event_timestamp,event_name,event_params,user_id,user_pseudo_id,stream_id\n"
        f"20210127,1611789078248882,view_item,{params},,1526563.3894857230,2100450278\n"
        "20210127,1611789079000001,scroll,,,77.1,2100450278\n"
    )
    arguments = ("--as", "track", "--id", "user_pseudo_id", "--event", "event_name", "--timestamp", "event_timestamp")
    assert command(settings, path, *arguments)[0] == 0
    one, two = receiver.messages
    assert (one["userId"], one["timestamp"]) == ("1526563.3894857230", "2021-01-27T23:11:18.248Z")
    assert json.loads(one["properties"].pop("event_params"))["event_params"][0]["value"]["string_value"] == "a, b"
    assert one["properties"] == two["properties"] == {"event_date": 20210127, "stream_id": 2100450278}


def test_a_registers_export(tmp_path, settings, receiver):
    """La Poste's register of communes: semicolons, codes with zeros and letters, two numbers in a cell."""
    path = tmp_path / "laposte_hexasmal.csv"
    path.write_text(
        "Code_commune_INSEE;Nom_commune;Code_postal;Ligne_5;Libellé_d_acheminement;coordonnees_gps\n"
        "02552;VILLE;02390;;VILLE;49.8554002239,3.46831298648\n"
        "2A004;AJACCIO;20000;LES ÎLES;AJACCIO;41.9347926638,8.70132275974\n"
    )
    assert command(settings, path, "--as", "account", "--id", "Code_commune_INSEE", "--drop", "Ligne_5")[0] == 0
    one, two = receiver.messages
    assert [(row["accountId"], row["traits"]["Code_postal"]) for row in (one, two)] == [
        ("02552", "02390"),
        ("2A004", "20000"),
    ]
    assert one["traits"]["coordonnees_gps"] == "49.8554002239,3.46831298648"
    assert "Ligne_5" not in two["traits"]


def test_a_type_that_the_first_rows_suggest_wrongly(tmp_path, settings, receiver):
    """A dry run names the option that takes the cells that came later; with it, all are delivered."""
    path = tmp_path / "zips.csv"
    rows = [f"u{number},a,{50_000 + number}" for number in range(1_500)] + ["v1,a,06875", "v2,a,00601"]
    path.write_text("id,account,zip\n" + "\n".join(rows) + "\n")
    arguments = ("--as", "user", "--id", "id", "--account-id", "account")
    program = [sys.executable, "-m", "analytics_batcher", "import", path, *arguments, "--dry-run"]
    tried = subprocess.run(program, env=settings, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert tried.returncode == 3
    assert f"{path}, column zip: 2 cells are no integer; --type zip=text takes any" in tried.stderr
    assert command(settings, path, *arguments, "--type", "zip=text")[0] == 0
    assert [one["traits"]["zip"] for one in receiver.messages[-2:]] == ["06875", "00601"]


def test_json_lines(tmp_path, settings, receiver):
    """JSON Lines keep their types and their nesting; what is no object is refused with its line."""
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"id": 7, "org": "o", "plan": {"name": "x"}, "zip": "01"}\n[1]\n\n{"id": "8", "org": "o", "n": null}\n{\n'
    )
    status, facts, _ = command(settings, path, "--as", "user", "--id", "id", "--organization-id", "org")
    assert (status, sums(facts)) == (3, (5, 2, 2, 1))
    one, two = receiver.messages
    assert (one["userId"], one["traits"]) == ("7", {"plan": {"name": "x"}, "zip": "01"})
    assert (two["userId"], two["traits"]) == ("8", {"n": None})
    assert refused(path) == {2: "unreadable", 5: "unreadable"}


def test_json_of_other_types_is_refused(tmp_path, settings, receiver):
    """A value that can be no id, no event and no moment is refused with its column, and ends nothing."""
    path = tmp_path / "rows.jsonl"
    good = {"user": 1, "event": "e", "at": "2024-01-02", "own": "m"}
    rows = [good, {**good, "own": 7, "at": "2024-01-02T00:00:01Z"}]
    rows += [{**good, "own": "x", **bad} for bad in ({"user": [1]}, {"event": {}}, {"at": []}, {"at": {"$date": 1}})]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = ("--id", "user", "--event", "event", "--timestamp", "at", "--message-id", "own")
    status, facts, errors = command(settings, path, "--as", "track", *fields)
    assert (status, sums(facts)) == (3, (6, 2, 4, 0)), errors
    assert [one["messageId"] for one in receiver.messages] == ["m", "7"]
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [(line["reason"], line["column"], line["found"]) for line in lines] == [
        ("invalid", "user", "[1]"),
        ("invalid", "event", "{}"),
        ("type", "at", "[]"),
        ("type", "at", "{'$date': 1}"),
    ]


@pytest.mark.parametrize("traits", [(), ("--trait", "n=n", "--trait", "zip=zip")])
def test_json_values_become_what_a_type_says(tmp_path, settings, receiver, traits):
    """Where an option says a type, a value that JSON says to be of another becomes one of it, or is refused."""
    path = tmp_path / "rows.jsonl"
    rows = [{"id": 1, "account": 0, "n": n, "zip": 6875} for n in (5, "6", 7.5, None, "x")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--as", "user", "--id", "id", "--account-id", "account", "--type", "n=integer", *traits)
    assert command(settings, path, *options)[0] == 3
    assert refused(path) == {3: "type", 5: "type"}
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl.rejected.jsonl").read_text().splitlines()]
    assert [(line["column"], line["found"], line["expected"]) for line in lines] == [
        ("n", "7.5", "integer"),
        ("n", "'x'", "integer"),
    ]
    assert [one["accountId"] for one in receiver.messages] == ["0"] * 3
    assert [one["traits"].get("n") for one in receiver.messages] == [5, 6, None]


def test_moments_that_are_none_are_refused(tmp_path, settings, receiver):
    """Text in the form of a moment is refused as no moment, and one before 1970 as out of range, with the column."""
    path = tmp_path / "rows.csv"
    good = "2024-02-29T01:02:03Z"
    moments = [good, "2023-02-29T01:02:03Z", "2024-02-29T01:02:03.000Z", "2024-02-29T01:02:03.4e6Z"]
    moments += ["1969-12-31T23:59:59Z", "", "2024-02-29 01:02:03Z"]
    path.write_text("id,event,at\n" + "".join(f"u,e,{moment}\n" for moment in [good] * 99 + moments))
    status, _, _ = command(settings, path, "--as", "track", "--id", "id", "--event", "event", "--timestamp", "at")
    assert status == 3
    lines = [json.loads(line) for line in (tmp_path / "rows.csv.rejected.jsonl").read_text().splitlines()]
    assert [(line["line"], line["reason"], line["column"], line["found"]) for line in lines] == [
        (102, "type", "at", "'2023-02-29T01:02:03Z'"),
        (104, "type", "at", "'2024-02-29T01:02:03.4e6Z'"),
        (105, "invalid", "at", "'1969-12-31T23:59:59Z'"),
        (106, "type", "at", "nothing"),
    ]
    assert {one["timestamp"] for one in receiver.messages} == {"2024-02-29T01:02:03.000Z"}


def test_native_rows_pass_through(tmp_path, settings, receiver):
    """Native messages go out as they are; one without an id gets that of its row."""
    path = tmp_path / "rows.jsonl"
    own = {"type": "track", "userId": "u", "event": "e", "properties": {}, "timestamp": "2024-01-02T03:04:05Z"}
    path.write_text(json.dumps({**own, "messageId": "mine"}) + "\n" + json.dumps(own) + "\n")
    assert command(settings, path, "--native")[0] == 0
    one, two = receiver.messages
    assert one == {**own, "messageId": "mine"}
    assert {**two, "messageId": ""} == {**own, "messageId": ""}
    assert command(settings, path, "--native", "--restart")[0] == 0
    assert receiver.messages[3] == two


def test_a_dry_run_sends_nothing(tmp_path, settings, receiver):
    """A dry run tells of every problem that a run would meet before it sends, and writes no file."""
    path = tmp_path / "tracks.csv"
    bad = {line: reason for line, reason in write_tracks(path, 500, 20).items() if reason != "rejected"}
    status, facts, errors = command(settings, path, *TRACK, "--dry-run")
    assert status == 3, errors
    assert {one["line"]: one["reason"] for one in facts["problems"]} == bad
    assert (facts["rows"], facts["good"], sum(facts["refused"].values())) == (500, 500 - len(bad), len(bad))
    samples = [one["message"] for one in facts["samples"]]
    assert [one["destination"] for one in facts["samples"]] == ["vitally"] * 3
    assert [{**one, "messageId": ""} for one in samples] == [{**message_of(n), "messageId": ""} for n in range(3)]
    assert not receiver.requests
    assert [one.name for one in tmp_path.iterdir()] == ["tracks.csv"]
    receiver.decide = Books(receiver, faults=0)
    command(settings, path, *TRACK)
    assert [receiver.decide.first[one["messageId"]] for one in samples] == samples


def test_a_mapping_is_written_and_used(tmp_path, settings, receiver):
    """A first look makes a mapping that an import takes; leading zeros stay, and what is dropped is not sent."""
    path = tmp_path / "users.csv"
    path.write_text("user_id,account_id,zip,seats,secret\nu1,a,01234,5,x\nu2,a,99999,6,y\n")
    status, _, errors = command(settings, path, "--write-mapping", "--drop", "secret")
    mapping = tmp_path / "users.csv.mapping.toml"
    assert status == 0, errors
    assert '"zip" = "text"' in mapping.read_text()
    assert command(settings, path)[0] == 0
    assert [one["traits"] for one in receiver.messages] == [{"zip": "01234", "seats": 5}, {"zip": "99999", "seats": 6}]
    status, _, errors = command(settings, path, "--write-mapping")
    assert (status, "already" in errors) == (1, True)
    mapping.write_text(mapping.read_text().replace('id = "user_id"', 'id = "userid"'))
    status, _, errors = command(settings, path, "--restart")
    assert (status, "userid" in errors) == (1, True)


def test_another_file_or_mapping_is_not_gone_on_with(tmp_path, settings, receiver):
    """A file that has changed, or other settings, end with a word on it; a file that has grown goes on."""
    path = tmp_path / "users.csv"
    path.write_text("id,account\nu1,a\nu2,a\n")
    arguments = (path, "--as", "user", "--id", "id", "--account-id", "account")
    assert command(settings, *arguments)[0] == 0
    with path.open("a") as file:
        file.write("u3,a\n")
    status, facts, _ = command(settings, *arguments)
    assert (status, facts["earlier"], sums(facts)) == (0, 2, (3, 3, 0, 0))
    assert [one["userId"] for one in receiver.messages] == ["u1", "u2", "u3"]
    status, _, errors = command(settings, *arguments, "--trait", "x=account")
    assert (status, "other settings" in errors) == (1, True)
    path.write_text("id,account\nu1,a\nuX,a\nu3,a\n")
    status, _, errors = command(settings, *arguments)
    assert (status, "has changed" in errors) == (1, True)
    assert len(receiver.messages) == 3
    assert command(settings, *arguments, "--restart")[0] == 0
    ids = Counter(one["messageId"] for one in receiver.messages)
    assert sorted(ids.values()) == [1, 1, 2, 2]  # of the rows that are what they were, the same ids


def test_a_change_far_inside_a_file_is_seen(tmp_path, settings, receiver):
    """Also beyond what a first look sees: the last row that was settled must be what it was."""
    path = tmp_path / "tracks.csv"
    write_tracks(path, 6_000, 6_000)
    receiver.decide = Books(receiver, faults=0)
    assert command(settings, path, *TRACK)[0] in {0, 3}
    data = path.read_bytes()
    assert len(data) > 2**18
    path.write_bytes(data[:-40].replace(b"\n05999,", b"\n0599X,") + data[-40:] + data.splitlines(keepends=True)[1])
    status, _, errors = command(settings, path, *TRACK)
    assert (status, "has changed" in errors) == (1, True)


def test_a_vendor_that_refuses_requests_ends_it(tmp_path, settings, receiver):
    """A wrong token ends it with the vendor's answer and status 1; nothing is lost, and the next run sends all."""
    path = tmp_path / "users.csv"
    path.write_text("id,account\nu1,a\n")
    arguments = (path, "--as", "user", "--id", "id", "--account-id", "account")
    receiver.decide = lambda _: Reply(401)
    status, facts, errors = command(settings, *arguments, "--patience", "0.5")
    assert (status, facts["rows"], facts["left"], "HTTP 401" in errors) == (1, 0, [str(path)], True)
    receiver.decide = None
    assert command(settings, *arguments)[0] == 0
    assert TOKEN not in errors


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("colours", [True, False])
def test_on_a_terminal(tmp_path, settings, receiver, columns, colours):
    """A person sees the bar, what it waits for and since when, the sums with commas; and a dry run's whole words."""
    terminal = pytest.importorskip("terminal", reason="Windows has no pseudo-terminals of this kind")
    path = tmp_path / "tracks.csv"
    write_tracks(path, 3_000, 300)
    (tmp_path / "accounts.csv").write_text("account_id,name\na-1,One\n")
    (tmp_path / "tracks.csv.mapping.toml").write_text(TRACKS)
    (tmp_path / "accounts.csv.mapping.toml").write_text(ACCOUNTS)
    program = ["sh", "-c", f'cd "{tmp_path}" && exec "{sys.executable}" -m analytics_batcher import "$@"', "-"]
    environment = {**settings, "PYTHONPATH": str(Path(__file__).parents[1])}
    status, screen = terminal.seen([*program, "tracks.csv", "--dry-run"], environment, columns, colours=colours)
    assert status == 3
    text = "\n".join(screen.lines)
    assert text.count("tracks.csv:") == 10
    assert "would send to vitally: {" in text
    assert max(map(len, screen.lines)) <= columns
    for words in ("or an organizationId", '"timestamp": "2010-01-01T10:00:00.000Z",', "found '12x'; expected integer"):
        assert words in " ".join(text.split())
    receiver.script(Reply(429, headers={"Retry-After": "3"}))
    books = receiver.decide = Books(receiver, faults=0)
    status, screen = terminal.seen([*program, "accounts.csv", "tracks.csv"], environment, columns, colours=colours)
    assert (status, screen.colours) == (3, colours)
    shown = [line.split() for line in screen.lines]
    assert ["seats", "integer", "trait", "seats"] in [line[:4] for line in shown]
    assert all(["name", "text", "trait", "name", "One"] in map(str.split, frame) for frame in screen.frames)
    assert any(line.startswith("waiting: HTTP 429") and "s)" in line for frame in screen.frames for line in frame)
    lines = [line.split() for line in screen.lines]
    assert ["accounts.csv", "1", "1", "0", "0", "0"] in lines
    assert ["tracks.csv", "3,000", "2,990", "10", "0", "0"] in lines
    assert ["rejected", "rows", "in", "tracks.csv.rejected.jsonl"] in lines
    assert max(map(len, screen.lines)) <= columns
    assert len(books.first) == 2_991


def test_types_are_said_before_anything_is_sent(tmp_path, settings, receiver):
    """What each column becomes is printed, and what a person had better look at, before the vendor hears of a row."""
    path = tmp_path / "accounts.csv"
    path.write_text("id,since,seats\na,31.12.2020,5\n")
    receiver.script(Reply(hang=True))
    process = started(settings, path, "--as", "account", "--id", "id", "--patience", "0.5")
    try:
        out, errors = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, receiver.messages) == (1, ())
    assert [line.split() for line in out.decode().splitlines()[2:5]] == [
        ["id", "text", "id", "a"],
        ["since", "text", "trait", "since", "31.12.2020"],
        ["seats", "integer", "trait", "seats", "5"],
    ]
    assert b"column since is taken as text; --type since=%d.%m.%Y fits" in errors


def test_a_file_that_makes_no_sense_is_told_of_before_another_is_sent(tmp_path, settings, receiver):
    """Of several files none is sent if the mapping of one does not fit; a pipe, which can be read once, is none."""
    accounts, tracks = tmp_path / "accounts.csv", tmp_path / "tracks.csv"
    write_accounts(accounts, 10)
    tracks.write_text("user,event,at\nu,e,2024-01-02\n")
    (tmp_path / "accounts.csv.mapping.toml").write_text(ACCOUNTS)
    (tmp_path / "tracks.csv.mapping.toml").write_text(TRACKS)
    status, _, errors = command(settings, accounts, tracks)
    assert status == 1
    assert f"{tracks}:1" in errors
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        status, _, errors = command(settings, tmp_path / "pipe", "--as", "account", "--id", "id")
        assert status == 1
        assert "standard input" in errors
    assert not receiver.requests
    assert {one.name for one in tmp_path.iterdir()} <= {"accounts.csv", "tracks.csv", "pipe"} | {
        f"{name}.csv.mapping.toml" for name in ("accounts", "tracks")
    }


def test_wrong_usage(tmp_path, settings):
    """What is missing or unknown is named, with the place, and without a traceback."""
    path = tmp_path / "users.csv"
    path.write_text("id,account\nu1,a\n")
    for arguments, status, words in (
        ((path,), 2, "what the rows are"),
        ((path, "--as", "user"), 1, "--id"),
        ((path, "--as", "user", "--id", "nobody"), 1, "nobody"),
        ((path, "--as", "user", "--id", "id", "--type", "id=colour"), 1, "colour"),
        ((path, "--as", "user", "--id", "id", "--encoding", "klingon"), 1, "klingon"),
        ((path, "--as", "track", "--id", "id", "--event", "=e", "--timestamp", "account"), 1, "column account"),
        ((tmp_path / "none.csv", "--as", "user", "--id", "id"), 1, "No such file"),
    ):
        ended, _, errors = command(settings, *arguments)
        assert (ended, words in errors, "Traceback" in errors) == (status, True, False), errors
