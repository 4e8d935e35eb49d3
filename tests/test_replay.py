"""Replay: dead letters are sent again as they were, none is lost, and what fails again stays."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path

import pytest
from conftest import TOKEN, balanced
from programs.harness import launched, run, running

import analytics_batcher
from analytics_batcher import Client, CustomerIO, ReplayResult, Retry, Segment, Vitally, replay
from analytics_batcher.claim import claimed, folder_of
from analytics_batcher.dead_letters import older_of
from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply, SegmentWire, VitallyWire

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no locks of folders, by which a replay is alone")
PREFIX = "ANALYTICS_BATCHER_"
OBJECTS = {"organization": "2", "ticket": "3"}
KINDS = {
    "vitally": (lambda: VitallyWire(TOKEN), lambda url: Vitally(api_token=TOKEN, base_url=url)),
    "customerio": (
        lambda: CustomerIOWire("site", "key"),
        lambda url: CustomerIO("site", "key", base_url=url, object_types=OBJECTS),
    ),
    "segment": (lambda: SegmentWire("key"), lambda url: Segment("key", base_url=url)),
}


@pytest.fixture
def path(tmp_path):
    """A file of dead letters."""
    return tmp_path / "letters.jsonl"


@pytest.fixture
def environment(monkeypatch, receiver):
    """The settings of a client of the test's receiver."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    given = {"DESTINATION": "vitally", "VITALLY_API_TOKEN": TOKEN, "BASE_URL": receiver.url, "RETRY_BASE": "0.01"}
    for name, value in given.items():
        monkeypatch.setenv(PREFIX + name, value)
    return monkeypatch


def lines_of(path):
    """The lines of a file that may not be there."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def letter(user, **fields):
    """A dead letter's line, as it might have been written."""
    moment = "2026-01-02T03:04:05.678Z"
    message = {
        "messageId": f"id-{user}",
        "timestamp": moment,
        "type": "track",
        "event": "e",
        "userId": user,
        "properties": {},
    }
    line = {
        "written": moment,
        "destination": "vitally",
        "reason": "rejected",
        "detail": "",
        "status": 400,
        "native": False,
        "before_send": False,
        "id": f"id-{user}",
        "time": moment,
        "message": message,
    }
    return json.dumps({**line, **fields}) + "\n"


def write(path, *users, **fields):
    """Write a file of letters."""
    path.write_text("".join(letter(user, **fields) for user in users))


def adds_up(result):
    """Every letter found is in one of the sums."""
    parts = sum(result.delivered.values()) + sum(result.failed.values()) + sum(result.unsent.values())
    return result.found == parts + result.filtered + result.left


def folder_is_clean(path):
    """Nothing but the file, if that, is left."""
    return sorted(path.parent.iterdir()) in ([], [path])


# As they were


def _track_all(client):
    """A message of every kind that any vendor takes, and of every way to give an id and a time."""
    when = datetime(2018, 3, 4, 5, 6, 7, 890_000, tzinfo=timezone.utc)
    client.identify("u", {"plan": "pro", "createdAt": when}, account_id="a", organization_id="o")
    client.identify("u", {}, account_id="a", anonymous_id="anonymous")
    client.track("u", "e", {"n": 1.5, "deep": {"list": [1, None, "ü\n"]}}, account_id="a")
    client.track("u", "given", {}, timestamp=when, message_id="own-id")
    client.track("u", "ulid", {}, message_id="01ARZ3NDEKTSV4RRFFQ69G5FAV")
    client.track("u", "uuid", {}, message_id="11111111-2222-4333-8444-555555555555", timestamp=1_700_000_000.5)
    client.track("u", "context", {}, context={"ip": "1.2.3.4"}, integrations={"All": True})
    client.account("a", {"name": "Acme"}, user_id="u")
    client.organization("o", {"name": "Org"})
    client.custom_object("t-1", "ticket", {"state": "open"}, name="T", account_id="a")
    client.unlink("u", "a")
    client.page("u", "p", {"path": "/"})
    client.alias("before", "u")


