"""The application that the servers of `tests/test_servers.py` serve: it tracks at each request.

What the environment says: `RECEIVER`, where messages go; `CLIENT`, its options; `WHEN_LOADED`, what else to do then.
"""

from __future__ import annotations

import json
import os

from harness import make_client, track

OPTIONS = json.loads(os.environ["CLIENT"])
WHEN_LOADED = os.environ.get("WHEN_LOADED", "")
FORKED = []

if "hook before" in WHEN_LOADED:
    import uwsgi

    def spool(_):
        """Take a task from uWSGI's spooler: the application's own way."""

    uwsgi.spooler = spool
    uwsgi.post_fork_hook = lambda: FORKED.append("hook" if uwsgi.spooler is spool else "hook, but the spooler is gone")
if "decorator before" in WHEN_LOADED:
    import uwsgidecorators

    uwsgidecorators.postfork(lambda: FORKED.append("decorator"))

CLIENT = make_client(os.environ["RECEIVER"], **OPTIONS)
MADE_IN = os.getpid()

if "decorator after" in WHEN_LOADED:
    import uwsgidecorators

    uwsgidecorators.postfork(lambda: FORKED.append("decorator"))
if WHEN_LOADED == "track":
    track(CLIENT, f"{MADE_IN}-loaded", 3)


def application(environ, start_response):
    """`/track` tracks a message of this process's user, `/flush` delivers it too; the answer says who it was."""
    tracked = track(CLIENT, str(os.getpid()), 1)
    flushed = environ["PATH_INFO"] == "/flush" and bool(CLIENT.flush(10))
    told = {"pid": os.getpid(), "made_in": MADE_IN, "tracked": tracked, "flushed": flushed, "forked": FORKED}
    body = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
