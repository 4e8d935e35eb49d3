"""Imports to each vendor, and to all of them at once, with faults on the way: the sums are exact for each."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from datetime import datetime, timezone
from functools import partial

import pytest
from conftest import TOKEN
from import_files import ACCOUNTS, TRACKS, message_of, write_accounts, write_tracks

from analytics_batcher import CustomerIO, Segment, Vitally
from analytics_batcher.imports.connecting import connected
from analytics_batcher.imports.dry import dry_run
from analytics_batcher.imports.mapping import Mapping
from analytics_batcher.imports.problems import ImportProblem
from analytics_batcher.imports.results import Job
from analytics_batcher.imports.run import Import
from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply, SegmentWire, VitallyWire

SITE, KEY, WRITE_KEY = "site-of-ours", "key-of-ours", "write-key-of-ours"
WIRES = {"vitally": VitallyWire(TOKEN), "customerio": CustomerIOWire(SITE, KEY), "segment": SegmentWire(WRITE_KEY)}
CREDENTIALS = {
    "VITALLY_API_TOKEN": TOKEN,
    "CUSTOMERIO_SITE_ID": SITE,
    "CUSTOMERIO_API_KEY": KEY,
    "SEGMENT_WRITE_KEY": WRITE_KEY,
}
FIELDS = {"id": "user_id", "account_id": "account_id", "event": "event", "timestamp": "at"}
TRACK = [f"--{name.replace('_', '-')}={column}" for name, column in {"as": "track", **FIELDS}.items()]
ROWS = 3_000
REFUSED_BY_ONE = 500
"""Of so many rows, Customer.io alone refuses one."""


def imported(receiver, *arguments, **variables):
    """Run the command, to the receiver."""
    pytest.importorskip("click", reason="the command needs the extra `cli`")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ANALYTICS_BATCHER_")}
    own = {"BASE_URL": receiver.url, **CREDENTIALS, **variables}
    settings = {**kept, **{f"ANALYTICS_BATCHER_{name}": value for name, value in own.items()}}
    program = [sys.executable, "-m", "analytics_batcher", "import", *arguments, "--json"]
    return subprocess.run(program, env=settings, capture_output=True, text=True, timeout=90, check=False)


def neutral(vendor, message):
    """The row's number, its message's id, and what else of it the vendor got, as it would be in the neutral form."""
    if vendor == "customerio":
        moment = datetime.fromtimestamp(message["timestamp"], timezone.utc).isoformat().replace("+00:00", ".000Z")
        user, event, content, own_id = message["identifiers"]["id"], message["name"], message["attributes"], "id"
        account = None
    else:
        user, event, content, own_id = message["userId"], message["event"], message["properties"], "messageId"
        moment = message["timestamp"]
        account = message["context"]["groupId"] if vendor == "segment" else message["accountId"]
    said = {"userId": user, "event": event, "properties": content, "timestamp": moment, "accountId": account}
    return int(user), message[own_id], said


class Vendors:
    """What each vendor took of the rows, with faults on the way. It is the receiver's `decide`.

    Locking: `_lock` guards all of it; the receiver calls it in the connections' threads.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._chance = random.Random(3)
        self.rows = defaultdict(dict)
        self.ids = defaultdict(set)
        self.faults = Counter()

    def __call__(self, messages):
        """Decide what becomes of a request."""
        one = messages[0]
        vendor = "customerio" if "identifiers" in one else "segment" if "context" in one else "vitally"
        with self._lock:
            fault = self._chance.choice(("429", "500", "reset", *("",) * 17))
            bad = [place for place, message in enumerate(messages) if self._is_bad(vendor, message)]
            self.faults[fault or (bad and "bad") or ""] += 1
            if fault in {"429", "500"}:
                return Reply(int(fault), headers={"Retry-After": "0"})
            if bad and vendor != "customerio":
                return Reply(400, body=b'{"error": {"message": "the event is not known"}, "message": "not known"}')
            for message in messages:
                if not self._is_bad(vendor, message):
                    number, own_id, said = neutral(vendor, message)
                    self.rows[vendor][number] = said
                    self.ids[vendor, number].add(own_id)
            if fault:
                return Reply(reset="after")
            return Reply(partial=dict.fromkeys(bad, "name: the event is not known")) if bad else None

    def _is_bad(self, vendor, message):
        if "Poison" in {message.get("event"), message.get("name")}:
            return True
        return vendor == "customerio" and int(message["identifiers"]["id"]) % REFUSED_BY_ONE == 7


