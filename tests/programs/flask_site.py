"""A Flask application, made by a factory. `SETTINGS` in the environment is its configuration, as JSON."""

from __future__ import annotations

import json
import os
import threading
from itertools import count

from flask import Flask, request

from analytics_batcher.integrations.flask import Analytics

NUMBERS = count()
analytics = Analytics()


def create_app():
    """Make the application."""
    app = Flask(__name__)
    app.config.update(
        {f"ANALYTICS_BATCHER_{name}": value for name, value in json.loads(os.environ["SETTINGS"]).items()}
    )
    analytics.init_app(app)
    app.add_url_rule("/track", view_func=track)
    app.add_url_rule("/thread", view_func=track_in_a_thread)
    return app


def track():
    """Track a message."""
    user = f"{os.getpid()}-{next(NUMBERS)}"
    accepted = analytics.client.track(user, "Requested", {"path": request.path}, account_id="a")
    return {"user": user, "accepted": accepted, "pid": os.getpid()}


def track_in_a_thread():
    """Track a message in a thread, where there is no current application."""
    user, accepted = f"{os.getpid()}-{next(NUMBERS)}", []
    call = lambda: accepted.append(analytics.client.track(user, "Worked", account_id="a"))  # noqa: E731 - a thread's
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(10)
    return {"user": user, "accepted": accepted == [True], "pid": os.getpid()}
