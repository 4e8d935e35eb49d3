from __future__ import annotations

import os
import random
import shutil
import sqlite3
import stat
import struct
import threading
import time
from contextlib import closing

import pytest
from conftest import balanced
from programs.canary import TOKEN

from analytics_batcher import Client, DropReason, SqliteBuffer, Vitally
from analytics_batcher.buffers import Lease
from analytics_batcher.buffers.spool_disk import PAGE, Trouble
from analytics_batcher.errors import QueueFull, SpoolError
from analytics_batcher.receiver import Reply
from analytics_batcher.stamp import HEAD_BYTES, STAMP_BYTES, accepted_at, new_head
from analytics_batcher.stats import Loss

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a durable buffer needs the locks of files")

EVERYTHING = 10**9
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def path(tmp_path):
    """Where a spool may be, in a folder of its own."""
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder / "spool.db"


@pytest.fixture
def open_buffer(path):
    """Opens buffers on the file, and lets them go at the end."""
    opened = []

    def open_one(*arguments, destination="vitally", settings=None, **options):
        opened.append((settings or SqliteBuffer(path)).open(destination, *arguments, **options))
        return opened[-1]

    yield open_one
    for buffer in opened:
        buffer.finish()


@pytest.fixture
def client_of(path, make_client):
    """Makes clients that keep their messages in the file."""

    def make(**options):
        return make_client(**{"buffer": SqliteBuffer(path), "flush_interval": 0.01, **options})

    return make


def files(path):
    """The names of all files of a spool."""
    return [one.name for one in path.parent.iterdir()]


def record(body=b"{}"):
    """A record with a stamp of now."""
    return new_head() + body


def fill(buffer, count, size=0):
    """Put so many records, which are returned, into a buffer that has room for them."""
    records = [record(b'{"n":%d}' % number + b" " * size) for number in range(count)]
    for one in records:
        assert buffer.put(one) is None
    return records


def leased(buffer, messages=EVERYTHING):
    """A lease of at most so many."""
    lease = Lease()
    buffer.take(lease, messages, EVERYTHING)
    return lease


def drained(buffer):
    """All records, each settled."""
    records = []
    while (lease := leased(buffer, 100)).records:
        records += lease.records
        assert buffer.settle(lease, range(len(lease.records)), [])
    return records


def sql(path, statement, *values):
    """What a statement, made past the buffer, answers."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(statement, values).fetchall()


def balance(buffer):
    """What was accepted, refused or taken over, less all that became of it: 0 by the law of conservation."""
    reading = buffer.read()
    ledger = reading.ledger
    settled = ledger.delivered + sum(ledger.dropped.values()) + reading.messages + ledger.handed_over
    return ledger.tracked + ledger.recovered - settled


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"path": ""}, "path="),
        ({"path": 7}, "path="),
        ({"path": "a\0b"}, "path="),
        ({"path": b"x"}, "path="),
        ({"synchronous": "off"}, "synchronous="),
        ({"max_messages": 0}, "max_messages="),
        ({"max_bytes": 1_000}, "max_bytes="),
        ({"on_error": "ignore"}, "on_error="),
    ],
)
def test_a_wrong_setting_is_refused(options, named):
    """The error names the setting, and nothing is made."""
    with pytest.raises(ValueError, match=named):
        SqliteBuffer(**{"path": "spool.db", **options})


@pytest.mark.parametrize("given", ["spool.db", 7, SqliteBuffer])
def test_a_buffer_is_no_path(make_client, given):
    """A client is given settings; what else is given is named in the error."""
    with pytest.raises(ValueError, match=r"^buffer="):
        make_client(buffer=given)


@pytest.mark.parametrize(("synchronous", "level"), [("normal", 1), ("full", 2)])
def test_the_disk_is_waited_for_as_asked(path, open_buffer, synchronous, level):
    """`"normal"` and `"full"` are SQLite's own; either way the log is written before the call returns."""
    buffer = open_buffer(settings=SqliteBuffer(path, synchronous=synchronous))
    fill(buffer, 1)
    assert buffer._file._writer.execute("PRAGMA synchronous").fetchone()[0] == level
    assert buffer._file._writer.execute("PRAGMA journal_mode").fetchone()[0] == b"wal"
    assert len(sql(path, "SELECT * FROM message")) == 1


# --- Whose file it is -------------------------------------------------------------------------------------------------


