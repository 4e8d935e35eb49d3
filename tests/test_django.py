from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import contextmanager

import pytest
from programs.harness import launched
from web_server import GUNICORN, serving, settings, users

pytest.importorskip("django", reason="Django is not installed")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it is all about SIGTERM")

MANAGE = ["-m", "django"]
SERVERS = {
    "runserver": [*MANAGE, "runserver", "--noreload", "127.0.0.1:0"],
    "gunicorn": [*GUNICORN, "django_site.wsgi:application"],
    "gunicorn, preloaded": [*GUNICORN, "--preload", "django_site.wsgi:application"],
    "uvicorn": ["-m", "uvicorn", "--port", "0", "django_site.asgi:application"],
}


def project(given):
    """The environment of the project, whose setting this is."""
    return {"DJANGO_SETTINGS_MODULE": "django_site.settings", "SETTINGS": json.dumps(given)}


@contextmanager
def managing(*arguments, given=None, more=None):
    """A management command that runs."""
    with launched([*MANAGE, *arguments], {**project(given), **(more or {})}, family=True) as program:
        yield program


def manage(*arguments, given=None, more=None):
    """Run a management command to its end."""
    with managing(*arguments, given=given, more=more) as program:
        return program.end()


@pytest.mark.parametrize("server", SERVERS)
def test_what_requests_track_is_delivered_when_the_server_ends(receiver, wait_until, server):
    """SIGTERM right after requests: each message is delivered once, with no code for the end in the project."""
    # Uvicorn ends by the signal that it was sent: without a handler there is its lifespan, and nothing else.
    given = settings(receiver, SIGTERM=server != "uvicorn")
    with serving(wait_until, SERVERS[server], project(given)) as site:
        for _ in range(20):
            site.get()
        ended = site.end(signal.SIGTERM)

    assert ended.status == (-signal.SIGTERM if server in {"runserver", "uvicorn"} else 0), ended.errors
    assert users(receiver) == sorted(site.tracked)
    assert "Traceback" not in ended.errors


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
def test_a_request_that_outlasts_the_signal_is_heard_too(receiver, wait_until, server):
    """What a request tracks after the SIGTERM that it was in the middle of is delivered."""
    with serving(wait_until, SERVERS[server], project(settings(receiver))) as site:
        site.get()
        answer = site.begin("/slow")
        wait_until(lambda: site.program.has_said("A request has begun"))
        site.program.signal(signal.SIGTERM)
        answer()
        ended = site.program.end()

    assert users(receiver) == sorted(site.tracked), ended.errors


def test_a_reload_delivers_what_the_process_before_it_had(receiver, wait_until, tmp_path):
    """`runserver` with its reloader: a changed file ends one process and starts another; both deliver all they had."""
    changed = tmp_path / "changed.py"
    changed.write_text("")
    environment = project(settings(receiver)) | {"CHANGED": str(tmp_path)}
    with serving(wait_until, [*MANAGE, "runserver", "127.0.0.1:0"], environment) as site:
        first = {site.get()["pid"] for _ in range(5)}
        seconds = iter(range(1, 10**6))

        def has_changed():
            """Change the file once more, as the reloader may not have looked at it yet; whether there was an effect."""
            moment = changed.stat().st_mtime + next(seconds)
            os.utime(changed, (moment, moment))
            return bool(receiver.messages)

        wait_until(has_changed, 20)
        assert users(receiver) == sorted(site.tracked)
        wait_until(lambda: site.program.said().count("development server at http") > 1, 20)
        second = {site.get()["pid"] for _ in range(5)}
        assert not first & second
        os.kill(second.pop(), signal.SIGTERM)  # the reloader ends with it
        ended = site.program.end()

    assert ended.status == 0, ended.errors
    assert users(receiver) == sorted(site.tracked)


@pytest.mark.parametrize(("end", "status"), [("returns", 0), ("raises", 1)])
def test_a_command_delivers_at_its_end(receiver, end, status):
    """A management command delivers what it tracked, whether it returns or fails."""
    ended = manage("tracks", end, given=settings(receiver))

    assert ended.status == status, ended.errors
    assert len(users(receiver)) == 3


@pytest.mark.parametrize(("sigterm", "arrived"), [({}, 3), ({"SIGTERM": False}, 0)])
def test_a_command_delivers_at_sigterm_unless_told_not_to_handle_it(receiver, wait_until, sigterm, arrived):
    """Where nobody handles SIGTERM the application does, unless its setting says no: then the default action kills."""
    with managing("tracks", "waits", given=settings(receiver, **sigterm)) as program:
        wait_until(lambda: program.has_said("It has tracked"), 20)
        program.signal(signal.SIGTERM)
        ended = program.end()

    assert ended.status == -signal.SIGTERM, ended.errors
    assert len(users(receiver)) == arrived


