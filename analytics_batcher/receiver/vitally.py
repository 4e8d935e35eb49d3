"""What Vitally's batch endpoint takes, as strictly as its documentation can be read.

Source: https://docs.vitally.io, the Analytics API's pages. Where the vendor is silent, the stricter reading is taken,
because a test shall fail before production does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .reading import content_type_faults, strict_json
from .rules import date_time_problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_MESSAGES: Final = 100


class _Kind(NamedTuple):
    """The fields of one type of message; `one_of` are those of which at least one is required."""

    required: tuple[str, ...]
    one_of: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


_KINDS: Final = {
    "organization": _Kind(("organizationId",), optional=("traits",)),
    "account": _Kind(("accountId",), optional=("organizationId", "traits")),
    "user": _Kind(("userId", "traits"), one_of=("accountId", "organizationId")),
    "track": _Kind(("event", "properties"), one_of=("userId", "accountId", "organizationId")),
    "customobjectinstance": _Kind(
        ("externalId", "customObjectId", "traits"), one_of=("accountId", "organizationId"), optional=("name",)
    ),
    "unlink": _Kind(("userId", "accountId")),
}


def _id_problem(value: Any) -> str | None:
    # A bool is an int in Python, and no number in JSON.
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return "is neither a string nor a number"
    return "is empty" if value == "" else None


def _string_problem(value: Any) -> str | None:
    return None if isinstance(value, str) else "is not a string"


def _text_problem(value: Any) -> str | None:
    return "is empty" if value == "" else _string_problem(value)


def _object_problem(value: Any) -> str | None:
    return None if isinstance(value, dict) else "is not an object"


_PROBLEMS: Final[dict[str, Callable[[Any], str | None]]] = {
    "messageId": _id_problem,
    "timestamp": date_time_problem,
    "organizationId": _id_problem,
    "accountId": _id_problem,
    "userId": _id_problem,
    "externalId": _id_problem,
    "customObjectId": _text_problem,
    "event": _text_problem,
    "name": _string_problem,
    "traits": _object_problem,
    "properties": _object_problem,
}


class VitallyWire:
    """The wire of `POST /analytics/v1/batch`.

    Faults name fields and places, never values: a value may be personal, or the token.

    Args:
        api_token: The token that requests must carry, raw.
    """

    name: Final = "vitally"
    path: Final = "/analytics/v1/batch"
    success: Final = b'{"message":"Success."}'

    def __init__(self, api_token: str) -> None:
        self._authorization = f"Basic {api_token}"

    def authorize(self, headers: Mapping[str, str]) -> list[str]:
        """The faults of the credentials.

        Args:
            headers: The request's headers, names in lower case.

        Returns:
            The faults; none if the token is the expected one.
        """
        given = headers.get("authorization")
        if given is None:
            return ["Authorization is missing"]
        return [] if given == self._authorization else ["Authorization is not 'Basic ' and the raw token"]

    def judge(self, headers: Mapping[str, str], body: bytes) -> tuple[list[dict[str, Any]], list[str]]:
        """Judge a batch.

        Args:
            headers: The request's headers, names in lower case.
            body: The request's body.

        Returns:
            The messages that could be read, and the faults. A single fault means that the batch is refused whole.
        """
        faults = _header_faults(headers)
        try:
            batch = strict_json(body)
        except (ValueError, RecursionError) as error:
            return [], [*faults, f"the body is not strict JSON in UTF-8: {error}"]
        if not isinstance(batch, list):
            return [], [*faults, "the body is not an array"]
        if not 1 <= len(batch) <= MAX_MESSAGES:
            faults.append(f"the batch holds {len(batch)} messages, not 1 to {MAX_MESSAGES}")
        for index, message in enumerate(batch):
            faults += [f"message[{index}]: {fault}" for fault in _message_faults(message)]
        return [message for message in batch if isinstance(message, dict)], faults

    def key(self, message: Mapping[str, Any]) -> tuple[str, str]:
        """What makes a message the same as another one.

        Args:
            message: A faultless message.

        Returns:
            Its type, and its id within that type. The vendor's own example has one `messageId` for messages of several
            types; without a `messageId` the vendor takes a hash of the message, and so the message itself stands here.
        """
        own = message.get("messageId", message)
        return str(message["type"]), json.dumps(own, sort_keys=True)


def _header_faults(headers: Mapping[str, str]) -> list[str]:
    faults = content_type_faults(headers)
    if "content-encoding" in headers:
        faults.append("Content-Encoding is not documented")
    return faults


def _message_faults(message: Any) -> list[str]:
    if not isinstance(message, dict):
        return ["is not an object"]
    faults = []
    if "messageId" not in message and "timestamp" not in message:
        faults.append("neither messageId nor timestamp is there")
    name = message.get("type")
    # The test for a string comes first, because a list cannot be looked up in a dict.
    kind = _KINDS.get(name) if isinstance(name, str) else None
    if kind is None:
        faults.append(f"type is none of {', '.join(_KINDS)}")
        kind = _Kind(())
    faults += [f"{field} is missing" for field in kind.required if field not in message]
    if kind.one_of and not any(field in message for field in kind.one_of):
        faults.append(f"none of {', '.join(kind.one_of)} is there")
    for field in ("messageId", "timestamp", *kind.required, *kind.one_of, *kind.optional):
        if field in message and (problem := _PROBLEMS[field](message[field])):
            faults.append(f"{field} {problem}")
    return faults


# The name that the class had while there was no other wire.
Vitally = VitallyWire
