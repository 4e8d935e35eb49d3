"""A message: what its fields must be, and how a stored record becomes JSON for the wire again."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from .encoding import OPTIONS, dumps, is_plain, loads, mend
from .errors import InvalidMessage
from .stamp import (
    HEAD_BYTES,
    ID_GIVEN,
    NATIVE,
    STAMP_BYTES,
    TIME_GIVEN,
    flags_of,
    iso_milliseconds,
    iso_text,
    ulid_of,
    uuid_text,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_IDS: Final = frozenset(
    {"userId", "accountId", "organizationId", "anonymousId", "previousId", "externalId", "customObjectId"}
)
_TEXTS: Final = frozenset({"event", "name"})
_PLAIN_TEXTS: Final = _IDS | _TEXTS | {"type"}
_OBJECTS: Final = frozenset({"traits", "properties", "context", "integrations"})
_MESSAGE_ID_CHARACTERS: Final = 99
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}")
_FRACTION: Final = re.compile(r"\.\d+")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND: Final = timedelta(milliseconds=1)
_LAST_MILLISECOND: Final = 253_402_300_799_999
_RESERVED: Final = ("type", "messageId", "timestamp")

_ID_WIRE_BYTES: Final = len('"messageId":"",') + 36
_TIME_WIRE_BYTES: Final = len('"timestamp":"",') + 24


def encode(message: dict[str, Any], default: Callable[[Any], Any] | None = None, *, plain: bool | None = None) -> bytes:
    """Write a message as JSON, once; a value that JSON does not know is mended on a slower path.

    Args:
        message: The message; it is not changed.
        default: Makes a JSON value of one that nobody knows.
        plain: What `is_plain` says of it; `None`: not asked yet.

    Raises:
        Unserializable: If even the slower path cannot write it.
    """
    if is_plain(message) if plain is None else plain:
        try:
            return dumps(message, None, OPTIONS)
        except TypeError:  # an integer of over 64 bits, a lone surrogate, a key that is no text
            pass
    return mend(message, default)


def normalise(message: dict[str, Any]) -> bool:
    """Check a neutral message's fields, and make text of those ids that are whole numbers or UUIDs.

    Args:
        message: The message; the caller's own values in it are not changed.

    Returns:
        Whether it is plain, as `is_plain` has it.

    Raises:
        InvalidMessage: If a field is wrong; the first one is named.
    """
    plain = True
    for field, value in message.items():
        if type(value) is str:
            if value and field in _PLAIN_TEXTS:
                continue
        elif type(value) is dict and field in _OBJECTS:
            plain = is_plain(value) and plain
            continue
        mended = message[field] = _normalised(field, value)
        plain = plain and (type(mended) is str or (type(mended) is dict and is_plain(mended)))
    return plain


def _normalised(field: str, value: Any) -> Any:
    if field in _IDS:
        return _identifier(field, value)
    if field in _OBJECTS:
        return _object(field, value)
    if isinstance(value, str) and value:
        return value
    raise InvalidMessage(f"{field} must be text that is not empty, not {_kind(value)}")


def _identifier(field: str, value: Any) -> str:
    if isinstance(value, str) and value:
        return value
    if not isinstance(value, bool) and isinstance(value, (UUID, numbers.Integral)):
        try:
            return str(value if isinstance(value, UUID) else int(value))
        except Exception as error:  # noqa: BLE001 - thousands of digits, or a foreign number's own code
            raise InvalidMessage(f"{field} cannot be written: {type(error).__name__}") from None
    raise InvalidMessage(f"{field} must be text that is not empty, a whole number or a UUID, not {_kind(value)}")


def _object(field: str, value: Any) -> Any:
    if isinstance(value, dict):
        return value
    if isinstance(value, Mapping):
        try:
            return dict(value)
        except Exception as error:  # noqa: BLE001 - a foreign mapping's own code
            raise InvalidMessage(f"{field} cannot be read: {type(error).__name__}") from None
    raise InvalidMessage(f"{field} must be a mapping, not {_kind(value)}")


def _kind(value: Any) -> str:
    return "an empty string" if isinstance(value, str) else type(value).__name__


def message_id(value: Any) -> str:
    """Check a given `message_id`.

    Raises:
        InvalidMessage: If it is not text of 1 to 99 characters.
    """
    if isinstance(value, str) and 1 <= len(value) <= _MESSAGE_ID_CHARACTERS:
        return value
    raise InvalidMessage(f"message_id must be text of 1 to {_MESSAGE_ID_CHARACTERS} characters")


def timestamp(value: Any) -> str:
    """Write a given `timestamp` in ISO 8601, in UTC with milliseconds.

    Args:
        value: A `datetime` (naive: local time), Unix seconds, or ISO 8601 text.

    Raises:
        InvalidMessage: If it is anything else, or no moment from 1970 to 9999.
    """
    try:
        milliseconds = _milliseconds(value)
    except Exception:  # noqa: BLE001 - a foreign number's or time zone's own code
        milliseconds = None
    if milliseconds is None or not 0 <= milliseconds <= _LAST_MILLISECOND:
        raise InvalidMessage(
            "timestamp must be a datetime, Unix seconds or ISO 8601 text, from 1970 to 9999, "
            f"not this {type(value).__name__}"
        )
    return iso_milliseconds(milliseconds)


def _milliseconds(value: Any) -> int | None:
    if isinstance(value, str):
        from dateutil.parser import isoparse  # noqa: PLC0415 - loaded by the first client in its caller's thread

        value = isoparse(value)
    if isinstance(value, datetime):
        return (_zoned(value) - _EPOCH) // _MILLISECOND
    if isinstance(value, (bool, date)) or not isinstance(value, (numbers.Real, Decimal)):
        return None
    seconds = float(value)
    # Milliseconds of this century, taken for seconds, would lie in the year 33658 and later.
    return round(seconds * 1000) if math.isfinite(seconds) else None


def _zoned(moment: datetime) -> datetime:
    if moment.tzinfo is not None and moment.utcoffset() is not None:
        return moment
    from dateutil.tz import tzlocal  # noqa: PLC0415 - as above

    return moment.replace(tzinfo=tzlocal())


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
        start = f'{{"messageId":"{uuid_text(record)}","timestamp":"{iso_text(record)}"'
    elif not flags & ID_GIVEN:
        start = f'{{"messageId":"{uuid_text(record)}"'
    elif not flags & TIME_GIVEN:
        start = f'{{"timestamp":"{iso_text(record)}"'
    else:
        return record[HEAD_BYTES:]
    rest = record[HEAD_BYTES + 1 :]
    return start.encode() + (rest if rest == b"}" else b"," + rest)


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
    content = {field: value for field, value in message.items() if field not in _RESERVED}
    return record[:HEAD_BYTES] + encode({**kept, **content}, default)
