"""Draining a spool without an application: by function and by command, beside processes that live."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from conftest import TOKEN

from analytics_batcher import Client, CustomerIO, SqliteBuffer, Vitally, drain
from analytics_batcher.receiver import Reply
from analytics_batcher.spools import spool_status

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a durable buffer needs the locks of files")

NOWHERE = "http://127.0.0.1:9"
PREFIX = "ANALYTICS_BATCHER_"


@pytest.fixture
def path(tmp_path):
    """Where a spool may be."""
    return tmp_path / "spool.db"


@pytest.fixture
def settings(receiver):
    """The environment of a command whose client delivers to the receiver."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    own = {"DESTINATION": "vitally", "VITALLY_API_TOKEN": TOKEN, "BASE_URL": receiver.url}
    return {**kept, **{PREFIX + name: value for name, value in own.items()}}


def leave(path, count, *, destination=None):
    """Track so many messages at an endpoint that is down, and end: they are kept."""
    client = Client(destination or Vitally(api_token=TOKEN, base_url=NOWHERE), buffer=SqliteBuffer(path))
    accepted = [client.track("u", str(number)) for number in range(count)]
    client.shutdown(0)
    assert all(accepted)
    return client


def command(settings, *arguments):
    """Run the command; its status and its lines, those to standard error last."""
    ended = subprocess.run(
        [sys.executable, "-m", "analytics_batcher", "drain", *map(str, arguments)],
        env=settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    return ended.returncode, (ended.stdout + ended.stderr).splitlines()


def events(receiver):
    """The events that the receiver has, in their order."""
    return [message["event"] for message in receiver.messages]


def test_a_drain_delivers_what_was_left(path, receiver):
    """Everything that an earlier process left arrives once, in its order; a second drain finds nothing."""
    left = leave(path, 250)
    result = drain(path, Vitally(api_token=TOKEN, base_url=receiver.url))
    assert (result.found, result.delivered, dict(result.dropped), result.left) == (250, 250, {}, 0)
    assert result
    assert events(receiver) == [str(number) for number in range(250)]
    assert left.stats().handed_over == 250
    again = drain(path, Vitally(api_token=TOKEN, base_url=receiver.url))
    assert (again.found, again.left, bool(again)) == (0, 0, True)


def test_what_others_keep_is_theirs(path, receiver, settings):
    """Of a process that lives nothing is taken; the status says whose it is, and takes nothing either."""
    alive = Client(Vitally(api_token=TOKEN, base_url=NOWHERE), buffer=SqliteBuffer(path))
    assert [alive.track("u", "alive") for _ in range(3)] == [True] * 3
    leave(path, 5)
    leave(path, 2, destination=CustomerIO("site", TOKEN, base_url=NOWHERE))
    (other, own) = spool_status(path)
    assert (other.destination, other.messages, other.owned) == ("customerio", 2, 0)
    assert (own.destination, own.messages, own.owned) == ("vitally", 8, 3)
    assert 0 <= own.oldest_age < 60
    status, lines = command(settings, path, "--status")
    assert status == 0
    assert lines[0].startswith("customerio: 2 waiting, 0 of processes that live, the oldest for ")
    assert lines[1].startswith("vitally: 8 waiting, 3 of processes that live, the oldest for ")
    assert lines[2:] == ["waiting: 10"]
    assert not receiver.messages
    assert command(settings, path) == (0, ["found: 5", "delivered: 5", "dropped: 0", "left: 0"])
    assert events(receiver) == [str(number) for number in range(5)]
    alive.shutdown(0)
    assert [(one.destination, one.messages, one.owned) for one in spool_status(path)] == [
        ("customerio", 2, 0),
        ("vitally", 3, 0),
    ]


def test_the_status_says_what_came_of_it(path, receiver, settings):
    """3 if something was refused for good, 1 if something is left; what is left stays for the next drain."""
    leave(path, 3)
    receiver.decide = lambda messages: Reply(413) if any(one["event"] == "1" for one in messages) else None
    assert command(settings, path) == (3, ["found: 3", "delivered: 2", "dropped: 1 (too_large 1)", "left: 0"])
    leave(path, 4)
    receiver.decide = lambda _: Reply(503)
    status, lines = command(settings, path, "--timeout", "0.5")
    assert (status, lines[:4]) == (1, ["found: 4", "delivered: 0", "dropped: 0", "left: 4"])
    assert "HTTP 503" in lines[4]
    receiver.decide = None
    assert command(settings, path)[0] == 0


def test_age_is_no_reason_unless_asked_for(path, receiver, settings):
    """What waited for long is delivered all the same; with `--max-age` it is given up."""
    leave(path, 2)
    assert command(settings, path, "--max-age", "0.000001")[1][2] == "dropped: 2 (expired 2)"
    leave(path, 2)
    settings[PREFIX + "RETRY_MAX_AGE"] = "0.000001"
    assert command(settings, path)[1][1] == "delivered: 2"
    assert len(receiver.messages) == 2


def test_a_drain_may_be_interrupted(path, receiver, settings):
    """After SIGTERM it says how far it got, and leaves the rest to the next one."""
    leave(path, 150)
    receiver.decide = lambda messages: None if messages[0]["event"] == "0" else Reply(hang=True)
    program = [sys.executable, "-m", "analytics_batcher", "drain", str(path)]
    process = subprocess.Popen(program, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert receiver.wait_for(lambda r: len(r.messages) == 100 and len(r.requests) == 2)
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=15)
    finally:
        process.kill()
        process.wait()
    assert said.splitlines() == ["found: 150", "delivered: 100", "dropped: 0", "left: 50"]
    assert errors.splitlines()[-1] == "interrupted"
    assert process.returncode == 143
    receiver.decide = None
    assert command(settings, path)[1][:2] == ["found: 50", "delivered: 50"]


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "No such file"), (b"", None), (b"no database", "is no SQLite database")]
)
def test_what_is_no_spool_is_not_made_one(tmp_path, settings, content, complaint):
    """A wrong path makes no file, and another file is left as it was; of an empty one a spool may be made."""
    path = tmp_path / "other"
    if content is not None:
        path.write_bytes(content)
    for arguments in ((path,), (path, "--status")):
        status, lines = command(settings, *arguments)
        if complaint is None:
            assert status == 0
        else:
            assert status == 1
            assert lines[0].startswith("error: ")
            assert complaint in lines[0]
            assert (path.read_bytes() if path.exists() else None) == content


