"""`doctor`: looks at the settings, the network, the clock and the credentials, and suggests a remedy for each fault."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from .. import environment
from ..buffers.redis import RedisBuffer
from ..buffers.sqlite import SqliteBuffer
from ..client import Client
from ..fleet.status import stream_status
from ..spools import spool_status
from . import app
from .face import DONE, FAILED, Face
from .findings import Finding, State
from .network import Network

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SECRET_NAMES: Final = ("TOKEN", "KEY", "SITE_ID", "SECRET", "PASSWORD")
_HIDDEN: Final = "[secret]"


@app.command(
    "doctor",
    examples=(
        ("{prog}", "look at everything"),
        ("{prog} --json", "for a script; the exit status is 1 if there is a fault"),
        ("{prog} --destination customerio --region eu", "with other settings than the environment's"),
    ),
)
@click.option("--timeout", type=click.FloatRange(min=0, min_open=True), default=5.0, help="Seconds for each look (5).")
def command(face: Face, timeout: float) -> int:
    """Look at the settings, the network, the clock and the credentials, and suggest a remedy for each fault.

    Nothing is sent but requests that change nothing; the vendor's key only where the vendor has such a request for it.
    The exit status is 0 without a fault, else 1.
    """
    settings = _settings(os.environ)
    face.table("Settings", ("setting", "value"), [*settings.items()])
    findings = []
    for finding in _findings(timeout):
        findings.append(finding)
        if not face.plain:
            face.note(f"looked at: {finding.what}")
    rows = [(finding.state, finding.what, finding.found) for finding in findings]
    face.table("Findings", ("", "what", "found"), rows)
    for finding in findings:
        if finding.remedy:
            face.say(f"{finding.what}: {finding.remedy}")
    faults = sum(finding.state == State.FAULT for finding in findings)
    if face.json:
        face.result({"settings": settings, "findings": [finding.facts for finding in findings], "faults": faults})
    else:
        face.result({"faults": faults})
    return FAILED if faults else DONE


def _settings(variables: Mapping[str, str]) -> dict[str, str]:
    """The settings of the environment, whose secrets are masked."""
    own = {name: value for name, value in sorted(variables.items()) if name.startswith(environment.PREFIX)}
    return {name: _masked(name, value) for name, value in own.items()}


def _masked(name: str, value: str) -> str:
    if not value:
        return "(empty: as if it were not set)"
    # A name that is misspelt may hold a secret too: only what is known to be none is shown.
    if any(part in name for part in _SECRET_NAMES) or name not in _known():
        return f"{_HIDDEN} ({len(value)} characters)"
    if "@" in value or "password" in value.lower():
        return f"{_HIDDEN} (a URL with credentials)"
    return value


def _known() -> frozenset[str]:
    of_clients = [name.upper() for name in inspect.signature(Client).parameters]
    others = ("DESTINATION", "VITALLY_SUBDOMAIN", "CUSTOMERIO_REGION", "BASE_URL", "SPOOL", "REDIS_URL")
    redis = ("REDIS_STREAM", "REDIS_SHARDS", "REDIS_ALLOW_VOLATILE")
    retry = ("RETRY_BASE", "RETRY_CAP", "RETRY_JITTER", "RETRY_MAX_AGE")
    return frozenset(environment.PREFIX + name for name in (*of_clients, *others, *redis, *retry))


def _given(destinations: Sequence[Any], **options: Any) -> tuple[Sequence[Any], dict[str, Any]]:
    return destinations, options


# So that the environment is read, and checked, just as for a client.
_given.__signature__ = inspect.signature(Client)  # type: ignore[attr-defined] # what `inspect` looks for


def _findings(timeout: float) -> Iterator[Finding]:
    try:
        destinations, options = environment.make(_given, {})
        Client.from_env(enabled=False).shutdown(0)  # what only a client finds wrong
    except ValueError as error:
        yield Finding(State.FAULT, "settings", str(error), _remedy_of(str(error)))
        return
    except ImportError as error:
        yield Finding(State.FAULT, "settings", str(error), "install what it names")
        return
    yield Finding(State.FINE, "settings", ", ".join(f"{one.name} at {one.url}" for one in destinations))
    yield from _buffer(options.get("buffer"))
    for destination in destinations:
        proxy = options.get("proxy")
        if proxy:
            found = "goes through a proxy, which this command does not use"
            yield Finding(State.UNKNOWN, f"{destination.name}: network", found)
            continue
        verify = options.get("verify", True)
        yield from Network(destination, verify=verify, timeout=timeout, region=_region()).findings()


def _region() -> str | None:
    """Where the workspace should be, unless another address makes the region mean nothing."""
    chosen = os.environ.get(f"{environment.PREFIX}CUSTOMERIO_REGION")
    return chosen or (None if os.environ.get(f"{environment.PREFIX}BASE_URL") else "us")


def _remedy_of(text: str) -> str:
    if "is not set" in text:
        return f"set it, such as export {text.partition(' ')[0]}=..."
    if "no such setting" in text:
        return "look for a misspelt name, or unset it"
    return "correct it, or unset it for the default"


def _buffer(buffer: Any) -> Iterator[Finding]:
    if isinstance(buffer, RedisBuffer):
        yield _redis(buffer)
        buffer = buffer.stage
    if isinstance(buffer, SqliteBuffer):
        yield _spool(Path(buffer.path).absolute())


def _redis(buffer: RedisBuffer) -> Finding:
    what = f"redis at {urlsplit(buffer.url).hostname or 'a socket'}"
    try:
        status = stream_status(buffer.url, buffer.stream)
    except ImportError:
        return Finding(State.FAULT, what, "redis is not installed", "pip install 'analytics-batcher[redis]'")
    except OSError as error:
        return Finding(State.FAULT, what, str(error), "is it running, and reachable from here?")
    waiting = sum(one.length for one in status.shards)
    found = f"{waiting:,} messages wait in {buffer.stream}, relays: {len(status.relays)}"
    if waiting and not status.relays:
        return Finding(State.WARNING, what, found, "no relay serves the stream: start one with the command relay")
    return Finding(State.FINE, what, found)


def _spool(path: Path) -> Finding:
    what = f"spool {path}"
    try:
        waiting = spool_status(path)
    except FileNotFoundError:
        if path.parent.is_dir() and os.access(path.parent, os.W_OK):
            return Finding(State.FINE, what, "not there yet; its folder can be written")
        return Finding(State.FAULT, what, "its folder is not there, or cannot be written", f"make {path.parent}")
    except (OSError, ValueError) as error:
        return Finding(State.FAULT, what, str(error), "choose another path, or move the file away")
    orphans = sum(one.messages - one.owned for one in waiting)
    found = f"{sum(one.messages for one in waiting):,} messages wait, {orphans:,} of them of processes that are gone"
    remedy = "the next process that has the file sends them, or the command drain" if orphans else ""
    return Finding(State.WARNING if orphans else State.FINE, what, found, remedy)


def main(arguments: Sequence[str]) -> int:
    """Look.

    Args:
        arguments: What follows the command's name.

    Returns:
        The exit status.
    """
    return app.run(command, arguments)
