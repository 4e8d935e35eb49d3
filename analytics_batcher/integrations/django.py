"""Django: the default client, made of the project's settings.

Example, in the settings; code then calls `analytics_batcher.track(...)`::

    INSTALLED_APPS = [
        "analytics_batcher.integrations.django.AnalyticsBatcher",
    ]
    ANALYTICS_BATCHER = {
        "DESTINATION": "vitally",
        "VITALLY_SUBDOMAIN": "acme",
        "VITALLY_API_TOKEN": os.environ["VITALLY_API_TOKEN"],
        "FLUSH_INTERVAL": 2.0,
    }
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

from .. import Client, configure, install_sigterm_handler

if TYPE_CHECKING:
    from collections.abc import Sequence

_SETTING: Final = "ANALYTICS_BATCHER"
_logger: Final = logging.getLogger("analytics_batcher")
_HOOKS: Final = ("BEFORE_SEND", "ON_DROP", "ON_DELIVERY", "DEFAULT")


class AnalyticsBatcher(AppConfig):  # type: ignore[misc] # Django has no types
    """The application, for `INSTALLED_APPS`: `"analytics_batcher.integrations.django.AnalyticsBatcher"`.

    It makes the default client, so that code calls `analytics_batcher.track(...)`. `ANALYTICS_BATCHER` in the settings
    is a dict, with the names of the variables that `Client.from_env` reads, less their prefix: `{"DESTINATION":
    "vitally", "VITALLY_SUBDOMAIN": "acme", "VITALLY_API_TOKEN": ..., "FLUSH_INTERVAL": 2.0}`. Functions are given by
    their paths, or as they are. Or it is `{"CLIENT": "path.to.factory"}`, which is called, and returns a client. Where
    there is no such setting, the environment is read.

    What is wrong is a system check's error, `analytics_batcher.E001`, with which `check`, `migrate` and `runserver`
    refuse to go on. A server that checks nothing starts all the same: the error is logged, and calls do nothing.

    What waits is delivered when the process ends. `runserver --noreload` and other commands do not handle SIGTERM,
    which would then lose it: where nobody handles it, `install_sigterm_handler()` is called, unless `"SIGTERM": False`.

    Attributes:
        client: The client, or `None` if the settings are wrong.
        problem: What is wrong, or nothing.
    """

    name = __name__
    label = "analytics_batcher"
    verbose_name = "Analytics"
    client: Client | None = None
    problem: str = ""

    def ready(self) -> None:
        """Make the client. Called by Django."""
        checks.register(_check)
        given: dict[str, Any] = {}
        try:
            given = _settings()
            handles_sigterm = given.pop("SIGTERM", True)
            self.client = configure(_client_of(given) if given else None)
        except (ImportError, OSError, TypeError, ValueError) as error:
            # An error knows the names of variables.
            self.problem = re.sub(rf"\b{_SETTING}_([A-Z_]+)", rf'{_SETTING}["\1"]', str(error)) if given else str(error)
            _logger.error("analytics calls do nothing: %s", self.problem)  # noqa: TRY400 - the text says it all
            return
        if handles_sigterm and _sigterm_kills():
            install_sigterm_handler()


def _check(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    """Say what is wrong with the settings. Called by Django; no methods can be registered."""
    ours = apps.get_app_config(AnalyticsBatcher.label)
    if not ours.problem or (app_configs is not None and ours not in app_configs):
        return []
    return [checks.Error(ours.problem, obj=f"settings.{_SETTING}", id="analytics_batcher.E001")]


def _settings() -> dict[str, Any]:
    given = getattr(settings, _SETTING, {})
    if not isinstance(given, Mapping):
        raise TypeError(f"{_SETTING} is {type(given).__name__}: allowed is a dict")
    return dict(given)


def _client_of(given: dict[str, Any]) -> Client:
    if "CLIENT" not in given:
        for name in _HOOKS:
            if isinstance(given.get(name), str):
                given[name] = import_string(given[name])
        return Client.from_env({f"{_SETTING}_{name}": value for name, value in given.items()})
    factory = given["CLIENT"]
    if len(given) > 1:
        raise ValueError(
            f"{_SETTING}_{min(given.keys() - {'CLIENT'})} is given with CLIENT: allowed is one or the other"
        )
    made = (import_string(factory) if isinstance(factory, str) else factory)()
    if not isinstance(made, Client):
        raise TypeError(f"{_SETTING}_CLIENT returned {type(made).__name__}: allowed is a Client")
    return made


def _sigterm_kills() -> bool:
    in_main = threading.current_thread() is threading.main_thread()
    return in_main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
