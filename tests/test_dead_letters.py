"""Dead letters: what is written, whole or not at all, whatever happens to the disk, the process and its siblings."""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import TOKEN, balanced
from programs.canary import PERSON, told
from programs.harness import run, running

from analytics_batcher import Client, CustomerIO, DropReason, MessageError, Retry, Segment, Vitally
from analytics_batcher.dead_letters import DeadLetters, append, older_of, read, with_reason
from analytics_batcher.encoding import OPTIONS, dumps
from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply, SegmentWire, VitallyWire
from analytics_batcher.stamp import NATIVE, new_head

posix = pytest.mark.skipif(
    os.name == "nt", reason="Windows has no such locks, links, modes and forks, and moves no open file"
)
FIELDS = [
    *("written", "destination", "reason", "detail", "status"),
    *("native", "before_send", "id", "time", "message"),
]
TRACK = {"type": "track", "event": "e", "userId": "u"}
NATIVE_MESSAGES = {
    "vitally": [
        {**TRACK, "properties": {}},
        {**TRACK, "properties": {}, "messageId": "own", "timestamp": "2026-01-02T03:04:05Z"},
    ],
    "customerio": [
        {"type": "person", "action": "event", "name": "e", "identifiers": {"id": "u"}},
        {"type": "person", "action": "identify", "identifiers": {"id": "u"}, "attributes": {}},
        {"type": "object", "action": "identify", "identifiers": {"object_type_id": "1", "object_id": "a"}},
    ],
    "segment": [TRACK, {**TRACK, "messageId": "own"}],
}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture
def path(tmp_path):
    """Where dead letters are to be written."""
    return tmp_path / "letters.jsonl"


def lines_of(path):
    """The lines of a file, each of which must be whole."""
    text = path.read_bytes()
    assert text.endswith(b"\n")
    return [json.loads(line) for line in text.splitlines()]


def letters_of(path, **options):
    """A writer, as a client has it."""
    return DeadLetters(
        path, "vitally", **{"id_field": "messageId", "time_field": "timestamp", "native_form": bytes, **options}
    )


def record(user="u", pad=0, flags=0):
    """A record as it lies in a buffer."""
    message = {"type": "track", "event": "e", "userId": user, "properties": {"pad": "x" * pad}}
    return new_head(flags) + dumps(message, None, OPTIONS)


def users_of(path):
    """The users whom the lines of a file are about."""
    return [line["message"]["userId"] for line in lines_of(path)]


# What is written


def test_a_rejected_message_is_a_line(make_client, receiver, path):
    """The message as it was sent, with its id and time, the reason, the status, the destination and the moment."""
    receiver.decide = lambda messages: Reply(400) if any(one["event"] == "bad" for one in messages) else None
    client = make_client(dead_letters=path, background=False)
    for event in ("good", "bad", "fine"):
        client.track("u", event, {"n": 1}, account_id="a")
    assert not client.flush()
    (line,) = lines_of(path)
    (sent,) = [
        one
        for request in receiver.requests
        if len(request.messages) == 1
        for one in request.messages
        if one["event"] == "bad"
    ]
    assert list(line) == FIELDS
    assert line["message"] == sent
    assert (line["id"], line["time"]) == (sent["messageId"], sent["timestamp"])
    assert (line["reason"], line["status"], line["destination"]) == ("rejected", 400, "vitally")
    assert line["detail"].startswith("HTTP 400")
    assert (line["native"], line["before_send"]) == (False, False)
    assert MOMENT.fullmatch(line["written"])
    assert [one["event"] for one in receiver.messages] == ["good", "fine"]