def strangers(path):
    """Files that are not ours, each with a word of the error."""
    return {
        "text": (lambda: path.write_text("no database, but somebody's notes"), "no SQLite database"),
        "short": (lambda: path.write_bytes(b"SQLite format 3\0"), "no SQLite database"),
        "another's": (lambda: sql(path, "CREATE TABLE theirs (x)"), "another application's"),
        "newer": (
            lambda: [SqliteBuffer(path).open("x").finish(), sql(path, "PRAGMA user_version = 99")],
            "newer version",
        ),
    }


@pytest.mark.parametrize("kind", ["text", "short", "another's", "newer"])
def test_a_strange_file_is_refused_and_left_as_it_is(path, client_of, kind):
    """What is no database, or another application's, or of a newer version, is named and not touched."""
    make, word = strangers(path)[kind]
    make()
    before = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(ValueError, match=word) as error:
        client_of()
    assert str(path) in str(error.value)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert not [one for one in files(path) if one.endswith(".owner")]


def test_a_disk_without_shared_memory_is_refused(open_buffer, monkeypatch):
    """As one over the network is, for SQLite's log; here by that one of SQLite's own drivers which has none."""
    connect = sqlite3.connect

    def without(address, **options):
        return connect(f"{address}&vfs=unix-dotfile", **options)

    monkeypatch.setattr(sqlite3, "connect", without)
    with pytest.raises(ValueError, match="is on no local disk"):
        open_buffer()


def test_a_folder_must_be_there(tmp_path, make_client):
    """A spool's folder is not made: the error names it."""
    with pytest.raises(ValueError, match=r"none is no folder"):
        make_client(buffer=SqliteBuffer(tmp_path / "none" / "spool.db"))
    assert not (tmp_path / "none").exists()


def test_an_empty_file_is_a_new_one(path, open_buffer):
    """As a deployment may have made it, with the rights that it wants."""
    path.touch(0o640)
    records = fill(open_buffer(), 2)
    assert drained(open_buffer()) == []
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert len(records) == 2


def test_nobody_else_may_read_the_files(path, client_of):
    """All files of a spool are its user's alone, whatever the process's mask."""
    mask = os.umask(0)
    try:
        client = client_of(url=NOWHERE)
        for _ in range(10):
            client.track("u", "happened")
        found = {one: stat.S_IMODE((path.parent / one).stat().st_mode) for one in files(path)}
    finally:
        os.umask(mask)
    assert len(found) >= 4
    assert set(found.values()) == {0o600}


def test_no_secret_is_in_the_files(path, client_of):
    """Neither a destination's token nor its address is kept with its messages."""
    client = client_of(url=NOWHERE)
    for _ in range(10):
        client.track("user-7", "happened")
    content = b"".join((path.parent / one).read_bytes() for one in files(path))
    assert b"user-7" in content
    assert TOKEN.encode() not in content
    assert b"127.0.0.1" not in content
    assert TOKEN not in repr(client)


# --- Damaged files ----------------------------------------------------------------------------------------------------


def prepared(path, count=600):
    """A file with messages that nobody keeps any more, all of it in the file itself."""
    buffer = SqliteBuffer(path).open("vitally", 10)
    records = fill(buffer, count, 200)
    buffer._file.checkpoint()
    buffer.finish()
    assert not path.with_name("spool.db-wal").exists()
    return records


