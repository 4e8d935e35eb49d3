"""The stamp: a message's id and moment, 128 bits taken at the call and written out by the consumer.

It is stored as it is cheapest to take: Unix seconds as a double, four bits of flags, 60 random bits. It is written as a
UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, the version, the double's last twelve bits (what is left of the moment
below a millisecond, in steps of 0.24 microseconds), the variant, and the 60 random bits after two zeros.
"""

from __future__ import annotations

import os
import time
from random import Random
from struct import Struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

STAMP_BYTES: Final = 16
HEAD_BYTES: Final = 24
"""A record's head: the stamp, then the moment of acceptance on the monotonic clock, in seconds."""

NATIVE: Final = 0x1000
"""The message is in the destination's own form."""
ID_GIVEN: Final = 0x2000
"""The JSON has an id of its own: none is written."""
TIME_GIVEN: Final = 0x4000
"""The JSON has a time of its own: none is written."""
SEGMENT_FIELDS: Final = 0x8000
"""The message has fields that are for Segment-shaped destinations only."""

FLAGS_PLACE: Final = 8
"""Where in a record the byte stands whose upper half are the flags."""
LEAST_FLAG: Final = 0x10
"""Of that byte, what any flag comes to at the least."""

_FLAGS_SHIFT: Final = 48  # in the second half of the stamp, which they begin
_DRIFT: Final = 1.0
_FIXED: Final = 7 << 76 | 8 << 60  # version and variant
_KEPT: Final = 0xFFF << 64 | (1 << 60) - 1  # what is written of the 128 bits as they are stored

_UNSET: Final = 1_600_000_000.0
"""A wall clock below this (in 2020) had not been set."""

_pack = Struct(">dQd").pack
_pack_double = Struct(">d").pack
_unpack_double = Struct(">d").unpack_from
_wall = time.time
_monotonic = time.monotonic

# A private generator: `os.urandom` and `uuid4` release the GIL, and an application that seeds the shared generator
# must not make ids repeat. Each of its methods is one C call, so threads and signal handlers may share it.
_random = Random()  # noqa: S311 - an id must be unique, not secret
_bits = _random.getrandbits
_least_offset = _most_offset = 0.0


def reseed() -> None:
    """Take fresh randomness, so that a forked or resumed copy of this process cannot repeat our ids."""
    global _least_offset, _most_offset
    _random.seed()
    offset = _wall() - _monotonic()
    _least_offset, _most_offset = offset - _DRIFT, offset + _DRIFT


reseed()

if hasattr(os, "register_at_fork"):
    # Here and not with the first client: a fork may come between this import and that.
    os.register_at_fork(after_in_child=reseed)


def new_head(flags: int = 0) -> bytes:
    """Take a stamp and the moment of acceptance, now.

    Args:
        flags: Any of `NATIVE`, `ID_GIVEN`, `TIME_GIVEN`, combined with `|`.

    Returns:
        The head of a record, `HEAD_BYTES` long.
    """
    wall = _wall()
    accepted = _monotonic()
    # The clocks move apart when a machine is suspended, or when a snapshot of it is resumed, perhaps more than once.
    if not _least_offset < wall - accepted < _most_offset:
        reseed()
    return _pack(wall, _bits(60) | flags << _FLAGS_SHIFT if flags else _bits(60), accepted)


def head_of(milliseconds: int, bits: int, accepted: float, flags: int = 0) -> bytes:
    """A head of a given moment and given randomness: what `new_head` returns, for a clock that stands still.

    Args:
        milliseconds: The moment, in Unix milliseconds.
        bits: The randomness, 60 bits.
        accepted: The moment of acceptance, in seconds of the monotonic clock.
        flags: As for `new_head`.
    """
    # Within the millisecond: at its beginning, the double nearest to it may lie before it.
    return _pack((milliseconds + 0.5) / 1000, bits | flags << _FLAGS_SHIFT, accepted)


