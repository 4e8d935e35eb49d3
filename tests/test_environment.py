"""`Client.from_env`: a client's settings, secrets included, out of environment variables."""

from __future__ import annotations

import inspect
import os
import re

import pytest
from certifi import where

from analytics_batcher import Client, Retry
from analytics_batcher.receiver import CustomerIOWire, Receiver, SegmentWire, VitallyWire

PREFIX = "ANALYTICS_BATCHER_"
TOKEN, SITE, KEY, WRITE_KEY = "token-sesame", "site-sesame", "key-sesame", "write-sesame"
ALL = {
    "DESTINATION": "vitally,customerio,segment",
    "VITALLY_SUBDOMAIN": "acme",
    "VITALLY_API_TOKEN": TOKEN,
    "CUSTOMERIO_SITE_ID": SITE,
    "CUSTOMERIO_API_KEY": KEY,
    "SEGMENT_WRITE_KEY": WRITE_KEY,
}
ONE = {
    "vitally": {"DESTINATION": "vitally", "VITALLY_API_TOKEN": TOKEN},
    "customerio": {"DESTINATION": "customerio", "CUSTOMERIO_SITE_ID": SITE, "CUSTOMERIO_API_KEY": KEY},
    "segment": {"DESTINATION": "segment", "SEGMENT_WRITE_KEY": WRITE_KEY},
}
VITALLY = {**ONE["vitally"], "VITALLY_SUBDOMAIN": "acme"}
HOOKS = ("before_send", "on_drop", "on_delivery", "default")
# Each option, what the environment may say, and what the client is then given.
GOOD = {
    "max_queue_messages": [("17", 17), (" 17 ", 17)],
    "max_queue_bytes": [("100000", 100_000)],
    "when_full": [("block", "block"), ("drop_oldest", "drop_oldest")],
    "block_timeout": [("2", 2.0), ("0.25", 0.25)],
    "batch_messages": [("50", 50), ("none", None)],
    "batch_bytes": [("40000", 40_000), ("None", None)],
    "message_bytes": [("1000", 1_000)],
    "flush_interval": [("1.5", 1.5), ("0", 0.0)],
    "retry": [],
    "timeout": [("3", 3.0), ("3,7.5", (3.0, 7.5)), ("3, 7.5", (3.0, 7.5))],
    "shutdown_timeout": [("9.5", 9.5)],
    "gzip": [("true", True), ("off", False), ("none", None)],
    "proxy": [("environment", "environment"), ("http://localhost:3128", "http://localhost:3128"), ("none", None)],
    "verify": [("true", True), ("0", False), (where(), where())],
    "strict": [("true", True), ("TRUE", True), ("1", True), ("yes", True), ("on", True), ("false", False)],
    "dead_letters": [("letters.jsonl", "letters.jsonl"), ("none", None)],
    "concurrency": [("4", 4)],
    "max_requests_per_second": [("2.5", 2.5), ("none", None)],
    "background": [("0", False), ("False", False), ("no", False), ("off", False), ("on", True)],
    "enabled": [("false", False), ("true", True)],
}
# Each option, what it cannot be, and words by which the error says what is allowed.
BAD = {
    "max_queue_messages": [
        ("many", "whole number"),
        ("1.5", "whole number"),
        ("0", "at least 1"),
        ("-3", "at least 1"),
    ],
    "max_queue_bytes": [("1MB", "whole number"), ("10", "at least 1000")],
    "when_full": [("explode", "'drop_newest' or 'drop_oldest' or 'block'")],
    "block_timeout": [("soon", "a number"), ("-1", "at least 0"), ("nan", "a number")],
    "batch_messages": [("x", "whole number"), ("101", "100"), ("0", "from 1")],
    "batch_bytes": [("x", "whole number"), ("5", "from 1000")],
    "message_bytes": [("x", "whole number"), ("99999", "32768")],
    "flush_interval": [("-0.1", "at least 0"), ("inf", "a number"), ("1s", "a number")],
    "retry": [("5", "RETRY_")],
    "timeout": [("x", "a number"), ("0", "positive"), ("1,2,3", "a number"), ("1,x", "a number")],
    "shutdown_timeout": [("x", "a number"), ("-1", "at least 0")],
    "gzip": [("maybe", "true or false")],
    "proxy": [("ftp://localhost", "http"), ("localhost", "http")],
    "verify": [("/no/such/file", "path")],
    "strict": [("maybe", "true or false"), ("2", "true or false")],
    "background": [("maybe", "true or false")],
    "dead_letters": [("on", "the path of a file"), ("letters/", "the path of a file")],
    "concurrency": [("0", "a whole number from 1 to 64"), ("many", "a whole number")],
    "max_requests_per_second": [("0", "a number above 0"), ("fast", "a number")],
    "enabled": [("maybe", "true or false")],
}
OPTIONS = {
    name: parameter.default
    for name, parameter in inspect.signature(Client).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
}


