"""Callbacks and log lines: what they are told, and that they can do no harm."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import TOKEN, balanced

from analytics_batcher import Client, Delivery, Drop, DropReason, Retry, Vitally
from analytics_batcher.receiver import Reply


def lines(caplog, part=""):
    """The package's log lines with `part` in them."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "analytics_batcher" and part in record.getMessage()
    ]


def test_on_delivery_is_told_of_each_batch(make_client, receiver):
    """Count, bytes, status, attempts and destination of every delivered batch."""
    told = []
    receiver.script(Reply(500), Reply(202))
    client = make_client(on_delivery=told.append, retry=Retry(base=0.01), background=False)
    for number in range(150):
        client.track("u", str(number))
    assert client.flush()
    assert all(type(delivery) is Delivery for delivery in told)
    assert [(one.count, one.status, one.attempts, one.destination) for one in told] == [
        (100, 202, 2, "vitally"),
        (50, 200, 1, "vitally"),
    ]
    assert [one.bytes for one in told] == [len(request.body) for request in receiver.requests[1:]]
    assert all(0 < one.seconds < 5 for one in told)


def test_on_drop_is_told_of_refused_calls(make_client, wait_until):
    """The consumer tells what was refused at the call, with the message in neutral form and the reason."""
    told = []
    client = make_client(on_drop=told.append)
    client.track("", "bad", {"n": 1})
    client.track("u", "large", {"pad": "x" * 40_000})
    wait_until(lambda: len(told) == 2)
    assert all(type(drop) is Drop for drop in told)
    reasons = {drop.reason: drop for drop in told}
    assert reasons[DropReason.INVALID].messages[0]["properties"] == {"n": 1}
    assert "userId" in reasons[DropReason.INVALID].detail
    assert reasons[DropReason.TOO_LARGE].messages[0]["event"] == "large"
    assert {drop.destination for drop in told} == {"vitally"}


def test_on_drop_is_told_exact_counts_of_what_found_no_room(make_client, wait_until):
    """However many are refused, the counts add up; the messages kept for it stay within a bound."""
    for policy in ("drop_newest", "drop_oldest"):
        told = []
        client = make_client(
            url="http://127.0.0.1:9",
            on_drop=told.append,
            max_queue_messages=10,
            max_queue_bytes=100_000,
            when_full=policy,
        )
        for number in range(3_000):
            client.track("u", str(number), {"pad": "x" * 500})
        wait_until(lambda told=told: sum(drop.count for drop in told) == 2_990)
        assert {drop.reason for drop in told} == {DropReason.QUEUE_FULL}
        assert sum(len(drop.messages) for drop in told) <= 2_990
        assert balanced(client.stats())


def test_on_drop_is_told_of_what_was_left_at_the_end(make_client, receiver, caplog):
    """What `shutdown` leaves behind reaches the callback before it returns, and one warning says how many."""
    told = []
    receiver.script(Reply(hang=True))
    client = make_client(on_drop=told.append)
    for number in range(250):
        client.track("u", str(number))
    assert client.shutdown(0.2).pending == 250
    (drop,) = told
    assert (drop.reason, drop.count) == (DropReason.EXIT, 250)
    assert [message["event"] for message in drop.messages] == [str(number) for number in range(250)]
    assert len(lines(caplog, "250 messages were left behind")) == 1


def test_after_shutdown_the_caller_reports(make_client):
    """Where no consumer can run any more, a refused call reports itself."""
    told = []
    client = make_client(on_drop=told.append)
    client.shutdown()
    client.track("u", "late")
    assert [(drop.reason, drop.count) for drop in told] == [(DropReason.CLOSED, 1)]
    assert told[0].messages[0]["event"] == "late"


def test_a_shutdown_waits_for_what_is_being_told(make_client):
    """With nothing left to send it returns, and the process may end, once the consumer has told; or at its deadline."""
    begun, told = threading.Event(), []

    def tell(drop):
        begun.set()
        threading.Event().wait(0.2)
        told.append(drop.reason)

    client = make_client(on_drop=tell)
    client.track("", "bad")
    assert begun.wait(10)
    assert client.shutdown(5)
    assert told == [DropReason.INVALID]


@pytest.mark.parametrize("background", [True, False], ids=["thread", "inline"])
def test_after_a_shutdown_in_a_callback_the_caller_reports(make_client, wait_until, background):
    """A client that a callback shut down ends once it is empty; from then on a refused call reports itself."""
    told = []
    client = make_client(on_drop=told.append, on_delivery=lambda _: client.shutdown(), background=background)
    client.track("u", "delivered")
    client.flush()
    wait_until(lambda: client._lanes[0].pipeline.stopped)
    for number in range(3):
        client.track("u", str(number))
        assert [drop.messages[0]["event"] for drop in told] == [str(each) for each in range(number + 1)]


def test_without_a_thread_a_flush_reports(make_client):
    """`background=False`: what was refused at calls is reported by the next flush, though there is nothing to send."""
    told = []
    client = make_client(on_drop=told.append, background=False)
    client.track("", "bad")
    assert client.flush()
    assert [(drop.reason, drop.count) for drop in told] == [(DropReason.INVALID, 1)]


