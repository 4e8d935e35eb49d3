"""What Segment's batch endpoint and those made after it take, as strictly as their documentation can be read.

Source: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api, and the code of the servers made
after it. Segment itself takes most bad messages with a 200 and drops them in silence; here these are faults, because a
test shall fail before production does.
"""

from __future__ import annotations

import json
from base64 import b64encode
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from .reading import content_type_faults, inflated, read_envelope
from .reply import Reply
from .rules import a_date_time, a_string, a_text, anything, array, fields, matching, nothing
from .wire import Judgement

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .rules import Rule

    Auth = Literal["both", "basic", "body", "raw"]
    Kind = Literal["segment", "rudderstack", "customerio_pipelines", "jitsu", "dittofeed"]

# The vendor: 2,500 messages and 500 kB a request, 32 kB a message, decimal or binary unsaid.
MAX_MESSAGES: Final = 2_500
MAX_BODY: Final = 500_000
MAX_MESSAGE: Final = 32_000


class _Family(NamedTuple):
    """What sets one of the vendors apart."""

    auth: Auth
    path: str = "/v1/batch"
    status: int = HTTPStatus.OK
    body: bytes = b""
    headers: Mapping[str, str] = {}
    # The rule of messageId.
    message_id: Rule = matching("(?s).{1,99}", "a string of 1 to 99 characters")
    needs_message_id: bool = False
    has_alias: bool = True


_FAMILIES: Final[dict[str, _Family]] = {
    "segment": _Family("both", body=b'{"success":true}'),
    "rudderstack": _Family("basic", body=b"OK", headers={"Content-Type": "text/plain; charset=utf-8"}),
    "customerio_pipelines": _Family("basic"),
    # Longer ids are cut there, and other characters replaced: two messages could become one.
    "jitsu": _Family("both", message_id=matching("[A-Za-z0-9._-]{1,64}", "1 to 64 of the characters A-Za-z0-9._-")),
    "dittofeed": _Family(
        "raw",
        path="/api/public/apps/batch",
        status=HTTPStatus.NO_CONTENT,
        needs_message_id=True,
        has_alias=False,
    ),
}


def _a_bool_or_object(value: Any) -> Iterator[str]:
    if not isinstance(value, (bool, dict)):
        yield " is neither a boolean nor an object"


def _or_null(of: Rule) -> Rule:
    # The vendor's Python client writes null into these fields where it was given nothing.
    return lambda value: anything(value) if value is None else of(value)


_INTEGRATIONS: Final = fields("", _a_bool_or_object)
_ENVELOPE: Final = fields(
    "batch",
    nothing,
    batch=array(anything, least=1, most=MAX_MESSAGES),
    sentAt=a_date_time,
    # Compared with the expected one elsewhere.
    writeKey=anything,
    context=fields(),
    integrations=_INTEGRATIONS,
)
# The fields that each type of message must have, and whether it needs one of userId and anonymousId.
_TYPES: Final = {
    "identify": ((), True),
    "track": (("event",), True),
    "page": ((), True),
    "screen": ((), True),
    "group": (("groupId",), True),
    "alias": (("userId", "previousId"), False),
}


def _message_rule(family: _Family) -> Rule:
    types = [name for name in _TYPES if family.has_alias or name != "alias"]
    of_fields = fields(
        "messageId" if family.needs_message_id else "",
        messageId=family.message_id,
        timestamp=a_date_time,
        userId=_or_null(a_text),
        anonymousId=_or_null(a_text),
        groupId=a_text,
        previousId=a_text,
        event=a_text,
        name=_or_null(a_string),
        category=_or_null(a_string),
        context=fields(),
        integrations=_INTEGRATIONS,
        traits=fields(),
        properties=fields(),
    )

    def rule(value: Any) -> Iterator[str]:
        yield from of_fields(value)
        if not isinstance(value, dict):
            return
        kind = value.get("type")
        if kind not in types:
            yield f".type is none of {', '.join(types)}"
            return
        required, needs_id = _TYPES[kind]
        yield from (f".{name} is missing" for name in required if value.get(name) is None)
        if needs_id and value.get("userId") is None and value.get("anonymousId") is None:
            yield " has neither userId nor anonymousId"

    return rule


