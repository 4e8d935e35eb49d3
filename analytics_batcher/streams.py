"""Where the fleet's streams are: a Redis server's URL and a stream's name, checked."""

from __future__ import annotations

import re
from typing import Any, Final

from .settings import shown
from .text import Secret, printable, seal

_SCHEMES: Final = ("redis", "rediss", "unix")
_OPTIONS: Final = re.compile(r"db|username|password|client_name|ssl_\w+")
_DATABASE: Final = re.compile(r"/?\d*")
_STREAM: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")


def checked_url(url: Any) -> Secret:
    """Check a server's URL.

    Returns:
        The URL, sealed.

    Raises:
        ValueError: If it is none. What it says of the URL has no password in it.
    """
    url = seal(url)
    if not _fits(url):
        raise ValueError(
            "url (not shown, as it may have a password in it): allowed is redis://, rediss:// or unix:// and a server, "
            "such as redis://localhost:6379/0, and as options of it db, username, password, client_name and ssl_..."
        )
    return seal(url)


def _fits(url: str) -> bool:
    """Whether a URL is one of a server. Apart, since an error is shown with its frames' variables."""
    from urllib.parse import parse_qsl, urlsplit  # noqa: PLC0415 - not for importing this package

    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in _SCHEMES or port == 0 or parts.fragment or not url.isprintable():
        return False
    if not all(_OPTIONS.fullmatch(name) and value for name, value in options.items()):
        return False
    if not options.get("db", "0").isdecimal():
        return False
    return bool(parts.path) if parts.scheme == "unix" else bool(parts.hostname and _DATABASE.fullmatch(parts.path))


def address_of(url: str) -> str:
    """A URL without its credentials and options, to be shown."""
    from urllib.parse import urlsplit  # noqa: PLC0415 - as above

    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return printable(f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}")


def secrets_of(url: str) -> tuple[str, ...]:
    """What of a URL nobody is to see, as it is spelt there and as it is meant."""
    from urllib.parse import parse_qsl, unquote, urlsplit  # noqa: PLC0415 - as above

    parts = urlsplit(url)
    given = [parts.password, *(value for name, value in parse_qsl(parts.query) if name.endswith("password"))]
    return tuple({Secret(spelt) for one in given if one for spelt in (one, unquote(one))})


def checked_stream(stream: Any) -> str:
    """Check a stream's name.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(stream, str) or not _STREAM.fullmatch(stream):
        raise ValueError(f"stream={shown(stream)}: allowed are 1 to 100 letters, digits and any of _ . : -")
    return stream
