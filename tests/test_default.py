"""The module-level client, for scripts and for code that cannot hold an instance."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from conftest import TOKEN

import analytics_batcher
from analytics_batcher import Client, CustomerIO, FlushResult, Segment, Vitally, default
from analytics_batcher.receiver import CustomerIOWire, Receiver, Reply, SegmentWire, VitallyWire

CALLS = {
    "identify": ("u", {"plan": "gold"}),
    "track": ("u", "paid"),
    "account": ("a", {"name": "Acme"}),
    "organization": ("o",),
    "custom_object": ("c", "kind"),
    "unlink": ("u", "a"),
    "page": ("u", "home"),
    "screen": ("u", "home"),
    "alias": ("old", "new"),
    "enqueue": ({"type": "unlink", "userId": "u", "accountId": "a"},),
}
FUNCTIONS = [*CALLS, "flush", "shutdown"]


@pytest.fixture(autouse=True)
def _unconfigured(monkeypatch):
    """Each test begins as a process does, without a default client, and leaves none behind."""
    for variable in [name for name in os.environ if name.startswith("ANALYTICS_BATCHER_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(default._default, "_client", None)
    monkeypatch.setattr(default._default, "_warned", False)
    yield
    analytics_batcher.shutdown(0)


def configure(receiver, **options):
    """Make a default client of a receiver."""
    return analytics_batcher.configure(Vitally(api_token=TOKEN, base_url=receiver.url), **options)


def python(program, *arguments, flags=()):
    """Run a program in a Python of its own; its output and its standard error."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANALYTICS_BATCHER_")}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, *flags, "-c", program, *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, ended.stderr


# Configured


def test_a_client_becomes_the_default_one(receiver):
    """A client that was made elsewhere is used as it is, again without effect, and until another takes its place."""
    client = Client(Vitally(api_token=TOKEN, base_url=receiver.url))
    assert analytics_batcher.configure(client) is client
    assert analytics_batcher.configure(client) is client
    assert analytics_batcher.track("u1", "e", account_id="a")
    other = configure(receiver)
    assert client.stats().delivered == 1
    assert client.track("u1", "late") is False
    assert analytics_batcher.configure(other).track("u2", "e", account_id="a")


def test_a_client_takes_no_options(receiver):
    """Options beside a client would be heeded by nobody, and are refused; the earlier client stays."""
    earlier = configure(receiver)
    with Client(Vitally(api_token=TOKEN, base_url=receiver.url)) as client:
        with pytest.raises(ValueError, match="flush_interval is given with a client: allowed is one or the other"):
            analytics_batcher.configure(client, strict=True, flush_interval=1)
        assert analytics_batcher.track("u1", "e", account_id="a")
        assert earlier.stats().tracked == 1


def test_every_function_uses_the_configured_client():
    """Each call reaches the vendors through the default client, in the order it was made."""
    with Receiver(wires=[VitallyWire(TOKEN), CustomerIOWire("s", "k"), SegmentWire("w")]) as receiver:
        url = receiver.url
        several = [Vitally(api_token=TOKEN, base_url=url), CustomerIO("s", "k", base_url=url, object_types={"kind": 2})]
        client = analytics_batcher.configure([*several, Segment("w", base_url=url)], strict=True)
        assert isinstance(client, Client)
        given = {"identify": {"account_id": "a"}, "custom_object": {"account_id": "a"}, "enqueue": {"to": "vitally"}}
        for name, arguments in CALLS.items():
            assert getattr(analytics_batcher, name)(*arguments, **given.get(name, {})) is True, name
        assert analytics_batcher.flush() == FlushResult(
            delivered=20, dropped=client.stats().dropped, pending=0, timed_out=False, lost=0
        )
        assert [message["type"] for message in receiver.messages_of("vitally")] == [
            *("user", "track", "account", "organization", "customobjectinstance", "unlink", "unlink")
        ]
        assert [message["type"] for message in receiver.messages_of("segment")] == [
            *("identify", "track", "page", "screen", "alias")
        ]
        assert [message["action"] for message in receiver.messages_of("customerio")] == [
            *("identify", "event", "identify", "identify", "delete_relationships", "page", "screen", "merge")
        ]
        assert receiver.faults == ()
        assert analytics_batcher.shutdown()