class Kept(Client):
    """A client that remembers what it was given, and is one in every other way."""

    __signature__ = inspect.signature(Client)

    def __init__(self, destination, **options):
        self.destinations, self.given = destination, options
        super().__init__(destination, **options)


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch):
    """Nothing of the environment that the tests run in is seen."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def from_env(monkeypatch):
    """Sets variables, makes a client of them, and shuts it down at the end."""
    clients = []

    def make(variables, **options):
        for name, value in variables.items():
            monkeypatch.setenv(PREFIX + name, value)
        clients.append(Kept.from_env(**options))
        return clients[-1]

    yield make
    for client in clients:
        client.shutdown(0)


def refused(from_env, variables, **options):
    """The text of the `ValueError` that variables lead to, once it is sure that it shows no secret."""
    with pytest.raises(ValueError, match=r".") as caught:
        from_env(variables, **options)
    # A traceback prints what an error came from too, unless it is suppressed.
    error = caught.value
    shown = str(error)
    while error is not None:
        assert "sesame" not in f"{error} {error!r}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return shown


def urls_of(client):
    """Where a client's destinations post to, by their names."""
    return {one.name: one.url for one in client.destinations}


# Destinations


def test_each_destination_is_made_of_its_variables(from_env):
    """Several are named with commas, and each finds its own variables; options that are not set stay unset."""
    client = from_env(ALL)
    assert urls_of(client) == {
        "vitally": "https://acme.api.vitally.io/analytics/v1/batch",
        "customerio": "https://track.customer.io/api/v2/batch",
        "segment": "https://api.segment.io/v1/batch",
    }
    assert client.given == {}
    assert type(client) is Kept


@pytest.mark.parametrize("named", ["segment,vitally", " segment , vitally "])
def test_the_order_of_the_names_is_kept(from_env, named):
    """Destinations stand in the order in which they are named; blanks do no harm."""
    client = from_env({**VITALLY, "SEGMENT_WRITE_KEY": WRITE_KEY, "DESTINATION": named})
    assert list(client.stats().destinations) == ["segment", "vitally"]


@pytest.mark.parametrize(
    ("region", "host"), [("us", "track.customer.io"), ("eu", "track-eu.customer.io"), ("", "track.customer.io")]
)
def test_the_region_is_a_variable(from_env, region, host):
    """`..._CUSTOMERIO_REGION` chooses the host."""
    client = from_env({**ONE["customerio"], "CUSTOMERIO_REGION": region})
    assert urls_of(client) == {"customerio": f"https://{host}/api/v2/batch"}


@pytest.mark.parametrize("kind", ONE)
def test_a_client_of_the_environment_delivers(from_env, kind):
    """`..._BASE_URL` takes one destination elsewhere, and the secrets of the environment are the ones it sends."""
    wires = [VitallyWire(TOKEN), CustomerIOWire(SITE, KEY), SegmentWire(WRITE_KEY)]
    with Receiver(wires=wires) as receiver:
        client = from_env({**ONE[kind], "BASE_URL": receiver.url})
        assert client.track("u", "e", account_id="a")
        assert client.flush()
        assert [request.wire for request in receiver.requests] == [kind]
        assert receiver.faults == ()
        assert len(receiver.messages) == 1


@pytest.mark.parametrize("elsewhere", ["https://example.com", "https://127.0.0.1", "http://example.com"])
def test_several_destinations_do_not_share_a_host(from_env, elsewhere):
    """It would get the secrets of all."""
    error = refused(from_env, {**ALL, "BASE_URL": elsewhere})
    assert f"{PREFIX}BASE_URL" in error
    assert "this machine" in error


def test_several_destinations_share_a_receiver_on_this_machine(from_env):
    """Each goes to its own path, with its own secret."""
    with Receiver(wires=[VitallyWire(TOKEN), CustomerIOWire(SITE, KEY), SegmentWire(WRITE_KEY)]) as receiver:
        client = from_env({**ALL, "BASE_URL": receiver.url})
        assert client.track("u", "e", account_id="a")
        assert client.flush()
        assert sorted(request.wire for request in receiver.requests) == sorted(ONE)
        assert receiver.faults == ()


