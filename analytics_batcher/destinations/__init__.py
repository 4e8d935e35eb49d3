"""The contract of a destination: what is particular to one vendor. It does no I/O and holds no state."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from ..encoding import loads
from ..retry import asked_wait
from ..settings import shown
from ..text import Secret, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..answer import Answer
    from ..batch import Limits
    from ..errors import DropReason

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BASE: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|\[[0-9a-f:.]*:[0-9a-f:.]*\])"
    r"(:(?P<port>[0-9]{1,5}))?/?"
)
_FIRST_PORT: Final = 1
_LAST_PORT: Final = 65_535
_RETRIED: Final = frozenset({408, 410, 425, 429, 460})
_PERMANENT_5XX: Final = frozenset({501, 505})
_OK: Final = 200
_REDIRECTS: Final = range(300, 400)
_REFUSED: Final = frozenset({400, 422})
_TOO_LARGE: Final = 413
_FORBIDDEN: Final = 403
_SERVER_ERROR: Final = 500


class Action(Enum):
    """What an answer means for the messages of a request."""

    DELIVERED = "delivered"
    """The vendor took them, but for those listed as rejected."""
    RETRY = "retry"
    """Not now: the same bytes again, later."""
    SPLIT = "split"
    """Too much at once."""
    REJECTED = "rejected"
    """At least one of them is bad, and the answer does not say which."""
    HALT = "halt"
    """It is the request, not the messages: keep everything, and probe now and then."""


@dataclass(frozen=True)
class Verdict:
    """What a destination reads out of an answer.

    Attributes:
        action: What to do.
        detail: Why, for logs and drops; text from the server in it is escaped and cut.
        wait: The seconds that the answer asks for, or `None`.
        rejected: With `DELIVERED`: the position in the request of each message refused, and why.
        rejected_ids: The same by `messageId`, where the vendor says that instead.
        by_content: With `HALT`: something on the way may dislike what a message says, so it is worth one bisection.
    """

    action: Action
    detail: str = ""
    wait: float | None = None
    rejected: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    rejected_ids: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    by_content: bool = False


class Unsupported(Exception):  # noqa: N818 - it is no error of anybody's: the vendor has no such message
    """The destination has no form for this message."""


class Destination(Protocol):
    """What the sender and the client know of a vendor.

    It may also have `wires(records) -> list[bytes]`, which does for all of a batch what `wire` does for one record,
    and raises what that raises for any of them, if it can do so faster.
    """

    name: str
    """Unique in a client."""
    url: str
    """Where batches are posted."""
    limits: Limits
    """The vendor's own, or ours where the vendor states none."""
    envelope: int
    """The bytes of a request's body without messages."""
    id_field: str
    """Where a native message carries its id."""
    time_field: str
    """Where a native message carries its time."""
    gzip: bool
    """Whether the vendor takes compressed bodies."""
    secrets: tuple[str, ...]
    """What is masked in text from the server."""

    def headers(self) -> Mapping[str, str]:
        """The headers of a request, the secret ones too."""

    def check(self, message: Mapping[str, Any]) -> tuple[DropReason, str] | None:
        """Why a neutral message cannot be sent there: a reason and a detail; `None` if it can."""

    def wire(self, record: bytes) -> bytes:
        """A record as it stands in a request's body.

        Raises:
            Unsupported: If there is no form for it.
        """

    def body(self, wires: Sequence[bytes], now: float, /) -> bytes:
        """A request's body, sent at `now`, in Unix seconds."""

    def verdict(self, answer: Answer) -> Verdict:
        """Read an answer."""