def flip(path, chance):
    """Flip some bits."""
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 3, 30])):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def blot(path, chance):
    """Overwrite some pages."""
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 5])):
        page = chance.randrange(1, len(content) // PAGE)
        content[page * PAGE : (page + 1) * PAGE] = chance.randbytes(PAGE)
    path.write_bytes(content)


def cut(path, chance):
    """Lose the file's end."""
    os.truncate(path, chance.randrange(path.stat().st_size))


def opened_or_refused(path):
    """A buffer; `None` if the file is refused, by an error that names it."""
    try:
        return SqliteBuffer(path).open("vitally", 100)
    except ValueError as error:
        if str(path) not in str(error):
            raise
        return None


def but_for_its_age(one):
    """A record without its moment of acceptance, which is found anew if the file names another run of the system."""
    return one[:STAMP_BYTES] + one[HEAD_BYTES:]


@pytest.mark.parametrize("damage", [flip, blot, cut])
def test_a_damaged_file_costs_what_was_touched(tmp_path, damage):
    """Flipped bits, lost pages, a lost end: a clear error, or the rest is sent, in order, and the loss counted."""
    chance = random.Random(11)
    whole = tmp_path / "spool.db"
    records = prepared(whole)
    place = {but_for_its_age(one): number for number, one in enumerate(records)}
    outcomes = []
    for turn in range(25):
        (tmp_path / str(turn)).mkdir()
        path = tmp_path / str(turn) / "spool.db"
        shutil.copy(whole, path)
        damage(path, chance)
        begun = time.monotonic()
        buffer = opened_or_refused(path)
        if buffer is None:
            outcomes.append("refused")
            continue
        kept = drained(buffer)
        new = [record()] if buffer.put(record()) is None else []
        buffer._tend()
        kept += drained(buffer)
        found = [place[one] for one in map(but_for_its_age, kept) if one in place]
        assert len(found) + len(new) == len(kept), "a damaged record was handed out"
        assert found == sorted(set(found))
        ledger = buffer.read().ledger
        assert (buffer.read().messages, balance(buffer)) == (0, 0)
        assert ledger.delivered == len(kept)
        buffer.finish()
        assert time.monotonic() - begun < 10
        outcomes.append("part" if len(found) < len(records) else "whole")
    assert {"part"} <= set(outcomes), outcomes
    assert outcomes.count("refused") < 20, outcomes


def test_a_loss_is_told(path, client_of, wait_until):
    """What cannot be read any more is counted, and `on_drop` is told."""
    first = client_of(url=NOWHERE)
    for _ in range(5):
        assert first.track("u", "happened")
    first.shutdown(0)
    sql(path, "UPDATE message SET record = zeroblob(60) WHERE row = (SELECT min(row) + 2 FROM message)")
    drops = []
    client = client_of(on_drop=drops.append)
    wait_until(lambda: client.stats().delivered == 4 and drops)
    assert [(drop.reason, drop.count) for drop in drops] == [("spool_error", 1)]
    assert dict(client.stats().dropped) == {"spool_error": 1}
    assert balanced(client.stats())
    wait_until(lambda: sql(path, "SELECT count(*) FROM message") == [(0,)])


# --- Bounds and space -------------------------------------------------------------------------------------------------


def test_space_is_used_again(path, open_buffer):
    """The file does not grow by what was delivered, nor does its log."""
    buffer = open_buffer()
    sizes = []
    for _ in range(20):
        fill(buffer, 300, 300)
        assert len(drained(buffer)) == 300
        buffer._tend()
        sizes.append(sum((path.parent / one).stat().st_size for one in files(path)))
    assert sizes[-1] <= 1.2 * sizes[3]
    assert sizes[-1] < 10 * 2**20


def is_read(path):
    """Whether somebody reads the file, so that its log cannot begin anew."""
    with closing(sqlite3.connect(path, timeout=0)) as connection:
        return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])


def test_puts_share_a_transaction_until_somebody_comes_by(path, open_buffer):
    """Where a thread runs the consumer, puts read on from one to the next, and it ends that when it comes by."""
    buffer = open_buffer()
    fill(buffer, 6)
    assert not is_read(path), "without a thread nobody would end it"
    buffer.wake()
    buffer.wait(None)  # as a consumer's thread does
    fill(buffer, 100)
    assert is_read(path)
    assert len(drained(buffer)) == 106
    assert not is_read(path)
    fill(buffer, 3)
    assert is_read(path)
    buffer._tend()
    assert not is_read(path)


def test_puts_of_two_who_share_nothing_with_each_other(path, open_buffer):
    """Each one's put makes what the other's share outdated: none is refused for that, and each is there once."""
    both = open_buffer(), open_buffer(destination="segment")
    for buffer in both:
        buffer.wake()
        buffer.wait(None)
    records = [record(b"%d" % number) for number in range(300)]
    for number, one in enumerate(records):
        assert both[number % 7 % 2].put(one) is None
    assert sorted(one for (one,) in sql(path, "SELECT record FROM message")) == sorted(records)