@pytest.mark.parametrize(
    ("kind", "missing"),
    [
        ("vitally", "DESTINATION"),
        ("vitally", "VITALLY_API_TOKEN"),
        ("customerio", "CUSTOMERIO_SITE_ID"),
        ("customerio", "CUSTOMERIO_API_KEY"),
        ("segment", "SEGMENT_WRITE_KEY"),
    ],
)
@pytest.mark.parametrize("how", ["unset", "empty"])
def test_a_missing_variable_is_named(from_env, kind, missing, how):
    """What a destination cannot do without is asked for by its variable's name; empty is missing."""
    variables = {**VITALLY, **ONE[kind]} if kind == "vitally" else dict(ONE[kind])
    variables[missing] = ""
    if how == "unset":
        del variables[missing]
    assert refused(from_env, variables).startswith(f"{PREFIX}{missing} ")


def test_a_missing_subdomain_is_named(from_env):
    """Vitally needs a subdomain or a base URL, and the error says by which variables."""
    assert f"{PREFIX}VITALLY_SUBDOMAIN" in refused(from_env, ONE["vitally"])


@pytest.mark.parametrize("named", ["mixpanel", "vitally,mixpanel", "Vitally", "vitally,", ","])
def test_an_unknown_destination_is_refused(from_env, named):
    """The error names the variable and every destination there is."""
    error = refused(from_env, {**VITALLY, "DESTINATION": named})
    assert error.startswith(f"{PREFIX}DESTINATION=")
    assert all(repr(kind) in error for kind in ONE)


def test_a_destination_named_twice_is_refused(from_env):
    """The error is about the names, not about a variable that is there."""
    error = refused(from_env, {**VITALLY, "DESTINATION": "vitally,vitally"})
    assert "name" in error or f"{PREFIX}DESTINATION" in error
    assert "is not set" not in error


@pytest.mark.parametrize(
    ("kind", "variable", "value", "allowed"),
    [
        ("vitally", "VITALLY_SUBDOMAIN", "evil.com/", "letters"),
        ("vitally", "VITALLY_API_TOKEN", "sesame open", "visible ASCII"),
        ("vitally", "BASE_URL", "http://example.com", "https"),
        ("vitally", "BASE_URL", "https://user:sesame@example.com", "https"),
        ("customerio", "CUSTOMERIO_REGION", "mars", "'us' or 'eu'"),
        ("customerio", "CUSTOMERIO_SITE_ID", "sesame open", "visible ASCII"),
        ("customerio", "CUSTOMERIO_API_KEY", "sesame\nopen", "visible ASCII"),
        ("segment", "SEGMENT_WRITE_KEY", "sesäme sesame", "visible ASCII"),
    ],
)
def test_a_wrong_variable_of_a_destination_is_named(from_env, kind, variable, value, allowed):
    """The error names the variable and what is allowed, and shows no secret."""
    error = refused(from_env, {**(VITALLY if kind == "vitally" else ONE[kind]), variable: value})
    assert f"{PREFIX}{variable}" in error
    assert allowed in error


# Options


def test_every_option_is_tested_here():
    """An option that is added to `Client` must be added to the tables of this file."""
    assert set(GOOD) | set(HOOKS) | {"buffer"} == set(OPTIONS)  # of which `SPOOL` is the path
    assert set(BAD) | set(HOOKS) | {"buffer"} == set(OPTIONS)


def test_a_spool_is_a_path(from_env, tmp_path):
    """`ANALYTICS_BATCHER_SPOOL` is the path of the file in which messages are kept."""
    path = tmp_path / "spool.db"
    client = from_env({**VITALLY, "SPOOL": str(path), "BACKGROUND": "false"})
    assert client.track("u", "happened")
    assert client.stats().pending == 1
    assert path.stat().st_size > 0


def test_a_wrong_spool_is_named(from_env, tmp_path):
    """The error names the variable; there is none by which a buffer could be given otherwise."""
    assert refused(from_env, {**VITALLY, "SPOOL": str(tmp_path / "none" / "spool.db")}).startswith(f"{PREFIX}SPOOL: ")
    (tmp_path / "text").write_text("no database")
    assert refused(from_env, {**VITALLY, "SPOOL": str(tmp_path / "text")}).startswith(f"{PREFIX}SPOOL: ")
    assert refused(from_env, {**VITALLY, "BUFFER": "x"}).startswith(f"{PREFIX}BUFFER: ")


@pytest.mark.parametrize(("option", "text", "value"), [(name, *row) for name, rows in GOOD.items() for row in rows])
def test_an_option_is_read(from_env, option, text, value):
    """`ANALYTICS_BATCHER_<OPTION>` is given to the client as a value of the option's type."""
    variables = ONE["segment"] if option == "gzip" else VITALLY  # which Vitally does not take
    client = from_env({**variables, option.upper(): text})
    assert client.given == {option: value}
    assert type(client.given[option]) is type(value)