def test_status_is_that_of_the_answer(make_client, receiver, path, tmp_path):
    """413 for what is too large alone, 207 for what Customer.io lists; none for what no answer was the reason of."""
    receiver.decide = lambda _: Reply(413)
    client = make_client(dead_letters=path, background=False)
    client.track("u", "large", account_id="a")
    client.track("", "invalid")
    client.flush()
    assert {(line["reason"], line["status"]) for line in lines_of(path)} == {("too_large", 413), ("invalid", None)}
    with Receiver(CustomerIOWire("site", "key")) as other:
        other.script(Reply(partial={1: "name: missing"}))
        listed = tmp_path / "listed.jsonl"
        with Client(CustomerIO("site", "key", base_url=other.url), dead_letters=listed, background=False) as client:
            client.track("u", "first")
            client.track("u", "second")
            client.flush()
    (line,) = lines_of(listed)
    assert (line["reason"], line["status"], line["message"]["event"]) == ("rejected", 207, "second")


def test_a_forbidden_message_has_its_status(make_client, receiver, path):
    """Of a message that a firewall dislikes while it takes the others, 403 is the reason."""
    bad = {"event": "bad"}
    receiver.decide = lambda messages: Reply(403) if any(bad.items() <= one.items() for one in messages) else None
    client = make_client(dead_letters=path, background=False)
    consumer = client._lanes[0].pipeline._consumer
    for event in ("good", "bad", "fine"):
        client.track("u", event, account_id="a")
    for _ in range(10):
        consumer.not_before = 0.0  # without the minute that it waits before it probes
        client.flush(0.3)
    (line,) = lines_of(path)
    assert (line["reason"], line["status"], line["message"]["event"]) == ("rejected", 403, "bad")


def test_every_loss_is_written(make_client, receiver, path):
    """Rejected, expired, evicted, refused at the call for its data, its size, want of room, or after the end."""
    receiver.decide = lambda _: Reply(503)
    client = make_client(
        dead_letters=path, when_full="drop_oldest", max_queue_messages=2, retry=Retry(max_age=0.2), background=False
    )
    for event in ("evicted", "expired", "expired too"):
        client.track("u", event, account_id="a")
    client.track("", "invalid")
    client.track("u", "large", {"pad": "x" * 40_000}, account_id="a")
    client.page("u", "unsupported")
    client.enqueue({"type": "track", "event": "large, native", "pad": "x" * 40_000})
    client.flush(2)
    client.shutdown(0)
    client.track("u", "closed", account_id="a")
    found = {(line["reason"], line["message"].get("event", "")) for line in lines_of(path)}
    assert found == {
        ("queue_full", "evicted"),
        ("expired", "expired"),
        ("expired", "expired too"),
        ("invalid", "invalid"),
        ("too_large", "large"),
        ("too_large", "large, native"),
        ("unsupported", ""),
        ("closed", "closed"),
    }
    assert balanced(client.stats())
    assert sum(client.stats().dropped.values()) == len(lines_of(path))


def test_drop_newest_writes_what_it_refused(make_client, path):
    """What found no room is a dead letter too."""
    client = make_client(url="http://127.0.0.1:9", dead_letters=path, max_queue_messages=1, background=False)
    for event in ("kept", "refused"):
        client.track("u", event, account_id="a")
    client.flush(0.05)
    assert [(line["reason"], line["message"]["event"]) for line in lines_of(path)] == [("queue_full", "refused")]


def test_what_is_left_at_the_end_is_written_before_shutdown_returns(make_client, receiver, path):
    """Every message that is dropped as `exit`, those in flight included."""
    receiver.decide = lambda _: Reply(hang=True)
    client = make_client(dead_letters=path)
    for number in range(250):
        client.track(f"u-{number}", "e", account_id="a")
    assert client.shutdown(0.2).pending == 250
    assert users_of(path) == [f"u-{number}" for number in range(250)]
    assert {line["reason"] for line in lines_of(path)} == {"exit"}


def test_what_is_left_at_exit_is_written(path):
    """A process that ends while its vendor cannot be reached leaves dead letters."""
    ended = run("letters", "leaves", "http://127.0.0.1:9", path)
    assert ended.facts["accepted"] == 120
    assert sorted(users_of(path)) == sorted(f"u-{number}" for number in range(120))