def check(vendors, vendor, bad):
    """A vendor has each good row once, as it should be, under one id, and no other."""
    good = {number for number in range(ROWS) if number + 2 not in bad}
    own = {number for number in good if number % REFUSED_BY_ONE == 7} if vendor == "customerio" else set()
    assert vendors.rows[vendor].keys() == good - own
    for number, said in vendors.rows[vendor].items():
        expected = {name: value for name, value in message_of(number).items() if name in said}
        assert said == {**expected, **({"accountId": None} if vendor == "customerio" else {})}
        assert len(vendors.ids[vendor, number]) == 1
    return own


def refused(path):
    """The lines of the refused rows, each with its reason; which of the two we say of a missing id is the vendor's."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    reasons = {line["line"]: line["reason"].replace("unsupported", "invalid") for line in lines}
    assert len(reasons) == len(lines)
    return reasons, lines


@pytest.mark.parametrize("vendor", ["customerio", "segment"])
def test_an_import_to_one_vendor(tmp_path, vendor):
    """The command's sums add up, and each good row is with the vendor once, as it should be, whatever came between."""
    path, vendors = tmp_path / "tracks.csv", Vendors()
    bad = write_tracks(path, ROWS, 120)
    with Receiver(WIRES[vendor], keep_bodies=False) as receiver:
        receiver.decide = vendors
        done = imported(receiver, path, *TRACK, DESTINATION=vendor, BATCH_MESSAGES="100")
        assert done.returncode == 3, done.stderr
        assert not receiver.faults
    facts = json.loads(done.stdout)
    own = check(vendors, vendor, bad)
    assert (facts["rows"], facts["skipped"]) == (ROWS, 0)
    assert (facts["delivered"], facts["rejected"]) == (ROWS - len(bad) - len(own), len(bad) + len(own))
    reasons, _ = refused(tmp_path / "tracks.csv.rejected.jsonl")
    assert reasons == {**bad, **{number + 2: "rejected" for number in own}}
    assert {"429", "500", "reset", "bad"} <= vendors.faults.keys()


def test_an_import_to_all_vendors(tmp_path):
    """A row is delivered if all vendors took it; one that a single vendor refused is noted once, with its name."""
    path, vendors = tmp_path / "tracks.csv", Vendors()
    bad = write_tracks(path, ROWS, 120)
    with Receiver(wires=list(WIRES.values()), keep_bodies=False) as receiver:
        receiver.decide = vendors
        done = imported(receiver, path, *TRACK, DESTINATION=",".join(WIRES))
        assert done.returncode == 3, done.stderr
        assert not receiver.faults
    own = check(vendors, "customerio", bad)
    assert not check(vendors, "vitally", bad)
    assert not check(vendors, "segment", bad)
    facts = json.loads(done.stdout)
    assert (facts["rows"], facts["rejected"], facts["skipped"]) == (ROWS, len(bad) + len(own), 0)
    assert facts["delivered"] == ROWS - len(bad) - len(own)
    reasons, lines = refused(tmp_path / "tracks.csv.rejected.jsonl")
    assert reasons == {**bad, **{number + 2: "rejected" for number in own}}
    assert {line["destination"] for line in lines if line["line"] - 2 in own} == {"customerio"}


def test_an_import_with_several_requests_at_once(tmp_path):
    """It uses the concurrency that the settings say, and no track is on its way before all accounts are settled."""
    tracks, accounts = tmp_path / "tracks.csv", tmp_path / "accounts.csv"
    bad, nameless = write_tracks(tracks, ROWS, 120), write_accounts(accounts, ROWS)
    (tmp_path / "tracks.csv.mapping.toml").write_text(TRACKS)
    (tmp_path / "accounts.csv.mapping.toml").write_text(ACCOUNTS)
    chance = random.Random(5)
    with Receiver(WIRES["vitally"], keep_bodies=False) as receiver:
        receiver.decide = lambda messages: (
            Reply(400)
            if any(one.get("event") == "Poison" for one in messages)
            else Reply(chance.choice((429, 503)), headers={"Retry-After": "0"})
            if chance.random() < 0.1
            else Reply(delay=0.05)
        )
        done = imported(receiver, tracks, accounts, DESTINATION="vitally", CONCURRENCY="4")
        assert done.returncode == 3, done.stderr
        requests = receiver.requests
    facts = json.loads(done.stdout)
    refused_rows = len(bad) + len(nameless)
    assert (facts["rows"], facts["delivered"], facts["rejected"]) == (2 * ROWS, 2 * ROWS - refused_rows, refused_rows)
    arrived = {one["messageId"] for request in requests if request.stored for one in request.messages}
    assert len(arrived) == facts["delivered"]
    at_once = [sum(one.at <= two.at < one.at + one.seconds for one in requests) for two in requests]
    assert max(at_once) == 4
    of_accounts = [request for request in requests if request.messages[0]["type"] == "account"]
    of_tracks = [request for request in requests if request.messages[0]["type"] == "track"]
    assert max(one.at + one.seconds for one in of_accounts) <= min(one.at for one in of_tracks)


