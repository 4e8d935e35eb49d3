"""What comes in with a library, and what gets out of it."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ..libraries import PERSON, properties
from ..row import Row
from ..server import Recorder, Reply, Request
from ..verdict import TOKENS, Cell, Seen, cell

if TYPE_CHECKING:
    from ..case import Case

_LOGIN, _PASSWORD = "hazard-login", "hazard-password"
_BASIC = "aGF6YXJkLWxvZ2luOmhhemFyZC1wYXNzd29yZA=="
_FORGED = "CRITICAL forged"
_LINE = f"\n{_FORGED} by "


def _netrc(folder: Path) -> None:
    file = folder / ".netrc"
    file.write_text(f"machine 127.0.0.1 login {_LOGIN} password {_PASSWORD}\n")
    file.chmod(0o600)


def _environment_file(folder: Path) -> None:
    app = folder / "app"
    app.mkdir()
    (app / ".env").write_text("HAZARD_LOADED=1\n")


def _import(case: Case) -> None:
    """Import it from a folder within an application's, as a virtual environment mostly is."""
    top = case.library.module.partition(".")[0]
    spec = importlib.util.find_spec(top)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    (case.folder / "app" / "lib").symlink_to(Path(folders[0]).parent)
    sys.path.insert(0, str(case.folder / "app" / "lib"))
    importlib.invalidate_caches()
    before = _surroundings()
    importlib.import_module(case.library.module)
    case.say(changed=[name for name, value in _surroundings().items() if value != before[name]])


def _surroundings() -> dict[str, object]:
    return {
        "loads the application's .env": dict(os.environ),
        "configures logging": (list(logging.root.handlers), logging.root.level),
        "starts a thread": threading.active_count(),
        "takes a signal": [signal.getsignal(number) for number in signal.valid_signals()],
        "takes sys.excepthook": sys.excepthook,
    }


def _clean(seen: Seen) -> Cell:
    changed = seen.facts.get("changed", ["did not come that far"])
    return cell(not changed, ", ".join(changed) or "nothing")


def _own_login(seen: Seen) -> Cell:
    sent = any(request.holds(text) for request in seen.requests for text in (_LOGIN, _PASSWORD, _BASIC))
    text = "its login and password are sent" if sent else "not used" if seen.requests else "no request"
    return cell(bool(seen.requests) and not sent and not seen.hung(), text, seen.hung())


def _says_no(request: Request, _: Recorder) -> Reply:
    """Refuses everything, with a line break in each text that some library reads."""
    if request.target.startswith("/2/httpapi"):
        body = b'{"code":400,"error":"no%b"}'
    else:
        body = b'{"code":"no%b","message":"no%b","detail":"no%b","error":"no%b","status":0}'
    line = _LINE.encode().replace(b"\n", b"\\n") + b"the server"
    return Reply(400, body.replace(b"%b", line))


def _line_breaks(case: Case) -> None:
    """Events whose name has a line break, a small one and one of a megabyte."""
    case.at("track()")
    for size in (1, 2**20):
        try:
            case.client.track(properties(0, text="x" * size), event=f"Event{_LINE}an event")
        except Exception as error:  # noqa: BLE001 - an application would log it
            logging.getLogger("application").warning("%s", type(error).__name__)
    case.flush()


def _unforged(seen: Seen) -> Cell:
    lines = sum(line.startswith(_FORGED) for line in seen.log.splitlines())
    return cell(
        bool(seen.requests) and not lines and not seen.hung(),
        f"{lines:,} forged lines" if lines else "none",
        seen.hung(),
    )


def _everyday(case: Case) -> None:
    case.track(range(5))
    case.flush()


def _discreet(seen: Seen) -> Cell:
    found = [
        name for name, texts in (("token", TOKENS), ("data", (PERSON,))) if any(text in seen.log for text in texts)
    ]
    text = f"{' and '.join(found)} logged" if found else "neither"
    return cell(bool(seen.requests) and not found and not seen.hung(), text, seen.hung())


ROWS = [
    Row(
        "import", "importing it", "changes nothing outside", _import, _clean, log_level=None, prepare=_environment_file
    ),
    Row("netrc", "`~/.netrc` names the host", "is not sent", _everyday, _own_login, prepare=_netrc),
    Row(
        "forged",
        "a line break in an event's name or in the server's text: forged log lines, at DEBUG",
        "none",
        _line_breaks,
        _unforged,
        weather=_says_no,
        log_level=logging.DEBUG,
        limit=20,
    ),
    Row(
        "discreet",
        "token and event data in the log, at DEBUG",
        "neither",
        _everyday,
        _discreet,
        log_level=logging.DEBUG,
    ),
]