def test_configure_returns_the_client_that_is_used(receiver):
    """What the functions do is seen in the figures of the client that `configure` returned, and the other way round."""
    client = configure(receiver, background=False)
    assert analytics_batcher.track("u", "1", account_id="a")
    assert client.track("u", "2", account_id="a")
    assert client.stats().tracked == 2
    assert analytics_batcher.flush().delivered == 2
    assert [message["event"] for message in receiver.messages] == ["1", "2"]


def test_options_are_the_clients(receiver):
    """`configure` hands its options on: a strict client raises through the functions too."""
    configure(receiver, strict=True)
    with pytest.raises(analytics_batcher.InvalidMessage):
        analytics_batcher.track("u", "")
    with pytest.raises(TypeError, match="no_such_option"):
        configure(receiver, no_such_option=1)
    assert receiver.requests == ()


def test_configure_again_shuts_the_earlier_client_down(receiver):
    """The earlier client delivers what it had, and is closed; the functions use the later one."""
    with Receiver() as later:
        first = configure(receiver, flush_interval=30)
        assert analytics_batcher.track("u", "first", account_id="a")
        second = analytics_batcher.configure(Vitally(api_token="test-token", base_url=later.url))
        assert [message["event"] for message in receiver.messages] == ["first"]
        assert first.track("u", "late", account_id="a") is False
        assert first.stats().dropped == {"closed": 1}
        assert analytics_batcher.track("u", "second", account_id="a")
        assert analytics_batcher.flush()
        assert [message["event"] for message in later.messages] == ["second"]
        assert second.stats().tracked == 1


def test_calls_reach_the_later_client_while_the_earlier_one_drains(receiver, wait_until):
    """A slow end of the earlier client holds up no call: the later one takes over first."""
    receiver.decide = lambda _: Reply(hang=True)
    first = configure(receiver, shutdown_timeout=1.0)
    assert analytics_batcher.track("u", "first", account_id="a")
    with Receiver() as later:
        destination = Vitally(api_token="test-token", base_url=later.url)
        thread = threading.Thread(target=analytics_batcher.configure, args=(destination,))
        thread.start()
        wait_until(lambda: not first.track("u", "more", account_id="a"))
        draining = thread.is_alive()
        assert analytics_batcher.track("u", "second", account_id="a")
        assert later.wait_for(lambda r: r.messages)
        thread.join()
    assert draining
    assert first.stats().dropped["exit"] >= 1


def test_a_wrong_setting_leaves_the_earlier_client(receiver):
    """A `configure` that fails changes nothing."""
    configure(receiver)
    with pytest.raises(ValueError, match="flush_interval"):
        configure(receiver, flush_interval=-1)
    with pytest.raises(ValueError, match="ANALYTICS_BATCHER_DESTINATION"):
        analytics_batcher.configure()
    assert analytics_batcher.track("u", "e", account_id="a")
    assert analytics_batcher.flush().delivered == 1


def test_configure_reads_the_environment(receiver, monkeypatch):
    """Without a destination the environment says everything, and options given come before it."""
    monkeypatch.setenv("ANALYTICS_BATCHER_DESTINATION", "vitally")
    monkeypatch.setenv("ANALYTICS_BATCHER_VITALLY_API_TOKEN", TOKEN)
    monkeypatch.setenv("ANALYTICS_BATCHER_BASE_URL", receiver.url)
    monkeypatch.setenv("ANALYTICS_BATCHER_MAX_QUEUE_MESSAGES", "2")
    analytics_batcher.configure(background=False)
    assert [analytics_batcher.track("u", "e", account_id="a") for _ in range(3)] == [True, True, False]
    analytics_batcher.configure(background=False, max_queue_messages=1)
    assert [analytics_batcher.track("u", "e", account_id="a") for _ in range(2)] == [True, False]
    assert analytics_batcher.flush()
    assert len(receiver.messages) == 3


def test_after_a_shutdown_calls_are_refused_until_the_next_configure(receiver):
    """A client that was shut down is no missing one: its calls are `closed`, and a new one begins anew."""
    client = configure(receiver)
    assert analytics_batcher.shutdown()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert analytics_batcher.track("u", "e", account_id="a") is False
    assert caught == []
    assert client.stats().dropped == {"closed": 1}
    configure(receiver)
    assert analytics_batcher.track("u", "e", account_id="a") is True


# Not configured