@pytest.mark.parametrize("hook", [lambda _: None, lambda message: message["no such field"]], ids=["none", "raises"])
def test_what_before_send_drops_is_not_written(make_client, path, hook):
    """That was the application's own wish, and a hook that raises fails closed."""
    client = make_client(dead_letters=path, before_send=hook, background=False)
    client.track("u", "e", account_id="a")
    client.flush()
    assert client.stats().dropped == {"filtered": 1}
    assert not path.exists()


def test_a_letter_says_that_it_is_older_than_before_send(make_client, receiver, path):
    """It holds the message as it was tracked, and says that its client would have changed it."""
    receiver.decide = lambda _: Reply(400)
    client = make_client(dead_letters=path, before_send=lambda one: {**one, "properties": {}}, background=False)
    client.track("u", "e", {"n": 1}, account_id="a")
    client.flush()
    (line,) = lines_of(path)
    assert (line["before_send"], line["message"]["properties"]) == (True, {"n": 1})


def test_strict_calls_leave_no_letters(make_client, path):
    """What raised at the call was never taken."""
    client = make_client(dead_letters=path, strict=True, background=False)
    with pytest.raises(MessageError):
        client.track("", "bad")
    client.flush()
    assert not path.exists()


@pytest.mark.parametrize("kind", ["vitally", "customerio", "segment"])
def test_a_native_message_is_written_as_it_was_sent(path, kind):
    """In the vendor's form, with the id and the time that it got where it had none, and only where it got them."""
    native = NATIVE_MESSAGES[kind]
    wires = {"vitally": VitallyWire(TOKEN), "customerio": CustomerIOWire("s", "k"), "segment": SegmentWire("k")}
    with Receiver(wires[kind]) as receiver:
        receiver.decide = lambda _: Reply(400)
        destination = {
            "vitally": lambda url: Vitally(api_token=TOKEN, base_url=url),
            "customerio": lambda url: CustomerIO("s", "k", base_url=url),
            "segment": lambda url: Segment("k", base_url=url),
        }[kind](receiver.url)
        with Client(destination, dead_letters=path, background=False) as client:
            for message in native:
                client.enqueue(message)
            client.flush()
        sent = [one for request in receiver.requests if len(request.messages) == 1 for one in request.messages]
    lines = lines_of(path)
    assert [line["message"] for line in lines] == sent
    assert all(line["native"] for line in lines)
    for line, given in zip(lines, native, strict=True):
        assert given.items() <= line["message"].items()
        assert line["id"] == line["message"].get(destination.id_field, line["id"])
        assert line["time"] == line["message"].get("timestamp", line["time"])


def test_several_destinations_share_a_file(path):
    """Each writes what it could not deliver, under its name; what is of no kind there concerns it alone."""
    with Receiver(wires=[VitallyWire(TOKEN), SegmentWire("k")]) as receiver:
        receiver.decide = lambda _: Reply(400)
        both = [Vitally(api_token=TOKEN, base_url=receiver.url), Segment("k", base_url=receiver.url, name="other")]
        with Client(both, dead_letters=path) as client:
            client.track("u", "e", account_id="a")
            client.page("u", "p")
            client.flush()
    found = sorted((line["destination"], line["reason"], line["message"]["type"]) for line in lines_of(path))
    assert found == [
        ("other", "rejected", "page"),
        ("other", "rejected", "track"),
        ("vitally", "rejected", "track"),
        ("vitally", "unsupported", "page"),
    ]
    ids = {line["id"] for line in lines_of(path) if line["message"]["type"] == "track"}
    assert len(ids) == 1


