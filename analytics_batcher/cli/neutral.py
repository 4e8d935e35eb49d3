"""Neutral messages, as `send` reads them, made into calls of a client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .. import Client


class _Kind(NamedTuple):
    """A message's method, its required arguments, and the argument that each field is."""

    method: str
    required: tuple[str, ...]
    fields: Mapping[str, str]


_COMMON: Final = {
    "timestamp": "timestamp",
    "messageId": "message_id",
    "context": "context",
    "integrations": "integrations",
    "anonymousId": "anonymous_id",
}
_USER: Final = {"userId": "user_id"}
_ACCOUNT: Final = {"accountId": "account_id"}
_ORGANIZATION: Final = {"organizationId": "organization_id"}
_TRAITS: Final = {"traits": "traits"}
_SEEN: Final = {**_COMMON, **_USER, "name": "name", "properties": "properties"}
_OBJECT: Final = {"externalId": "external_id", "customObjectId": "custom_object_id", "name": "name"}
_OWNERS: Final = {**_COMMON, **_USER, **_ACCOUNT, **_ORGANIZATION}
_KINDS: Final = {
    "user": _Kind("identify", (), {**_OWNERS, **_TRAITS}),
    "account": _Kind("account", ("accountId",), {**_OWNERS, **_TRAITS}),
    "organization": _Kind("organization", ("organizationId",), {**_COMMON, **_ORGANIZATION, **_TRAITS}),
    "track": _Kind("track", ("event",), {**_OWNERS, "event": "event", "properties": "properties"}),
    "customobjectinstance": _Kind(
        "custom_object",
        ("externalId", "customObjectId"),
        {**_COMMON, **_OBJECT, **_ACCOUNT, **_ORGANIZATION, **_TRAITS},
    ),
    "unlink": _Kind("unlink", ("userId", "accountId"), {**_COMMON, **_USER, **_ACCOUNT}),
    "page": _Kind("page", ("name",), _SEEN),
    "screen": _Kind("screen", ("name",), _SEEN),
    "alias": _Kind("alias", ("previousId", "userId"), {**_COMMON, **_USER, "previousId": "previous_id"}),
}
KINDS: Final = tuple(_KINDS)
_MAY_BE_NONE: Final = frozenset({"identify", "track", "page", "screen"})


class NeutralFormError(ValueError):
    """What was given is no neutral message; the text says why, and of fields the names only."""


def content_of(kind: str) -> str:
    """The field of a message's own data: `traits` or `properties`; empty if it has none.

    Args:
        kind: Its type.
    """
    return next((field for field in ("traits", "properties") if field in _KINDS[kind].fields), "")


def call(client: Client, message: Any) -> bool:
    """Make the client's call that makes a message.

    Args:
        client: Whose call.
        message: In the neutral form.

    Returns:
        Whether it was accepted.

    Raises:
        NeutralFormError: If the form is not the neutral one.
    """
    if not isinstance(message, dict):
        raise NeutralFormError("expected a JSON object")
    kind = _KINDS.get(message.get("type", "")) if isinstance(message.get("type", ""), str) else None
    if kind is None:
        raise NeutralFormError(f"type: expected {', '.join(KINDS)}")
    missing = [field for field in kind.required if message.get(field) is None]
    if missing:
        raise NeutralFormError(f"{missing[0]} is missing, which a message of type {message['type']} needs")
    unknown = message.keys() - kind.fields.keys() - {"type"}
    if unknown:
        known = ", ".join(kind.fields)
        raise NeutralFormError(f"{min(unknown)}: a message of type {message['type']} has {known}")
    arguments = {kind.fields[field]: value for field, value in message.items() if field != "type"}
    if kind.method in _MAY_BE_NONE:
        arguments.setdefault("user_id", None)
    accepted: bool = getattr(client, kind.method)(**arguments)
    return accepted