@pytest.mark.parametrize(
    ("raised", "background"),
    [
        *((error, True) for error in (RuntimeError, SystemExit, GeneratorExit, KeyboardInterrupt)),
        *((error, False) for error in (RuntimeError, SystemExit, GeneratorExit)),
    ],
)
def test_a_callback_that_raises_harms_nobody(make_client, receiver, caplog, raised, background):
    """Whatever a callback raises, everything is delivered and counted, and one line names the callback."""

    def hook(_):
        raise raised("with a payload in it")

    client = make_client(on_delivery=hook, on_drop=hook, background=background)
    for number in range(300):
        client.track("u", str(number))
        client.track("", "bad")
    assert client.flush()
    assert len(receiver.messages) == 300
    assert client.shutdown()
    assert client.stats().dropped == {"invalid": 300}
    assert len(lines(caplog, "on_delivery raised")) == 1
    assert not lines(caplog, "payload")


@pytest.mark.parametrize("raised", [RuntimeError, SystemExit, GeneratorExit, KeyboardInterrupt])
def test_a_filter_that_raises_costs_its_message(make_client, receiver, raised):
    """Whatever `before_send` raises drops the message that it was given, and the others go on."""

    def before_send(message):
        if message["event"] == "odd":
            raise raised("with a payload in it")
        return message

    client = make_client(before_send=before_send)
    for event in ("first", "odd", "last"):
        client.track("u", event)
    assert client.flush()
    assert [message["event"] for message in receiver.messages] == ["first", "last"]
    assert client.stats().dropped == {"filtered": 1}
    assert client.stats().consumer_alive


@pytest.mark.parametrize("option", ["before_send", "on_delivery", "on_drop"])
def test_a_ctrl_c_in_a_callback_reaches_the_main_thread(make_client, receiver, option):
    """Where `flush` runs callbacks in the main thread, a Ctrl-C goes through to the application, and loses nothing."""
    pressed = []

    def callback(given):
        if not pressed:
            pressed.append(True)
            raise KeyboardInterrupt
        return given

    client = make_client(background=False, **{option: callback})
    client.track("u", "e")
    client.track("", "invalid")
    with pytest.raises(KeyboardInterrupt):
        client.flush()
    client.flush()
    assert len(receiver.messages) == 1
    assert balanced(client.stats())
    assert client.shutdown().pending == 0
    assert client.stats().dropped == {"invalid": 1}


@pytest.mark.parametrize("raised", [RuntimeError, SystemExit, GeneratorExit, KeyboardInterrupt])
def test_a_default_that_raises_harms_nobody_else(make_client, receiver, raised):
    """An error in `default` costs its value; what is meant to end more than that goes through, and counts nothing."""

    def default(_):
        raise raised("with a payload in it")

    client = make_client(default=default)
    client.track("u", "before")
    if raised is RuntimeError:
        assert client.track("u", "odd", {"value": object()})
    else:
        with pytest.raises(raised):
            client.track("u", "odd", {"value": object()})
    client.track("u", "after")
    assert client.flush()
    arrived = [message["event"] for message in receiver.messages]
    assert arrived == ["before", "odd", "after"] if raised is RuntimeError else ["before", "after"]
    assert client.stats().tracked == client.stats().delivered == len(arrived)


def test_callbacks_may_call_the_client(make_client, receiver, wait_until):
    """`track`, `stats`, `flush` and `shutdown` work in a callback; the last two return at once."""
    results = []
    client = None

    def on_delivery(delivery):
        if len(results) < 3:
            client.track("u", f"from the callback {len(results)}")
            results.append((client.flush(30), client.stats().delivered))
        elif len(results) == 3:
            results.append((client.shutdown(30), delivery.count))

    client = make_client(on_delivery=on_delivery, flush_interval=0.01)
    client.track("u", "first")
    wait_until(lambda: len(results) == 4)
    assert [result.timed_out for result, _ in results[:3]] == [True] * 3
    assert [delivered for _, delivered in results[:3]] == [1, 2, 3]
    assert receiver.wait_for(lambda r: len(r.messages) == 4)
    assert client.track("u", "late") is False
    wait_until(lambda: client.stats().delivered == 4)
    assert balanced(client.stats())


def test_no_callback_runs_under_a_lock(make_client, receiver):
    """While a callback runs, other threads can call everything."""
    entered, leave = threading.Event(), threading.Event()

    def hook(_):
        entered.set()
        leave.wait(10)

    client = make_client(on_delivery=hook)
    client.track("u", "1")
    assert entered.wait(5)
    assert client.track("u", "2")
    assert client.stats().pending == 1
    assert client.flush(0.1).timed_out
    leave.set()
    assert client.flush()
    assert len(receiver.messages) == 2


