"""What a message is given at the call besides its fields: its id, and the moment that it is about."""

from __future__ import annotations

import math
import numbers
import re
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone
from typing import Any, Final

from .errors import InvalidMessage
from .message import name_of, text_of
from .stamp import ID_GIVEN, TIME_GIVEN, iso_milliseconds

_LAST_MILLISECOND: Final = 253_402_300_799_999
_MILLISECOND: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MESSAGE_ID_CHARACTERS: Final = 99
_UTC: Final = re.compile(  # without the 29th of February, for which one has to reckon
    r"(?:19[7-9]|[2-9][0-9]{2})[0-9]-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])"
    r"|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
    r"T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{3})?Z"
)
_UTC_SECONDS: Final = len("2026-01-02T03:04:05Z")


def message_id(value: Any) -> str:
    """Check a given `message_id`.

    Raises:
        InvalidMessage: If it is not text of 1 to 99 characters.
    """
    text = text_of(value)
    if 1 <= len(text) <= _MESSAGE_ID_CHARACTERS:
        return text
    raise InvalidMessage(f"message_id must be text of 1 to {_MESSAGE_ID_CHARACTERS} characters")


def timestamp(value: Any) -> str:
    """Write a given `timestamp` in ISO 8601, in UTC with milliseconds.

    Args:
        value: A `datetime` (naive: local time), Unix seconds, or ISO 8601 text.

    Raises:
        InvalidMessage: If it is anything else, or no moment from 1970 to 9999.
    """
    if (text := _plain_moment(value)) is not None:
        return text
    try:
        milliseconds = _milliseconds(value)
    except Exception:  # noqa: BLE001 - a foreign number's or time zone's own code
        milliseconds = None
    if milliseconds is None or not 0 <= milliseconds <= _LAST_MILLISECOND:
        raise InvalidMessage(
            "timestamp must be a datetime, Unix seconds or ISO 8601 text, from 1970 to 9999, "
            f"not this {name_of(type(value))}"
        )
    return iso_milliseconds(milliseconds)


def plain_given(message: dict[str, Any], given_timestamp: Any, given_id: Any) -> int | None:
    """Add a given id and time to a message, where they are what most are: text, or a plain datetime, in UTC.

    Args:
        message: The message; what is not such is not added.
        given_timestamp: As `timestamp` takes it, or `None`.
        given_id: As `message_id` takes it, or `None`.

    Returns:
        The flags of the message's record; `None` where either is to be looked at by `timestamp` and `message_id`.
    """
    flags = 0
    if given_id is not None:
        if type(given_id) is not str or not 1 <= len(given_id) <= _MESSAGE_ID_CHARACTERS:
            return None
        message["messageId"] = given_id
        flags = ID_GIVEN
    if given_timestamp is not None:
        moment = _plain_moment(given_timestamp)
        if moment is None:
            return None
        message["timestamp"] = moment
        flags |= TIME_GIVEN
    return flags


def _plain_moment(value: Any) -> str | None:
    """A moment in ISO 8601 text or in a datetime, in UTC: what most are, and in a sixth of the time."""
    if type(value) is str:
        if _UTC.fullmatch(value):
            return value if len(value) > _UTC_SECONDS else f"{value[:-1]}.000Z"
    elif type(value) is datetime and value.tzinfo is timezone.utc and value >= _EPOCH:
        return iso_milliseconds((value - _EPOCH) // _MILLISECOND)
    return None


def add_given(message: dict[str, Any], given_timestamp: Any, given_id: Any) -> None:
    """Let a message that is refused keep the id and the time that it was given, as far as these are right."""
    for field, value, checked in (("timestamp", given_timestamp, timestamp), ("messageId", given_id, message_id)):
        if value is not None:
            with suppress(InvalidMessage):
                message[field] = checked(value)


def _milliseconds(value: Any) -> int | None:
    text = text_of(value)
    if text:
        from dateutil.parser import isoparse  # noqa: PLC0415 - loaded by the first client in its caller's thread

        value = isoparse(text)
    if isinstance(value, datetime):
        return int((_zoned(value) - _EPOCH) // _MILLISECOND)  # of the caller's own class it may be anything
    from decimal import Decimal  # noqa: PLC0415 - as above

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
