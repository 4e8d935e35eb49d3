"""`doctor`: what it finds of settings, network, clock and key, and that it tells no secret and sends nothing."""

from __future__ import annotations

import http.server
import json
import os
import socket
import ssl
import threading
from base64 import b64encode
from contextlib import contextmanager
from email.utils import formatdate
from time import monotonic, time

import pytest
from conftest import TOKEN
from issuing import issue

from analytics_batcher import Client, SqliteBuffer, Vitally
from analytics_batcher.cli import main

PREFIX = "ANALYTICS_BATCHER_"


class Vendor(http.server.ThreadingHTTPServer):
    """A server that says a date, and to whom it belongs.

    Attributes:
        ahead: Seconds by which its clock is ahead of ours; `None`: it says no date.
        answer: The status and the body of its answers.
        asked: The requests: method, path and key.
        may_answer: Cleared by who wants no answer.
        drips: Whether it then sends a byte now and then.
    """

    daemon_threads = True

    def __init__(self, certificate=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.ahead, self.answer, self.asked = 0, (404, b""), []
        self.drips = False
        self.may_answer = threading.Event()
        self.may_answer.set()
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def url(self):
        """Where it is."""
        scheme = "https" if isinstance(self.socket, ssl.SSLSocket) else "http"
        return f"{scheme}://localhost:{self.server_port}"

    def handle_error(self, request, client_address):
        """Say nothing of those that leave in the handshake."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as its server is told to."""

    def do_GET(self):
        """Answer."""
        self.server.asked.append(("GET", self.path, self.headers.get("Authorization")))
        while self.server.drips and not self.server.may_answer.wait(0.05):
            self.wfile.write(b"H")  # which keeps a reader waiting that counts from the last byte
        self.server.may_answer.wait(20)
        status, body = self.server.answer
        self.send_response_only(status)
        if self.server.ahead is not None:
            self.send_header("Date", formatdate(time() + self.server.ahead, usegmt=True))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        """Note that something was sent."""
        self.server.asked.append(("POST", self.path, None))


@contextmanager
def vendor(certificate=None):
    """A server that runs."""
    server = Vendor(certificate)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.may_answer.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def settings(monkeypatch):
    """Sets settings, and nothing else is set."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)

    def choose(**given):
        for name, value in given.items():
            monkeypatch.setenv(PREFIX + name, value)

    return choose


@pytest.fixture
def look(capsys):
    """Runs the command: its status, and the findings by what was looked at."""

    def run(*arguments):
        status = main(["doctor", "--json", *arguments])
        said = capsys.readouterr()
        assert TOKEN not in said.out + said.err
        facts = json.loads(said.out)
        assert facts["faults"] == sum(one["state"] == "fault" for one in facts["findings"])
        assert (status == 1) is (facts["faults"] > 0)
        assert all(one["remedy"] for one in facts["findings"] if one["state"] == "fault"), "a suggestion per fault"
        return facts["settings"], {one["what"]: one for one in facts["findings"]}

    return run


def as_vitally(settings, url, **others):
    """Choose Vitally at an address."""
    settings(DESTINATION="vitally", VITALLY_API_TOKEN=TOKEN, BASE_URL=url, **others)


def as_customerio(settings, url, **others):
    """Choose Customer.io at an address."""
    settings(DESTINATION="customerio", CUSTOMERIO_SITE_ID="my-site", CUSTOMERIO_API_KEY=TOKEN, BASE_URL=url, **others)


# Settings


def test_settings_are_shown_without_secrets(settings, look):
    """Each setting is shown as it is, but for secrets and for what may be one under a misspelt name."""
    settings(VITALLY_API_TOKN=TOKEN, VITALLY_SUBDOMAIN="acme", REDIS_URL=f"redis://:{TOKEN}@localhost", TIMEOUT="3")
    as_vitally(settings, "http://localhost:9")
    shown, found = look()
    assert shown == {
        f"{PREFIX}BASE_URL": "http://localhost:9",
        f"{PREFIX}DESTINATION": "vitally",
        f"{PREFIX}REDIS_URL": "[secret] (a URL with credentials)",
        f"{PREFIX}TIMEOUT": "3",
        f"{PREFIX}VITALLY_API_TOKEN": f"[secret] ({len(TOKEN)} characters)",
        f"{PREFIX}VITALLY_API_TOKN": f"[secret] ({len(TOKEN)} characters)",
        f"{PREFIX}VITALLY_SUBDOMAIN": "acme",
    }
    assert found["settings"]["found"] == f"{PREFIX}VITALLY_API_TOKN: there is no such setting"
    assert "misspelt" in found["settings"]["remedy"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, f"{PREFIX}DESTINATION is not set"),
        ({"DESTINATION": "vitally"}, f"{PREFIX}VITALLY_API_TOKEN is not set"),
        ({"CONCURRENCY": "many"}, f"{PREFIX}CONCURRENCY='many': allowed is a whole number"),
        ({"CONCURRENCY": "0"}, f"{PREFIX}CONCURRENCY: concurrency=0"),
    ],
)
def test_wrong_settings(settings, look, given, found):
    """What a client would refuse is the fault, named by its variable."""
    if "CONCURRENCY" in given:
        as_vitally(settings, "http://localhost:9")
    settings(**given)
    assert look()[1]["settings"]["found"].startswith(found)


# Network


def test_a_healthy_vendor(settings, look):
    """All is fine; what cannot be known is said not to be checked; nothing was posted and no key was shown to it."""
    with vendor() as server:
        as_vitally(settings, server.url)
        _, found = look()
        assert {what: one["state"] for what, one in found.items()} == {
            "settings": "ok",
            "vitally: name": "ok",
            "vitally: connection": "ok",
            "vitally: clock": "ok",
            "vitally: credentials": "not checked",
        }
        assert server.asked == [("GET", "/", None)]


def test_a_name_that_is_none(settings, look):
    """A host that nobody knows is a fault, and nothing further is tried."""
    as_vitally(settings, "https://nothing.invalid")
    _, found = look()
    assert found["vitally: name"]["state"] == "fault"
    assert "nothing.invalid" in found["vitally: name"]["found"]
    assert [*found] == ["settings", "vitally: name"]


def test_nobody_listens(settings, look):
    """A port at which nobody listens is a fault."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    as_vitally(settings, f"http://127.0.0.1:{port}")
    assert "refused" in look()[1]["vitally: connection"]["found"].lower()


@pytest.mark.parametrize("drips", [False, True])
def test_who_does_not_answer(settings, look, drips):
    """A server that says nothing, or a byte now and then, is a fault after the time given."""
    with vendor() as server:
        server.drips = drips
        server.may_answer.clear()
        as_vitally(settings, server.url)
        started = monotonic()
        assert look("--timeout", "0.3")[1]["vitally: HTTP"]["state"] == "fault"
        assert monotonic() - started < 3


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority and what it issued."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = issue(folder / "authority.pem", host="authority.example", ip="192.0.2.9")
    return {
        "authority": authority,
        "good": issue(folder / "good.pem", by=authority, days=(-1, 100)),
        "soon": issue(folder / "soon.pem", by=authority, days=(-1, 5)),
        "expired": issue(folder / "expired.pem", by=authority, days=(-3, -1)),
        "other": issue(folder / "other.pem", by=authority, host="other.example", ip="192.0.2.1"),
    }


@pytest.mark.parametrize(
    ("server_and_trust", "expected"),
    [
        (("good", "authority"), ("ok", "good for 99 days more", "")),
        (("soon", "authority"), ("warning", "good for 4 days more", "renewed")),
        (("expired", "authority"), ("fault", "expired", "clock")),
        (("other", "authority"), ("fault", "ostname mismatch", "another one")),
        (("good", "true"), ("fault", "unable to get local issuer", "CA certificate")),
        (("expired", "false"), ("warning", "not checked", "unset")),
    ],
)
def test_certificates(settings, look, certificates, server_and_trust, expected):
    """Until when a certificate is good, and why one is not, by the authorities that the client would go by."""
    (name, verify), (state, words, remedy) = server_and_trust, expected
    with vendor(certificates[name]) as server:
        as_vitally(settings, server.url, VERIFY=str(certificates.get(verify, verify)))
        _, found = look()
        assert found["vitally: TLS"]["state"] == state
        assert words in found["vitally: TLS"]["found"]
        assert remedy in found["vitally: TLS"]["remedy"]
        assert bool(server.asked) is (state != "fault"), "who is not trusted is asked nothing"


def test_tls_where_there_is_none(settings, look):
    """An https address at which plain HTTP is spoken is a fault with a word on TLS."""
    with vendor() as server:
        as_vitally(settings, server.url.replace("http:", "https:"))
        assert "TLS failed" in look()[1]["vitally: TLS"]["found"]


@pytest.mark.parametrize(
    ("ahead", "state", "words"),
    [
        (0, "ok", "within 1 s"),
        (3_600, "fault", "behind"),
        (-3_600, "fault", "ahead of"),
        (None, "not checked", "no date"),
    ],
)
def test_the_clock(settings, look, ahead, state, words):
    """This machine's clock is compared with the server's date, to the minute."""
    with vendor() as server:
        server.ahead = ahead
        as_vitally(settings, server.url)
        clock = look()[1]["vitally: clock"]
        assert (clock["state"], words in clock["found"]) == (state, True), clock


# Credentials


@pytest.mark.parametrize(
    ("answer", "region", "expected"),
    [
        ((200, b'{"url":"x","region":"eu","environment_id":1}'), "eu", ("ok", "is in eu")),
        ((200, b'{"url":"x","region":"eu","environment_id":1}'), "us", ("fault", "is in eu, and not in us")),
        ((200, b'{"url":"x","region":"us","environment_id":1}'), "", ("ok", "is in us")),
        ((401, b""), "us", ("fault", "does not know the key")),
        ((301, b""), "us", ("fault", "HTTP 301")),
        ((200, b"<html>"), "us", ("not checked", "did not say")),
        ((500, b""), "us", ("not checked", "HTTP 500")),
    ],
)
def test_customerio_knows_its_own(settings, look, answer, region, expected):
    """Customer.io is asked for the key's region, by the request that it has for that, and by no other."""
    with vendor() as server:
        server.answer = answer
        as_customerio(settings, server.url, CUSTOMERIO_REGION=region)
        found = look()[1]["customerio: key and region"]
        assert (found["state"], expected[1] in found["found"]) == (expected[0], True), found
        key = b64encode(f"my-site:{TOKEN}".encode()).decode()
        assert server.asked == [("GET", "/api/v1/accounts/region", f"Basic {key}")]


# What keeps messages


def test_a_spool(settings, look, tmp_path):
    """It is said what waits in the file, and that what dead processes left wants to be sent; a folder must be there."""
    path = tmp_path / "spool.db"
    with vendor() as server:
        as_vitally(settings, server.url, SPOOL=str(path))
        assert look()[1][f"spool {path}"]["state"] == "ok"
        assert list(tmp_path.iterdir()) == [], "it was looked at, and not made"
        client = Client(Vitally(api_token=TOKEN, base_url="http://127.0.0.1:9"), buffer=SqliteBuffer(path))
        client.track("u", "e")
        client.shutdown(0)
        found = look()[1][f"spool {path}"]
        assert (found["state"], found["found"].startswith("1 messages wait, 1 of them")) == ("warning", True)
        missing = tmp_path / "nowhere/spool.db"
        settings(SPOOL=str(missing))
        assert look()[1][f"spool {missing}"]["state"] == "fault"


def test_a_redis_that_is_not_there(settings, look):
    """A stream's server that cannot be asked is a fault, without its password."""
    with vendor() as server:
        as_vitally(settings, server.url, REDIS_URL=f"redis://:{TOKEN}@127.0.0.1:9/0")
        assert look()[1]["redis at 127.0.0.1"]["state"] == "fault"


def test_people_get_a_table_and_a_remedy(settings, capsys):
    """Without --json there are two tables, a line for each remedy, and the number of faults."""
    with vendor() as server:
        server.ahead = 3_600
        as_vitally(settings, server.url)
        assert main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Settings"
    assert "Findings" in lines
    assert any(line.startswith("fault        vitally: clock") for line in lines)
    assert "vitally: clock: set this machine's clock (NTP): messages carry its time" in lines
    assert lines[-1] == "faults: 1"
