"""Flask: a client for each application, made of its configuration.

Example::

    from flask import Flask
    from analytics_batcher.integrations.flask import Analytics

    app = Flask(__name__)
    app.config["ANALYTICS_BATCHER_DESTINATION"] = "vitally"
    app.config["ANALYTICS_BATCHER_VITALLY_SUBDOMAIN"] = "acme"
    app.config["ANALYTICS_BATCHER_VITALLY_API_TOKEN"] = "..."
    analytics = Analytics(app)


    @app.post("/reports")
    def open_report():
        analytics.client.track("user-1", "Report Opened", account_id="acc-1")
        return "", 204
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from flask import current_app, has_app_context

from .. import Client, install_sigterm_handler

if TYPE_CHECKING:
    from flask import Flask

_NAME: Final = "analytics_batcher"
_PREFIX: Final = "ANALYTICS_BATCHER_"
_SIGTERM: Final = f"{_PREFIX}SIGTERM"


class Analytics:
    """The extension: `analytics = Analytics(app)`, or `Analytics()` and later `init_app(app)`.

    Views call `analytics.client.track(...)`. The client is made of `app.config["ANALYTICS_BATCHER_..."]`, which has the
    names of the variables that `Client.from_env` reads, and where there is none of these, of the environment. Values
    need not be text: `ANALYTICS_BATCHER_FLUSH_INTERVAL = 2.0`, `ANALYTICS_BATCHER_BEFORE_SEND = a_function`.

    What waits is delivered when the process ends. `flask run` does not handle SIGTERM, which would then lose it: where
    nobody handles it, `install_sigterm_handler()` is called, unless `ANALYTICS_BATCHER_SIGTERM` is `False`.

    Args:
        app: The application, if it is there already.
        client: Use this one, and no configuration.

    Raises:
        ValueError: If a setting is wrong; it names the setting.
    """

    def __init__(self, app: Flask | None = None, client: Client | None = None) -> None:
        self._client = client
        self._clients: WeakKeyDictionary[Flask, Client] = WeakKeyDictionary()  # changed by `init_app` alone
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask, client: Client | None = None) -> None:
        """Give an application its client, which also stands in `app.extensions["analytics_batcher"]`.

        Args:
            app: The application.
            client: As for the class.

        Raises:
            ValueError: If a setting is wrong; it names the setting.
        """
        made = client or self._client or _client_of(app.config)
        self._clients[app] = app.extensions[_NAME] = made
        if app.config.get(_SIGTERM, True) and _sigterm_kills():
            install_sigterm_handler()

    @property
    def client(self) -> Client:
        """The current application's client; outside an application's context, that of the only one.

        Raises:
            RuntimeError: If no application has been initialised, or there are several and none is the current one.
        """
        if has_app_context():
            found: Client | None = current_app.extensions.get(_NAME)
            if found is not None:
                return found
        several = set(self._clients.values())
        if len(several) != 1:
            which = "several, and none is the current one" if several else "none: init_app(app) was not called"
            raise RuntimeError(f"whose analytics client? Of applications there are {which}")
        return several.pop()


def _client_of(config: dict[str, Any]) -> Client:
    given = {name: value for name, value in config.items() if name.startswith(_PREFIX) and name != _SIGTERM}
    return Client.from_env(given or None)


def _sigterm_kills() -> bool:
    in_main = threading.current_thread() is threading.main_thread()
    return in_main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