def test_options_are_heeded(from_env):
    """What is read is what the client then does."""
    client = from_env({**VITALLY, "MAX_QUEUE_MESSAGES": "2", "BACKGROUND": "false", "STRICT": "no"})
    assert [client.track("u", "e", account_id="a") for _ in range(3)] == [True, True, False]
    assert from_env({"ENABLED": "false"}).track("u", "e", account_id="a") is False


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"RETRY_BASE": "0.1"}, Retry(base=0.1)),
        ({"RETRY_CAP": "7"}, Retry(cap=7.0)),
        ({"RETRY_JITTER": "none"}, Retry(jitter="none")),
        ({"RETRY_MAX_AGE": "90"}, Retry(max_age=90.0)),
        ({"RETRY_MAX_AGE": "none"}, Retry(max_age=None)),
        ({"RETRY_MAX_AGE": "auto"}, Retry()),
        ({"RETRY_BASE": "0.1", "RETRY_CAP": "2", "RETRY_JITTER": "full"}, Retry(base=0.1, cap=2.0)),
    ],
    ids=str,
)
def test_the_parts_of_retry_are_read(from_env, variables, expected):
    """`Retry` has a variable for each of its settings; those that are not set keep their defaults."""
    client = from_env({**VITALLY, **variables})
    assert client.given == {"retry": expected}


def test_every_part_of_retry_is_tested_here(from_env):
    """A setting that is added to `Retry` must have a variable: each is known by its name."""
    for name in inspect.signature(Retry).parameters:
        variable = f"{PREFIX}RETRY_{name.upper()}"
        with pytest.raises(ValueError, match=variable):
            from_env({**VITALLY, f"RETRY_{name.upper()}": "-1"})
        del os.environ[variable]
    with pytest.raises(ValueError, match=f"{PREFIX}RETRY_TIMES: there is no such setting"):
        from_env({**VITALLY, "RETRY_TIMES": "3"})


@pytest.mark.parametrize(("option", "text", "allowed"), [(name, *row) for name, rows in BAD.items() for row in rows])
def test_a_wrong_option_is_named(from_env, option, text, allowed):
    """The error names the variable, what it says, and what is allowed."""
    error = refused(from_env, {**VITALLY, option.upper(): text})
    assert f"{PREFIX}{option.upper()}" in error
    assert allowed in error


@pytest.mark.parametrize("hook", HOOKS)
def test_a_function_cannot_stand_in_the_environment(from_env, hook):
    """A hook's variable is refused, and the error says why; as an option it is taken."""
    error = refused(from_env, {**VITALLY, hook.upper(): "print"})
    assert error.startswith(f"{PREFIX}{hook.upper()}: ")
    assert "function" in error
    del os.environ[f"{PREFIX}{hook.upper()}"]
    assert from_env(VITALLY, **{hook: print}).given == {hook: print}


def test_a_password_of_a_proxy_is_not_shown(from_env):
    """A proxy's URL can hold one: no error repeats it."""
    error = refused(from_env, {**VITALLY, "PROXY": "ftp://user:sesame@localhost:21"})
    assert "proxy" in error.lower()


# What is unknown


@pytest.mark.parametrize("name", ["VITALY_API_TOKEN", "API_TOKEN", "FLUSH_INTERVALL", "destination", "", "SELF"])
def test_an_unknown_variable_is_refused(from_env, name):
    """A misspelt name is told of, without its value, which may be a secret."""
    error = refused(from_env, {**VITALLY, name: "sesame"})
    assert error.startswith(f"{PREFIX}{name}: ")


def test_other_variables_are_none_of_its_business(from_env, monkeypatch):
    """What does not begin with the prefix is not looked at."""
    monkeypatch.setenv("ANALYTICS_BATCHERS", "x")
    monkeypatch.setenv("MY_ANALYTICS_BATCHER_STRICT", "x")
    monkeypatch.setenv("DESTINATION", "segment")
    assert urls_of(from_env(VITALLY)) == {"vitally": "https://acme.api.vitally.io/analytics/v1/batch"}


# Secrets, and what is given beside the environment


@pytest.mark.parametrize("secret", ["api_token", "site_id", "api_key", "write_key", "destination"])
def test_secrets_come_from_the_environment_only(from_env, secret):
    """No argument takes a secret, or a destination."""
    with pytest.raises(TypeError) as caught:
        from_env(VITALLY, **{secret: "sesame"})
    assert "sesame" not in str(caught.value)