NATIVE = {
    "vitally": [
        {"type": "track", "event": "native", "userId": "u", "properties": {}},
        {
            "type": "track",
            "event": "n",
            "userId": "u",
            "properties": {},
            "messageId": "m",
            "timestamp": "2020-01-01T00:00:00.000Z",
        },
    ],
    "customerio": [
        {"type": "person", "action": "event", "name": "native", "identifiers": {"id": "u"}},
        {"type": "person", "action": "identify", "identifiers": {"email": "a@b"}, "attributes": {"x": 1}},
        {"type": "object", "action": "identify", "identifiers": {"object_type_id": "1", "object_id": "a"}},
        {"type": "person", "action": "page", "name": "n", "identifiers": {"id": "u"}, "timestamp": 1_600_000_000},
    ],
    "segment": [
        {"type": "track", "event": "native", "userId": "u"},
        {"type": "page", "name": "n", "userId": "u", "messageId": "m"},
    ],
}


@pytest.mark.parametrize("background", [True, False], ids=["thread", "inline"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_sent_again_is_what_was_refused(path, kind, background):
    """Byte for byte in content: ids, times, native ones in native form, for each vendor."""
    make_wire, make_destination = KINDS[kind]
    with Receiver(make_wire()) as receiver:
        receiver.decide = lambda _: Reply(400)
        with Client(make_destination(receiver.url), dead_letters=path) as client:
            _track_all(client)
            for message in NATIVE[kind]:
                client.enqueue(message)
            client.flush()
            rejected = client.stats().dropped["rejected"]
        refused = [one for request in receiver.requests if len(request.messages) == 1 for one in request.messages]
        assert len(refused) == rejected > 8
        receiver.decide = None
        unsupported = sum(line["reason"] == "unsupported" for line in lines_of(path))
        with Client(make_destination(receiver.url), background=background) as client:
            result = replay(path, client)
            assert balanced(client.stats())
        assert adds_up(result)
        assert (result.delivered, result.failed) == (
            {kind: rejected},
            {"unsupported": unsupported} if unsupported else {},
        )
        assert sorted(map(_text, receiver.messages)) == sorted(map(_text, refused))
        assert not [request for request in receiver.requests if request.faults]
    assert [line["reason"] for line in lines_of(path)] == ["unsupported"] * unsupported


def _text(message):
    return json.dumps(message, sort_keys=True)


def test_each_letter_goes_to_the_destination_it_was_for(path):
    """Of a message that one of two destinations refused, the other one gets no second copy."""
    with Receiver(wires=[VitallyWire(TOKEN), SegmentWire("key")]) as receiver:

        def destinations():
            return [Vitally(api_token=TOKEN, base_url=receiver.url), Segment("key", base_url=receiver.url)]

        receiver.decide = lambda messages: Reply(400) if "context" in messages[0] else None
        with Client(destinations(), dead_letters=path) as client:
            for number in range(3):
                client.track(f"u-{number}", "e", account_id="a")
            client.flush()
        receiver.decide = None
        with Client(destinations()) as client:
            assert replay(path, client).delivered == {"segment": 3}
        assert [len(receiver.messages_of(name)) for name in ("vitally", "segment")] == [3, 3]
        ids = [{one["messageId"] for one in receiver.messages_of(name)} for name in ("vitally", "segment")]
        assert ids[0] == ids[1]
    assert folder_is_clean(path)
    assert not path.exists()


@pytest.mark.usefixtures("environment")
def test_what_fails_again_stays_with_its_new_reason(receiver, path):
    """The same message, id and time, and why it failed this time."""
    write(path, "good", "bad", "fine", reason="exit", status=None)
    receiver.decide = lambda messages: Reply(413) if any(one["userId"] == "bad" for one in messages) else None
    result = replay(path)
    assert (result.delivered, result.failed, bool(result)) == ({"vitally": 2}, {"too_large": 1}, False)
    (line,) = lines_of(path)
    assert (line["reason"], line["status"]) == ("too_large", 413)
    expected = json.loads(letter("bad"))
    assert all(line[field] == expected[field] for field in ("message", "id", "time", "destination", "native"))
    assert line["written"] > expected["written"]
    receiver.decide = None
    again = replay(path)
    assert (again.found, again.delivered, bool(again)) == (1, {"vitally": 1}, True)
    assert Counter(one["messageId"] for one in receiver.messages) == {"id-good": 1, "id-bad": 1, "id-fine": 1}
    assert not path.exists()


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"userId": ""}, "invalid"),
        ({"userId": None}, "invalid"),
        ({"timestamp": "yesterday"}, "invalid"),
        ({"messageId": "x" * 100}, "invalid"),
        ({"type": "page", "name": "p"}, "unsupported"),
        ({"type": 5}, "invalid"),
        ({"properties": {"pad": "x" * 40_000}}, "too_large"),
    ],
)
def test_what_a_call_would_refuse_is_refused(receiver, path, change, reason):
    """An edited letter is checked as a call is, and one that is fit again is sent."""
    message = json.loads(letter("u"))["message"]
    write(path, "u", message={**message, **change})
    result = replay(path)
    assert (result.failed, adds_up(result)) == ({reason: 1}, True)
    (line,) = lines_of(path)
    assert (line["reason"], line["message"]) == (reason, {**message, **change})
    path.write_text(json.dumps({**line, "message": message}) + "\n")
    assert replay(path)
    assert receiver.messages[0] == message


