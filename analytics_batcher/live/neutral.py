"""A message that was sent, back in the neutral form: as the caller said it, as far as the vendor's form still tells."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_KINDS: Final = frozenset({"user", "track", "account", "organization", "customobjectinstance", "unlink"})
_FROM_SEGMENT: Final = {"identify": "user", "group": "account"}
_SEGMENT: Final = frozenset({"identify", "group", "track", "page", "screen", "alias"})
_EVENTS: Final = {"event": "track", "page": "page", "screen": "screen"}
_ACCOUNT_TYPE: Final = "1"  # of Customer.io's objects, unless a client says otherwise
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_CROCKFORD: Final = {digit: value for value, digit in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}
_UUID_VERSION: Final = 7
_FIRST: Final = ("type", "messageId", "timestamp")
_NOTES: Final = {
    "customerio": "Read back from Customer.io's form: dates in the data went as Unix seconds, and the objects of type "
    "1 are taken to be accounts.",
    "segment": "Read back from Segment's form.",
}


def neutral_of(vendor: str, message: Mapping[str, Any]) -> dict[str, Any] | None:
    """Bring a message back into the neutral form.

    Args:
        vendor: The name of the wire that it came by.
        message: As it was sent; it need not keep the vendor's rules.

    Returns:
        The neutral form; None if the message has none, such as a native one.
    """
    read = _READERS.get(vendor)
    neutral = None if read is None else read(message)
    if neutral is None:
        return None
    first: dict[str, Any] = {field: neutral[field] for field in _FIRST if field in neutral}
    return {**first, **neutral}


def note_of(vendor: str) -> str:
    """What the way back cannot tell; empty if it is no way."""
    return _NOTES.get(vendor, "")


def _vitally(message: Mapping[str, Any]) -> dict[str, Any] | None:
    return dict(message) if _text(message, "type") in _KINDS else None


def _segment(message: Mapping[str, Any]) -> dict[str, Any] | None:
    kind = _text(message, "type")
    if kind not in _SEGMENT:
        return None
    neutral = {**message, "type": _FROM_SEGMENT.get(kind, kind)}
    context = message.get("context")
    if isinstance(context, dict):
        left = {field: value for field, value in context.items() if field not in {"library", "groupId"}}
        neutral["context"] = left
        if not left:
            del neutral["context"]
        if "groupId" in context:
            neutral["accountId"] = context["groupId"]
    if "groupId" in message:
        neutral["accountId"] = neutral.pop("groupId")
    return neutral


def _customerio(operation: Mapping[str, Any]) -> dict[str, Any] | None:
    kind, action = _text(operation, "type"), _text(operation, "action")
    read = {"person": _person, "object": _object}.get(kind)
    neutral = None if read is None else read(action, operation)
    if neutral is not None:
        if "id" in operation:
            neutral["messageId"] = _uuid_of(operation["id"])
        if "timestamp" in operation:
            neutral["timestamp"] = _moment_of(operation["timestamp"])
    return neutral


def _person(action: str, operation: Mapping[str, Any]) -> dict[str, Any] | None:
    if action == "merge":
        return {
            "type": "alias",
            "userId": _field(operation, "primary", "id"),
            "previousId": _field(operation, "secondary", "id"),
        }
    who = operation.get("identifiers")
    if not isinstance(who, dict) or not who.keys() & {"id", "anonymous_id"}:
        return None  # an email address or a vendor's own id names nobody in the neutral form
    ids = {"userId": who["id"]} if "id" in who else {"anonymousId": who["anonymous_id"]}
    if action in _EVENTS:
        name = "event" if action == "event" else "name"
        return {
            "type": _EVENTS[action],
            **ids,
            name: operation.get("name"),
            "properties": operation.get("attributes", {}),
        }
    account = _account_in(operation)
    if action == "identify":
        return {"type": "user", **ids, **account, "traits": operation.get("attributes", {})}
    return {"type": "unlink", **ids, **account} if action == "delete_relationships" and account else None


def _object(action: str, operation: Mapping[str, Any]) -> dict[str, Any] | None:
    identifiers = operation.get("identifiers")
    if action != "identify" or not isinstance(identifiers, dict) or identifiers.get("object_type_id") != _ACCOUNT_TYPE:
        return None
    neutral = {
        "type": "account",
        "accountId": identifiers.get("object_id"),
        "traits": operation.get("attributes", {}),
    }
    for related in _related(operation):
        neutral["userId"] = _field(related, "identifiers", "id")
    return neutral


def _account_in(operation: Mapping[str, Any]) -> dict[str, Any]:
    for related in _related(operation):
        if _field(related, "identifiers", "object_type_id") == _ACCOUNT_TYPE:
            return {"accountId": _field(related, "identifiers", "object_id")}
    return {}


def _related(operation: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    related = operation.get("cio_relationships")
    return [one for one in related if isinstance(one, dict)] if isinstance(related, list) else []


def _field(outer: Mapping[str, Any], name: str, field: str) -> Any:
    inner = outer.get(name)
    return inner.get(field) if isinstance(inner, dict) else None


def _text(message: Mapping[str, Any], field: str) -> str:
    value = message.get(field)
    return value if isinstance(value, str) else ""


def _uuid_of(own: Any) -> Any:
    """The id as the client's logs have it: what stands in a ULID are the bits of its UUIDv7."""
    if not isinstance(own, str) or not _ULID.fullmatch(own):
        return own
    bits = 0
    for digit in own:
        bits = bits << 5 | _CROCKFORD[digit]
    uuid = UUID(int=bits)
    return str(uuid) if uuid.version == _UUID_VERSION else own


def _moment_of(seconds: Any) -> Any:
    if isinstance(seconds, bool) or not isinstance(seconds, int):
        return seconds
    try:
        moment = datetime.fromtimestamp(seconds, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return seconds
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


_READERS: Final[dict[str, Callable[[Mapping[str, Any]], dict[str, Any] | None]]] = {
    "vitally": _vitally,
    "segment": _segment,
    "customerio": _customerio,
}
