from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from programs.harness import run, running

from analytics_batcher import install_sigterm_handler
from analytics_batcher.receiver import Receiver, Reply

GRACE = 1.0
TAKEN = 250
needs_signals = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")


@pytest.fixture
def slow_receiver():
    """A stand-in that takes its time."""
    with Receiver(latency=0.1) as receiver:
        yield receiver


@pytest.fixture
def sigterm():
    """Sets a handler of SIGTERM, and sets the earlier one again in the end."""
    before = signal.getsignal(signal.SIGTERM)
    yield lambda handler: signal.signal(signal.SIGTERM, handler)
    signal.signal(signal.SIGTERM, before)


def assert_delivered(receiver, ended, count):
    """Each message came once, and is called delivered."""
    report = receiver.report()
    assert (report.unique_messages, report.repeats, report.faults) == (count, 0, ())
    assert ended.facts["told"] == {"delivered": count}


def run_terminated(receiver, *case, **options):
    """Run a program that SIGTERM ends, with nothing to complain about and all that it had delivered."""
    ended = run("sigterms", *case[:1], receiver.url, *case[1:], **options)
    assert (ended.status, ended.errors) == (-signal.SIGTERM, "")
    assert "stayed" not in ended.facts
    return ended


@needs_signals
def test_sigterm_delivers_and_then_kills_as_before(receiver):
    """With nobody else to handle it, a SIGTERM ends the process as ever, once everything queued is delivered."""
    ended = run_terminated(receiver, "default")

    assert_delivered(receiver, ended, TAKEN)
    assert not ended.facts.keys() & {"handler", "unwound"}


@needs_signals
def test_what_is_tracked_until_the_end_is_accounted_for(slow_receiver):
    """A program that tracks on while the queue is sent has every message delivered that it has got accepted."""
    ended = run_terminated(slow_receiver, "goes_on")

    delivered = ended.facts["told"].pop("delivered")
    assert ended.facts["told"].keys() <= {"closed"}  # what was tracked in the very last moment
    assert TAKEN < ended.facts["taken"] <= delivered <= ended.facts["taken"] + 1
    report = slow_receiver.report()
    assert (report.unique_messages, report.repeats, report.faults) == (delivered, 0, ())


@needs_signals
@pytest.mark.parametrize("how", ["tracks", "flushes", "flushes inline", "makes clients"])
def test_a_sigterm_may_come_at_any_moment(how):
    """Whatever a program is doing when a SIGTERM comes, what it has got accepted is delivered, each message once."""

    def end_at(requests):
        with Receiver() as receiver, running("sigterms", "busy", receiver.url, how) as program:
            assert receiver.wait_for(lambda r: len(r.requests) >= requests)
            program.signal(signal.SIGTERM)
            return program.end(), receiver.report()

    with ThreadPoolExecutor() as pool:
        for ended, report in pool.map(end_at, (1, 2, 3, 5, 8, 13)):
            told = ended.facts["told"]
            assert (ended.status, ended.errors) == (-signal.SIGTERM, "")
            assert told.keys() <= {"delivered", "closed"}  # what was tracked in the very last moment
            assert ended.facts["taken"] <= told["delivered"] <= ended.facts["taken"] + 20
            assert (report.unique_messages, report.repeats, report.faults) == (told["delivered"], 0, ())


@needs_signals
@pytest.mark.parametrize("how", ["returns", "inline", "twice"])
def test_an_earlier_handler_stays_in_charge(receiver, how):
    """An earlier handler is called at once, what is queued is sent meanwhile, and the program goes on as it likes."""
    ended = run("sigterms", "chain", receiver.url, how)

    assert (ended.status, ended.errors) == (0, "")
    assert ended.facts["calls"] == [[signal.SIGTERM, True]] * (2 if how == "twice" else 1)
    assert (ended.facts["sent"], ended.facts["later"]) == (TAKEN, 30)
    assert_delivered(receiver, ended, TAKEN + 30)


@needs_signals
def test_an_earlier_handler_may_end_the_program(slow_receiver):
    """An earlier handler that raises `SystemExit` ends the program in its way, and everything is delivered."""
    ended = run("sigterms", "chain", slow_receiver.url, "raises")

    assert (ended.status, ended.errors, ended.facts["calls"]) == (7, "", [[signal.SIGTERM, True]])
    assert_delivered(slow_receiver, ended, TAKEN)


@needs_signals
def test_a_handler_on_top_may_call_ours(receiver):
    """A handler that was set later and calls ours has its say, and then SIGTERM does what it did before ours."""
    ended = run_terminated(receiver, "chained_by_another")

    assert ended.facts["calls"] >= 1
    assert_delivered(receiver, ended, TAKEN)