@pytest.mark.usefixtures("environment")
def test_what_cannot_be_sent_stays_as_it_is(receiver, path):
    """Torn lines, foreign ones, those for a destination that the client has not; each is said by its reason."""
    torn = letter("torn")[:50]
    foreign = letter("foreign", destination="customerio")
    unfiltered = letter("unfiltered", before_send=True)
    path.write_text(f"{torn}\n{letter('u')}\n{foreign}[1]\n{unfiltered}{torn}")
    result = replay(path)
    assert result.delivered == {"vitally": 1}
    assert result.unsent == {
        "not a dead letter": 3,
        "the client has no destination of that name": 1,
        "written before a before_send, which the client does not have": 1,
    }
    assert adds_up(result)
    assert not result
    assert path.read_text() == f"{torn}\n{foreign}[1]\n{unfiltered}{torn}\n"
    assert [one["userId"] for one in receiver.messages] == ["u"]


def test_a_before_send_is_asked_again(make_client, receiver, path):
    """It may change a letter's message, and one that it drops is gone, as was its wish."""
    write(path, "kept", "dropped", before_send=True)

    def hook(message):
        return None if message["userId"] == "dropped" else {**message, "properties": {"seen": True}}

    result = replay(path, make_client(before_send=hook))
    assert (result.delivered, result.filtered, bool(result), adds_up(result)) == ({"vitally": 1}, 1, True, True)
    assert [one["properties"] for one in receiver.messages] == [{"seen": True}]
    assert not path.exists()


# Which files


@pytest.mark.usefixtures("environment")
def test_the_older_file_is_taken_too(receiver, path):
    """What was moved away when the file was full comes first."""
    write(older_of(path), "1", "2")
    write(path, "3", "4")
    assert replay(path).delivered == {"vitally": 4}
    assert [one["userId"] for one in receiver.messages] == ["1", "2", "3", "4"]
    write(older_of(path), "5")
    assert replay(path).delivered == {"vitally": 1}
    assert folder_is_clean(path)


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("content", [None, "", "\n \n"])
def test_without_letters_there_is_nothing_to_do(receiver, path, content):
    """No file, or an empty one."""
    if content is not None:
        path.write_text(content)
    assert replay(path) == ReplayResult()
    assert not receiver.requests
    assert folder_is_clean(path)


@pytest.mark.usefixtures("environment")
def test_a_folder_that_is_not_there_is_an_error(path):
    """A misspelt path is not taken for an empty file."""
    with pytest.raises(FileNotFoundError):
        replay(path.parent / "no" / "letters.jsonl")


@pytest.mark.usefixtures("environment")
def test_another_users_file_is_refused(path):
    """What stays would be in a file that its application can no longer write to."""
    if os.geteuid():
        pytest.skip("only root can give a file away")
    write(path, "u")
    os.chown(path, 12_345, 12_345)
    with pytest.raises(PermissionError, match="run this as that user"):
        replay(path)
    assert len(lines_of(path)) == 1


# Which client


@pytest.mark.parametrize("options", [{"when_full": "drop_oldest"}, {"enabled": False}])
def test_a_client_that_cannot_replay_is_refused(make_client, path, options):
    """One that gives up the oldest would give up letters, and one that is switched off sends nothing."""
    write(path, "u")
    with pytest.raises(ValueError, match="drop_oldest"):
        replay(path, make_client(**options))
    assert len(lines_of(path)) == 1


def test_a_small_queue_is_enough(make_client, receiver, path):
    """Letters that find no room wait for those before them."""
    write(path, *map(str, range(250)))
    assert replay(path, make_client(max_queue_messages=3)).delivered == {"vitally": 250}
    assert [one["userId"] for one in receiver.messages] == [*map(str, range(250))]