@pytest.mark.parametrize("name", CALLS)
def test_an_unconfigured_call_is_false_and_warns_its_caller(name):
    """Each call returns False, and the first one's `RuntimeWarning` points at the line that made it."""
    with pytest.warns(RuntimeWarning, match="configure") as caught:
        assert getattr(analytics_batcher, name)(*CALLS[name]) is False
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_it_warns_once():
    """However often and from wherever it is called, an unconfigured process is warned once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [getattr(analytics_batcher, name)(*CALLS[name]) for name in CALLS for _ in range(3)]
        results.append(analytics_batcher.track("u", "from another line"))
    assert [warning.category for warning in caught] == [RuntimeWarning]
    assert results == [False] * len(results)


@pytest.mark.parametrize("name", CALLS)
def test_an_unconfigured_call_never_raises(name):
    """Where warnings are errors the call is False all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert getattr(analytics_batcher, name)(*CALLS[name]) is False


def test_an_unconfigured_call_never_raises_for_its_data():
    """What a client would refuse is False without a client too; only a wrong signature is a `TypeError`."""
    with pytest.warns(RuntimeWarning):
        assert analytics_batcher.track(None, None) is False
    assert analytics_batcher.enqueue(7, to="nobody") is False
    with pytest.raises(TypeError):
        analytics_batcher.track()


@pytest.mark.parametrize("name", ["flush", "shutdown"])
@pytest.mark.parametrize("timeout", [(), (0,), (1.5,)])
def test_an_unconfigured_end_has_nothing_to_do(name, timeout):
    """`flush` and `shutdown` return an empty, truthy result, and raise nothing where warnings are errors."""
    result = getattr(analytics_batcher, name)(*timeout)
    assert result == FlushResult()
    assert result


def test_a_process_of_its_own_warns_once_and_ends_well():
    """A script that never configures sees one warning on standard error, or none of it as an exception."""
    program = "import analytics_batcher as a; print(a.track('u', 'e'), a.identify('u'), bool(a.flush()))"
    output, errors = python(program)
    assert output.split() == ["False", "False", "True"]
    assert errors.count("RuntimeWarning") == 1
    assert "configure" in errors
    output, errors = python(program, flags=["-W", "error"])
    assert (output.split(), errors) == (["False", "False", "True"], "")


def test_a_script_needs_no_shutdown(receiver):
    """What a script tracked through the functions is delivered at its exit."""
    program = (
        "import sys, analytics_batcher as a\n"
        "a.configure(a.Vitally(api_token=sys.argv[1], base_url=sys.argv[2]), flush_interval=30)\n"
        "assert all(a.track(f'u{n}', 'e', account_id='a') for n in range(250))\n"
    )
    assert python(program, TOKEN, receiver.url) == ("", "")
    assert len(receiver.messages) == 250


# The names


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_takes_what_the_clients_call_takes(name):
    """Signature and documentation are those of `Client`'s, so that code can move from one to the other."""
    of_client = inspect.signature(getattr(Client, name))
    parameters = list(of_client.parameters.values())[1:]
    function = getattr(analytics_batcher, name)
    assert inspect.signature(function) == of_client.replace(parameters=parameters)
    assert inspect.getdoc(function)


def test_every_call_of_a_client_has_its_function():
    """No call that makes a message is missing among the functions."""
    signatures = {name: inspect.signature(one) for name, one in inspect.getmembers(Client, inspect.isfunction)}
    calls = {
        name for name, one in signatures.items() if not name.startswith("_") and one.return_annotation in (bool, "bool")
    }
    assert calls == set(CALLS)
    assert {*FUNCTIONS, "configure"} <= set(analytics_batcher.__all__)


def test_importing_a_function_makes_no_client():
    """Until `configure` is called nothing that talks to a network is loaded, and no thread runs."""
    program = (
        "import json, sys, threading, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "from analytics_batcher import flush, shutdown, track\n"
        "track('u', 'e'), flush(), shutdown()\n"
        "print(json.dumps([sorted({'requests', 'urllib3'} & set(sys.modules)), threading.active_count()]))\n"
    )
    assert json.loads(python(program)[0]) == [[], 1]


@pytest.mark.parametrize("name", ["flush", "shutdown"])
def test_an_unconfigured_end_has_nothing_to_do_and_warns(name):
    """Without a client there is nothing pending; whoever waits for a delivery is told."""
    with pytest.warns(RuntimeWarning, match="configure") as caught:
        assert getattr(analytics_batcher, name)()
    assert caught[0].filename == __file__