@needs_signals
def test_an_event_loop_still_gets_its_signal(receiver):
    """An event loop that listens to SIGTERM hears of it with our handler on top."""
    ended = run("sigterms", "asynchronous", receiver.url)

    assert (ended.status, ended.errors, ended.facts["later"]) == (0, "", 30)
    assert_delivered(receiver, ended, TAKEN + 30)


@needs_signals
def test_an_ignored_sigterm_stays_ignored(receiver):
    """Where SIGTERM is ignored, it still is, and nothing is sent for it."""
    ended = run("sigterms", "ignored", receiver.url)

    assert (ended.status, ended.errors) == (0, "")
    assert (ended.facts["ignored"], ended.facts["pending"]) == (True, 50)
    assert_delivered(receiver, ended, 50)


@needs_signals
@pytest.mark.parametrize("background", ["thread", "inline"])
@pytest.mark.parametrize("call", ["flush", "shutdown"])
def test_sigterm_in_the_middle_of_sending(slow_receiver, call, background):
    """A SIGTERM that comes while the program flushes or shuts down, in its own thread or not, cuts no delivery off."""
    with running("sigterms", "in_call", slow_receiver.url, call, background) as program:
        assert slow_receiver.wait_for(lambda r: r.requests)
        program.signal(signal.SIGTERM)
        ended = program.end()

    assert (ended.status, ended.errors) == (-signal.SIGTERM, "")
    assert_delivered(slow_receiver, ended, TAKEN)


@needs_signals
@pytest.mark.parametrize("background", ["thread", "inline"])
@pytest.mark.parametrize("where", ["hook", "flush"])
def test_sigterm_while_the_program_ends(slow_receiver, where, background):
    """A SIGTERM that comes while the exit delivers cuts nothing off; the exit hook goes on to the program's own end."""
    with running("sigterms", "at_exit", slow_receiver.url, where, background) as program:
        assert slow_receiver.wait_for(lambda r: r.requests)
        program.signal(signal.SIGTERM)
        ended = program.end()

    assert ended.errors == ""
    assert ended.status == 3 or (where == "flush" and ended.status == -signal.SIGTERM)
    assert_delivered(slow_receiver, ended, TAKEN)


@needs_signals
@pytest.mark.parametrize("background", ["thread", "inline"])
def test_sigterm_ends_an_exit_handler_that_does_not_return(receiver, background):
    """A SIGTERM that comes in an exit handler before ours, which never returns, delivers and kills."""
    ended = run_terminated(receiver, "at_exit", "handler", background)

    assert_delivered(receiver, ended, TAKEN)


@needs_signals
@pytest.mark.parametrize("case", ["after_main", "with_threads", "finalizing"])
def test_sigterm_ends_what_an_exception_would_not(receiver, case):
    """Threads that live on, a main thread that has ended, and finalizers do not keep a SIGTERM from its end."""
    ended = run_terminated(receiver, case)

    assert_delivered(receiver, ended, TAKEN)


@needs_signals
def test_sigterm_in_the_middle_of_an_import(receiver, tmp_path):
    """A SIGTERM that comes while a module is being imported delivers and kills."""
    ended = run_terminated(receiver, "importing", tmp_path)

    assert_delivered(receiver, ended, TAKEN)


@needs_signals
def test_several_sigterms_are_as_good_as_one(slow_receiver):
    """Further SIGTERMs do not cut off the delivery that the first one began."""
    ended = run_terminated(slow_receiver, "twice")

    assert_delivered(slow_receiver, ended, TAKEN)


@needs_signals
def test_sigterm_gives_up_in_time_and_says_how_much_it_leaves(receiver):
    """Against an endpoint that hangs, the process ends in its time, and one line says how many messages are left."""
    receiver.decide = lambda _: Reply(hang=True)
    ended = run("sigterms", "hanging", receiver.url)

    assert ended.status == -signal.SIGTERM
    assert ended.at - ended.facts["begun"] <= 0.5 + GRACE
    assert ended.facts["told"] == {"exit": TAKEN}
    assert f"WARNING vitally: {TAKEN} messages were left behind and dropped at exit" in ended.errors.splitlines()


@needs_signals
def test_a_callback_that_does_not_return_holds_up_one_sigterm_only(receiver):
    """If a callback waits for what the interrupted program holds, a SIGTERM after the time is over ends it."""
    receiver.decide = lambda _: Reply(hang=True)
    ended = run("sigterms", "holding_a_lock", receiver.url)

    assert (ended.status, ended.facts["asked"], ended.facts["told"]) == (-signal.SIGTERM, True, {"exit": TAKEN})


@needs_signals
def test_sigterm_without_threads_at_rest(receiver):
    """Where no thread can be started, the handler delivers by itself."""
    ended = run_terminated(receiver, "without_threads", "at rest")

    assert "unwound" not in ended.facts
    assert_delivered(receiver, ended, TAKEN)