def test_what_was_too_much_to_keep_is_said(make_client, path, caplog):
    """Refused messages are kept within a bound; one line says how many are not among the letters."""
    client = make_client(dead_letters=path, max_queue_bytes=16_000, background=False)
    for number in range(100):
        client.track("", "bad", {"n": number, "pad": "x" * 50})
    client.flush()
    written = len(lines_of(path))
    assert 0 < written < 100
    (line,) = [one.getMessage() for one in caplog.records if "not among the dead letters" in one.getMessage()]
    assert line.startswith(f"vitally: {100 - written} dropped messages")


def test_letters_hold_no_secret(make_client, receiver, path):
    """Not the token, though the server repeats it; the person's data are there, which is what the mode is for."""
    receiver.decide = lambda _: Reply(400, body=b'{"error":"bad token %b"}' % TOKEN.encode())
    client = make_client(dead_letters=path, background=False)
    client.track("u", "e", {"email": PERSON}, account_id="a")
    client.flush()
    assert told(path.read_text()) == [PERSON]


# Where it is written


@posix
def test_the_file_is_its_owners_alone(path):
    """Mode 0600, whatever the umask; so is the one after a rotation."""
    before = os.umask(0)
    try:
        letters = letters_of(path, most_bytes=1_000)
        for number in range(6):
            assert letters.write(DropReason.EXIT, "", None, [record(f"u-{number}")]) is None
    finally:
        os.umask(before)
    assert {stat.S_IMODE(file.stat().st_mode) for file in (path, older_of(path))} == {0o600}


def test_a_relative_path_stays_where_it_was(make_client, tmp_path, monkeypatch):
    """An application may change its folder after it made the client."""
    monkeypatch.chdir(tmp_path)
    client = make_client(dead_letters="letters.jsonl", background=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    client.track("", "bad")
    client.flush()
    assert len(lines_of(tmp_path / "letters.jsonl")) == 1


@pytest.mark.parametrize("given", ["", "folder/", b"letters", 5, True, "a\0b"])
def test_a_path_that_is_none_is_refused(make_client, given):
    """The error names the option."""
    with pytest.raises(ValueError, match=r"^dead_letters=.*allowed is the path of a file"):
        make_client(dead_letters=given)


def test_making_a_client_writes_nothing(make_client, path):
    """The file is made for the first letter."""
    make_client(dead_letters=path).track("u", "e", account_id="a")
    assert not path.exists()


class _Telltale(Vitally):
    """Vitally, which is asked what a native message is like for its letter alone, if it is too large to be sent."""

    def wire(self, record):
        """A record's form, once it was told of."""
        self.told(threading.current_thread())
        return super().wire(record)


def test_no_letter_is_written_on_the_callers_path(path, receiver, wait_until):
    """It is written by the consumer's thread, under no lock: the client answers meanwhile."""
    destination = _Telltale(api_token=TOKEN, base_url=receiver.url)
    threads, seen = [], []

    def told(thread):
        threads.append(thread)
        other = threading.Thread(target=lambda: seen.append((client.track("u", "e", account_id="a"), client.stats())))
        other.start()
        other.join(5)

    destination.told = told
    client = Client(destination, dead_letters=path)
    assert not client.enqueue({"type": "track", "pad": "x" * 40_000})
    wait_until(path.exists)
    assert threads[0].name == "analytics-batcher:vitally"
    assert seen[0][0] is True
    client.shutdown(0)


# The disk


@posix
def test_a_full_disk_costs_letters_and_nothing_else(receiver, tmp_path):
    """Whole lines or none, one damped line of log, no exception and no wait; with room again it goes on."""
    ended = run("letters", "small_disk", receiver.url, tmp_path)
    facts = ended.facts
    assert (ended.status, facts["full"]) == (0, facts["whole"])
    assert facts["dropped"] == {"invalid": 54} == {"invalid": facts["tracked"]}
    assert facts["seconds"] < 5
    events = [line["message"]["event"] for line in lines_of(tmp_path / "letters.jsonl")]
    assert events == ["first 0", "first 1", "first 2", "last"]
    assert ended.errors.count("not among the dead letters: " + os.strerror(errno.ENOSPC)) == 1


def test_a_folder_that_is_gone_is_found_again(make_client, tmp_path, caplog):
    """While it is gone one damped line says so; when it is back letters are written again."""
    folder = tmp_path / "folder"
    client = make_client(dead_letters=folder / "letters.jsonl", background=False)
    for event in ("one", "two"):
        client.track("", event)
        assert client.flush()
    folder.mkdir()
    client.track("", "three")
    client.flush()
    assert [line["message"]["event"] for line in lines_of(folder / "letters.jsonl")] == ["three"]
    said = [one.getMessage() for one in caplog.records if "not among the dead letters" in one.getMessage()]
    assert said == [f"vitally: 1 dropped messages are not among the dead letters: {os.strerror(errno.ENOENT)}"]


@posix
@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "device"])
def test_only_a_regular_file_is_written_to(make_client, tmp_path, path, caplog, kind):
    """A pipe that nobody reads stops nobody, and what a link leads to is not touched."""
    target = tmp_path / "target"
    target.write_text("its own")
    {
        "pipe": lambda: os.mkfifo(path),
        "link": lambda: path.symlink_to(target),
        "folder": path.mkdir,
        "device": lambda: None,
    }[kind]()
    client = make_client(dead_letters="/dev/null" if kind == "device" else path, background=False)
    client.track("", "bad")
    assert client.flush(5)
    assert [one for one in caplog.records if "not among the dead letters" in one.getMessage()]
    assert target.read_text() == "its own"


