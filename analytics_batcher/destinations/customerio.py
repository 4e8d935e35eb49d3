"""Customer.io's Track API v2: https://docs.customer.io/integrations/api/track, "Send multiple requests"."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ..batch import Limits
from ..encoding import OPTIONS, dumps, loads
from ..errors import DropReason
from ..message import seconds_of, ulid_of_text
from ..settings import allowed, shown
from ..stamp import HEAD_BYTES, ID_GIVEN, NATIVE, TIME_GIVEN, flags_of, ulid_text, unix_seconds
from ..text import Secret, printable, seal
from . import Action, Verdict, base_of, is_json_object, name_of, read_json, read_status, secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..answer import Answer

_PATH: Final = "/api/v2/batch"
_REGIONS: Final = {"us": "https://track.customer.io", "eu": "https://track-eu.customer.io"}
# The vendor: under 500 kB a request and 32 kB an operation, decimal or binary unsaid; no number of operations.
_LIMITS: Final = Limits(messages=10_000, bytes=500_000, message_bytes=32_000)
_OBJECT_TYPE: Final = re.compile(r"[1-9][0-9]{0,18}")
_DATE_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)")
_SHORTEST: Final = len("2026-01-02T03:04:05Z")
_STAMPED: Final = frozenset({"event", "page", "screen"})
_EVENTS: Final = {"track": "event", "page": "page", "screen": "screen"}


class CustomerIO:
    """Customer.io's batch endpoint.

    `identify` becomes a person's `identify`, with a relationship to the account's object; `track`, `page` and `screen`
    become its events; `account` an object's `identify`; `alias` a `merge`; `unlink` a `delete_relationships`. An
    `organization` and a `custom_object` become objects of the type that `object_types` gives them.

    Args:
        site_id: The site id of the Track API.
        api_key: Its key.
        region: `"us"` or `"eu"`, as the workspace's.
        base_url: Replaces scheme, host and port.
        object_type_id: The type of the objects that accounts are; the first one made in a workspace is `"1"`.
        object_types: The types of other objects: `{"organization": "2", custom_object_id: "3"}`.
        convert_dates: Whether ISO 8601 date-times with a zone among traits and properties become Unix seconds, which is
            this vendor's convention.
        name: What statistics, logs and callbacks call it.
        allow_http: Takes a `base_url` of plain `http://` for hosts other than this machine.

    Raises:
        ValueError: If a setting is wrong; it names the setting, the value (not the key's) and what is allowed.
    """

    limits = _LIMITS
    envelope = len('{"batch":[]}')
    id_field = "id"
    time_field = "timestamp"
    gzip = False
    name = "customerio"
    url = ""

    def __init__(
        self,
        site_id: str,
        api_key: str,
        *,
        region: str = "us",
        base_url: str | None = None,
        object_type_id: str = "1",
        object_types: Mapping[str, str] | None = None,
        convert_dates: bool = True,
        name: str | None = None,
        allow_http: bool = False,
    ) -> None:
        site_id, api_key = seal(site_id), seal(api_key)
        own = _REGIONS[allowed("region", region, tuple(_REGIONS))]
        base = own if base_url is None else base_of(base_url, allow_http=allow_http)
        self.name = name_of(name, "customerio")
        self.url = base + _PATH
        self._account_type = _object_type("object_type_id", object_type_id)
        if object_types is not None and not isinstance(object_types, Mapping):
            raise ValueError(f"object_types={shown(object_types)}: allowed is a mapping of names to types")
        types = dict(object_types or {})
        # An id of a custom object is made text in a call, and so it is here.
        self._types = {
            str(kind): _object_type(f"object_types[{shown(kind)}]", of_kind) for kind, of_kind in types.items()
        }
        if not isinstance(convert_dates, bool):
            raise ValueError(f"convert_dates={shown(convert_dates)}: allowed is True or False")  # noqa: TRY004 - a setting
        self._convert = _converted if convert_dates else _as_it_is
        if ":" in secret("site_id", site_id):
            raise ValueError("site_id: allowed is text without a colon, which ends it in the header (it is not shown)")
        encoded = Secret(b64encode(f"{site_id}:{secret('api_key', api_key)}".encode()).decode())
        self.secrets: tuple[str, ...] = (encoded, api_key, site_id)
        self._authorization = Secret(f"Basic {encoded}")

    def __repr__(self) -> str:
        return f"CustomerIO({self.url!r}, name={self.name!r})"

    def headers(self) -> Mapping[str, str]:
        """The headers of a request."""
        return {"Content-Type": "application/json", "Authorization": self._authorization}

    def check(self, message: Mapping[str, Any]) -> tuple[DropReason, str] | None:
        """Why a neutral message cannot be sent there."""
        why = self._unsupported(message["type"], message)
        return (DropReason.UNSUPPORTED, why) if why else None

    def _unsupported(self, kind: str, message: Mapping[str, Any]) -> str:
        if kind in _EVENTS and "userId" not in message and "anonymousId" not in message:
            return f"Customer.io has no {kind} without a user or an anonymous id"
        if kind == "user" and "userId" not in message:
            return "Customer.io identifies no anonymous person"
        if kind == "alias" and "anonymousId" in message:
            return "Customer.io merges no anonymous id"
        if kind == "organization" and kind not in self._types:
            return "object_types names no type for organization"
        if kind == "customobjectinstance" and message["customObjectId"] not in self._types:
            return "object_types names no type for this custom object"
        return "" if kind in _MAPPINGS else f"Customer.io has no {kind}"

    def wire(self, record: bytes) -> bytes:
        """A record as an operation. A native one stays as it is, but for an id and a time where they are missing."""
        flags = flags_of(record)
        body = record[HEAD_BYTES:]
        if flags & NATIVE:
            return _stamped(record, body, flags)
        message = loads(body)
        operation = _MAPPINGS[message["type"]](self, message)
        if operation.get("action") in _STAMPED:
            given = message.get("messageId")
            operation["id"] = ulid_text(record) if given is None else ulid_of_text(given)
        if operation.get("action") in _STAMPED or (operation["type"], operation["action"]) == ("person", "identify"):
            given = message.get("timestamp")
            operation["timestamp"] = unix_seconds(record) if given is None else seconds_of(given)
        return dumps(operation, None, OPTIONS)

    def body(self, wires: Sequence[bytes], _: float, /) -> bytes:
        """A request's body."""
        return b'{"batch":[%b]}' % b",".join(wires)

    def verdict(self, answer: Answer) -> Verdict:
        """Read an answer; a 207 lists by index which operations were refused, all others were taken."""
        verdict = read_status(answer, self.secrets)
        if verdict.action is Action.DELIVERED:
            if not is_json_object(answer):
                detail = f"unexpected_response: {verdict.detail} with a body that is not Customer.io's"
                return Verdict(Action.RETRY, detail)
            if answer.truncated:  # its list of errors is longer than what was read of it
                return Verdict(Action.SPLIT, f"{verdict.detail} with more errors than can be read at once")
            rejected: dict[int, str] = {}
            for index, said in self._errors(answer):
                if index is not None:
                    rejected[index] = f"{rejected[index]}; {said}" if index in rejected else said
            return replace(verdict, rejected=rejected)
        if 300 <= answer.status < 400:  # noqa: PLR2004 - redirects
            return replace(verdict, detail=f"{verdict.detail}: the workspace may be of another region")
        said = "; ".join(said for _, said in self._errors(answer)[:3])
        return replace(verdict, detail=f"{verdict.detail}: {said}") if said else verdict

    def _errors(self, answer: Answer) -> list[tuple[int | None, str]]:
        said = read_json(answer)
        errors = said.get("errors") if isinstance(said, dict) else None
        return [self._error(error) for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []

    def _error(self, error: Mapping[str, Any]) -> tuple[int | None, str]:
        index = error.get("batch_index")
        parts = [error.get(part) for part in ("reason", "field", "message")]
        text = ": ".join(part for part in parts if isinstance(part, str))
        known = isinstance(index, int) and not isinstance(index, bool)
        return index if known else None, printable(text, hide=self.secrets) or "refused"

    def _person(self, message: Mapping[str, Any]) -> dict[str, Any]:
        identify: dict[str, Any] = {
            "type": "person",
            "action": "identify",
            "identifiers": {"id": message["userId"]},
            "attributes": self._convert(message["traits"]),
        }
        if "anonymousId" in message:  # what links the events of an anonymous visitor
            identify["attributes"].setdefault("anonymous_id", message["anonymousId"])
        related = []
        if "accountId" in message:
            related.append(self._object(self._account_type, message["accountId"]))
        if "organizationId" in message and "organization" in self._types:
            related.append(self._object(self._types["organization"], message["organizationId"]))
        if related:
            identify["cio_relationships"] = related
        return identify

    def _event(self, message: Mapping[str, Any]) -> dict[str, Any]:
        person = {"id": message["userId"]} if "userId" in message else {"anonymous_id": message["anonymousId"]}
        return {
            "type": "person",
            "action": _EVENTS[message["type"]],
            "identifiers": person,
            "name": message.get("event") or message["name"],
            "attributes": self._convert(message["properties"]),
        }

    def _account(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return self._identified(self._account_type, message["accountId"], message)

    def _organization(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return self._identified(self._types["organization"], message["organizationId"], message)

    def _custom_object(self, message: Mapping[str, Any]) -> dict[str, Any]:
        identified = self._identified(self._types[message["customObjectId"]], message["externalId"], message)
        if "name" in message:
            identified["attributes"].setdefault("name", message["name"])
        return identified

    def _identified(self, type_id: str, object_id: str, message: Mapping[str, Any]) -> dict[str, Any]:
        identify = {
            "type": "object",
            "action": "identify",
            **self._object(type_id, object_id),
            "attributes": self._convert(message.get("traits", {})),
        }
        if "userId" in message:
            identify["cio_relationships"] = [{"identifiers": {"id": message["userId"]}}]
        return identify

    def _alias(self, message: Mapping[str, Any]) -> dict[str, Any]:
        primary, secondary = {"id": message["userId"]}, {"id": message["previousId"]}
        return {"type": "person", "action": "merge", "primary": primary, "secondary": secondary}

    def _unlink(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "type": "person",
            "action": "delete_relationships",
            "identifiers": {"id": message["userId"]},
            "cio_relationships": [self._object(self._account_type, message["accountId"])],
        }

    def _object(self, type_id: str, object_id: str) -> dict[str, Any]:
        return {"identifiers": {"object_type_id": type_id, "object_id": object_id}}


_MAPPINGS: Final = {
    "user": CustomerIO._person,  # noqa: SLF001 - the table of this class's own methods
    "track": CustomerIO._event,  # noqa: SLF001
    "page": CustomerIO._event,  # noqa: SLF001
    "screen": CustomerIO._event,  # noqa: SLF001
    "account": CustomerIO._account,  # noqa: SLF001
    "organization": CustomerIO._organization,  # noqa: SLF001
    "customobjectinstance": CustomerIO._custom_object,  # noqa: SLF001
    "alias": CustomerIO._alias,  # noqa: SLF001
    "unlink": CustomerIO._unlink,  # noqa: SLF001
}


def _object_type(setting: str, value: Any) -> str:
    """An object type's id: the vendor wants a whole number, as text."""
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _OBJECT_TYPE.fullmatch(text):
        raise ValueError(f"{setting}={shown(value)}: allowed is a whole number from 1, as text")
    return text


def _stamped(record: bytes, body: bytes, flags: int) -> bytes:
    """A native operation with the id and the time that it lacks, where its action has them; the rest is untouched."""
    if flags & ID_GIVEN and flags & TIME_GIVEN:
        return body
    operation = loads(body)
    action = operation.get("action")
    if operation.get("type") != "person" or not isinstance(action, str):
        return body  # the vendor judges it
    missing = []
    if action in _STAMPED and not flags & ID_GIVEN:
        missing.append(f'"id":"{ulid_text(record)}"')
    if (action in _STAMPED or action == "identify") and not flags & TIME_GIVEN:
        missing.append(f'"timestamp":{unix_seconds(record)}')
    return b"{" + ",".join(missing).encode() + b"," + body[1:] if missing else body


def _as_it_is(attributes: Any) -> Any:
    return attributes


def _converted(value: Any) -> Any:
    """Date-times with a zone become Unix seconds; a fresh structure is changed in place."""
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _converted(item)
    elif isinstance(value, list):
        value[:] = map(_converted, value)
    elif isinstance(value, str) and len(value) >= _SHORTEST and _DATE_TIME.fullmatch(value):
        try:
            return seconds_of(value)
        except (ValueError, OverflowError):  # the 31st of February
            return value
    return value