def test_no_secret_is_shown(from_env):
    """Neither the client nor a destination of it shows a secret of the environment."""
    client = from_env(ALL)
    text = repr(client) + "".join(map(repr, client.destinations))
    assert "sesame" not in text
    assert "acme" in text


def test_options_come_before_the_environment(from_env):
    """A keyword overrides its variable; the other variables hold."""
    client = from_env({**VITALLY, "FLUSH_INTERVAL": "9", "STRICT": "true", "RETRY_BASE": "3"}, flush_interval=0.25)
    assert client.given == {"flush_interval": 0.25, "strict": True, "retry": Retry(base=3.0)}
    assert from_env({}, retry=Retry(cap=5)).given["retry"] == Retry(cap=5)


def test_an_unknown_option_is_a_type_error(from_env):
    """A wrong keyword is Python's own error, as for `Client`."""
    with pytest.raises(TypeError, match="flush_intervall"):
        from_env(VITALLY, flush_intervall=1)


def test_the_environment_is_read_anew_each_time(from_env):
    """Nothing is kept between two clients, and nothing of the environment is changed."""
    assert from_env({**VITALLY, "FLUSH_INTERVAL": "1"}).given == {"flush_interval": 1.0}
    before = dict(os.environ)
    assert from_env({}).given == {"flush_interval": 1.0}
    assert dict(os.environ) == before
    assert from_env({"FLUSH_INTERVAL": "2"}).given == {"flush_interval": 2.0}


def test_variables_of_a_destination_that_is_not_chosen_do_no_harm(from_env):
    """One environment may describe several destinations, and choose one."""
    client = from_env({**VITALLY, "SEGMENT_WRITE_KEY": "sesame", "CUSTOMERIO_REGION": "eu"})
    assert list(client.stats().destinations) == ["vitally"]


def test_an_empty_variable_is_an_unset_one(from_env):
    """An empty value leaves the default, as many tools unset variables that way."""
    client = from_env({**VITALLY, "FLUSH_INTERVAL": "", "STRICT": "", "CUSTOMERIO_API_KEY": ""})
    assert (client._options.flush_interval, client._options.strict) == (0.5, False)


# In the environment's place


def test_given_variables_are_read_and_not_the_environment(monkeypatch):
    """A framework's settings stand in the environment's place, by the same names; other names are not ours."""
    monkeypatch.setenv(f"{PREFIX}FLUSH_INTERVAL", "9")
    given = {f"{PREFIX}{name}": value for name, value in {**VITALLY, "STRICT": "true"}.items()}
    client = Kept.from_env({**given, "DEBUG": True}, concurrency=2)
    assert client.given == {"strict": True, "concurrency": 2}
    client.shutdown(0)


def test_given_values_need_not_be_text(tmp_path):
    """What is no text is the option's value as it is: numbers, functions, `False`, `0`, a path; `None` is unset."""
    more = {"FLUSH_INTERVAL": 0, "ENABLED": False, "BEFORE_SEND": print, "RETRY_CAP": 7.0, "RETRY_MAX_AGE": "auto"}
    more |= {"TIMEOUT": (1.0, 2.0), "SPOOL": tmp_path / "spool.db", "PROXY": None, "GZIP": None}
    client = Kept.from_env({f"{PREFIX}{name}": value for name, value in {**VITALLY, **more}.items()})
    buffer = client.given.pop("buffer")
    expected = {"flush_interval": 0, "enabled": False, "before_send": print, "timeout": (1.0, 2.0)}
    assert client.given == {**expected, "retry": Retry(cap=7.0)}
    assert "spool.db" in repr(buffer)
    client.shutdown(0)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("VITALLY_API_TOKEN", 5, "VITALLY_API_TOKEN is int: allowed is text"),
        ("VITALLY_API_TOKEN", b"sesame", "VITALLY_API_TOKEN is bytes: allowed is text"),
        ("FLUSH_INTERVAL", [1], "FLUSH_INTERVAL: flush_interval=[1]: allowed is a number"),
        ("RETRY_BASE", {}, "RETRY_BASE: Retry.base={}: allowed is a number"),
        ("ENABLED", 2, "ENABLED: enabled=2: allowed is"),
    ],
)
def test_a_wrong_given_value_is_named(name, value, text):
    """A value of a wrong kind is refused by its variable's name, and a secret's is not shown."""
    given = {f"{PREFIX}{name}": value for name, value in {**VITALLY, name: value}.items()}
    with pytest.raises(ValueError, match=re.escape(PREFIX + text)) as caught:
        Client.from_env(given)
    assert "sesame" not in str(caught.value)
