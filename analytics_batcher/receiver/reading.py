"""What several wires read alike: the type of a body, its compression, its JSON and the batch in it."""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .rules import Rule

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_GZIP: Final = 16 + zlib.MAX_WBITS


class Envelope(NamedTuple):
    """An object with a batch in it.

    Attributes:
        fields: The object's fields.
        batch: The elements of its `batch`.
        faults: What is wrong with it.
    """

    fields: dict[str, Any]
    batch: list[Any]
    faults: list[str]


def content_type_faults(headers: Mapping[str, str]) -> list[str]:
    """The faults of a type that shall be JSON in UTF-8."""
    media, _, parameters = headers.get("content-type", "").partition(";")
    charset = parameters.replace(" ", "").lower()
    if media.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        return ["Content-Type is not application/json"]
    return []


def inflated(body: bytes, limit: int) -> bytes:
    """Inflate a gzip body.

    Args:
        body: The body.
        limit: Bytes to inflate it to at most.

    Returns:
        The inflated body, or `limit` + 1 bytes of a larger one.

    Raises:
        ValueError: It is not one whole gzip stream.
    """
    stream = zlib.decompressobj(_GZIP)
    try:
        plain = stream.decompress(body, limit + 1)
    except zlib.error:
        raise ValueError("the body is not gzip") from None
    if len(plain) <= limit and (not stream.eof or stream.unused_data):
        raise ValueError("the body is not one whole gzip stream")
    return plain


def strict_json(body: bytes) -> Any:
    """The JSON value of `body`; a `ValueError` also for what Python's parser lets pass."""

    def constant(_: str) -> None:
        raise ValueError("NaN and the infinities have no JSON form")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(fields := dict(pairs)) < len(pairs):
            raise ValueError("an object has the same key twice")
        return fields

    return json.loads(body.decode(), parse_constant=constant, object_pairs_hook=unique)


def element_sizes(body: bytes, field: str) -> list[int]:
    """Measure the elements of an array as they were written.

    Args:
        body: A JSON object that has a non-empty array as `field`.
        field: The array's name.

    Returns:
        The bytes that each element takes in `body`.
    """
    return [len(element.encode()) for element in elements(body, field)]


def elements(body: bytes, field: str | None) -> list[str]:
    """The elements of an array as they were written.

    Args:
        body: A JSON object that has an array as `field`, or the array itself.
        field: The array's name; None if `body` is the array.
    """
    text = body.decode()
    decode = json.JSONDecoder().raw_decode
    at = _after_space(text, 0) if field is None else _start_of(text, field)
    found = []
    while text[at] != "]":
        start = _after_space(text, at + len(","))
        if text[start] == "]":  # an array without elements
            break
        _, end = decode(text, start)
        found.append(text[start:end])
        at = _after_space(text, end)
    return found


def _start_of(text: str, field: str) -> int:
    """Where the value of an object's field begins."""
    decode = json.JSONDecoder().raw_decode
    at = text.index("{") + 1
    while True:
        name, at = decode(text, _after_space(text, at))
        at = _after_space(text, _after_space(text, at) + len(":"))
        if name == field:
            return at
        _, at = decode(text, at)
        at = _after_space(text, at) + len(",")


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return at if space is None else space.end()


def read_envelope(body: bytes, envelope: Rule, message: Rule, limit: int) -> Envelope:
    """Read a body that is an object with a batch.

    Args:
        body: The body.
        envelope: The rule of the object.
        message: The rule of each element of the batch.
        limit: Bytes that an element may take.
    """
    try:
        read = strict_json(body)
    except (ValueError, RecursionError) as error:
        return Envelope({}, [], [f"the body is not strict JSON in UTF-8: {error}"])
    faults = [f"the body{fault}" for fault in envelope(read)]
    batch = read.get("batch") if isinstance(read, dict) else None
    if not isinstance(batch, list):
        return Envelope(read if isinstance(read, dict) else {}, [], faults)
    # Only a body of more bytes can hold an element of more.
    sizes = element_sizes(body, "batch") if batch and len(body) > limit else []
    faults += [
        f"batch[{index}] has {size} bytes, more than {limit}" for index, size in enumerate(sizes) if size > limit
    ]
    faults += [f"batch[{index}]{fault}" for index, item in enumerate(batch) for fault in message(item)]
    return Envelope(read, batch, faults)