def test_a_handler_of_the_projects_own_is_left_alone(receiver, wait_until):
    """Where somebody handles SIGTERM, that handler stays in its place; what it ends in the usual way delivers."""
    with managing("tracks", "waits", given=settings(receiver), more={"HANDLER": "1"}) as program:
        wait_until(lambda: program.has_said("It has tracked"), 20)
        program.signal(signal.SIGTERM)
        ended = program.end()

    assert ended.status == 0, ended.errors
    assert "SIGTERM is handled by django_site.settings" in ended.errors
    assert len(users(receiver)) == 3


def test_functions_are_given_by_their_paths(receiver):
    """`BEFORE_SEND` may be a dotted path, as functions are elsewhere in Django's settings."""
    ended = manage("tracks", "returns", given=settings(receiver, BEFORE_SEND="django_site.web.change"))

    assert ended.status == 0, ended.errors
    assert [message["properties"] for message in receiver.messages] == [{"changed": True}] * 3


def test_a_factory_may_make_the_client(receiver):
    """`CLIENT` is the path of what makes the client, which becomes the default one."""
    more = {"RECEIVER": receiver.url}
    ended = manage("tracks", "returns", given={"CLIENT": "django_site.web.make"}, more=more)

    assert ended.status == 0, ended.errors
    assert len(users(receiver)) == 3


def test_without_the_setting_the_environment_is_read(receiver):
    """A project that says nothing is configured by the environment's variables."""
    variables = {f"ANALYTICS_BATCHER_{name}": str(value) for name, value in settings(receiver).items()}
    ended = manage("tracks", "returns", more={**variables, "SETTINGS": "-"})

    assert ended.status == 0, ended.errors
    assert len(users(receiver)) == 3


GOOD = {"DESTINATION": "vitally", "VITALLY_SUBDOMAIN": "acme", "VITALLY_API_TOKEN": "sesame"}
WRONG = {
    "no destination": ({}, "ANALYTICS_BATCHER_DESTINATION is not set"),
    "no token": ({**GOOD, "VITALLY_API_TOKEN": ""}, 'ANALYTICS_BATCHER["VITALLY_API_TOKEN"] is not set'),
    "a wrong value": (
        {**GOOD, "FLUSH_INTERVAL": -1},
        'ANALYTICS_BATCHER["FLUSH_INTERVAL"]: flush_interval=-1: allowed',
    ),
    "a wrong name": ({**GOOD, "FLUSH": 1}, 'ANALYTICS_BATCHER["FLUSH"]: there is no such setting'),
    "no dict": ("vitally", "ANALYTICS_BATCHER is str: allowed is a dict"),
    "a path to nothing": ({**GOOD, "BEFORE_SEND": "django_site.web.gone"}, "gone"),
    "a factory, and more": ({**GOOD, "CLIENT": "django_site.web.make"}, 'ANALYTICS_BATCHER["DESTINATION"] is given'),
    "a factory of something else": ({"CLIENT": "builtins.dict"}, 'ANALYTICS_BATCHER["CLIENT"] returned dict'),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_setting_is_an_error_of_the_system_checks(name):
    """`check` refuses to go on, and says which setting is wrong, by the name that it has in the project."""
    given, text = WRONG[name]
    ended = manage("check", given=given)

    assert ended.status == 1, ended.errors
    assert "(analytics_batcher.E001)" in ended.errors
    assert text in ended.errors
    assert "Traceback" not in ended.errors


def test_a_right_setting_passes_the_checks():
    """`check` has nothing to say of a setting that is right."""
    ended = manage("check", given=GOOD)
    assert ended.status == 0, ended.errors


def test_wrong_settings_do_not_keep_a_site_from_serving(wait_until):
    """A server that runs no checks serves all the same: calls return `False`, and one warning says so."""
    arguments = [*MANAGE, "runserver", "--noreload", "--skip-checks", "127.0.0.1:0"]
    with serving(wait_until, arguments, project({})) as site:
        for _ in range(3):
            site.get(accepted=False)
        assert not site.tracked
        wait_until(lambda: site.program.has_said("analytics_batcher is not configured"))
        assert not site.program.has_said("analytics_batcher is not configured", 2)