def test_a_client_keeps_its_own_letters(make_client, receiver, path, tmp_path):
    """What it drops of its own meanwhile, and later, is written where it writes."""
    own = tmp_path / "own.jsonl"
    write(path, "bad")
    client = make_client(dead_letters=own)
    receiver.decide = lambda _: Reply(400)
    client.track("own", "e", account_id="a")
    assert replay(path, client).failed == {"rejected": 1}
    client.track("later", "e", account_id="a")
    client.shutdown()
    assert [line["message"]["userId"] for line in lines_of(own)] == ["own", "later"]
    assert [line["message"]["userId"] for line in lines_of(path)] == ["bad"]


def test_what_failed_is_known_before_it_is_called_delivered(make_client, receiver, path):
    """A consumer that is slow to tell of a loss, here by its log, is waited for."""

    class Slow(logging.Handler):
        def emit(self, record):
            if "dropped" in record.getMessage():
                threading.Event().wait(0.3)

    write(path, "good", "bad")
    receiver.decide = lambda messages: Reply(400) if any(one["userId"] == "bad" for one in messages) else None
    handler = Slow()
    logging.getLogger("analytics_batcher").addHandler(handler)
    try:
        result = replay(path, make_client(flush_interval=0))
    finally:
        logging.getLogger("analytics_batcher").removeHandler(handler)
    assert (result.delivered, result.failed) == ({"vitally": 1}, {"rejected": 1})


@pytest.mark.usefixtures("environment")
def test_a_replay_gives_up_nothing(receiver, path):
    """What fails again is added to a file that is full, as moving it away would cost the older one."""

    def decide(_):
        older_of(path).write_text(letter("older"))
        with path.open("wb") as file:
            file.seek(64 * 2**20)
            file.write(b"\n")  # it takes no room on the disk
        return Reply(400)

    write(path, "u")
    receiver.decide = decide
    assert replay(path).failed == {"rejected": 1}
    assert [line["message"]["userId"] for line in lines_of(older_of(path))] == ["older"]
    assert json.loads(path.read_bytes().splitlines()[-1])["message"]["userId"] == "u"


def test_a_client_that_is_shut_down_sends_nothing(make_client, path):
    """It is said, and every letter is left."""
    write(path, "u", "v")
    client = make_client()
    client.shutdown()
    result = replay(path, client)
    assert (result.left, result.error) == (2, "the client was shut down")


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("option", "most"), [("BATCH_MESSAGES", 20), ("BATCH_BYTES", 5_000)])
def test_batches_are_as_large_as_one_request(receiver, environment, path, option, most):
    """What could be sent twice by a kill is one request, also where the batches are lowered."""
    environment.setenv(f"{PREFIX}{option}", str(most))
    write(path, *map(str, range(50)))
    done = []
    receiver.decide = lambda messages: done.append((len(messages), _settled(path)))
    assert replay(path)
    assert [settled for _, settled in done] == list(range(len(done)))
    counts = [count for count, _ in done]
    assert counts == [20, 20, 10] if option == "BATCH_MESSAGES" else len(counts) > 3


def _settled(path):
    progress = folder_of(path) / "done"
    return progress.read_bytes().count(b" settled\n") if progress.exists() else 0


# Failures of the vendor, and interruptions


@pytest.mark.usefixtures("environment")
def test_a_vendor_that_is_down_keeps_all(receiver, path):
    """After the timeout, or at once if the next attempt is later, all that was not settled is left for the next one."""
    write(path, *map(str, range(150)))
    receiver.decide = lambda messages: Reply(401) if messages[0]["userId"] == "100" else None
    began = time.monotonic()
    result = replay(path)
    assert time.monotonic() - began < 10
    assert (result.delivered, result.left, adds_up(result)) == ({"vitally": 100}, 50, True)
    assert "HTTP 401" in result.error
    assert TOKEN not in result.error
    receiver.decide = lambda _: Reply(503)
    stuck = replay(path, timeout=1.5)
    assert (stuck.found, stuck.left) == (50, 50)
    assert "HTTP 503" in stuck.error
    write(path, "new")
    receiver.decide = None
    result = replay(path)
    assert (result.found, result.delivered) == (51, {"vitally": 51})
    assert set(Counter(one["userId"] for one in receiver.messages).values()) == {1}
    assert folder_is_clean(path)


