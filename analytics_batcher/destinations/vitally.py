"""Vitally's HTTPS Analytics API: https://docs.vitally.io, "Analytics API: batch"."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ..batch import Limits
from ..encoding import OPTIONS, dumps, loads
from ..errors import DropReason
from ..message import wire, wires
from ..settings import shown
from ..stamp import HEAD_BYTES, SEGMENT_FIELDS, flags_of
from ..text import Secret, printable, seal
from . import Action, Verdict, base_of, is_json_object, name_of, read_json, read_status, secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..answer import Answer

_PATH: Final = "/analytics/v1/batch"
_SUBDOMAIN: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
# The vendor states 100 messages a batch, and no limit in bytes: those two are ours.
_LIMITS: Final = Limits(messages=100, bytes=500_000, message_bytes=32_768)
_KINDS: Final = frozenset({"user", "track", "account", "organization", "customobjectinstance", "unlink"})
_FIELDS: Final = frozenset(
    {"type", "messageId", "timestamp", "userId", "accountId", "organizationId", "event", "properties", "traits"}
    | {"externalId", "customObjectId", "name"}
)
_OWNED: Final = frozenset({"user", "customobjectinstance"})


class Vitally:
    """Vitally's batch endpoint.

    Args:
        subdomain: The one of the address where you log in: `acme` of `acme.vitally.io`.
        api_token: The token of the Analytics API (Integrations > Vitally Analytics API > HTTPS), which is not the
            REST API's key. A leading `Basic ` is taken off.
        base_url: Replaces scheme, host and port, such as `https://api.vitally.io`.
        name: What statistics, logs and callbacks call it.
        allow_http: Takes a `base_url` of plain `http://` for hosts other than this machine.

    Raises:
        ValueError: If a setting is wrong; it names the setting, the value (not the token's) and what is allowed.
    """

    limits = _LIMITS
    envelope = len("[]")
    id_field = "messageId"
    time_field = "timestamp"
    gzip = False
    name = "vitally"
    url = ""

    def __init__(
        self,
        subdomain: str | None = None,
        *,
        api_token: str,
        base_url: str | None = None,
        name: str | None = None,
        allow_http: bool = False,
    ) -> None:
        api_token = seal(api_token)
        if base_url is not None:
            base = base_of(base_url, allow_http=allow_http)
        elif subdomain is None:
            raise ValueError("Vitally needs a subdomain, such as 'acme', or a base_url")
        elif not isinstance(subdomain, str) or not _SUBDOMAIN.fullmatch(subdomain):
            raise ValueError(
                f"subdomain={shown(subdomain)}: allowed are letters a to z, digits and, inside, hyphens, at most 63"
            )
        else:
            base = f"https://{subdomain}.api.vitally.io"
        self.name = name_of(name, "vitally")
        self.url = base + _PATH
        token = secret("api_token", api_token, prefix="Basic ")
        self.secrets: tuple[str, ...] = (token,)
        self._authorization = Secret(f"Basic {token}")

    def __repr__(self) -> str:
        return f"Vitally({self.url!r}, name={self.name!r})"

    def headers(self) -> Mapping[str, str]:
        """The headers of a request. The token goes raw, as the vendor wants it, not as base64 of `token:`."""
        return {"Content-Type": "application/json", "Authorization": self._authorization}

    def check(self, message: Mapping[str, Any]) -> tuple[DropReason, str] | None:
        """Why a neutral message cannot be sent: the vendor's required and conditional fields."""
        kind = message["type"]
        if kind == "track":
            if "userId" in message or "accountId" in message or "organizationId" in message:
                return None
            return DropReason.INVALID, "a track needs a userId, an accountId or an organizationId"
        if kind not in _KINDS:
            return DropReason.UNSUPPORTED, f"Vitally has no {kind} message"
        if kind == "user" and "userId" not in message:
            return DropReason.INVALID, "a user needs a userId"
        if kind in _OWNED and "accountId" not in message and "organizationId" not in message:
            return DropReason.INVALID, f"a {kind} needs an accountId or an organizationId"
        return None

    def wire(self, record: bytes) -> bytes:
        """A record as it stands in a request's body: our neutral form, less what is there for other vendors only."""
        if flags_of(record) & SEGMENT_FIELDS:
            message = loads(record[HEAD_BYTES:])
            fields = _FIELDS - {"userId"} if message["type"] == "account" else _FIELDS
            own = {field: value for field, value in message.items() if field in fields}
            record = record[:HEAD_BYTES] + dumps(own, None, OPTIONS)
        return wire(record)

    def wires(self, records: Sequence[bytes]) -> list[bytes]:
        """Each record as `wire` has it."""
        return wires(records, self.wire)

    def body(self, wires: Sequence[bytes], _: float, /) -> bytes:
        """A request's body: a bare array."""
        return b"[%b]" % b",".join(wires)

    def verdict(self, answer: Answer) -> Verdict:
        """Read an answer. A 2xx whose body cannot be Vitally's, such as a captive portal's page, is no delivery."""
        verdict = read_status(answer, self.secrets)
        if verdict.action is Action.DELIVERED:
            if is_json_object(answer):
                return verdict
            return Verdict(Action.RETRY, f"unexpected_response: {verdict.detail} with a body that is not Vitally's")
        said = self._error(answer)
        return replace(verdict, detail=f"{verdict.detail}: {said}") if said else verdict

    def _error(self, answer: Answer) -> str:
        """What an error's body says, in `error` or `message`; nothing if it is not JSON."""
        said = read_json(answer)
        text = (said.get("error") or said.get("message")) if isinstance(said, dict) else None
        return printable(text, hide=self.secrets) if isinstance(text, str) else ""