class SegmentWire:
    """The wire of `POST /v1/batch`.

    Faults name fields and places, never values: a value may be personal, or the write key.

    Args:
        write_key: The write key that requests must carry.
        path: The path. None: the one of `kind`.
        auth: Where the key must be: `"basic"` with a colon behind it in a Basic header, `"body"` in the body's
            `writeKey`, in `"both"` of them, or `"raw"` behind the header's `Basic` just as it is. What is not asked for
            is not looked at. None: as the clients of `kind` usually do.
        kind: Whose answers to give and whose rules to add.

    Raises:
        ValueError: `kind` or `auth` is none of these, or RudderStack shall do without the header.
    """

    name: Final = "segment"

    def __init__(
        self, write_key: str = "write-key", path: str | None = None, auth: Auth | None = None, kind: Kind = "segment"
    ) -> None:
        if kind not in _FAMILIES:
            raise ValueError(f"kind must be one of {', '.join(_FAMILIES)}, not {kind!r}")
        self._family = _FAMILIES[kind]
        self._auth = self._family.auth if auth is None else auth
        if self._auth not in ("both", "basic", "body", "raw"):
            raise ValueError(f"auth must be 'both', 'basic', 'body' or 'raw', not {auth!r}")
        if kind == "rudderstack" and self._auth != "basic":
            raise ValueError(f"auth must be 'basic' for RudderStack, not {auth!r}")
        self.path = self._family.path if path is None else path
        self._kind = kind
        self._write_key = write_key
        self._message = _message_rule(self._family)

    @property
    def success(self) -> bytes:
        """The body of the answer to a good request, where it is the same for all."""
        return self._family.body

    def authorize(self, headers: Mapping[str, str]) -> list[str]:
        """The faults of the credentials in the headers.

        Args:
            headers: The request's headers, names in lower case.

        Returns:
            The faults; none if the write key is the expected one, or belongs in the body.
        """
        if self._auth == "body":
            return []
        given = headers.get("authorization")
        if given is None:
            return ["Authorization is missing"]
        if self._auth == "raw":
            good, what = self._write_key, "the raw write key"
        else:
            good, what = b64encode(f"{self._write_key}:".encode()).decode(), "base64 of the write key and a colon"
        return [] if given == f"Basic {good}" else [f"Authorization is not 'Basic ' and {what}"]

    def judge(self, headers: Mapping[str, str], body: bytes) -> Judgement:
        """Judge a batch.

        Args:
            headers: The request's headers, names in lower case.
            body: The request's body, as it came.

        Returns:
            The messages that could be read, and the faults.
        """
        faults = content_type_faults(headers)
        encoding = headers.get("content-encoding")
        try:
            plain = inflated(body, MAX_BODY) if encoding == "gzip" else body
        except ValueError as error:
            return Judgement([], [*faults, str(error)])
        if encoding not in (None, "gzip"):
            faults.append("Content-Encoding is not gzip")
        if len(plain) > MAX_BODY:
            faults.append(f"the body has more than {MAX_BODY} bytes")
            return Judgement([], faults, status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        envelope, batch, found = read_envelope(plain, _ENVELOPE, self._message, MAX_MESSAGE)
        messages = [message for message in batch if isinstance(message, dict)]
        if envelope and self._auth in ("both", "body") and envelope.get("writeKey") != self._write_key:
            fault = "writeKey is not the expected one" if "writeKey" in envelope else "writeKey is missing"
            return Judgement(messages, [fault, *faults, *found], status=HTTPStatus.UNAUTHORIZED)
        return Judgement(messages, faults + found)

    def accept(self, messages: Sequence[Mapping[str, Any]]) -> Reply:
        """The answer to a good request.

        Args:
            messages: The request's messages.

        Returns:
            What a vendor of this kind answers.
        """
        if self._kind == "jitsu":
            return _jitsu(messages, {})
        return Reply(self._family.status, body=self.success, headers=self._family.headers)

    def partial(self, messages: Sequence[Mapping[str, Any]], errors: Mapping[int, str]) -> Reply | None:
        """The answer to a request of which some messages are refused.

        Args:
            messages: The request's messages.
            errors: The refused messages' indexes, each with its text.

        Returns:
            Jitsu's 200 that lists them; None for the others, which have no such answer.
        """
        return _jitsu(messages, errors) if self._kind == "jitsu" else None

    def key(self, message: Mapping[str, Any]) -> tuple[str, str]:
        """What makes a message the same as another one.

        Args:
            message: A faultless message.

        Returns:
            Its type, and its messageId within that type; without one, the message itself.
        """
        return str(message["type"]), json.dumps(message.get("messageId", message), sort_keys=True)


def _jitsu(messages: Sequence[Mapping[str, Any]], errors: Mapping[int, str]) -> Reply:
    answer: dict[str, Any] = {
        "ok": not errors,
        "receivedEvents": len(messages),
        "okEvents": sum(index not in errors for index in range(len(messages))),
    }
    if errors:
        answer["errors"] = [f"Message ID: {_id_at(messages, index)}: {text}" for index, text in errors.items()]
    return Reply(body=json.dumps(answer).encode())


def _id_at(messages: Sequence[Mapping[str, Any]], index: int) -> Any:
    # A test may ask for an error of a message that is not there.
    return messages[index].get("messageId", "") if 0 <= index < len(messages) else ""
