"""`send`: one message or many, and a receipt that is true."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TOKEN

import analytics_batcher
from analytics_batcher.cli import main
from analytics_batcher.receiver import Receiver, Reply, SegmentWire, VitallyWire

ROOT = Path(analytics_batcher.__file__).parents[1]
PREFIX = "ANALYTICS_BATCHER_"


@pytest.fixture
def settings(monkeypatch, receiver):
    """The settings of a client of the test's receiver."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    given = {"DESTINATION": "vitally", "VITALLY_API_TOKEN": TOKEN, "BASE_URL": receiver.url, "RETRY_BASE": "0.01"}
    for name, value in given.items():
        monkeypatch.setenv(PREFIX + name, value)
    return monkeypatch


def lines_of(*messages):
    """Messages as lines."""
    return "".join(f"{json.dumps(one)}\n" for one in messages)


def sent(*arguments, given="", seconds=60):
    """Run the command on lines: its status, what it said as JSON, and what it complained of."""
    done = subprocess.run(
        [sys.executable, "-m", "analytics_batcher", "send", "--json", *arguments],
        cwd=ROOT,
        input=given if isinstance(given, bytes) else given.encode(),
        capture_output=True,
        timeout=seconds,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr.decode()


def adds_up(said):
    """Every message read was delivered, refused or is left."""
    return said["read"] == said["delivered"] + sum(said["refused"].values()) + said["left"]


def track(user, **fields):
    """A neutral message."""
    return {"type": "track", "userId": user, "event": "e", **fields}


# One message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["track", "--id", "u", "--event", "Signed up", "--trait", "plan=pro=1", "--trait", 'seats:={"n": 5}'],
            {"type": "track", "userId": "u", "event": "Signed up", "properties": {"plan": "pro=1", "seats": {"n": 5}}},
        ),
        (
            ["user", "--id", "u", "--account-id", "a", "--trait", "zip=00123"],
            {"type": "user", "userId": "u", "accountId": "a", "traits": {"zip": "00123"}},
        ),
        (
            ["account", "--id", "a", "--trait", "name=Acme", "--organization-id", "o"],
            {"type": "account", "accountId": "a", "organizationId": "o", "traits": {"name": "Acme"}},
        ),
        (
            ["organization", "--id", "o", "--trait", "name=Org"],
            {"type": "organization", "organizationId": "o", "traits": {"name": "Org"}},
        ),
        (
            ["custom-object", "--id", "t", "--object-id", "ticket", "--name", "T", "--account-id", "a"],
            {
                "type": "customobjectinstance",
                "externalId": "t",
                "customObjectId": "ticket",
                "name": "T",
                "accountId": "a",
                "traits": {},
            },
        ),
        (["unlink", "--id", "u", "--account-id", "a"], {"type": "unlink", "userId": "u", "accountId": "a"}),
    ],
)
@pytest.mark.usefixtures("settings")
def test_a_message_by_options(receiver, capsys, options, message):
    """Each kind arrives as its options say, under the id and at the time given, and the receipt names the id."""
    given = ["--message-id", "id-1", "--timestamp", "2020-01-02T03:04:05Z"]
    assert main(["send", "--as", *options, *given]) == 0
    (arrived,) = receiver.messages
    assert arrived == {**message, "messageId": "id-1", "timestamp": "2020-01-02T03:04:05.000Z"}
    said = capsys.readouterr()
    assert said.out.splitlines()[:5] == ["message id: id-1", "read: 1", "delivered: 1", "refused: 0", "left: 0"]
    assert said.err == ""


