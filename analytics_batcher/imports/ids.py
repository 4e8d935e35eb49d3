"""Ids of messages that a second import of the same row makes again: UUIDs of version 5."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

if TYPE_CHECKING:
    from collections.abc import Callable

_IMPORTS: Final = UUID("6f1e5a0e-8d1c-5b52-9d3e-2f4f0c9a7b11")
_VARIANT: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))


def ids_for(mapping_digest: str) -> Callable[[int, bytes], str]:
    """What makes the id of a row, of the line at which it begins and its bytes; the end of its last line is none of it.

    Args:
        mapping_digest: That of the mapping: by another one the same row is another message.
    """
    start = hashlib.sha1(uuid5(_IMPORTS, mapping_digest).bytes, usedforsecurity=False)

    def id_of(line: int, raw: bytes) -> str:
        digest = start.copy()
        digest.update(b"%d:%s" % (line, raw.rstrip(b"\r\n")))
        text = digest.hexdigest()
        return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"

    return id_of