def test_what_expires_in_a_replay_stays(make_client, receiver, path):
    """A message that the client gives up meanwhile has failed again."""
    write(path, "u")
    receiver.decide = lambda _: Reply(503)
    client = make_client(retry=Retry(base=0.05, max_age=0.2))
    assert replay(path, client).failed == {"expired": 1}
    assert [line["reason"] for line in lines_of(path)] == ["expired"]


@pytest.mark.usefixtures("environment")
def test_a_second_replay_leaves(path):
    """While one is at work another one says so and touches nothing."""
    write(path, "u")
    with claimed(path):
        before = sorted(path.parent.rglob("*"))
        with pytest.raises(BlockingIOError, match="another replay"):
            replay(path)
        assert sorted(path.parent.rglob("*")) == before
    assert replay(path)


@pytest.mark.usefixtures("environment")
def test_no_room_for_what_fails_again_loses_nothing(path):
    """On a full disk it ends, and all that it could not put back is left."""
    write(path, "")
    facts = run("letters", "full_while_replaying", path).facts
    assert facts["first"] == [f"{os.strerror(28)}: {path}", 1]
    assert facts["second"] == [None, 0]
    assert facts["failed"] == {"invalid": 1}
    assert len(lines_of(path)) == 1


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("progress", "sent"),
    [
        (b"\n000001.jsonl %d settled\n", ["b", "c"]),
        (b"\n000001.jsonl %d settled\n\n000001.jsonl 9", ["b", "c"]),
        (b"\n000001.jsonl %d", ["a", "b", "c"]),
        (b"\n000001.jsonl %d settl", ["a", "b", "c"]),
        (b"\n000007.jsonl %d settled\n", ["a", "b", "c"]),
    ],
)
def test_a_half_written_note_of_progress_is_not_believed(receiver, path, progress, sent):
    """A killed replay may have written the beginning of a line."""
    folder = folder_of(path)
    folder.mkdir()
    write(folder / "000001.jsonl", "a", "b", "c")
    (folder / "done").write_bytes(progress % len(letter("a")))
    assert replay(path).found == len(sent)
    assert [one["userId"] for one in receiver.messages] == sent
    assert folder_is_clean(path)


def test_a_kill_at_any_step_of_a_replay_loses_nothing(environment, receiver, tmp_path, path):
    """Each letter arrives or stays; at most one batch comes twice, with the same ids; the next replay ends it."""
    environment.setenv(f"{PREFIX}BATCH_MESSAGES", "2")
    write(older_of(path), "ROUND-1", "ROUND-2")
    path.write_text(letter("ROUND-3") + letter("", id="ROUND-bad") + letter("ROUND-4"))
    work = tmp_path / "work"
    work.mkdir()
    rounds = run("letters", "killed_replaying", work, path, seconds=100).facts["rounds"]
    assert len(rounds) > 50
    assert {first for _, first, _ in rounds[:-1]} == {-signal.SIGKILL}
    assert {second for _, _, second in rounds} == {0}
    arrived = Counter(one["userId"] for one in receiver.messages)
    for step, _, _ in rounds:
        counts = [arrived[f"{step}-{number}"] for number in range(1, 5)]
        assert min(counts) == 1, (step, counts)
        assert sum(counts) <= 4 + 2, (step, counts)
        kept = lines_of(work / str(step) / "letters.jsonl")
        assert {line["id"] for line in kept} == {f"{step}-bad"}, step
        assert len(kept) <= 2, step
        assert [file.name for file in (work / str(step)).iterdir()] == ["letters.jsonl"], step


@pytest.mark.usefixtures("environment")
def test_others_may_write_meanwhile(receiver, path):
    """Replays beside a process that appends: every letter arrives, once."""
    with running("letters", "keeps_writing", path, 200) as writer:
        results = []
        ended = threading.Event()
        waiting = threading.Thread(target=lambda: (writer.end(), ended.set()))
        waiting.start()
        while not ended.is_set():
            results.append(replay(path))
        waiting.join()
    results.append(replay(path))
    assert sum(result.delivered.get("vitally", 0) for result in results) == 200
    assert len([result for result in results if result.found]) > 1
    arrived = [one["userId"] for one in receiver.messages]
    assert arrived == [f"late-{number}" for number in range(200)]
    assert folder_is_clean(path)


# The command


COMMAND = ["-m", "analytics_batcher"]