@pytest.mark.usefixtures("settings")
def test_a_message_gets_an_id(receiver, capsys):
    """Without one given, the receipt has the id that the vendor got."""
    assert main(["send", "--as", "track", "--id", "u", "--event", "e", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["message id"] == receiver.messages[0]["messageId"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--as", "track", "--id", "u"], "event is missing"),
        (["--as", "unlink", "--id", "u", "--account-id", "a", "--trait", "x=1"], "--trait: a message of type unlink"),
        (["--as", "track", "--id", "u", "--event", "e", "--name", "n"], "name: a message of type track has"),
        (["--as", "track", "--id", "u", "--event", "e", "--trait", "plan"], "a trait without a name and a value"),
        (["--as", "track", "--id", "u", "--event", "e", "--trait", "n:=five"], "the value is no JSON"),
        (["--as", "person"], "Invalid value for '--as'"),
        (["--event", "e"], "--event needs --as"),
        (["--as", "track", "--native"], "--native is for lines"),
    ],
)
@pytest.mark.usefixtures("settings")
def test_wrong_options_are_named(receiver, capsys, options, said):
    """The status is 2, a sentence says which option, and nothing is sent."""
    assert main(["send", *options]) == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")
    assert not receiver.requests


@pytest.mark.usefixtures("settings")
def test_a_refused_message_says_why(receiver, capsys):
    """What the vendor refuses is 3, with its text; what it has no form for too."""
    receiver.decide = lambda _: Reply(400)
    assert main(["send", "--as", "track", "--id", "u", "--event", "e", "--message-id", "id-1"]) == 3
    said = capsys.readouterr().out
    assert "refused: 1 (rejected 1)" in said
    assert "HTTP 400" in said
    assert "id-1" in said
    assert main(["send", "--as", "page", "--id", "u", "--name", "n"]) == 3
    assert "Vitally has no page message" in capsys.readouterr().out


def test_settings_that_are_missing(settings, capsys):
    """A missing secret is named by its variable, and the status is 1."""
    settings.delenv(f"{PREFIX}VITALLY_API_TOKEN")
    assert main(["send", "--as", "track", "--id", "u", "--event", "e"]) == 1
    assert capsys.readouterr().err == f"error: {PREFIX}VITALLY_API_TOKEN is not set\n"


# Lines


@pytest.mark.usefixtures("settings")
def test_lines_from_standard_input(receiver):
    """Each line arrives in its order, over several chunks, ids and times as given; empty lines are none."""
    many = [track(f"u{number}", messageId=f"m-{number}", timestamp="2020-01-01T00:00:00Z") for number in range(1_200)]
    status, said, _ = sent(given=lines_of(*many) + "\n  \n")
    assert (status, said["read"], said["delivered"], said["left"]) == (0, 1_200, 1_200, 0)
    assert [one["messageId"] for one in receiver.messages] == [one["messageId"] for one in many]
    assert {one["timestamp"] for one in receiver.messages} == {"2020-01-01T00:00:00.000Z"}


@pytest.mark.usefixtures("settings")
def test_what_is_refused_is_told_by_its_line(receiver):
    """What is no message, and what we or the vendor refuse: each by its line and its reason; the sums add up."""
    receiver.decide = lambda messages: Reply(400) if any(one.get("userId") == "bad" for one in messages) else None
    bad = [
        b"{bad}",
        b"[1]",
        b'"\xff"',
        b'{"type": "x"}',
        b'{"type": "track", "userId": "u"}',
        b'{"type": {}}',
        b"[" * 99_999,
    ]
    lines = lines_of(
        track("u"), track("bad"), {"type": "page", "userId": "u", "name": "n"}, track("u", extra=1), track("")
    )
    status, said, _ = sent(given=lines.encode() + b"\n".join(bad) + b"\n" + lines_of(track("last")).encode())
    assert status == 3
    assert adds_up(said)
    assert [one["userId"] for one in receiver.messages] == ["u", "last"]
    reasons = {one["line"]: (one["reason"], one["detail"]) for one in said["refusals"]}
    assert sorted(reasons) == list(range(2, 13))
    assert reasons[2][0] == "rejected"
    assert "HTTP 400" in reasons[2][1]
    assert reasons[3][0] == "unsupported"
    assert {reasons[line][0] for line in range(4, 13)} == {"invalid"}
    assert reasons[4][1].startswith("extra: a message of type track has ")
    assert reasons[6][1].startswith("column 2: ")


@pytest.mark.usefixtures("settings")
def test_native_lines_go_as_they_are(receiver):
    """With --native a line is the vendor's own form, and what is no object is refused."""
    native = {"type": "track", "userId": "u", "event": "e", "properties": {"a": 1}, "messageId": "m", "own": True}
    status, said, _ = sent("--native", given=lines_of(native) + "5\n")
    assert (status, said["delivered"], said["refused"]) == (3, 1, {"invalid": 1})
    assert adds_up(said)
    (arrived,) = receiver.messages
    assert arrived.items() >= native.items()


@pytest.mark.usefixtures("settings")
def test_what_cannot_be_delivered_is_left(receiver):
    """At the deadline the status is 1, the rest is said to be left, with the last error, and nothing more is read."""
    receiver.decide = lambda _: Reply(503)
    status, said, _ = sent("--timeout", "0.5", given=lines_of(*[track("u")] * 700))
    assert status == 1
    assert (said["read"], said["delivered"], said["left"]) == (500, 0, 500)
    assert "HTTP 503" in said["last error"]
    assert adds_up(said)


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_send_says_what_arrived(receiver, wait_until, number, status):
    """After Ctrl-C or SIGTERM there is a receipt for what was sent until then."""
    command = [sys.executable, "-m", "analytics_batcher", "send", "--json"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            process.stdin.write(lines_of(*[track("u")] * 500).encode())
            process.stdin.flush()
            wait_until(lambda: len(receiver.messages) == 500)
            process.send_signal(number)
            said, errors = process.communicate(timeout=20)
        finally:
            process.kill()
    assert process.returncode == status
    assert json.loads(said)["delivered"] in range(400, 501)
    assert errors.decode().splitlines() == ["interrupted"]


def test_a_spool_or_a_stream_of_the_environment_is_not_used(settings, tmp_path, receiver):
    """A receipt is for what the vendor has, and so what the application keeps is left alone."""
    settings.setenv(f"{PREFIX}SPOOL", str(tmp_path / "spool.db"))
    assert sent(given=lines_of(track("u")))[0] == 0
    assert len(receiver.messages) == 1
    assert list(tmp_path.iterdir()) == []


# Several destinations


def test_with_several_destinations_each_message_counts_once_for_each(settings):
    """What one of two destinations has no message for, what neither takes, and what both do: the sums say each."""
    with Receiver(wires=(VitallyWire(TOKEN), SegmentWire("key"))) as both:
        for name, value in {"DESTINATION": "vitally,segment", "SEGMENT_WRITE_KEY": "key", "BASE_URL": both.url}.items():
            settings.setenv(PREFIX + name, value)
        given = lines_of(track("u"), {"type": "page", "userId": "u", "name": "p"}, track("")) + "no JSON\n"
        status, said, _ = sent(given=given)
        assert status == 3
        assert said["read"] == 4
        assert (said["delivered"], said["refused"], said["left"]) == (3, {"unsupported": 1, "invalid": 4}, 0)
        assert {name: one["delivered"] for name, one in said["destinations"].items()} == {"vitally": 1, "segment": 2}
        assert len(both.messages_of("vitally")) == 1
        assert len(both.messages_of("segment")) == 2
