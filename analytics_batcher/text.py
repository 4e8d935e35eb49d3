"""Text from outside, made fit to be shown, and text that is not to be shown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_CHARACTERS: Final = 200
_HIDDEN: Final = "[secret]"


class Secret(str):
    """Text that is used as any other, but stands in no `repr` of whatever holds it, and in no pickle.

    Error trackers send the `repr` of each variable of each frame along, and pickles go through files and queues.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(_HIDDEN)

    def __reduce_ex__(self, protocol: Any, /) -> NoReturn:
        raise TypeError(
            "a secret is not pickled: make the destination, and the client, in the process that uses them, "
            "for example by Client.from_env()"
        )

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _: Mapping[int, Any]) -> Secret:
        return self


def seal(value: Any) -> Secret:
    """Seal what was given as a secret; what is no text becomes an empty one.

    It is done in the variable itself, and before anything can fail: an error is shown with its frames' variables.

    Args:
        value: The secret.
    """
    return Secret(value) if isinstance(value, str) else Secret()


def seal_url(value: Any) -> Any:
    """A URL as it is, or sealed if it may hold a password.

    Args:
        value: What was given; it may be anything.
    """
    return Secret(value) if isinstance(value, str) and "@" in value else value


def mask(text: str, secrets: Iterable[str]) -> str:
    """Hide secrets in a text, in any case of letters, also as JSON and URLs may spell them.

    Args:
        text: What a server said, which may repeat them.
        secrets: The secrets.
    """
    for secret in secrets:
        if not 0 < len(secret) <= len(text):
            continue
        spelt = "".join(rf"(?:{_escaped(c)}|\\u00{ord(c):02x}|%{ord(c):02x})" for c in secret)
        text = re.sub(spelt, _HIDDEN, text, flags=re.IGNORECASE)
    return text


def _escaped(character: str) -> str:
    return rf"\\?{re.escape(character)}" if character in '"\\/' else re.escape(character)


def printable(text: str | bytes, limit: int = _CHARACTERS, *, hide: Iterable[str] = ()) -> str:
    """Escape and cut text from outside, so that it can neither forge a log line nor flood one.

    Args:
        text: What a server, an exception or a caller said.
        limit: The most characters to keep.
        hide: Secrets that a server may repeat, in any case of letters.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = mask(text, hide)
    cut = text[:limit]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in cut)
    return cut + ("..." if len(text) > limit else "")