def test_the_log_is_bounded_while_somebody_reads(path, open_buffer, wait_until):
    """Messages come and go while another reads the file: at last they are refused, until he has gone."""
    buffer = open_buffer(settings=SqliteBuffer(path, max_bytes=2**20))
    log = path.with_name(f"{path.name}-wal")
    fill(buffer, 1)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("SELECT row FROM message").fetchone()
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM message").fetchone()
        reasons = set()
        for _ in range(1_500):
            reasons.add(buffer.put(record()))
            drained(buffer)
        assert reasons == {None, DropReason.SPOOL_FULL}
        assert buffer.trouble == "the log is full while another process reads the file"
        assert log.stat().st_size < 2 * 2**20
    wait_until(lambda: buffer.put(record()) is None, 5)
    assert log.stat().st_size < 2**20


def test_the_file_is_bounded(path, open_buffer):
    """A file of 1 MB takes what it has room for, refuses the rest as `spool_full`, and takes more when some is gone."""
    buffer = open_buffer(settings=SqliteBuffer(path, max_bytes=2**20))
    accepted = 0
    while (reason := buffer.put(record(b"x" * 1_000))) is None:
        accepted += 1
    assert reason is DropReason.SPOOL_FULL
    assert 400 < accepted < 1_024
    buffer._file.checkpoint()
    assert path.stat().st_size <= 2**20 + PAGE
    lease = leased(buffer, 100)
    buffer.settle(lease, range(100), [])
    assert buffer.put(record(b"x" * 1_000)) is None


def test_the_bytes_of_others_count_too(path, open_buffer):
    """Several owners share the file's bound."""
    settings = SqliteBuffer(path, max_bytes=2**20)
    one, other = open_buffer(settings=settings), open_buffer(settings=settings)
    while one.put(record(b"x" * 1_000)) is None:
        pass
    more = 0
    while other.put(record(b"x" * 1_000)) is None:
        more += 1
    assert more < 20


def test_the_messages_of_others_count_too(path, open_buffer):
    """With `max_messages`, those of all owners are counted."""
    settings = SqliteBuffer(path, max_messages=10)
    one, other = open_buffer(settings=settings), open_buffer(settings=settings)
    fill(one, 8)
    other._others_at = -EVERYTHING  # as a second later
    fill(other, 2)
    assert other.put(record()) is DropReason.SPOOL_FULL
    assert leased(other).records
    one.settle(leased(one, 3), range(3), [])
    other._others_at = -EVERYTHING
    assert other.put(record()) is None


def test_the_oldest_make_room_in_a_full_file(path, client_of, receiver):
    """With `when_full="drop_oldest"` the newest messages of a full file are kept, and the others counted and told."""
    drops = []
    settings = SqliteBuffer(path, max_bytes=2**20)
    options = {"buffer": settings, "when_full": "drop_oldest", "max_queue_messages": 100, "flush_interval": 60}
    client = client_of(on_drop=drops.append, **options)
    text = "x" * 1_000
    receiver.decide = lambda _messages: Reply(status=503)
    for number in range(2_000):
        assert client.track(f"u-{number}", "happened", {"text": text})
    stats = client.stats()
    assert balanced(stats)
    assert dict(stats.dropped).keys() == {"spool_full"}
    assert 400 < stats.pending < 1_024
    receiver.decide = None
    assert client.flush(20).pending == 0
    users = [int(message["userId"][2:]) for message in receiver.messages]
    assert users[-350:] == list(range(1_650, 2_000))
    assert sum(drop.count for drop in drops) == client.stats().dropped.total == 2_000 - len(set(users))


def test_a_call_waits_for_room_in_a_full_file(path, client_of, receiver):
    """With `when_full="block"` calls wait until delivered messages have made room."""
    options = {"buffer": SqliteBuffer(path, max_bytes=2**20), "when_full": "block", "block_timeout": 20}
    client = client_of(**options)
    for number in range(1_500):
        assert client.track(f"u-{number}", "happened", {"text": "x" * 1_000})
    assert client.flush(20)
    assert receiver.report().unique_messages == 1_500


def test_strict_clients_raise(path, make_client):
    """With `strict=True` a full file, and one that cannot be written, raise what says so."""
    client = make_client(url=NOWHERE, buffer=SqliteBuffer(path, max_messages=1), strict=True, background=False)
    assert client.track("u", "happened")
    with pytest.raises(QueueFull):
        client.track("u", "happened")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        client._lanes[0].buffer._max_messages = 10
        with pytest.raises(SpoolError, match="locked"):
            client.track("u", "happened")


# --- Troubles ---------------------------------------------------------------------------------------------------------