def test_a_drain_ends_where_nothing_goes_on(path, receiver, monkeypatch):
    """A vendor that refuses every request ends it, after some patience, though no time was given."""
    monkeypatch.setattr("analytics_batcher.spools._PATIENCE", 0.5)
    leave(path, 2)
    receiver.decide = lambda _: Reply(401)
    started = time.monotonic()
    result = drain(path, Vitally(api_token=TOKEN, base_url=receiver.url))
    assert (result.left, bool(result)) == (2, False)
    assert "HTTP 401" in result.error
    assert time.monotonic() - started < 10


def test_a_wrong_setting_is_named(path):
    """The time must be a number, and the file a path."""
    leave(path, 1)
    with pytest.raises(ValueError, match="timeout"):
        drain(path, Vitally(api_token=TOKEN, base_url=NOWHERE), timeout=-1)
    with pytest.raises(ValueError, match="path"):
        drain("", Vitally(api_token=TOKEN, base_url=NOWHERE))
    with pytest.raises(FileNotFoundError):
        spool_status(path.with_name("nothing"))


def test_the_file_tells_no_secret(path):
    """Neither the file nor what the status reads of it has the token."""
    leave(path, 1)
    assert TOKEN not in json.dumps([vars(one) for one in spool_status(path)])
    assert all(TOKEN.encode() not in one.read_bytes() for one in path.parent.iterdir())