@posix
def test_who_keeps_the_lock_costs_a_second_once(make_client, path, caplog):
    """A process that was stopped with the lock in its hands: one wait, none from then on, and all is well after it."""
    with running("letters", "holds", path) as holder:
        _wait(lambda: holder.has_said("held"))
        client = make_client(dead_letters=path, background=False)
        seconds = []
        for event in map(str, range(9)):
            client.track("", event)
            began = time.monotonic()
            client.flush()
            seconds.append(time.monotonic() - began)
        assert seconds[0] < 2.5
        assert sum(seconds[1:]) < 4.0  # and not one for each
        assert path.read_bytes() == b""
        holder.tell()
        holder.end()
    client.track("", "after")
    client.flush()
    assert [line["message"]["event"] for line in lines_of(path)] == ["after"]
    assert any("another process keeps it locked" in one.getMessage() for one in caplog.records)


def _wait(condition):
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.005)


@pytest.mark.parametrize("torn", [b'{"half', b'{"half":1}', b'one\n{"half'])
def test_a_torn_last_line_swallows_no_other(path, torn):
    """What a killed process left behind becomes a line of its own, which is no letter."""
    path.write_bytes(torn)
    letters_of(path).write(DropReason.EXIT, "", None, [record("after")])
    *before, after = path.read_bytes().splitlines()
    assert b"\n".join(before) == torn
    assert read(after).message["userId"] == "after"
    assert not any(map(read, before))


@posix
def test_the_file_is_bounded(path, caplog):
    """At its bound it becomes the older file, whose place it takes; what is given up with that is said."""
    letters = letters_of(path, most_bytes=5_000)
    for number in range(40):
        letters.write(DropReason.EXIT, "", None, [record(f"u-{number}", 200)])
        assert path.stat().st_size <= 5_000
    users = [*users_of(older_of(path)), *users_of(path)]
    assert users == [f"u-{number}" for number in range(40 - len(users), 40)]
    assert 4_000 < older_of(path).stat().st_size <= 5_000
    assert sorted(path.parent.iterdir()) == sorted([path, older_of(path)])
    assert {one.levelno for one in caplog.records if "the oldest" in one.getMessage()} == {logging.WARNING}


