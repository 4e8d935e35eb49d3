"""A message: what its fields must be, and how a stored record becomes JSON for the wire again."""

from __future__ import annotations

import numbers
import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn
from uuid import UUID

from .encoding import OPTIONS, Unserializable, dumps, loads, mend, pairs_of
from .errors import InvalidMessage
from .plain import plain_copy
from .stamp import (
    FLAGS_PLACE,
    HEAD_BYTES,
    ID_GIVEN,
    LEAST_FLAG,
    NATIVE,
    STAMP_BYTES,
    TIME_GIVEN,
    flags_of,
    iso_text,
    json_fields,
    new_head,
    ulid_of,
    uuid_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_IDS: Final = frozenset(
    {"userId", "accountId", "organizationId", "anonymousId", "previousId", "externalId", "customObjectId"}
)
_TEXTS: Final = frozenset({"event", "name"})
_PLAIN_TEXTS: Final = _IDS | _TEXTS | {"type"}
_OBJECTS: Final = frozenset({"traits", "properties", "context", "integrations"})
_CONTENT_START: Final = HEAD_BYTES + len(b"{")
_EMPTY_BYTES: Final = HEAD_BYTES + len(b"{}")
_NAME_CHARACTERS: Final = 100
_NAME: Final = type.__dict__["__name__"].__get__  # of the class itself, whatever its metaclass says
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}")
_FRACTION: Final = re.compile(r"\.\d+")
_BOTH_GIVEN: Final = (ID_GIVEN | TIME_GIVEN) >> 8  # in the byte of the flags
_RESERVED: Final = ("type", "messageId", "timestamp")

_ID_WIRE_BYTES: Final = len('"messageId":"",') + 36
_TIME_WIRE_BYTES: Final = len('"timestamp":"",') + 24


def encode(message: dict[str, Any], default: Callable[[Any], Any] | None = None, *, plain: bool | None = None) -> bytes:
    """Write a message as JSON, once; a value that JSON does not know is mended on a slower path.

    Args:
        message: The message; it is not changed.
        default: Makes a JSON value of one that nobody knows.
        plain: Whether it is a `plain_copy` already; `None`: not asked yet.

    Raises:
        Unserializable: If even the slower path cannot write it.
    """
    copy: dict[str, Any] | None = message
    if not plain:
        copy = plain_copy(message) if plain is None and type(message) is dict else None
    if copy is not None:
        try:
            return dumps(copy, None, OPTIONS)
        except TypeError:  # an integer of over 64 bits, a lone surrogate, a key that is no text
            pass
    return mend(message, default)


def written(message: dict[str, Any], field: str, content: Any) -> bytes | None:
    """The JSON of a message as most are: plain content, and all else is text.

    Args:
        message: Its other fields, which must not be objects; a copy of the content is added to them.
        field: The content's.
        content: What the caller gave, or `None`; it is not changed.

    Returns:
        `None` where it takes the slower way, by `normalise` and `encode`, to say what is wrong or to mend it.
    """
    for value in message.values():
        if type(value) is not str or not value:
            return None
    if content is not None:
        if type(content) is not dict or (copy := plain_copy(content)) is None:
            return None
        message[field] = copy
    try:
        return dumps(message, None, OPTIONS)
    except TypeError:  # as in `encode`
        return None


def normalise(message: dict[str, Any]) -> bool:
    """Check a neutral message's fields, and make text of those ids that are whole numbers or UUIDs.

    Args:
        message: The message; plain values in it are replaced by copies, and the caller's own are not changed.

    Returns:
        Whether all of it is plain, as `plain_copy` has it, and the caller's no more.

    Raises:
        InvalidMessage: If a field is wrong; the first one is named.
    """
    plain = True
    for field, value in message.items():
        if type(value) is str:
            if value and field in _PLAIN_TEXTS:
                continue
        elif type(value) is dict and field in _OBJECTS:
            if (copy := plain_copy(value)) is None:
                plain = False
            else:
                message[field] = copy
            continue
        mended = message[field] = _normalised(field, value)
        if type(mended) is not str:
            copy = plain_copy(mended) if type(mended) is dict else None
            message[field] = mended if copy is None else copy
            plain = plain and copy is not None
    return plain