def run_command(*arguments):
    """The exit status of a command, and its lines, those to standard error last."""
    command = [sys.executable, *COMMAND, *map(str, arguments)]
    root = Path(analytics_batcher.__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, (done.stdout + done.stderr).splitlines()


@pytest.mark.usefixtures("environment")
def test_the_command_says_what_it_did(receiver, path):
    """Plain lines whose sums add up; the status is 3 while something fails, and 0 once nothing is left."""
    write(path, *map(str, range(5)))
    with path.open("a") as file:
        file.write(letter("other", destination="segment"))
    receiver.decide = lambda messages: Reply(400) if any(one["userId"] == "3" for one in messages) else None
    status, lines = run_command("replay", path)
    assert status == 3
    assert lines == [
        "found: 6",
        "delivered: 4 (vitally 4)",
        "failed again: 1 (rejected 1)",
        "not sent: 1 (the client has no destination of that name 1)",
        "left: 0",
        f"what failed again or was not sent is in {path}",
    ]
    receiver.decide = None
    path.write_text("".join(line + "\n" for line in path.read_text().splitlines() if '"segment"' not in line))
    assert run_command("replay", path) == (
        0,
        ["found: 1", "delivered: 1 (vitally 1)", "failed again: 0", "not sent: 0", "left: 0"],
    )


@pytest.mark.parametrize(
    ("variables", "options", "said"),
    [
        ({}, ["--timeout", "0"], "error: timeout=0.0: allowed is a number above 0"),
        ({"DESTINATION": "mars"}, [], "error: ANALYTICS_BATCHER_DESTINATION='mars'"),
        ({"ENABLED": "false"}, [], "error: client: allowed is one that is enabled"),
        ({"BASE_URL": "http://127.0.0.1:9"}, ["--timeout", "0.2"], "error: vitally: a batch was not settled"),
    ],
)
def test_the_command_fails_with_a_sentence(environment, path, variables, options, said):
    """Status 1, one line that says why, and every letter where it was or where the next replay finds it."""
    write(path, "u")
    for name, value in variables.items():
        environment.setenv(PREFIX + name, value)
    status, lines = run_command("replay", path, *options)
    assert status == 1
    assert lines[-1].startswith(said)
    for name in variables:
        environment.delenv(PREFIX + name)
    assert len([*path.parent.rglob("*.jsonl")]) == 1


@pytest.mark.usefixtures("environment")
def test_the_command_ignores_where_its_client_would_write_and_what_it_would_evict(environment, receiver, path):
    """An application's own settings may stand in the environment."""
    environment.setenv(f"{PREFIX}DEAD_LETTERS", str(path))
    environment.setenv(f"{PREFIX}WHEN_FULL", "drop_oldest")
    environment.setenv(f"{PREFIX}STRICT", "true")
    write(path, "good", "")
    status, lines = run_command("replay", path)
    assert (status, lines[:3]) == (3, ["found: 2", "delivered: 1 (vitally 1)", "failed again: 1 (invalid 1)"])
    assert len(lines_of(path)) == 1
    assert len(receiver.messages) == 1


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_says_what_is_left(receiver, wait_until, path, number, status):
    """Sums that add up, and the next one delivers the rest; what was in flight at most comes twice."""
    write(path, *map(str, range(250)))
    receiver.decide = lambda messages: Reply(hang=True) if messages[0]["userId"] == "100" else None
    with launched([*COMMAND, "replay", str(path)], {}) as process:
        wait_until(lambda: len(receiver.requests) == 2)
        process.signal(number)
        ended = process.end()
    assert ended.status == status
    assert "Traceback" not in ended.errors
    receiver.decide = None
    result = replay(path)
    assert (result.found, result.delivered) == (150, {"vitally": 150})
    assert Counter(one["userId"] for one in receiver.messages) == {str(number): 1 for number in range(250)}


@pytest.mark.usefixtures("environment")
def test_two_commands_at_once(receiver, path):
    """The second one says that another is at work and fails; the first goes on."""
    write(path, "u")
    begun, gate = threading.Event(), threading.Event()

    def decide(_):
        begun.set()
        gate.wait(10)

    receiver.decide = decide
    with launched([*COMMAND, "replay", str(path)], {}) as first:
        assert begun.wait(10)
        status, lines = run_command("replay", path)
        gate.set()
        assert first.end().status == 0
    assert (status, lines) == (1, ["error: another replay of this file is at work"])


def test_the_command_is_listed():
    """The help of the command line names it."""
    status, lines = run_command("--help")
    assert status == 0
    assert any("replay" in line and "dead letters" in line for line in lines)