def test_a_locked_file_is_not_waited_for(path, client_of, receiver, caplog):
    """While another process locks the file calls are refused in time, counted, told in one line; then all goes on."""
    client = client_of()
    assert client.track("u", "happened")
    assert client.flush()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        for _ in range(5):
            begun = time.monotonic()
            assert client.track("u", "happened") is False
            assert time.monotonic() - begun < 1.1
    assert client.stats().dropped["spool_error"] == 5
    assert client.track("u", "happened")
    assert client.flush().pending == 0
    assert receiver.report().messages == 2
    assert balanced(client.stats())
    client.shutdown()
    assert len([line for line in caplog.messages if "as spool_error (database is locked)" in line]) == 1


def test_what_cannot_be_removed_is_not_sent_again(path, open_buffer):
    """A delivered message that the disk keeps for now counts as delivered, and is removed when that is possible."""
    buffer = open_buffer(3)
    records = fill(buffer, 7)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        lease = leased(buffer, 3)
        connection.execute("BEGIN IMMEDIATE")
        assert buffer.settle(lease, [0, 1], [Loss(DropReason.REJECTED, "", [2])])
        assert buffer.read().messages == 4
    assert len(sql(path, "SELECT row FROM message")) == 7
    assert drained(buffer) == records[3:]
    assert sql(path, "SELECT row FROM message") == []
    assert balance(buffer) == 0


def test_a_thread_that_hangs_in_a_put_holds_nobody_up(open_buffer):
    """While one thread waits for the disk the others are refused in time."""
    buffer = open_buffer()
    fill(buffer, 1)
    entered, leave = threading.Event(), threading.Event()

    def hang():
        with buffer._file.turn:
            entered.set()
            leave.wait(20)

    thread = threading.Thread(target=hang)
    thread.start()
    try:
        assert entered.wait(10)
        begun = time.monotonic()
        assert buffer.put(record()) is DropReason.SPOOL_ERROR
        buffer.settle(leased(buffer), [0], [])
        assert buffer.read().messages == 0
        assert time.monotonic() - begun < 1.2
    finally:
        leave.set()
        thread.join(10)
    assert buffer.put(record()) is None
    assert balance(buffer) == 0


@pytest.mark.parametrize("comes_back", ["itself", "empty"])
def test_a_folder_that_vanishes(path, client_of, receiver, wait_until, comes_back):
    """Without its folder calls are refused and counted; with it, or with another one in its place, it goes on."""
    client = client_of()
    assert client.track("before", "happened")
    assert client.flush()
    away = path.parent.with_name("away")
    path.parent.rename(away)
    wait_until(lambda: client.track("meanwhile", "happened") is False)
    assert client.track("meanwhile", "happened") is False
    if comes_back == "itself":
        away.rename(path.parent)
    else:
        path.parent.mkdir()
    wait_until(lambda: client.track("after", "happened"), 15)
    assert client.flush().pending == 0
    stats = client.stats()
    assert balanced(stats)
    assert stats.dropped.keys() == {"spool_error"}
    users = {message["userId"] for message in receiver.messages}
    assert {"before", "after"} <= users
    client.shutdown()
    assert sql(path, "SELECT count(*) FROM message") == [(0,)]


