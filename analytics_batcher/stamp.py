"""The stamp: a message's id and moment, 128 bits taken at the call and written out by the consumer.

It lies in the layout of a UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, the version, 12 random bits, the variant,
62 random bits. While a record is stored, the four bits of the version hold its flags instead.
"""

from __future__ import annotations

import os
import time
from random import Random
from struct import Struct
from typing import Final

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

_VARIANT: Final = 0x8000_0000_0000_0000
_DRIFT: Final = 1.0

_pack = Struct(">QQd").pack
_unpack_accepted = Struct(">d").unpack_from
_wall = time.time
_monotonic = time.monotonic

# A private generator: `os.urandom` and `uuid4` release the GIL, and an application that seeds the shared generator
# must not make ids repeat. Each of its methods is one C call, so threads and signal handlers may share it.
_random = Random()  # noqa: S311 - an id must be unique, not secret
_bits = _random.getrandbits
_offset = _wall() - _monotonic()


def reseed() -> None:
    """Take fresh randomness, so that a forked or resumed copy of this process cannot repeat our ids."""
    global _offset  # noqa: PLW0603 - the process has two clocks, and one distance between them
    _random.seed()
    _offset = _wall() - _monotonic()


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
    if not -_DRIFT < wall - accepted - _offset < _DRIFT:
        reseed()
    return _pack(int(wall * 1000) << 16 | flags | _bits(12), _VARIANT | _bits(62), accepted)


def flags_of(record: bytes) -> int:
    """The flags in a record's head."""
    return (record[6] & 0xF0) << 8


def accepted_at(record: bytes) -> float:
    """When the record was accepted, in seconds of the monotonic clock."""
    accepted: float = _unpack_accepted(record, STAMP_BYTES)[0]
    return accepted


def uuid_text(record: bytes) -> str:
    """The stamp as the text of a UUIDv7."""
    text = record[:STAMP_BYTES].hex()
    return f"{text[:8]}-{text[8:12]}-7{text[13:16]}-{text[16:20]}-{text[20:]}"


_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID_CHARACTERS: Final = 26


def ulid_text(record: bytes) -> str:
    """The stamp as a ULID: the same 128 bits as the UUIDv7's, in Crockford's base 32."""
    return ulid_of(int.from_bytes(record[:STAMP_BYTES], "big") & ~(0xF << 76) | (7 << 76))


def ulid_of(bits: int) -> str:
    """128 bits as a ULID's text."""
    return "".join(_CROCKFORD[bits >> shift & 31] for shift in range(5 * (_ULID_CHARACTERS - 1), -1, -5))


def unix_seconds(record: bytes) -> int:
    """The stamp's moment in whole Unix seconds."""
    return int.from_bytes(record[:6], "big") // 1000


# Messages of one batch share few seconds, and a thousand milliseconds are all there are.
_second: dict[int, str] = {}
_MILLISECONDS: Final = tuple([f".{rest:03d}Z" for rest in range(1000)])


def iso_text(record: bytes) -> str:
    """The stamp's moment in ISO 8601, in UTC with milliseconds: `2026-01-02T03:04:05.678Z`."""
    return iso_milliseconds(int.from_bytes(record[:6], "big"))


def iso_milliseconds(milliseconds: int) -> str:
    """Unix milliseconds in ISO 8601, in UTC with milliseconds."""
    seconds, rest = divmod(milliseconds, 1000)
    return (_second.get(seconds) or _written(seconds)) + _MILLISECONDS[rest]


def _written(seconds: int) -> str:
    global _second  # noqa: PLW0603 - remember the last one written; replaced as a whole, so that threads may share it
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    _second = {seconds: text}
    return text


def json_fields(record: bytes) -> str:
    """The stamp as a JSON object's first two fields, its brace before them: what most messages need, in one go."""
    text = record[:STAMP_BYTES].hex()
    seconds, rest = divmod(int.from_bytes(record[:6], "big"), 1000)
    return (
        f'{{"messageId":"{text[:8]}-{text[8:12]}-7{text[13:16]}-{text[16:20]}-{text[20:]}",'
        f'"timestamp":"{_second.get(seconds) or _written(seconds)}{_MILLISECONDS[rest]}"'
    )
