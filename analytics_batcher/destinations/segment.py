"""Segment's HTTP Tracking API and its kin: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ..batch import Limits
from ..encoding import OPTIONS, dumps, loads
from ..errors import DropReason
from ..message import stamp_of, wire
from ..settings import allowed, flag, shown
from ..stamp import HEAD_BYTES, NATIVE, flags_of, iso_milliseconds
from ..text import Secret, printable, seal
from ..version import __version__
from . import Action, Verdict, base_of, name_of, read_json, read_status, secret

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Self

    from ..answer import Answer

_US: Final = "https://api.segment.io"
_EU: Final = "https://events.eu1.segmentapis.com"
_PATH: Final = re.compile(r"/[A-Za-z0-9._~/-]*")
# The vendor's: 2,500 messages and 500 kB a batch, 32 kB a message, decimal or binary unsaid.
_LIMITS: Final = Limits(messages=2_500, bytes=500_000, message_bytes=32_000)
_JITSU_ERROR: Final = re.compile(r"Message ID: ([A-Za-z0-9._-]+): ?(.*)", re.DOTALL)
_NOT_OK: Final = re.compile(rb'\s*\{.{0,200}"ok"\s*:\s*false', re.DOTALL)
_TYPES: Final = {
    "user": "identify",
    "track": "track",
    "account": "group",
    "page": "page",
    "screen": "screen",
    "alias": "alias",
}
_LIBRARY: Final = {"name": "analytics-batcher", "version": __version__}
_COMMON: Final = ("userId", "anonymousId", "messageId", "timestamp", "integrations")
_CONTENT: Final = ("event", "name", "properties", "traits", "previousId")
_MOMENT_BYTES: Final = len("2026-01-02T03:04:05.678Z")


class Segment:
    """Segment's batch endpoint, and every receiver that speaks it.

    `identify`, `track`, `page`, `screen` and `alias` become Segment's own, `account` becomes `group`; `account_id` of
    the others becomes `context.groupId`. There is no organization, custom object or unlink: they are `unsupported`.

    Args:
        write_key: The source's write key.
        base_url: Scheme, host and port.
        path: The batch endpoint's path.
        auth: Where the key goes: `"basic"` (as base64 of `key:` in a header), `"body"`, `"both"`, or `"raw"` (in the
            header as it is, where the vendor shows it encoded already).
        name: What statistics, logs and callbacks call it.
        allow_http: Takes a `base_url` of plain `http://` for hosts other than this machine.

    Raises:
        ValueError: If a setting is wrong; it names the setting, the value (not the key's) and what is allowed.
    """

    limits = _LIMITS
    id_field = "messageId"
    time_field = "timestamp"
    gzip = True
    name = "segment"
    url = ""

    def __init__(
        self,
        write_key: str,
        *,
        base_url: str = _US,
        path: str = "/v1/batch",
        auth: str = "both",
        name: str | None = None,
        allow_http: bool = False,
    ) -> None:
        write_key = seal(write_key)
        allowed("auth", auth, ("basic", "body", "both", "raw"))
        if not isinstance(path, str) or not _PATH.fullmatch(path):
            raise ValueError(f"path={shown(path)}: allowed is a path such as '/v1/batch'")
        self.name = name_of(name, "segment")
        self.url = base_of(base_url, allow_http=allow_http) + path
        encoded = Secret(b64encode(f"{secret('write_key', write_key)}:".encode()).decode())
        self.secrets: tuple[str, ...] = (encoded, write_key)
        self._headers = {"Content-Type": "application/json"}
        if auth in {"basic", "both"}:
            self._headers["Authorization"] = Secret(f"Basic {encoded}")
        elif auth == "raw":
            self._headers["Authorization"] = Secret(f"Basic {write_key}")
        self._key = write_key if auth in {"body", "both"} else None
        self.envelope = len('{"batch":[],"sentAt":""}') + _MOMENT_BYTES + len(self._tail())

    @classmethod
    def eu(cls, write_key: str, **options: Any) -> Self:
        """Segment in the European Union: a workspace there refuses what comes to the host of the United States."""
        write_key = seal(write_key)
        return cls(write_key, base_url=_EU, **options)

    @classmethod
    def rudderstack(cls, data_plane_url: str, write_key: str, **options: Any) -> Self:
        """RudderStack, which reads the key from the header only."""
        write_key = seal(write_key)
        return cls(write_key, base_url=data_plane_url, auth="basic", **{"name": "rudderstack", **options})

    @classmethod
    def jitsu(cls, base_url: str, write_key: str, **options: Any) -> Self:
        """Jitsu, whose key is `keyId:secret`, and which says in the body of a 200 what it refused."""
        write_key = seal(write_key)
        return cls(write_key, base_url=base_url, auth="basic", **{"name": "jitsu", **options})

    @classmethod
    def customerio_pipelines(cls, api_key: str, *, region: str = "us", strict: bool = True, **options: Any) -> Self:
        """Customer.io's Pipelines.

        Args:
            api_key: The source's API key.
            region: `"us"` or `"eu"`.
            strict: Whether invalid messages are answered with an error; they are dropped in silence otherwise.
            options: Those of the class.
        """
        api_key = seal(api_key)
        allowed("region", region, ("us", "eu"))
        base = "https://cdp.customer.io" if region == "us" else "https://cdp-eu.customer.io"
        made = cls(api_key, auth="basic", **{"base_url": base, "name": "customerio_pipelines", **options})
        if flag("strict", strict):
            made._headers["X-Strict-Mode"] = "1"
        return made

    def __repr__(self) -> str:
        return f"Segment({self.url!r}, name={self.name!r})"

    def headers(self) -> Mapping[str, str]:
        """The headers of a request."""
        return self._headers

    def check(self, message: Mapping[str, Any]) -> tuple[DropReason, str] | None:
        """Why a neutral message cannot be sent there."""
        kind = message["type"]
        if kind not in _TYPES:
            return DropReason.UNSUPPORTED, f"Segment has no {kind} message"
        if kind == "alias" or "userId" in message or "anonymousId" in message:
            return None
        return DropReason.UNSUPPORTED, f"Segment has no {_TYPES[kind]} without a user or an anonymous id"

    def wire(self, record: bytes) -> bytes:
        """A record as it stands in a request's body. A native one stays as it is, but for a missing id and time."""
        if flags_of(record) & NATIVE:
            return wire(record)
        message = {**stamp_of(record), **loads(record[HEAD_BYTES:])}
        mapped: dict[str, Any] = {"type": _TYPES[message["type"]]}
        mapped.update({field: message[field] for field in (*_COMMON, *_CONTENT) if field in message})
        context = dict(message.get("context", {}))
        context.setdefault("library", _LIBRARY)
        if mapped["type"] == "group":
            mapped["groupId"] = message["accountId"]
        elif "accountId" in message:
            context.setdefault("groupId", message["accountId"])
        mapped["context"] = context
        return dumps(mapped, None, OPTIONS)

    def body(self, wires: Sequence[bytes], now: float, /) -> bytes:
        """A request's body. `sentAt` is the attempt's, by which the vendor corrects clocks."""
        moment = iso_milliseconds(int(now * 1000)).encode()
        return b'{"batch":[%b],"sentAt":"%b"%b}' % (b",".join(wires), moment, self._tail())

    def _tail(self) -> bytes:
        return b"" if self._key is None else b',"writeKey":' + dumps(self._key, None, OPTIONS)

    def verdict(self, answer: Answer) -> Verdict:
        """Read an answer. Any 2xx is a delivery, but for a page of HTML, and what Jitsu refuses in it."""
        verdict = read_status(answer, self.secrets)
        if verdict.action is not Action.DELIVERED:
            said = read_json(answer)
            text = (said.get("message") or said.get("error")) if isinstance(said, dict) else None
            if not isinstance(text, str):
                return verdict
            return replace(verdict, detail=f"{verdict.detail}: {printable(text, hide=self.secrets)}")
        if _is_page(answer):
            return Verdict(Action.RETRY, f"unexpected_response: {verdict.detail} with a page of HTML")
        if answer.truncated and _NOT_OK.match(answer.body):  # its list of errors is longer than what was read of it
            return Verdict(Action.SPLIT, f"{verdict.detail} with more than can be read at once")
        said = read_json(answer)
        if isinstance(said, dict) and said.get("ok") is False:
            return self._partial(verdict, said)
        return verdict

    def _partial(self, verdict: Verdict, said: Mapping[str, Any]) -> Verdict:
        """Jitsu's answer: `okEvents` of `receivedEvents`, and a line for each of the others.

        If the lines do not name all of them, they are searched for: what is sent again keeps its id.
        """
        errors = said.get("errors")
        lines = [line for line in errors if isinstance(line, str)] if isinstance(errors, list) else []
        found = [match for match in map(_JITSU_ERROR.match, lines) if match]
        ids = {match[1]: printable(match[2], hide=self.secrets) or "refused" for match in found}
        taken, received = said.get("okEvents"), said.get("receivedEvents")
        if not isinstance(taken, int) or not isinstance(received, int) or not taken or len(ids) < received - taken:
            return Verdict(Action.REJECTED, f"{verdict.detail}: ok is false, and it does not say for which")
        return replace(verdict, rejected_ids=ids)


def _is_page(answer: Answer) -> bool:
    """Whether a 2xx came with a page of HTML, as from a captive portal; other kin answer text, JSON or nothing."""
    body = answer.body.removeprefix(b"\xef\xbb\xbf").lstrip()
    says_html = "html" in answer.headers.get("content-type", "").lower()
    if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
        return says_html  # nothing is inflated
    return body.startswith(b"<") or (says_html and bool(body) and read_json(answer) is None)
