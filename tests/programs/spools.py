"""Programs that keep their messages in a file: each case is one, run by `tests/test_sqlite.py`."""

from __future__ import annotations

import ctypes
import gc
import json
import logging
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from contextlib import closing, suppress
from itertools import count
from pathlib import Path

from canary import TOKEN
from harness import balanced_books, be_told, books, make_client, say, start, track

from analytics_batcher import Retry, SqliteBuffer, dead_letters, lifecycle
from analytics_batcher.buffers import Lease, spool_schema
from analytics_batcher.buffers.spool_connections import Connection
from analytics_batcher.receiver import Receiver, Reply
from analytics_batcher.stamp import HEAD_BYTES, new_head

PAUSE = threading.Event()
NOWHERE = "http://127.0.0.1:9"


def signed(message):
    """Let a message say which process sends it."""
    return {**message, "properties": {**message.get("properties", {}), "sender": os.getpid()}}


def writes(path, url, journal, name):
    """Track for ever, and note each id as soon as its call has said that the message is kept."""
    client = make_client(url, buffer=SqliteBuffer(path), flush_interval=0.01, before_send=signed)
    note = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for number in count():
        one = f"{name}-{number}"
        if client.track("u", "happened", {"n": number}, message_id=one):
            os.write(note, f"{one}\n".encode())
        PAUSE.wait(0.0005 if number % 20 else 0.02)


def owner(path, url):
    """Track some messages that are not delivered yet, say so, and go on when told."""
    client = make_client(url, buffer=SqliteBuffer(path))
    track(client, "owner", 5)
    say(pid=os.getpid(), tracked=client.stats().tracked)
    sys.stderr.write("kept\n")
    sys.stderr.flush()
    be_told()
    client.flush(10)
    say(**balanced_books(client))


def forks(path, url):
    """Fork with messages waiting: parent and child send what is their own, and nobody closes what is the other's."""
    client = make_client(url, buffer=SqliteBuffer(path), flush_interval=60)
    track(client, "parent", 3)
    child = os.fork()
    if not child:
        wrong = 0
        if client.stats().tracked or client.stats().pending:
            wrong = 1
        elif track(client, "child", 5) != 5:
            wrong = 2
        elif not client.flush(10):
            wrong = 3
        elif client.stats().delivered != 5 or client.stats().recovered:
            wrong = 4
        if not wrong:
            gc.collect()
            sys.exit(0)
        os._exit(wrong)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    track(client, "parent-later", 3)
    flushed = bool(client.flush(10))
    say(status=status, flushed=flushed, **balanced_books(client))


def forks_in_c(path):
    """Fork past Python's hooks, as uWSGI does, which calls ours afterwards only; the parent ends first."""
    client = make_client(NOWHERE, buffer=SqliteBuffer(path), background=False)
    track(client, "parent", 3)
    go_on, gone = os.pipe()
    child = ctypes.PyDLL(None).fork()
    if not child:
        os.close(gone)
        lifecycle._after_fork()
        accepted = track(client, "child", 5)
        os.read(go_on, 1)
        accepted += track(client, "child-later", 5)
        os._exit(accepted)
    threading.Event().wait(0.3)
    client.shutdown(0)
    os.close(gone)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    say(status=status)


def leaves_a_child(path):
    """Track some, and fork a child that outlives its parent."""
    client = make_client(NOWHERE, buffer=SqliteBuffer(path))
    track(client, "parent", 5)
    if not os.fork():
        sys.stderr.write("forked\n")
        sys.stderr.flush()
        sys.stdin.readline()  # which ends with the test
        os._exit(0)
    be_told()


def storms(path, url, forks_):
    """Fork again and again while other threads track; every child tracks, and leaves without a flush."""
    client = make_client(url, buffer=SqliteBuffer(path), flush_interval=0.01)
    done = threading.Event()
    counts = [0, 0, 0]

    def work(place):
        for number in count():
            if done.is_set():
                return
            counts[place] += client.track(f"thread-{place}", "happened", {"n": number})
            PAUSE.wait(0.001)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    statuses = []
    for number in range(int(forks_)):
        child = os.fork()
        if not child:
            os._exit(0 if track(client, f"child-{number}", 2) == 2 else 1)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    done.set()
    for thread in threads:
        thread.join()
    client.flush(10)
    say(statuses=statuses, accepted=sum(counts), **balanced_books(client))