@posix
def test_the_default_bound_is_64_mib(make_client, path):
    """So much may stand in a file, and as much in the older one."""
    with path.open("wb") as file:
        file.seek(64 * 2**20 - 20)
        file.write(b"\n")  # it takes no room on the disk
    client = make_client(dead_letters=path, background=False)
    client.track("", "bad")
    client.flush()
    assert older_of(path).stat().st_size == 64 * 2**20 - 19
    assert len(lines_of(path)) == 1


@posix
def test_many_letters_are_written_in_pieces(path):
    """What is left at the end of a large queue is not copied at once: files are moved in between."""
    letters = letters_of(path, most_bytes=3 * 2**20)
    records = [record(f"u-{number}", 20_000) for number in range(250)]
    assert letters.write(DropReason.EXIT, "", None, records) is None
    assert path.stat().st_size <= 3 * 2**20
    assert [*users_of(older_of(path)), *users_of(path)] == [f"u-{number}" for number in range(250)]


# Several at once


@posix
def test_several_processes_lose_nothing_below_the_bound(path):
    """Every line of four processes is there, whole, in each one's order, though the file was moved among them."""
    bound = 4 * 200 * 480 * 2 // 3
    ended = run("letters", "appends", path, 4, 200, bound, seconds=60)
    assert ended.facts["statuses"] == [0] * 4
    numbers = _numbers([*users_of(older_of(path)), *users_of(path)])
    assert numbers == {str(name): list(range(200)) for name in range(4)}
    assert path.stat().st_size < older_of(path).stat().st_size <= bound


@posix
def test_several_processes_give_up_the_oldest_only(path):
    """With many rotations, what is kept of each process is all that it wrote last."""
    ended = run("letters", "appends", path, 4, 300, 40_000, seconds=60)
    assert ended.facts["statuses"] == [0] * 4
    numbers = _numbers([*users_of(older_of(path)), *users_of(path)])
    for kept in numbers.values():
        assert kept == list(range(kept[0], 300))
    assert max(path.stat().st_size, older_of(path).stat().st_size) <= 40_000


def _numbers(users):
    numbers = defaultdict(list)
    for user in users:
        name, _, number = user.partition("-")
        numbers[name].append(int(number))
    return dict(numbers)


@posix
def test_killed_writers_leave_whole_lines(path):
    """Of processes killed while they append, all that was acknowledged is there, and no line spoils another."""
    ended = run("letters", "killed_writers", path, 40, seconds=60)
    acknowledged = ended.facts["acknowledged"]
    lines = path.read_bytes().splitlines()
    letters = [letter for letter in map(read, lines) if letter is not None]
    users = {letter.message["userId"] for letter in letters}
    for first in acknowledged:
        turn, name, number = first.split("-")
        assert {f"{turn}-{name}-{place}" for place in range(int(number), int(number) + 20)} <= users
    assert len(acknowledged) > 20
    assert len(users) == len(letters)
    assert len(lines) - len(letters) <= 80  # at most one torn line for each that was killed


@posix
def test_a_kill_at_any_step_of_appending_loses_nothing(tmp_path):
    """With a rotation among the steps: what was acknowledged is there, each line is whole, and the next is written."""
    ended = run("letters", "killed_appending", tmp_path, seconds=60)
    rounds = ended.facts["rounds"]
    assert len(rounds) > 30
    assert rounds[-1][1] == ["0", "1", "2", "3"]
    for step, acknowledged, after in rounds:
        path = tmp_path / str(step) / "letters.jsonl"
        assert after is None
        users = [user for file in (older_of(path), path) if file.exists() for user in users_of(file)]
        assert {f"u-{number}" for number in acknowledged} | {"u-after"} <= set(users)
        assert len(users) == len(set(users))


@posix
def test_parent_and_child_write_to_one_file(receiver, path):
    """After a fork each writes its own."""
    ended = run("letters", "forks", receiver.url, path)
    assert ended.facts["status"] == 0
    events = sorted(line["message"]["event"] for line in lines_of(path))
    assert events == ["child's", "parent's first", "parent's second"]