def test_block_acts_as_drop_newest_in_the_consumer(make_client):
    """A callback that tracks into a full queue must not wait for itself."""
    results = []
    client = None

    def before_send(message):
        if message["event"] == "0":
            results.append([client.track("u", "extra") for _ in range(3)])
        return message

    client = make_client(
        before_send=before_send, max_queue_messages=5, when_full="block", block_timeout=30, background=False
    )
    for number in range(5):
        client.track("u", str(number))
    assert client.flush(10)
    assert results == [[False] * 3]
    assert client.stats().dropped == {"queue_full": 3}


def test_failures_are_logged_once_in_ten_seconds(make_client, receiver, caplog):
    """A failing endpoint makes one line, not one for each attempt; the last error is kept for `stats`."""
    receiver.decide = lambda _: Reply(503)
    client = make_client(retry=Retry(base=0.001, cap=0.002))
    client.track("u", "e")
    assert receiver.wait_for(lambda r: len(r.requests) > 30)
    assert len(lines(caplog, "503")) == 1
    assert "503" in client.stats().last_error


def test_drops_are_logged_once_in_ten_seconds_with_a_count(make_client, caplog):
    """A full queue makes one line now, and one with the rest at the end."""
    client = make_client(url="http://127.0.0.1:9", max_queue_messages=1)
    for _ in range(5_000):
        client.track("u", "e")
    client.shutdown(0)
    said = lines(caplog, "queue_full")
    assert len(said) <= 2
    counts = [int(word) for line in said for word in line.split() if word.isdigit()]
    assert sum(counts) == 4_999


def test_a_halt_is_logged_once(make_client, receiver, caplog):
    """A refused token is one error line that says that everything is kept."""
    receiver.decide = lambda _: Reply(401)
    client = make_client()
    client.track("u", "e")
    client.flush(0.3)
    client.track("u", "e")
    client.flush(0.3)
    (line,) = lines(caplog, "halted")
    assert "401" in line
    assert "kept" in line


def test_text_from_a_server_cannot_forge_log_lines(make_client, receiver, caplog):
    """Server text is escaped and cut, and the token in it is masked."""
    evil = b'{"error": "no\\nCRITICAL root: forged \\u001b[31m ' + TOKEN.encode() + b" " + b"x" * 5_000 + b'"}'
    receiver.decide = lambda _: Reply(500, body=evil)
    client = make_client()
    client.track("u", "e")
    assert receiver.wait_for(lambda r: r.requests)
    client.flush(0.2)
    said = lines(caplog)
    assert said
    assert not [line for line in said if "\n" in line or "\x1b" in line or TOKEN in line or len(line) > 400]


def test_payloads_are_never_logged(make_client, receiver, caplog):
    """Neither drops, failures, filters nor rejections show what a message says."""
    caplog.set_level(logging.DEBUG, logger="analytics_batcher")
    receiver.decide = lambda messages: Reply(400) if len(messages) == 1 else None

    def before_send(message):
        if message["event"] == "SECRET-2":
            raise ValueError(message)
        return message

    client = make_client(before_send=before_send, message_bytes=1_000)
    client.track("SECRET-USER", "SECRET-1", {"SECRET-KEY": "SECRET"})
    client.flush(2)
    client.track("u", "SECRET-2")
    client.track("u", "e", {"SECRET-3": "x" * 2_000})
    client.track("u", 5, {"SECRET-4": 1})
    client.track("u", "e", message_id="SECRET" * 99)
    client.track("u", "e", timestamp="SECRET")
    client.flush(2)
    client.shutdown(0)
    assert client.stats().dropped["rejected"] == 1
    assert client.stats().dropped["filtered"] == 1
    assert client.stats().dropped["too_large"] == 1
    assert client.stats().dropped["invalid"] == 3
    assert len(lines(caplog)) >= 4
    assert not lines(caplog, "SECRET")


def test_nothing_is_printed_where_logging_is_not_configured(tmp_path):
    """Without a configured logger a failing client is silent, on stderr too."""
    program = tmp_path / "program.py"
    program.write_text(
        "from analytics_batcher import Client, Vitally\n"
        "client = Client(Vitally(api_token='t', base_url='http://127.0.0.1:9'))\n"
        "client.track('u', 'e')\n"
        "client.track('', 'e')\n"
        "client.shutdown(0.1)\n"
    )
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, str(program)], capture_output=True, text=True, timeout=30, env={"PYTHONPATH": root}, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_an_error_in_the_consumer_costs_a_wait_and_quotes_nothing(receiver, caplog, wait_until):
    """A destination that fails where it must not loses no message; the log says where, and quotes nothing."""
    failing = [True]

    class Broken(Vitally):
        def body(self, wires, now, /):
            if failing:
                raise ValueError(f"SECRET {wires}")
            return super().body(wires, now)

    client = Client(Broken(api_token=TOKEN, base_url=receiver.url), flush_interval=0)
    client.track("u", "SECRET event")
    wait_until(lambda: client.stats().last_error)
    assert client.stats().pending == 1
    assert client.stats().consumer_alive
    failing.clear()
    assert client.flush(10)
    assert len(receiver.messages) == 1
    (line,) = lines(caplog, "the consumer failed")
    assert "ValueError in body" in line
    assert "SECRET" not in caplog.text
    client.shutdown()
