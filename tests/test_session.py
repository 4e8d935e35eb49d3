from __future__ import annotations

import logging
import pickle
import signal
import sys
import threading
import time

import pytest
from conftest import TOKEN
from programs.harness import run, running

from analytics_batcher import AnalyticsError, Client, FlushResult, Retry, Undelivered, Vitally, session
from analytics_batcher.receiver import Receiver, Reply

FAST = Retry(base=0.001, cap=0.002)


@pytest.fixture(autouse=True)
def _own_sigterm():
    """Each test begins and ends with SIGTERM's default action."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def open_session(receiver):
    """Opens sessions with a client of the receiver."""

    def begin(**options):
        return session(Vitally(api_token=TOKEN, base_url=receiver.url), **options)

    return begin


def job(opened, *events, end=lambda: None):
    """Track events in a session, and end."""
    with opened as client:
        for event in events:
            client.track("u1", event, account_id="a")
        end()
    return client


def fail(error):
    """What ends a job by an error."""

    def end():
        raise error

    return end


def test_what_a_session_tracked_is_delivered_at_its_end(open_session, receiver):
    """Leaving the block delivers what was tracked in it, and closes the client."""
    with open_session(flush_interval=60) as client:
        assert isinstance(client, Client)
        assert client.track("u1", "e", account_id="a")
        assert not receiver.messages
    assert len(receiver.messages) == 1
    assert client.track("u1", "late") is False


def test_a_session_of_the_environment(receiver, monkeypatch):
    """Without a destination the environment says where to, and options come before its own."""
    for name, value in {"DESTINATION": "vitally", "VITALLY_API_TOKEN": TOKEN, "BASE_URL": receiver.url}.items():
        monkeypatch.setenv(f"ANALYTICS_BATCHER_{name}", value)
    with session(strict=True) as client, pytest.raises(AnalyticsError):
        client.track("", "e")
    job(session(), "e")
    assert len(receiver.messages) == 1


@pytest.mark.parametrize("leave", [lambda: None, sys.exit, lambda: sys.exit(0)])
def test_what_is_left_is_raised(open_session, receiver, leave):
    """A job that did well, or said so by its exit status, and could not deliver, ends by `Undelivered` in time."""
    receiver.decide = lambda _: Reply(503)
    started = time.monotonic()
    with pytest.raises(Undelivered, match="and 1 left; 0 were delivered") as caught:
        job(open_session(timeout=0.2, retry=FAST), "e", end=leave)
    assert (caught.value.result.pending, caught.value.result.delivered) == (1, 0)
    assert time.monotonic() - started < 1.2


def test_what_was_lost_is_raised(open_session, receiver):
    """A message that the vendor refuses for good is a loss; those beside it are delivered."""
    receiver.decide = lambda messages: Reply(400) if any(one["event"] == "bad" for one in messages) else None
    with pytest.raises(Undelivered, match=r"^1 messages were lost \({'rejected': 1}\), and 0 left; 2 were") as caught:
        job(open_session(), "good", "bad", "better")
    assert (caught.value.result.lost, caught.value.result.delivered) == (1, 2)


def test_what_a_call_refused_is_no_loss(open_session):
    """What was never accepted, or was filtered on purpose, is counted and does not fail the job."""
    with open_session(before_send=lambda _: None) as client:
        assert client.track("", "e") is False
        assert client.track("u1", "e", account_id="a")
    assert client.stats().dropped == {"invalid": 1, "filtered": 1}


@pytest.mark.parametrize("error", [KeyError("the job's"), KeyboardInterrupt(), SystemExit(3), SystemExit("no")])
def test_the_jobs_own_error_goes_on_and_the_loss_is_logged(open_session, receiver, caplog, error):
    """What the body raised is what the caller gets; that something was lost too is one line of the log."""
    receiver.decide = lambda _: Reply(503)
    with pytest.raises(type(error)) as caught:
        job(open_session(timeout=0.1, retry=FAST), "e", end=fail(error))
    assert caught.value is error
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert lines == [
        f"A session that ends by {type(error).__name__}: 0 messages were lost ({{}}), and 1 left; 0 were delivered"
    ]


def test_a_failed_job_delivers_too(open_session, receiver, caplog):
    """What was tracked before the body raised is delivered, and nothing is logged."""
    with pytest.raises(KeyError):
        job(open_session(flush_interval=60), "e", end=fail(KeyError("the job's")))
    assert len(receiver.messages) == 1
    assert not [record for record in caplog.records if record.levelno == logging.ERROR]


def test_nested_and_concurrent_sessions_know_nothing_of_each_other(open_session):
    """The end of one closes no other, and each raises for what it lost itself."""
    with Receiver(api_token=TOKEN) as other:
        other.decide = lambda _: Reply(503)
        inner = session(Vitally(api_token=TOKEN, base_url=other.url), timeout=0.1, retry=FAST)
        with open_session() as outer:
            with pytest.raises(Undelivered):
                job(inner, "e")
            assert outer.track("u2", "e", account_id="a")
            ended = []
            thread = threading.Thread(target=lambda: ended.append(in_a_thread(open_session)))
            thread.start()
            thread.join(10)
            assert ended == [1]
            assert outer.flush().delivered == 1


def in_a_thread(open_session):
    """A session in another thread, which must leave SIGTERM alone; what it delivered."""
    with open_session() as client:
        client.track("u3", "e", account_id="a")
        client.flush()
        return client.stats().delivered


def test_a_wrong_setting_is_told_at_once(open_session):
    """A wrong timeout is a `ValueError` before anything else is done."""
    entered = []
    with pytest.raises(ValueError, match="timeout=-1: allowed is"):
        job(open_session(timeout=-1), end=lambda: entered.append(True))
    assert not entered


def test_the_error_can_be_pickled():
    """A pool of processes hands the error on, with its figures."""
    error = Undelivered(FlushResult(delivered=2, pending=3))
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(again), again.result) == (str(error), error.result)


JOBS = pytest.mark.skipif(sys.platform == "win32", reason="it is about exit statuses and SIGTERM")


@JOBS
@pytest.mark.parametrize(
    ("end", "reply", "status"), [("returns", None, 0), ("returns", 503, 1), ("exits", 503, 1), ("fails", None, 1)]
)
def test_a_jobs_exit_status_tells(receiver, end, reply, status):
    """0 only if the job did well and all of its messages were delivered."""
    receiver.decide = None if reply is None else lambda _: Reply(reply)
    ended = run("jobs", end, receiver.url)

    assert ended.status == status, ended.errors
    assert ("Undelivered: 0 messages were lost ({}), and 3 left" in ended.errors) == (reply is not None)
    assert len(receiver.messages) == (3 if reply is None else 0)


@JOBS
def test_a_job_delivers_at_sigterm(receiver, wait_until):
    """SIGTERM in the middle of a job: what it had tracked is delivered, and it ends by the signal."""
    with running("jobs", "waits", receiver.url) as job:
        wait_until(lambda: job.has_said("It has tracked"))
        job.signal(signal.SIGTERM)
        ended = job.end()

    assert ended.status == -signal.SIGTERM, ended.errors
    assert sorted(message["userId"] for message in receiver.messages) == ["job-0", "job-1", "job-2"]
