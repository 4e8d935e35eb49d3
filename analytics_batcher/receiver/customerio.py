"""What Customer.io's Track API v2 takes in a batch, as strictly as its documentation can be read.

Source: https://docs.customer.io/files/journeys-track.json, `POST /api/v2/batch`. Where the vendor is silent, the
stricter reading is taken, because a test shall fail before production does.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from .reading import content_type_faults, read_envelope
from .reply import Reply
from .rules import (
    a_bool,
    a_string,
    a_text,
    a_text_or_number,
    anything,
    array,
    exactly,
    fields,
    matching,
    nothing,
    one_of,
)
from .wire import Judgement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .rules import Rule

# The vendor: under 500 kB a request and 32 kB an operation, decimal or binary unsaid.
MAX_BODY: Final = 500_000
MAX_OPERATION: Final = 32_000

_EVENTS: Final = ("event", "page", "screen")
_FAULT: Final = re.compile(r"(batch\S*) (.*)", re.DOTALL)


def _unix_seconds(value: Any) -> Iterator[str]:
    # The vendor's Ruby client takes what lies between these, and so refuses milliseconds.
    if isinstance(value, bool) or not isinstance(value, int):
        yield " is not an integer"
    elif not 10**9 <= value < 10**11:
        yield " is not in Unix seconds"


_ULID: Final = matching("[0-7][0-9A-HJKMNP-TV-Z]{25}", "a ULID")
_EMAIL: Final = matching("(?s).*@.*", "an email address")
_PHONE: Final = matching(r"\+[0-9]{1,15}", "a phone number in E.164 form")
_OBJECT_TYPE: Final = matching("[1-9][0-9]*", "an integer from 1 in a string")

_MERGEABLE: Final = ({"id": a_text_or_number}, {"email": a_text}, {"cio_id": a_text})
_PERSON: Final = exactly(*_MERGEABLE, {"phone": _PHONE})
_ANYBODY: Final = exactly(*_MERGEABLE, {"phone": _PHONE}, {"anonymous_id": a_text_or_number})
_OBJECT: Final = exactly({"object_type_id": _OBJECT_TYPE, "object_id": a_text}, {"cio_object_id": a_text})


def _relationships(identifiers: Rule) -> Rule:
    return array(fields("identifiers", identifiers=identifiers, relationship_attributes=fields()))


_OBJECTS: Final = _relationships(_OBJECT)
_PEOPLE: Final = _relationships(exactly(*_MERGEABLE))
_ANONYMOUS_PEOPLE: Final = _relationships(exactly({"anonymous_id": a_text}))


def _person(required: str = "", identifiers: Rule = _PERSON, **rules: Rule) -> Rule:
    return fields(f"identifiers {required}", None, identifiers=identifiers, timestamp=_unix_seconds, **rules)


def _event(**attributes: Rule) -> Rule:
    return _person("name", _ANYBODY, name=a_text, id=_ULID, attributes=fields("", None, **attributes))


def _object(required: str = "", **rules: Rule) -> Rule:
    return fields(f"identifiers {required}", identifiers=_OBJECT, timestamp=_unix_seconds, **rules)


_PREFERENCES: Final = fields(topics=fields("", a_bool))
_DEVICE: Final = fields(
    "token platform",
    token=a_text,
    platform=one_of("ios", "android"),
    last_used=_unix_seconds,
    attributes=fields(
        "",
        a_string,
        push_enabled=one_of("true", "false"),
        _last_status=one_of("", "bounced", "sent", "suppressed"),
    ),
)


_OPERATIONS: Final[dict[str, dict[str, Rule]]] = {
    "person": {
        "identify": _person(
            attributes=fields(cio_subscription_preferences=_PREFERENCES, _update=a_bool), cio_relationships=_OBJECTS
        ),
        "delete": _person(),
        "event": _event(recipient=_EMAIL, from_address=_EMAIL, reply_to=_EMAIL),
        "page": _event(
            path=a_string, referrer=a_string, search=a_string, title=a_string, url=a_string, keywords=array(a_string)
        ),
        "screen": _event(),
        "add_relationships": _person("cio_relationships", cio_relationships=_OBJECTS),
        "delete_relationships": _person("cio_relationships", cio_relationships=_OBJECTS),
        "add_device": _person("device", device=_DEVICE),
        "delete_device": _person("device", device=fields("token", token=a_text)),
        "merge": fields(
            "primary secondary",
            primary=exactly(*_MERGEABLE),
            secondary=exactly(*_MERGEABLE),
            identifiers=nothing,
            timestamp=_unix_seconds,
        ),
        "suppress": _person(),
        "unsuppress": _person(),
    },
    "object": {
        "identify": _object(attributes=fields(), cio_relationships=_PEOPLE),
        "identify_anonymous": _object(attributes=fields(), cio_relationships=_ANONYMOUS_PEOPLE),
        "delete": _object(),
        "add_relationships": _object("cio_relationships", cio_relationships=_PEOPLE),
        "delete_relationships": _object("cio_relationships", cio_relationships=_PEOPLE),
    },
    "delivery": {
        "event": fields(
            "identifiers name attributes",
            identifiers=exactly({"id": a_text}),
            name=one_of("opened", "converted", "delivered"),
            attributes=fields("device_token", device_token=a_text),
            timestamp=_unix_seconds,
        ),
    },
}


def _operation(value: Any) -> Iterator[str]:
    if not isinstance(value, dict):
        yield " is not an object"
        return
    kind, action = value.get("type"), value.get("action")
    # The tests for strings come first, because a list cannot be looked up in a dict.
    actions = _OPERATIONS.get(kind) if isinstance(kind, str) else None
    if actions is None:
        yield f".type is none of {', '.join(_OPERATIONS)}"
        return
    rule = actions.get(action) if isinstance(action, str) else None
    if rule is None:
        yield f".action is none of {', '.join(actions)}"
        return
    yield from rule(value)


def _is_event(operation: Mapping[str, Any]) -> bool:
    return operation.get("type") == "person" and operation.get("action") in _EVENTS


_ENVELOPE: Final = fields("batch", nothing, batch=array(anything, least=1))


class CustomerIOWire:
    """The wire of `POST /api/v2/batch`.

    Faults name fields and places, never values: a value may be personal.

    Args:
        site_id: The site id that requests must carry.
        api_key: Its key.
    """

    name: Final = "customerio"
    path: Final = "/api/v2/batch"
    success: Final = b"{}"

    def __init__(self, site_id: str = "site", api_key: str = "key") -> None:
        self._authorization = "Basic " + b64encode(f"{site_id}:{api_key}".encode()).decode()

    def authorize(self, headers: Mapping[str, str]) -> list[str]:
        """The faults of the credentials.

        Args:
            headers: The request's headers, names in lower case.

        Returns:
            The faults; none if site id and key are the expected ones.
        """
        given = headers.get("authorization")
        if given is None:
            return ["Authorization is missing"]
        return [] if given == self._authorization else ["Authorization is not 'Basic ' and base64 of site_id:api_key"]

    def judge(self, headers: Mapping[str, str], body: bytes) -> Judgement:
        """Judge a batch.

        Args:
            headers: The request's headers, names in lower case.
            body: The request's body.

        Returns:
            The operations that could be read, the faults, and a warning for each event whose data will be lost.
        """
        faults = content_type_faults(headers)
        if "content-encoding" in headers:
            faults.append("Content-Encoding is not documented")
        if len(body) > MAX_BODY:
            faults.append(f"the body has {len(body)} bytes, more than {MAX_BODY}")
            return Judgement([], faults, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        _, batch, found = read_envelope(body, _ENVELOPE, _operation, MAX_OPERATION)
        warnings = [
            f"batch[{index}].data will be lost: what belongs to an event is its attributes"
            for index, operation in enumerate(batch)
            if isinstance(operation, dict) and _is_event(operation) and "data" in operation
        ]
        operations = [operation for operation in batch if isinstance(operation, dict)]
        return Judgement(operations, faults + found, warnings)

    def partial(self, messages: Sequence[Mapping[str, Any]], errors: Mapping[int, str]) -> Reply:  # noqa: ARG002 - the receiver gives it to every wire
        """The answer to a request of which some operations are refused.

        Args:
            messages: The request's operations.
            errors: The refused operations' indexes, each with its `"field: message"`.

        Returns:
            A 207 that lists them.
        """
        listed = []
        for index, text in errors.items():
            field, colon, message = text.partition(": ")
            if not colon:
                field, message = "", text
            listed.append({"batch_index": index, "reason": "invalid", "field": field, "message": message})
        return Reply(HTTPStatus.MULTI_STATUS, body=json.dumps({"errors": listed}).encode())

    def refuse(self, status: int, faults: Sequence[str]) -> bytes:
        """The body of the answer to a faulty request.

        Args:
            status: The answer's status.
            faults: The faults.

        Returns:
            The faults as the vendor lists them.
        """
        if status == HTTPStatus.UNAUTHORIZED:
            return b""
        listed = []
        for fault in faults:
            named = _FAULT.fullmatch(fault)
            field, message = ("", fault) if named is None else named.groups()
            listed.append({"reason": "invalid", "field": field, "message": message})
        return json.dumps({"errors": listed}).encode()

    def key(self, message: Mapping[str, Any]) -> tuple[str, str]:
        """What makes an operation the same as another one.

        Args:
            message: A faultless operation.

        Returns:
            Its type and action, and its id within these; only events have an id, and so elsewhere the operation itself
            stands here.
        """
        own = message.get("id", message) if _is_event(message) else message
        return f"{message['type']}/{message['action']}", json.dumps(own, sort_keys=True)
