"""Text from outside, made fit to be shown."""

from __future__ import annotations

from typing import Final

_CHARACTERS: Final = 200


def printable(text: str | bytes, limit: int = _CHARACTERS) -> str:
    """Escape and cut text from outside, so that it can neither forge a log line nor flood one.

    Args:
        text: What a server, an exception or a caller said.
        limit: The most characters to keep.
    """
    if isinstance(text, bytes):
        text = text[: 4 * limit].decode("utf-8", "replace")
    cut = text[:limit]
    escaped = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in cut)
    return escaped + ("..." if len(text) > limit else "")