def _normalised(field: str, value: Any) -> Any:
    if field in _IDS:
        return _identifier(field, value)
    if field in _OBJECTS:
        return _object(field, value)
    return text_of(value) or _refuse(field, "text that is not empty", value)


def text_of(value: Any) -> str:
    """The text that `value` is or, as a proxy, stands for; empty if it is none.

    A caller's own class may say anything of itself, and raise while it does: only its content is asked for.
    """
    if issubclass(type(value), str):
        return str.__str__(value)
    try:
        return text_of(str(value)) if isinstance(value, str) else ""
    except Exception:  # noqa: BLE001 - the proxy's own code
        return ""


def _identifier(field: str, value: Any) -> str:
    text = text_of(value)
    try:
        if not text and not isinstance(value, bool) and isinstance(value, (UUID, numbers.Integral)):
            text = text_of(str(value if isinstance(value, UUID) else int(value)))
    except Exception as error:  # noqa: BLE001 - thousands of digits, or a foreign number's own code
        raise InvalidMessage(f"{field} cannot be written: {name_of(type(error))}") from None
    return text or _refuse(field, "text that is not empty, a whole number or a UUID", value)


def _object(field: str, value: Any) -> Any:
    if issubclass(type(value), dict):
        return value
    try:
        if isinstance(value, Mapping):
            return pairs_of(value)
    except Exception as error:  # noqa: BLE001 - a foreign mapping's own code
        raise InvalidMessage(f"{field} cannot be read: {name_of(type(error))}") from None
    return _refuse(field, "a mapping", value)


def _refuse(field: str, wanted: str, value: Any) -> NoReturn:
    given = "an empty string" if issubclass(type(value), str) else name_of(type(value))
    raise InvalidMessage(f"{field} must be {wanted}, not {given}")


def name_of(kind: type) -> str:
    """A class's name, as far as it is to be shown."""
    return str(_NAME(kind))[:_NAME_CHARACTERS]


def native_flags(message: Any, id_field: str, time_field: str) -> int:
    """Check a native message.

    Args:
        message: The message. Whether it makes sense is the vendor's to judge.
        id_field: Where the destination has a message's id.
        time_field: Where it has its time.

    Returns:
        The flags of its record.

    Raises:
        InvalidMessage: If it is no dict.
    """
    if not issubclass(type(message), dict):
        raise InvalidMessage(f"a message must be a dict, not {name_of(type(message))}")
    flags = NATIVE
    with suppress(Exception):  # a key's own code
        flags |= ID_GIVEN if dict.__contains__(message, id_field) else 0
        flags |= TIME_GIVEN if dict.__contains__(message, time_field) else 0
    return flags


def seconds_of(text: str) -> int:
    """A message's `timestamp`, or another ISO 8601 date-time with a zone, in whole Unix seconds.

    Raises:
        ValueError: If it is none.
    """
    whole = _FRACTION.sub("", text).replace("Z", "+00:00")
    return int(datetime.fromisoformat(whole).timestamp())


def ulid_of_text(message_id: str) -> str:
    """A given `messageId` as a ULID: itself if it is one, a UUID's bits, else the first 128 bits of its SHA-256."""
    if _ULID.fullmatch(message_id):
        return message_id.upper()
    try:
        return ulid_of(UUID(message_id).int)
    except ValueError:
        import hashlib  # noqa: PLC0415 - for ids of an application's own making only

        digest = hashlib.sha256(message_id.encode("utf-8", "surrogatepass")).digest()
        return ulid_of(int.from_bytes(digest[:STAMP_BYTES], "big"))


def kept(message: dict[str, Any] | bytes | None, default: Callable[[Any], Any] | None) -> bytes | None:
    """What was refused at a call, as a record; `None` if it could not be written.

    Args:
        message: The neutral message, or the record if it came so far.
        default: As for `encode`.
    """
    if not isinstance(message, dict):
        return message
    flags = (ID_GIVEN if "messageId" in message else 0) | (TIME_GIVEN if "timestamp" in message else 0)
    try:
        return new_head(flags) + encode(message, default)
    except Unserializable:
        return None