class Killing(sqlite3.Cursor):
    """A cursor at whose so-manieth statement, counted over all cursors, the process is killed."""

    left = 0

    def execute(self, *arguments):
        """Execute a statement, or die."""
        self.count()
        return super().execute(*arguments)

    @classmethod
    def count(cls):
        """One more."""
        cls.left -= 1
        if cls.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Endangered(Connection):
    """A connection whose statements count too."""

    def cursor(self):
        """Make one whose statements count."""
        return super().cursor(Killing)

    def execute(self, *arguments):
        """Execute a statement, or die."""
        Killing.count()
        return super().execute(*arguments)

    def executescript(self, *arguments):
        """Execute several, or die."""
        Killing.count()
        return super().executescript(*arguments)


def each_step(folder, what):
    """Kill a process at each statement in turn that it makes, and see each time what the next one finds."""
    wrong, steps = [], 0
    for number in count(1):
        path = Path(folder) / f"{number}.db"
        log = os.open(f"{path}.log", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        if what == "migrate":
            assert in_child(lambda path=path, log=log: go_through(path, log)) == 0
        killed = in_child(lambda path=path, log=log, number=number: die_at(path, log, number, what))
        found = in_child(lambda path=path, log=log: look_after(path, log, what))
        steps = number
        if found or killed not in {0, -signal.SIGKILL}:
            wrong.append([number, killed, found])
        if killed == 0 or number > 300:
            break
    say(steps=steps, wrong=wrong)


def in_child(work):
    """The status of a forked child that does something."""
    child = os.fork()
    if not child:
        status = 99
        try:
            status = work() or 0
        except BaseException:  # noqa: BLE001 - whatever it is, it is told, and the child ends here
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_at(path, log, number, what):
    """Go through it all, until the so-manieth statement."""
    connect = sqlite3.connect
    sqlite3.connect = lambda *arguments, **named: connect(*arguments, **{**named, "factory": Endangered})
    Killing.left = number
    if what == "migrate":
        add_a_step()
        SqliteBuffer(path).open("vitally").finish()
    else:
        go_through(path, log)


def buries(folder, url):
    """Kill a process at each step on the way of three messages that are refused, and see what is left of them."""
    wrong, steps = [], 0
    for number in count(1):
        files = path, letters, log = [Path(folder) / f"{number}.{suffix}" for suffix in ("db", "jsonl", "log")]
        killed = in_child(lambda files=files, number=number: bury(url, number, *files))
        ids = log.read_text().split() if log.exists() else []
        buried = [json.loads(line)["id"] for line in letters.read_text().splitlines()] if letters.exists() else []
        left = in_child(lambda path=path, log=log: note_left(path, log)) if path.exists() else 0
        kept = log.read_text().split()[len(ids) :] if log.exists() else []
        steps = number
        whole = len(buried) == 3 if killed == 0 else killed == -signal.SIGKILL
        if left or not whole or {*ids} - {*buried, *kept}:
            wrong.append([number, killed, ids, buried, kept])
        if killed == 0 or number > 300:
            break
    say(steps=steps, wrong=wrong)


def bury(url, number, path, letters, log):
    """Track three messages, and have them refused, until the so-manieth step."""
    connect, append = sqlite3.connect, dead_letters.append

    def append_or_die(*arguments, **named):
        Killing.count()
        append(*arguments, **named)
        Killing.count()

    sqlite3.connect = lambda *arguments, **named: connect(*arguments, **{**named, "factory": Endangered})
    dead_letters.append = append_or_die
    Killing.left = number
    client = make_client(url, buffer=SqliteBuffer(path), dead_letters=letters, background=False)
    note = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for one in ("first", "second", "third"):
        if client.track("u", "happened", message_id=one):
            os.write(note, f"{one}\n".encode())
    client.flush(5)
    client.shutdown(0)


def note_left(path, log):
    """Note the ids of what is in the file."""
    buffer = SqliteBuffer(path).open("vitally", 5, 2**20)
    lease = Lease()
    buffer.take(lease, 5, 10**6)
    with log.open("a") as file:
        file.writelines(f"{json.loads(record[HEAD_BYTES:])['messageId']}\n" for record in lease.records)
    buffer.finish()


def add_a_step():
    """Another version of the schema."""
    more = "ALTER TABLE stream ADD COLUMN more INTEGER; CREATE TABLE another (x); UPDATE stream SET more = 1;"
    spool_schema.STEPS = (*spool_schema.STEPS, more)


def go_through(path, log):
    """Put, take, settle, evict, and leave some."""
    buffer = SqliteBuffer(path).open("vitally", 5, 2**20)
    for number in range(12):
        if buffer.put(new_head() + b"%d" % number) is None:
            os.write(log, b"put %d\n" % number)
    for _ in range(2):
        lease = Lease()
        buffer.take(lease, 4, 10**6)
        bodies = [record[HEAD_BYTES:] for record in lease.records]
        os.write(log, b"".join(b"sent %s\n" % body for body in bodies))
        buffer.settle(lease, range(len(lease.records)), [])
        os.write(log, b"".join(b"settled %s\n" % body for body in bodies))
    buffer.finish()


def look_after(path, log, what):
    """What is wrong with what the killed one left: 0 for nothing."""
    if what == "migrate":
        add_a_step()
    lines = os.pread(log, 10**6, 0).decode().split("\n")
    noted = {
        word: {line.partition(" ")[2] for line in lines if line.startswith(word)} for word in ("put", "sent", "settled")
    }
    buffer = SqliteBuffer(path).open("vitally", 5, 2**20)
    recovered = buffer.read().messages
    found = []
    while True:
        lease = Lease()
        buffer.take(lease, 3, 10**6)
        if not lease.records:
            break
        found += [record[HEAD_BYTES:].decode() for record in lease.records]
        buffer.settle(lease, range(len(lease.records)), [])
    ledger = buffer.read().ledger
    buffer.finish()
    with closing(sqlite3.connect(path)) as connection:
        whole = connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        left = [connection.execute(f"SELECT count(*) FROM {one}").fetchone()[0] for one in ("message", "stream")]  # noqa: S608 - ours
    wrong = {
        1: noted["put"] - noted["sent"] - set(found),  # lost
        2: noted["settled"] & set(found),  # sent again though it was settled
        3: [one for one in found if found.count(one) > 1],
        4: found != sorted(found, key=int),
        5: recovered != len(found) or ledger.recovered != len(found) or ledger.vanished,
        6: not whole,
        7: version != len(spool_schema.STEPS),
        8: left != [0, 0],
        9: [*path.parent.glob(f"{path.name}-*.owner")],
    }
    return next((number for number, what in wrong.items() if what), 0)


def interrupted(path, how):
    """Be interrupted by a signal's handler in the middle of calls, which calls itself or throws."""

    class Thrown(BaseException):
        pass

    armed, happened = False, 0

    def handle(*_):
        nonlocal armed, happened
        if armed:
            happened += 1
            if how == "calls":
                buffer.put(new_head() + b"from the handler")
            else:
                armed = False
                raise Thrown

    buffer = SqliteBuffer(path).open("vitally", 300, 2**20)
    signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        try:
            armed = True
            for _ in range(100):
                buffer.put(new_head() + b"{}")
            armed = False
        except Thrown:
            pass
        armed = False
        lease = Lease()
        buffer.take(lease, 50, 10**9)
        if lease.records:
            buffer.release(lease, len(lease.records) // 2)
            buffer.settle(lease, range(len(lease.records)), [])
    signal.setitimer(signal.ITIMER_REAL, 0)
    buffer._tend()
    other = threading.Thread(target=buffer.put, args=(new_head() + b"{}",), daemon=True)
    other.start()
    other.join(10)
    reading = buffer.read()
    ledger = reading.ledger
    drained = 0
    while True:
        lease = Lease()
        buffer.take(lease, 500, 10**9)
        if not lease.records:
            break
        drained += len(lease.records)
        buffer.settle(lease, range(len(lease.records)), [])
    say(
        stuck=other.is_alive(),
        happened=happened,
        balance=ledger.tracked + ledger.recovered - ledger.delivered - sum(ledger.dropped.values()) - reading.messages,
        missing=reading.messages - drained,
        left=list(buffer.read()[:4]),
        in_file=buffer._file.count(),
        recovered=ledger.recovered,
        vanished=buffer.ledger.vanished,
    )


def fill(client, size=300):
    """Track more than there is room for: how long the slowest call took, how many were refused, and the books."""
    slowest, refused = 0.0, 0
    for number in range(6_000):
        begun = time.monotonic()
        refused += not client.track("u", "happened", {"n": number, "text": "x" * size})
        slowest = max(slowest, time.monotonic() - begun)
    return {"slowest": slowest, "refused": refused, "filled": books(client)}


def recovers(client):
    """Whether messages are taken again, within ten seconds."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        if client.track("u", "happened", {"after": True}):
            return True
        PAUSE.wait(0.05)
    return False


def fills(path, limit):
    """Fill a file as far as the process may, and then let it grow."""
    logging.basicConfig(format="LOG %(message)s")
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), resource.RLIM_INFINITY))
    client = make_client(NOWHERE, buffer=SqliteBuffer(path), flush_interval=0.01)
    facts = fill(client)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    recovered = recovers(client)
    client.shutdown(0)
    say(recovered=recovered, after=balanced_books(client), **facts)


def brims(folder, url, brim):
    """Fill a small file system, by messages or by something else beside them, while nothing can be delivered."""
    client = make_client(NOWHERE, buffer=SqliteBuffer(f"{folder}/spool.db"), flush_interval=0.01)
    ballast = Path(folder) / "ballast"
    if brim == "others":
        for number in range(150):
            client.track("u", "happened", {"n": number, "text": "x" * 300})
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 1_000)
    facts = fill(client)
    if brim == "others":
        ballast.unlink()
        recovered = recovers(client)
        client.shutdown(0)
        facts["filled"] = books(client)
    else:
        client.shutdown(0)
        recovered = True
    later = make_client(url, buffer=SqliteBuffer(f"{folder}/spool.db"), flush_interval=0.01)
    later.flush(20)
    recovered = recovered and recovers(later)
    later.flush(10)
    say(recovered=recovered, after=balanced_books(later), delivered=later.stats().delivered, **facts)


def empties(folder, size):
    """Fill a small file system, and have all of it delivered in the same process, whose removals need room too."""
    with Receiver(api_token=TOKEN) as receiver:
        receiver.decide = lambda _: Reply(503)
        options = {"buffer": SqliteBuffer(f"{folder}/spool.db"), "flush_interval": 0.01, "retry": Retry(cap=0.1)}
        client = make_client(receiver.url, **options)
        facts = fill(client, int(size))
        receiver.decide = None
        client.flush(20)
        say(recovered=recovers(client), after=balanced_books(client), **facts)


def reads_only(folder, url):
    """Find a file, with messages in it, on a file system that nobody may write to, until one may again."""
    logging.basicConfig(format="LOG %(message)s")

    def mount(options):
        subprocess.run(["/bin/mount", "-o", f"remount,{options}", folder], check=True)

    options = {"buffer": SqliteBuffer(f"{folder}/spool.db"), "flush_interval": 0.01}
    client = make_client(NOWHERE, **options)
    track(client, "before", 10)
    client.shutdown(0)
    mount("ro")
    client = make_client(url, **options)
    slowest, accepted = 0.0, 0
    for _ in range(50):
        began = time.monotonic()
        accepted += client.track("while", "happened")
        slowest = max(slowest, time.monotonic() - began)
    refused = books(client)
    mount("rw")
    recovered = recovers(client)
    until = time.monotonic() + 15
    while client.stats().recovered < 10 and time.monotonic() < until:
        PAUSE.wait(0.05)
    client.flush(10)
    say(slowest=slowest, accepted=accepted, refused=refused, recovered=recovered, after=balanced_books(client))


if __name__ == "__main__":
    start(
        {
            "writes": writes,
            "owner": owner,
            "forks": forks,
            "forks_in_c": forks_in_c,
            "leaves_a_child": leaves_a_child,
            "storms": storms,
            "each_step": each_step,
            "interrupted": interrupted,
            "fills": fills,
            "brims": brims,
            "empties": empties,
            "reads_only": reads_only,
            "buries": buries,
        }
    )