@needs_signals
def test_sigterm_without_threads_in_a_flush(slow_receiver):
    """Where no thread can be started, and the handler interrupts a request, the program ends by `SystemExit`."""
    with running("sigterms", "without_threads", slow_receiver.url, "in a flush") as program:
        assert slow_receiver.wait_for(lambda r: r.requests)
        program.signal(signal.SIGTERM)
        ended = program.end()

    assert (ended.status, ended.errors, ended.facts["unwound"]) == (143, "", True)
    report = slow_receiver.report()
    assert (report.unique_messages, report.faults) == (TAKEN, ())
    assert report.repeats <= 100  # of the request that was interrupted


@needs_signals
def test_a_client_that_is_made_after_the_sigterm_delivers_too(slow_receiver):
    """What a client accepted that was made while the first one's queue was sent is delivered before the end."""
    ended = run_terminated(slow_receiver, "new_client")

    assert ended.facts["later"] == 30
    assert_delivered(slow_receiver, ended, TAKEN + 30)


@needs_signals
def test_sigterm_with_nothing_to_send():
    """A program without a client ends by SIGTERM as ever."""
    ended = run("sigterms", "nothing", "")

    assert (ended.status, ended.errors, ended.facts) == (-signal.SIGTERM, "", {})


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@needs_fork
def test_a_forked_child_delivers_its_own_at_a_sigterm(receiver):
    """A SIGTERM to a forked child delivers what the child has, and nothing of the parent's, who lives on."""
    ended = run("sigterms", "forked", receiver.url)

    assert (ended.status, ended.facts["child"]) == (0, -signal.SIGTERM)
    assert (ended.facts["pending"], ended.facts["delivered"]) == (30, 0)
    report = receiver.report()
    assert (report.unique_messages, report.repeats) == (TAKEN + 30, 0)
    assert "Traceback" not in ended.errors


@needs_fork
def test_a_child_that_is_forked_while_its_parent_ends_has_an_end_of_its_own(slow_receiver):
    """A child forked in the time between its parent's SIGTERM and its end delivers at a SIGTERM of its own."""
    ended = run("sigterms", "forked_while_sending", slow_receiver.url)

    assert ended.status == -signal.SIGTERM
    assert slow_receiver.wait_for(lambda r: r.report().unique_messages == TAKEN + 30)
    assert slow_receiver.report().repeats == 0
    assert "Traceback" not in ended.errors


@needs_fork
def test_a_terminated_multiprocessing_child_delivers(receiver):
    """`Process.terminate()` ends a child that has the handler by SIGTERM, and what it has is delivered."""
    ended = run("sigterms", "terminated", receiver.url)

    assert (ended.status, ended.facts["child"]) == (0, -signal.SIGTERM)
    report = receiver.report()
    assert (report.unique_messages, report.repeats) == (TAKEN, 0)
    assert "Traceback" not in ended.errors


def _has_namespaces():
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    command = [unshare, "--pid", "--fork", "--kill-child", sys.executable, "-c", ""]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not _has_namespaces(), reason="no process here may be the first of a namespace")
@pytest.mark.parametrize("how", ["with threads", "without threads"])
def test_the_first_process_of_a_container_ends(receiver, how):
    """A process that the kernel does not let SIGTERM's default action end delivers, and exits with status 143."""
    ended = run("sigterms", "contained", receiver.url, how)

    assert (ended.status, ended.errors) == (143, "")
    assert not ended.facts.keys() & {"handler", "unwound", "stayed"}
    assert_delivered(receiver, ended, TAKEN)


def test_the_handler_is_set_once(sigterm):
    """A second call leaves the handler that the first one has set."""
    sigterm(signal.SIG_DFL)
    install_sigterm_handler()
    handler = signal.getsignal(signal.SIGTERM)
    install_sigterm_handler()

    assert callable(handler)
    assert signal.getsignal(signal.SIGTERM) is handler


def test_the_handler_is_set_in_the_main_thread_only(sigterm):
    """In another thread the call is a `ValueError` that says where to make it, and nothing changes."""
    sigterm(signal.SIG_DFL)
    errors = []

    def install():
        try:
            install_sigterm_handler()
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=install)
    thread.start()
    thread.join()

    assert errors
    assert errors[0].startswith("install_sigterm_handler() must be called in the main thread")
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_handler_that_is_not_pythons_stays(sigterm, monkeypatch):
    """A handler that another language has set cannot be called from here: it stays, and a warning says so."""
    before = sigterm(signal.SIG_DFL)
    assert before is not None
    monkeypatch.setattr(signal, "getsignal", lambda _: None)  # what Python says of such a one
    with pytest.warns(RuntimeWarning, match="not Python's") as warned:
        install_sigterm_handler()
    monkeypatch.undo()

    assert warned[0].filename == __file__
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
