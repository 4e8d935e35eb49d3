"""Programs about dead letters: each case is one, run by `tests/test_dead_letters.py` and `tests/test_replay.py`."""

from __future__ import annotations

import atexit
import linecache
import logging
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

from harness import be_told, books, make_client, say, start, track

from analytics_batcher import DropReason, replay
from analytics_batcher.dead_letters import DeadLetters
from analytics_batcher.encoding import OPTIONS, dumps
from analytics_batcher.stamp import new_head

FILES = ("dead_letters.py", "claim.py", "replays.py")
# What changes the disk, or what the vendor has: before each of these, all steps since the one before it are alike.
CHANGES = re.compile(r"os\.\w+\(|flock|\.(rename|replace|unlink|mkdir|rmdir|put)\(|drain_all|\bappend\(self")


def letters_of(path, most_bytes):
    """The writer of a file, as a client has it."""
    options = {"id_field": "messageId", "time_field": "timestamp", "native_form": bytes, "most_bytes": most_bytes}
    return DeadLetters(Path(path), "vitally", **options)


def record(user, pad=0):
    """A record as it lies in a buffer."""
    message = {"type": "track", "event": "e", "userId": user, "properties": {"pad": "x" * pad}}
    return new_head() + dumps(message, None, OPTIONS)


def in_child(work):
    """Do something in a process of its own; the status with which that ends."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(step):
    """Let this process be killed at a step, and say at its end how many there are."""
    steps = 0

    def local(frame, event, _argument):
        nonlocal steps
        if event == "line" and CHANGES.search(linecache.getline(frame.f_code.co_filename, frame.f_lineno)):
            steps += 1
            if steps == step:
                os.kill(os.getpid(), signal.SIGKILL)
        return local

    def trace(frame, _event, _argument):
        return local if frame.f_code.co_filename.endswith(FILES) else None

    sys.settrace(trace)


def appends(path, processes, each, most_bytes):
    """Append from several processes at once, each its own numbered lines, some at a time."""
    before = os.getpid()

    def write(name):
        letters = letters_of(path, int(most_bytes))
        for first in range(0, int(each), 5):
            some = [record(f"{name}-{number}", 100) for number in range(first, first + 5)]
            if letters.write(DropReason.REJECTED, "bad", 400, some) is not None:
                os._exit(2)

    children = []
    for name in range(int(processes)):
        child = os.fork()
        if not child:
            write(name)
            os._exit(0)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    say(statuses=statuses, same=before == os.getpid())


def killed_writers(path, rounds):
    """Kill processes that append a megabyte at a time, each at a random moment; say which lines were acknowledged."""
    acknowledged = []
    for turn in range(int(rounds)):
        reader, writer = os.pipe()
        children = []
        for name in range(2):
            child = os.fork()
            if not child:
                letters = letters_of(path, 2**30)
                records = [record(f"{turn}-{name}-{number}", 10_000) for number in range(60)]
                for number in range(0, 60, 20):
                    if letters.write(DropReason.REJECTED, "bad", 400, records[number : number + 20]) is None:
                        os.write(writer, f"{turn}-{name}-{number}\n".encode())
                signal.pause()
            children.append(child)
        os.close(writer)
        threading.Event().wait(0.0004 * (turn % 25))
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        with os.fdopen(reader, "rb") as said:
            acknowledged += said.read().decode().split()
    say(acknowledged=acknowledged)


def killed_appending(folder):
    """Kill a process at each step of appending, with a rotation among them; say what was acknowledged each time."""
    rounds = []
    for step in range(1, 500):
        path = Path(folder) / str(step) / "letters.jsonl"
        path.parent.mkdir()
        reader, writer = os.pipe()

        def write(path=path, step=step, writer=writer):
            letters = letters_of(path, 1_000)
            killed_at(step)
            for number in range(4):
                if letters.write(DropReason.REJECTED, "bad", 400, [record(f"u-{number}")]) is None:
                    os.write(writer, b"%d\n" % number)

        status = in_child(write)
        os.close(writer)
        with os.fdopen(reader, "rb") as said:
            acknowledged = said.read().decode().split()
        after = letters_of(path, 10**9).write(DropReason.REJECTED, "bad", 400, [record("u-after")])
        rounds.append([step, acknowledged, after])
        if status == 0:
            break
    say(rounds=rounds)


def killed_replaying(folder, template):
    """Kill a replay at each step, and let another one go on; the environment says where to."""
    rounds = []
    for step in range(2_000):
        path = Path(folder) / str(step) / "letters.jsonl"
        path.parent.mkdir()
        for source in (Path(template), Path(f"{template}.1")):
            text = source.read_text().replace("ROUND", str(step))
            path.with_name(source.name).write_text(text)

        def send(path=path, step=step):
            killed_at(step)
            replay(path)

        if not step:
            replay(path)  # so that whatever is loaded is loaded here, and not in each process
            continue
        first = in_child(send)
        second = in_child(lambda path=path: os._exit(0 if replay(path).error is None else 9)) if first else 0
        rounds.append([step, first, second])
        if first == 0:
            break
    say(rounds=rounds)


def small_disk(url, folder):
    """Drop messages where files may not grow beyond a size that is in the middle of a line, and then may again."""
    path = Path(folder) / "letters.jsonl"
    logging.basicConfig(format="%(message)s")
    client = make_client(url, dead_letters=path, background=False)
    track(client, "", 0)
    for number in range(3):
        client.track("", f"first {number}")
    client.flush()
    whole = path.stat().st_size
    import resource  # noqa: PLC0415 - not on Windows

    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (whole + 100, most))
    began = time.monotonic()
    for number in range(50):
        client.track("", f"lost {number}")
        client.flush()
    seconds, full = time.monotonic() - began, path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    client.track("", "last")
    client.flush()
    say(whole=whole, full=full, seconds=seconds, **books(client))


def full_while_replaying(path):
    """Replay where no room is left for those that fail again; then where there is."""
    import resource  # noqa: PLC0415 - not on Windows

    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = Path(path).with_name("other")
    room.write_bytes(b"x" * 10)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50, most))
    first = replay(path)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    second = replay(path)
    say(first=[first.error, first.left], second=[second.error, second.left], failed=dict(second.failed))


def leaves(url, path):
    """End with messages that could not be delivered."""
    client = make_client(url, dead_letters=path, shutdown_timeout=0.2)
    say(accepted=track(client, "u", 120))


def forks(url, path):
    """Drop in a parent and in its child."""
    client = make_client(url, dead_letters=path)
    client.track("", "parent's first")
    client.flush()
    child = os.fork()
    client.track("", "parent's second" if child else "child's")
    client.shutdown()
    if not child:
        atexit._clear()
        os._exit(0)
    say(status=os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def holds(path):
    """Hold the lock of a file until told, as a process that was stopped in the middle does."""
    import fcntl  # noqa: PLC0415 - not on Windows

    with Path(path).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        say(held=True)
        sys.stderr.write("held\n")
        sys.stderr.flush()
        be_told()


def keeps_writing(path, count):
    """Write letters without a pause, while others replay them."""
    letters = letters_of(path, 2**30)
    for number in range(int(count)):
        assert letters.write(DropReason.REJECTED, "bad", 400, [record(f"late-{number}")]) is None
        threading.Event().wait(0.001)
    say(written=int(count))


if __name__ == "__main__":
    start(
        {
            "appends": appends,
            "killed_writers": killed_writers,
            "killed_appending": killed_appending,
            "killed_replaying": killed_replaying,
            "small_disk": small_disk,
            "full_while_replaying": full_while_replaying,
            "leaves": leaves,
            "forks": forks,
            "holds": holds,
            "keeps_writing": keeps_writing,
        }
    )
