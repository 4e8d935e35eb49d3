from __future__ import annotations

import json
import signal
import sys

import pytest
from conftest import TOKEN
from web_server import GUNICORN, serving, settings, users

from analytics_batcher import Client, Vitally

flask = pytest.importorskip("flask", reason="Flask is not installed")
from analytics_batcher.integrations.flask import Analytics  # noqa: E402 - see above

SERVERS = {
    "flask run": ["-m", "flask", "--app", "flask_site", "run", "--port", "0"],
    "gunicorn": [*GUNICORN, "flask_site:create_app()"],
    "gunicorn, preloaded": [*GUNICORN, "--preload", "flask_site:create_app()"],
}


@pytest.mark.skipif(sys.platform == "win32", reason="it is about SIGTERM")
@pytest.mark.parametrize("server", SERVERS)
def test_what_requests_track_is_delivered_when_the_server_ends(receiver, wait_until, server):
    """SIGTERM right after requests: each message is delivered once, tracked in the request or in a thread of it."""
    with serving(wait_until, SERVERS[server], {"SETTINGS": json.dumps(settings(receiver))}) as site:
        for _ in range(10):
            site.get()
            site.get("/thread")
        ended = site.end(signal.SIGTERM)

    assert ended.status == (-signal.SIGTERM if server == "flask run" else 0), ended.errors
    assert users(receiver) == sorted(site.tracked)
    assert "Traceback" not in ended.errors


@pytest.mark.skipif(sys.platform == "win32", reason="it is about SIGTERM")
def test_sigterm_is_left_alone_if_the_configuration_says_so(receiver, wait_until):
    """With `ANALYTICS_BATCHER_SIGTERM = False` the signal's default action kills, and takes what waits along."""
    given = {"SETTINGS": json.dumps(settings(receiver, SIGTERM=False))}
    with serving(wait_until, SERVERS["flask run"], given) as site:
        site.get()
        ended = site.end(signal.SIGTERM)

    assert ended.status == -signal.SIGTERM, ended.errors
    assert users(receiver) == []


@pytest.fixture
def make_app(receiver):
    """Makes applications whose configuration names the receiver, and ends their clients."""
    apps = []

    def make(analytics=None, **more):
        app = flask.Flask(f"app{len(apps)}")
        given = settings(receiver, SIGTERM=False, **more)
        app.config.update({f"ANALYTICS_BATCHER_{name}": value for name, value in given.items()})
        if analytics is not None:
            analytics.init_app(app)
            apps.append(app)
        return app

    yield make
    for app in apps:
        app.extensions["analytics_batcher"].shutdown(0)


def test_each_application_has_a_client_of_its_own(make_app, receiver):
    """One extension of two applications: in the context of each it has that one's client; outside it says why none."""
    analytics = Analytics()
    first, second = make_app(analytics), make_app(analytics)
    with first.app_context():
        mine = analytics.client
        assert mine is first.extensions["analytics_batcher"]
        assert mine.track("u1", "e", account_id="a")
    with second.app_context():
        assert analytics.client is not mine
    with pytest.raises(RuntimeError, match="there are several, and none is the current one"):
        _ = analytics.client
    assert mine.flush()
    assert users(receiver) == ["u1"]


def test_the_only_application_needs_no_context(make_app):
    """Where there is one application, code outside its context uses its client too; where there is none, it is told."""
    analytics = Analytics()
    with pytest.raises(RuntimeError, match=r"init_app\(app\) was not called"):
        _ = analytics.client
    app = make_app(analytics)
    assert analytics.client is app.extensions["analytics_batcher"]


def test_values_need_not_be_text(make_app, receiver):
    """A function, a number and a bool of the configuration are the client's options as they are."""
    analytics = Analytics()
    make_app(analytics, BEFORE_SEND=lambda message: {**message, "properties": {"n": 1}}, STRICT=True, BATCH_MESSAGES=2)
    for number in range(4):
        assert analytics.client.track(f"u{number}", "e", account_id="a")
    with pytest.raises(ValueError, match="allowed"):
        analytics.client.flush(-1)
    assert analytics.client.flush()
    assert [len(request.messages) for request in receiver.requests] == [2, 2]
    assert [message["properties"] for message in receiver.messages] == [{"n": 1}] * 4


def test_a_wrong_setting_is_named(make_app):
    """A setting that is wrong stops the application where it is made, by the name that it has there."""
    with pytest.raises(ValueError, match="ANALYTICS_BATCHER_FLUSH_INTERVAL: flush_interval=-1: allowed is"):
        Analytics(make_app(FLUSH_INTERVAL=-1))


def test_without_configuration_the_environment_is_read(receiver, monkeypatch):
    """An application that says nothing is configured by the environment's variables."""
    for name, value in settings(receiver).items():
        monkeypatch.setenv(f"ANALYTICS_BATCHER_{name}", str(value))
    app = flask.Flask("app")
    app.config["ANALYTICS_BATCHER_SIGTERM"] = False
    with Analytics(app).client as client:
        client.track("u1", "e", account_id="a")
    assert users(receiver) == ["u1"]


def test_a_client_may_be_given(receiver):
    """A client that the application has made is used as it is."""
    app = flask.Flask("app")
    app.config["ANALYTICS_BATCHER_SIGTERM"] = False
    with Client(Vitally(api_token=TOKEN, base_url=receiver.url)) as client:
        assert Analytics(app, client).client is client
        analytics = Analytics()
        analytics.init_app(app, client)
        assert analytics.client is client