def read_status(answer: Answer, secrets: Sequence[str]) -> Verdict:
    """What an HTTP status means wherever the vendor says nothing else about it.

    Args:
        answer: The answer.
        secrets: What is masked in text from the server.

    Returns:
        The verdict, with the wait that the answer asks for.
    """
    status = answer.status
    detail = f"HTTP {status}"
    if _OK <= status < _REDIRECTS.start:
        return Verdict(Action.DELIVERED, detail)
    if status in _RETRIED or (status >= _SERVER_ERROR and status not in _PERMANENT_5XX):
        return Verdict(Action.RETRY, detail, asked_wait(answer.headers))
    if status in _REFUSED:
        return Verdict(Action.REJECTED, detail)
    if status == _TOO_LARGE:
        return Verdict(Action.SPLIT, detail)
    if status in _REDIRECTS:
        return Verdict(Action.HALT, f"{detail}: redirected to {_host(answer, secrets)}, which is not followed")
    return Verdict(Action.HALT, detail, by_content=status == _FORBIDDEN)


def is_json_object(answer: Answer) -> bool:
    """Whether an answer's body can be a vendor's JSON object, or is empty; a captive portal's page is neither.

    Args:
        answer: The answer. A compressed body is not inflated, and one that was cut is judged by its beginning.
    """
    body = answer.body.strip()
    if not body:
        return True
    if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
        return "json" in answer.headers.get("content-type", "").lower()
    if answer.truncated:
        return body.startswith(b"{")
    return isinstance(read_json(answer), dict)


def read_json(answer: Answer) -> Any:
    """An answer's body, or `None` if it is no JSON."""
    try:
        return loads(answer.body)
    except ValueError:
        return None


def _host(answer: Answer, secrets: Sequence[str]) -> str:
    from urllib.parse import urlsplit  # noqa: PLC0415 - not for importing this package

    try:
        host = urlsplit(answer.headers.get("location", "")).hostname
    except ValueError:
        host = None
    return printable(host, hide=secrets) if host else "nowhere"


def base_of(base_url: Any, *, allow_http: bool) -> str:
    """Check a `base_url` and return its scheme, host and port.

    Args:
        base_url: What was given.
        allow_http: Whether plain `http://` is taken for hosts other than this machine.

    Raises:
        ValueError: If it is no such URL.
    """
    wanted = "allowed is https://host, without path, query or user"
    if isinstance(base_url, str) and "@" in base_url:  # it may hold a password: not shown
        raise ValueError(f"base_url: {wanted}")
    # Not by `urlsplit`, which takes what it does not understand for a host, or drops it.
    parts = _BASE.fullmatch(base_url.lower()) if isinstance(base_url, str) and base_url.isascii() else None
    if parts is None or not _FIRST_PORT <= int(parts["port"] or _FIRST_PORT) <= _LAST_PORT:
        raise ValueError(f"base_url={shown(base_url)}: {wanted}")
    if parts["scheme"] == "http" and not allow_http and not _is_loopback(parts["host"].strip("[]")):
        raise ValueError(
            f"base_url={shown(base_url)}: plain http sends the secret in the clear; "
            "allowed is https, http to this machine, or allow_http=True"
        )
    return parts[0].rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    import ipaddress  # noqa: PLC0415 - only a base_url by number needs it

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def name_of(name: Any, kind: str | None = None) -> str:
    """Check a destination's name.

    Args:
        name: What was given.
        kind: What `None` stands for.

    Raises:
        ValueError: If it is not a short text.
    """
    if name is None and kind is not None:
        return kind
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"name={shown(name)}: allowed are 1 to 64 letters, digits, '.', '_' and '-'")
    return name


def secret(setting: str, value: Secret, *, prefix: str = "") -> Secret:
    """Check the characters of a secret before a header carries it: an error about a bad header would show it.

    Args:
        setting: The setting's name.
        value: The secret, sealed; it stands in no error.
        prefix: Taken off where it was given along.

    Raises:
        ValueError: If it is empty, or has characters that a header cannot carry.
    """
    text = Secret(value.removeprefix(prefix))
    if not text or not all("!" <= character <= "~" for character in text):
        raise ValueError(f"{setting}: allowed is text of visible ASCII characters, without spaces (it is not shown)")
    return text