def test_an_import_at_a_rate(tmp_path):
    """It makes no more requests in a second than the settings say, over all of its files."""
    tracks, accounts = tmp_path / "tracks.csv", tmp_path / "accounts.csv"
    write_tracks(tracks, 2_000, 4_001)
    write_accounts(accounts, 200)
    (tmp_path / "tracks.csv.mapping.toml").write_text(TRACKS)
    (tmp_path / "accounts.csv.mapping.toml").write_text(ACCOUNTS)
    with Receiver(WIRES["vitally"]) as receiver:
        done = imported(receiver, tracks, accounts, DESTINATION="vitally", MAX_REQUESTS_PER_SECOND="10")
        assert done.returncode == 0, done.stderr
        moments = sorted(request.at for request in receiver.requests)
    assert len(moments) >= 22
    assert moments[-1] - moments[0] >= (len(moments) - 1) / 10 - 0.5  # the first one may have been told of late


def test_what_before_send_does_not_want_is_skipped(tmp_path):
    """Rows that the client's own hook drops are no refused ones: they are counted as skipped, and not noted."""
    path = tmp_path / "tracks.csv"
    bad = write_tracks(path, 1_000, 1_000)
    with Receiver(WIRES["vitally"]) as receiver:
        link = partial(
            connected,
            [Vitally(api_token=TOKEN, base_url=receiver.url)],
            before_send=lambda message: message if int(message["userId"]) % 10 else None,
        )
        result = Import([Job(str(path), Mapping("track", FIELDS))], connect=link).run()
        arrived = {int(message["userId"]) for message in receiver.messages}
    sums = result.sums
    assert len(bad) == 1
    assert (sums.rows, sums.delivered, sums.rejected, sums.skipped) == (1_000, 900, 1, 99)  # the bad one is the 500th
    assert arrived == {number for number in range(1_000) if number % 10 and number + 2 not in bad}


def test_a_dry_run_shows_what_each_vendor_would_get(tmp_path):
    """The first messages are shown in each vendor's own form, and are what an import then sends, native ones too."""
    path = tmp_path / "tracks.csv"
    write_tracks(path, 3, 100)
    with Receiver(wires=list(WIRES.values())) as receiver:
        destinations = [
            Vitally(api_token=TOKEN, base_url=receiver.url),
            CustomerIO(SITE, KEY, base_url=receiver.url),
            Segment(WRITE_KEY, base_url=receiver.url),
        ]
        link, job = partial(connected, destinations), Job(str(path), Mapping("track", FIELDS))
        shown = dry_run(job, connect=link).samples
        assert not receiver.requests
        assert Import([job], connect=link).run()
        sent = [message for request in receiver.requests for message in request.messages]
        assert not receiver.faults
        native = tmp_path / "native.jsonl"
        native.write_text("".join(json.dumps(one.message) + "\n" for one in shown if one.destination == "customerio"))
        everywhere = link
        link, job = partial(connected, destinations[1:2]), Job(str(native), Mapping("native"))
        for begin in (lambda: dry_run(job, connect=everywhere), Import([job], connect=everywhere).run):
            with pytest.raises(ImportProblem, match="vitally, customerio, segment"):
                begin()
        assert [one.message for one in dry_run(job, connect=link).samples] == [
            one.message for one in shown if one.destination == "customerio"
        ]
    assert Counter(one.destination for one in shown) == {"vitally": 3, "customerio": 3, "segment": 3}
    key = partial(json.dumps, sort_keys=True)
    assert sorted(key(one.message) for one in shown) == sorted(map(key, sent))