def test_a_file_that_cannot_be_opened_yet(path, client_of, wait_until):
    """A client begins though the file is locked, refuses and counts, and goes on as soon as it can."""
    SqliteBuffer(path).open("vitally").finish()
    SqliteBuffer(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("PRAGMA user_version = 1")
        client = client_of()
        assert client.track("u", "happened") is False
    wait_until(lambda: client.track("u", "happened"))
    assert client.flush().pending == 0
    assert balanced(client.stats())


def test_what_cannot_be_read_is_asked_for_less_often(open_buffer, monkeypatch):
    """Where the disk fails to be read, nothing is lost, and nobody asks for it in a loop without a pause."""
    buffer = open_buffer(2)
    records = fill(buffer, 5)
    settled = leased(buffer, 2)

    def fail(*_):
        raise Trouble("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(buffer._file, "read", fail)
        buffer.settle(settled, [0, 1], [])  # which would read ahead
        begun = time.monotonic()
        for _ in range(3):
            assert leased(buffer, 2).records == []
        assert time.monotonic() - begun > 0.5
    assert drained(buffer) == records[2:]
    assert balance(buffer) == 0


# --- Others' messages -------------------------------------------------------------------------------------------------


def test_the_oldest_go_first_whoever_left_them(open_buffer):
    """What several owners left is sent in the order of acceptance, by the wall clock."""
    owners = [open_buffer() for _ in range(3)]
    records = []
    for number in range(60):
        records.append(record(b"%d" % number))
        assert owners[number * 7 % 3].put(records[-1]) is None
    for buffer in owners:
        buffer.finish()
    heir = open_buffer(10)
    assert [one[HEAD_BYTES:] for one in drained(heir)] == [one[HEAD_BYTES:] for one in records]
    assert (heir.read().ledger.recovered, balance(heir)) == (60, 0)
    assert [balance(buffer) for buffer in owners] == [0, 0, 0]
    assert sum(buffer.read().ledger.handed_over for buffer in owners) == 60


def test_more_than_the_memory_may_hold(open_buffer):
    """What does not fit the memory's bounds is read back in order, and the bounds hold."""
    buffer = open_buffer(10, 3_000)
    records = fill(buffer, 200)
    assert (buffer.read().messages, buffer._near) == (200, 10)
    found = []
    while (lease := leased(buffer, 7)).records:
        assert len(lease.records) + buffer._near <= 10
        found += lease.records
        buffer.settle(lease, range(len(lease.records)), [])
        found_so_far = len(found)
        if found_so_far == 70:
            records += fill(buffer, 20)
    assert found == records


@pytest.mark.parametrize(
    ("boot", "wall", "least"),
    [
        ("this", -50.0, 0),
        ("another", -50.0, 49),
        ("another", 1e6, 0),
        ("another", None, 0),
    ],
    ids=["the same run of the system", "a restart", "a clock that was set back", "a clock that was never set"],
)
def test_ages_hold_across_processes(path, open_buffer, boot, wall, least):
    """An adopted message is as old as it is: by the monotonic clock, or after the system's restart by the other."""
    first = open_buffer()
    made = new_head()
    moment = 86_400.0 if wall is None else time.time() + wall
    assert first.put(struct.pack(">d", moment) + made[8:] + b"{}") is None
    first.finish()
    if boot == "another":
        sql(path, "UPDATE stream SET boot = 'another'")
    heir = open_buffer()
    (one,) = leased(heir).records
    assert least <= time.monotonic() - accepted_at(one) <= least + 3
    assert (one[:16], one[HEAD_BYTES:]) == (struct.pack(">d", moment) + made[8:16], b"{}")


def test_adoption_does_not_depend_on_how_much_there_is(path, open_buffer):
    """To take over many messages is to change one row, and so is to let them go again."""
    first = open_buffer(10)
    fill(first, 3_000)
    first.finish()
    changes = []
    heir = SqliteBuffer(path)
    buffer = open_buffer(10, settings=heir)
    changes.append(buffer._file._writer.total_changes)
    assert buffer.read().ledger.recovered == buffer.read().messages == 3_000
    buffer.finish()
    assert changes == [1]
    last = open_buffer(10)
    assert len(drained(last)) == 3_000
    assert buffer.read().ledger.handed_over == 3_000
    assert (balance(first), balance(buffer), balance(last)) == (0, 0, 0)


def test_an_owner_that_has_nothing_leaves_nothing(path, open_buffer):
    """Of an owner whose messages are all settled neither a row nor a file stays."""
    buffer = open_buffer()
    fill(buffer, 3)
    drained(buffer)
    buffer.finish()
    assert sql(path, "SELECT * FROM stream") == []
    assert not [one for one in files(path) if one.endswith(".owner")]


def test_a_settings_object_may_serve_several_clients(path, make_client, receiver):
    """One `SqliteBuffer` may be given to two clients of a process."""
    settings = SqliteBuffer(path)
    one, other = (make_client(buffer=settings, flush_interval=0.01) for _ in range(2))
    assert one.track("one", "happened")
    assert other.track("other", "happened")
    assert one.flush()
    assert other.flush()
    assert receiver.report().unique_messages == 2


def test_a_client_that_is_collected_lets_go(path, receiver, wait_until):
    """A durable client that is forgotten sends what waits, and ends to be an owner."""
    client = Client(Vitally(api_token=TOKEN, base_url=receiver.url), buffer=SqliteBuffer(path))
    assert client.track("u", "happened")
    del client
    wait_until(lambda: not [one for one in files(path) if one.endswith(".owner")])
    assert receiver.report().unique_messages == 1