def flags_of(record: bytes) -> int:
    """The flags in a record's head."""
    return (record[FLAGS_PLACE] & 0xF0) << 8


def accepted_at(record: bytes) -> float:
    """When the record was accepted, in seconds of the monotonic clock."""
    accepted: float = _unpack_double(record, STAMP_BYTES)[0]
    return accepted


def rebased(record: bytes, now: float, moment: float) -> bytes:
    """A record of another clock, with its moment of acceptance by this one; not in the future, whatever clocks say.

    Args:
        record: The record.
        now: The monotonic clock of now.
        moment: The wall clock of now.
    """
    wall = _unpack_double(record)[0]
    age = moment - wall if _UNSET < wall < moment else 0.0
    return b"".join((record[:STAMP_BYTES], _pack_double(now - age), record[HEAD_BYTES:]))


def uuid_text(record: bytes) -> str:
    """The stamp as the text of a UUIDv7."""
    return json_fields((record,))[0][_ID_TEXT]


_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_CHARACTERS: Final = 26


def ulid_text(record: bytes) -> str:
    """The stamp as a ULID: the same 128 bits as the UUIDv7's, in Crockford's base 32."""
    bits = int.from_bytes(record[:STAMP_BYTES], "big") & _KEPT | _FIXED
    return ulid_of(int(_unpack_double(record)[0] * 1000) << 80 | bits)


def ulid_of(bits: int) -> str:
    """128 bits as a ULID's text."""
    return "".join(_CROCKFORD[bits >> shift & 31] for shift in range(5 * (_ULID_CHARACTERS - 1), -1, -5))


def unix_seconds(record: bytes) -> int:
    """The stamp's moment in whole Unix seconds."""
    return int(_unpack_double(record)[0] * 1000) // 1000


def iso_text(record: bytes) -> str:
    """The stamp's moment in ISO 8601, in UTC with milliseconds: `2026-01-02T03:04:05.678Z`."""
    return json_fields((record,))[0][_TIME_TEXT]


def json_fields(records: Iterable[bytes]) -> list[str]:
    """Each stamp as a JSON object's first two fields, its brace before them, a comma after: what most messages need."""
    fields = []
    last = -1
    for record in records:
        milliseconds = int(_unpack_double(record)[0] * 1000)
        if milliseconds != last:
            last = milliseconds
            start, end = _millisecond.get(milliseconds) or _moment(milliseconds)
        text = record[:STAMP_BYTES].hex()
        fields.append(f"{start}{text[13:16]}-8{text[17:20]}-{text[20:]}{end}")
    return fields


_ID_TEXT: Final = slice(len('{"messageId":"'), len('{"messageId":"') + 36)
_TIME_TEXT: Final = slice(-len('2026-01-02T03:04:05.678Z",'), -len('",'))

# Messages that come in bursts share few milliseconds, and others few seconds; of these, what was written last is kept,
# and replaced as a whole, so that threads may share it.
_millisecond: dict[int, tuple[str, str]] = {}
_second: dict[int, str] = {}


def _moment(milliseconds: int) -> tuple[str, str]:
    """What stands before and after the stamp's own bits in the fields of all messages of one millisecond."""
    global _millisecond  # noqa: PLW0603 - see there
    digits = f"{milliseconds:012x}"
    start = f'{{"messageId":"{digits[:8]}-{digits[8:]}-7'
    texts = start, f'","timestamp":"{iso_milliseconds(milliseconds)}",'
    _millisecond = {milliseconds: texts}
    return texts


def iso_milliseconds(milliseconds: int) -> str:
    """Unix milliseconds in ISO 8601, in UTC with milliseconds."""
    global _second  # noqa: PLW0603 - see there
    seconds, rest = divmod(milliseconds, 1000)
    text = _second.get(seconds)
    if text is None:
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        _second = {seconds: text}
    return f"{text}.{rest:03d}Z"
