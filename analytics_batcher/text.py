"""Text from outside, made fit to be shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_CHARACTERS: Final = 200


def printable(text: str | bytes, limit: int = _CHARACTERS, *, hide: Iterable[str] = ()) -> str:
    """Escape and cut text from outside, so that it can neither forge a log line nor flood one.

    Args:
        text: What a server, an exception or a caller said.
        limit: The most characters to keep.
        hide: Secrets that a server may repeat, in any case of letters.
    """
    if isinstance(text, bytes):
        text = text[: 4 * limit + 4].decode("utf-8", "replace")
    for secret in hide:
        text = re.sub(re.escape(secret), "[secret]", text, flags=re.IGNORECASE)
    cut = text[:limit]
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in cut)
    return escaped + ("..." if len(text) > limit else "")