def test_a_file_that_was_moved_away_is_not_written_to(path, tmp_path):
    """Whoever waits for a file that another one moves writes to the new file."""
    fcntl = pytest.importorskip("fcntl")
    path.write_bytes(b"{}\n")
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        writer = threading.Thread(target=append, args=(path, b'{"new":1}\n'), kwargs={"patience": 10.0})
        writer.start()
        _wait(lambda: len(_open_files(path)) >= 2)
        path.rename(tmp_path / "moved")
    writer.join(10)
    assert (tmp_path / "moved").read_bytes() == b"{}\n"
    assert path.read_bytes() == b'{"new":1}\n'


def _open_files(path):
    """The descriptors of this process that lead to a file."""
    found = []
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - names
        with suppress(OSError):
            if os.path.samestat(os.fstat(int(name)), path.stat()):
                found.append(name)
    return found


def test_a_writer_that_interrupts_itself_waits_for_nobody(path):
    """What a finalizer or a signal handler drops in the middle of writing is written by the call it interrupted."""

    def interrupts(own):
        if letters_left:
            assert letters.write(DropReason.CLOSED, "", None, [letters_left.pop()]) is None
        return own[24:]

    letters_left = [record("inner")]
    letters = letters_of(path, native_form=interrupts)
    began = time.monotonic()
    assert letters.write(DropReason.EXIT, "", None, [record("outer", flags=NATIVE)]) is None
    assert time.monotonic() - began < 1
    assert users_of(path) == ["outer", "inner"]


@posix
def test_no_descriptor_stays_open(path):
    """Neither after a letter, nor after a failure, nor in a child that was made in between."""
    before = len(os.listdir("/dev/fd")) if Path("/dev/fd").exists() else 0  # noqa: PTH208 - names
    letters = letters_of(path)
    letters.write(DropReason.EXIT, "", None, [record()])
    path.unlink()
    path.mkdir()
    missed, why = letters.write(DropReason.EXIT, "", None, [record()])
    assert (missed, why) == (1, os.strerror(errno.EISDIR))
    letters.reset()
    assert (len(os.listdir("/dev/fd")) if Path("/dev/fd").exists() else 0) == before  # noqa: PTH208 - names


def test_a_letter_that_failed_again_keeps_all_but_its_reason(path):
    """The message, its id, its time, and whatever else stands in the line."""
    letters_of(path).write(DropReason.REJECTED, "bad", 400, [record()])
    line = json.loads(path.read_bytes())
    letter = read(dumps({**line, "note": "mine"}, None, OPTIONS))
    again = json.loads(with_reason(letter, "expired", "a\nb", None))
    assert again == {
        **line,
        "note": "mine",
        "reason": "expired",
        "detail": "a\\nb",
        "status": None,
        "written": again["written"],
    }


@pytest.mark.parametrize("line", [b"", b"x", b"[]", b"{}", b'{"destination":"a"}', b'{"destination":1,"message":{}}'])
def test_what_is_no_letter_is_not_read(line):
    """A torn or foreign line is none."""
    assert read(line) is None


def test_a_refused_call_keeps_its_id_and_time(make_client, path):
    """What is invalid is told and written with the id and the time that it was given, as far as these are right."""
    drops = []
    client = make_client(dead_letters=path, on_drop=drops.append, background=False)
    client.track("", "e", message_id="given", timestamp="2026-01-02T03:04:05Z")
    client.track("u", "e", message_id="", timestamp=1_700_000_000)
    client.track("u", "e", message_id="other", timestamp="no time")
    client.flush()
    first, second, third = [message for drop in drops for message in drop.messages]
    assert (first["messageId"], first["timestamp"]) == ("given", "2026-01-02T03:04:05.000Z")
    assert (second["messageId"] != "", second["timestamp"]) == (True, "2023-11-14T22:13:20.000Z")
    assert third["messageId"] == "other"
    assert [line["id"] for line in lines_of(path)] == [first["messageId"], second["messageId"], "other"]
