"""The examples in the docstrings of sessions and of the frameworks' glue, run as they stand."""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
import sys
from inspect import cleandoc

import pytest
from conftest import TOKEN
from programs.harness import ROOT
from web_server import users

from analytics_batcher.receiver import Receiver, SegmentWire

FOLDER = ROOT / "analytics_batcher"


def example(name):
    """The example of a module."""
    text = cleandoc(ast.get_docstring(ast.parse((FOLDER / f"{name}.py").read_text())))
    return cleandoc("\n" + text.split("::\n\n")[1])


def to(receiver, code):
    """An example whose client is one of the receiver."""
    changed = code.replace(
        'Vitally("acme", api_token="...")', f'Vitally(api_token={TOKEN!r}, base_url="{receiver.url}")'
    )
    changed = changed.replace('Segment("...")', f'Segment("write-key", base_url="{receiver.url}")')
    assert changed != code
    return changed


def run(code, **names):
    """Run an example; its names."""
    exec(code, names)  # noqa: S102 - our own
    return names


def test_the_example_of_a_session(receiver):
    """The job's thousand messages are delivered when its block has ended."""
    run(to(receiver, example("sessions")))
    assert len(users(receiver)) == 1000


def test_the_example_of_django():
    """The settings pass Django's checks."""
    pytest.importorskip("django", reason="Django is not installed")
    code = "import os\nSECRET_KEY = 'of-the-tests'\n" + example("integrations/django")
    check = (
        "import sys, types; module = sys.modules['shop'] = types.ModuleType('shop'); exec(sys.argv[1], vars(module))\n"
    )
    check += "from django.core.management import call_command; import django; django.setup(); call_command('check')\n"
    check += "import analytics_batcher; print(analytics_batcher.track('', 'e'))\n"
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "shop", "VITALLY_API_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", check, code]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "False"), ended.stderr
    assert "no issues" in ended.stdout


def test_the_example_of_flask():
    """The application answers its request, by a client of its configuration."""
    pytest.importorskip("flask", reason="Flask is not installed")
    code = example("integrations/flask").replace(
        "analytics = ", 'app.config["ANALYTICS_BATCHER_SIGTERM"] = False\nanalytics = '
    )
    names = run(code, __name__="shop")
    assert names["app"].test_client().post("/reports").status_code == 204
    client = names["analytics"].client
    assert client.stats().tracked == client.stats().pending == 1
    client.shutdown(0)


def test_the_example_of_fastapi():
    """The application starts, answers a request and ends; the message has the context that was asked for."""
    pytest.importorskip("fastapi", reason="FastAPI is not installed")
    with Receiver(wire=SegmentWire(write_key="write-key")) as receiver:
        app = run(to(receiver, example("integrations/asgi")))["app"]
        headers = [(b"user-agent", b"agent"), (b"cookie", b"secret")]
        asyncio.run(served(app, {"type": "http", "method": "GET", "path": "/reports", "headers": headers}))
    (message,) = receiver.messages
    context = {name: value for name, value in message["context"].items() if name != "library"}
    assert context == {"userAgent": "agent", "page": {"path": "/reports"}}


async def served(app, scope):
    """Start an ASGI application, make a request, and end it, as a server does."""
    told, answers = asyncio.Queue(), asyncio.Queue()
    living = asyncio.ensure_future(app({"type": "lifespan", "state": {}}, told.get, answers.put))
    await told.put({"type": "lifespan.startup"})
    assert (await answers.get())["type"] == "lifespan.startup.complete"
    asked = asyncio.Queue()
    asked.put_nowait({"type": "http.request"})
    scope = {"asgi": {"version": "3.0"}, "query_string": b"", "root_path": "", **scope}
    await app(scope, asked.get, answers.put)
    assert (await answers.get())["status"] == 200
    await answers.get()
    await told.put({"type": "lifespan.shutdown"})
    assert (await answers.get())["type"] == "lifespan.shutdown.complete"
    await living


def test_the_example_of_celery(receiver):
    """What the task tracked is delivered by Celery's signal, in a process that then leaves by `os._exit`."""
    pytest.importorskip("celery", reason="Celery is not installed")
    code = to(receiver, example("integrations/celery"))
    code += "\npay('user-1')\nimport os\nfrom celery import signals\nsignals.worker_shutdown.send(None)\nos._exit(7)\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 7, ended.stderr
    assert users(receiver) == ["user-1"]


def test_the_example_of_lambda(receiver):
    """What the handler tracked has been delivered when it returns."""
    names = run(to(receiver, example("integrations/aws_lambda")))
    names["handler"]({"user": "user-1"}, None)
    assert users(receiver) == ["user-1"]
    names["client"].shutdown(0)