def wire_bytes(body: bytes, flags: int) -> int:
    """The size of a stored message on the wire in neutral form, in bytes, its id and time included."""
    size = len(body)
    if not flags & ID_GIVEN:
        size += _ID_WIRE_BYTES
    if not flags & TIME_GIVEN:
        size += _TIME_WIRE_BYTES
    return size


def wire(record: bytes) -> bytes:
    """A record's JSON in neutral form, with the id and the time that its stamp stands for where none was given."""
    flags = flags_of(record)
    if not flags & (ID_GIVEN | TIME_GIVEN):
        start = json_fields((record,))[0]
    elif not flags & ID_GIVEN:
        start = f'{{"messageId":"{uuid_text(record)}",'
    elif not flags & TIME_GIVEN:
        start = f'{{"timestamp":"{iso_text(record)}",'
    else:
        return record[HEAD_BYTES:]
    if len(record) > _EMPTY_BYTES:
        return start.encode() + record[_CONTENT_START:]
    return start[:-1].encode() + b"}"


def wires(records: Sequence[bytes], other: Callable[[bytes], bytes]) -> list[bytes]:
    """Several records as `wire` has it, in less than half of the time.

    Args:
        records: The records.
        other: What writes those that have flags, instead.
    """
    if all(record[FLAGS_PLACE] & 0xF0 == _BOTH_GIVEN for record in records):  # their stamps are not written
        return [record[HEAD_BYTES:] for record in records]
    return [
        start.encode() + record[_CONTENT_START:]
        if record[FLAGS_PLACE] < LEAST_FLAG and len(record) > _EMPTY_BYTES
        else other(record)
        for start, record in zip(json_fields(records), records, strict=True)
    ]


def stamp_of(record: bytes) -> dict[str, str]:
    """The id and the time that a record's stamp stands for, where none was given."""
    flags = flags_of(record)
    fields = {} if flags & ID_GIVEN else {"messageId": uuid_text(record)}
    if not flags & TIME_GIVEN:
        fields["timestamp"] = iso_text(record)
    return fields


def message_id_of(record: bytes) -> str:
    """The `messageId` that a record has on the wire in neutral form."""
    return str(loads(record[HEAD_BYTES:])["messageId"]) if flags_of(record) & ID_GIVEN else uuid_text(record)


def decode(record: bytes) -> dict[str, Any]:
    """A record as a fresh dict: in neutral form with its id and time, or native as it was given."""
    message: dict[str, Any] = loads(record[HEAD_BYTES:] if flags_of(record) & NATIVE else wire(record))
    return message


def replace(record: bytes, message: Mapping[str, Any], default: Callable[[Any], Any] | None = None) -> bytes:
    """A record with another content: `type`, `messageId` and `timestamp` stay what they were.

    Args:
        record: The record as it was stored.
        message: The new content, as `before_send` returned it.
        default: As for `encode`.

    Raises:
        Unserializable: If it cannot be written.
    """
    original = loads(record[HEAD_BYTES:])
    kept = {field: original[field] for field in _RESERVED if field in original}
    content = {field: value for field, value in pairs_of(message).items() if field not in _RESERVED}
    return record[:HEAD_BYTES] + encode({**kept, **content}, default)


def entities_of(record: bytes) -> tuple[str, ...]:
    """Whom a message is about, as far as order matters: its user, else its account, else its organization.

    An alias is about two. Of a native message that says it in none of these fields it is all of it that is not known:
    all such messages stay in order among themselves.
    """
    message = loads(record[HEAD_BYTES:])
    for field in ("userId", "accountId", "organizationId", "anonymousId", "identifiers", "previousId"):
        if field in message:
            about = f"{field}:{message[field]}"
            return (about, f"userId:{message['previousId']}") if "previousId" in message else (about,)
    return ("",)
