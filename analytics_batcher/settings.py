"""Checks of settings. Each error names the setting, the value and what is allowed."""

from __future__ import annotations

import math
import os
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_PROXY_SCHEMES: Final = ("http", "https", "socks5")


def number(name: str, value: Any, *, above: float | None = None, at_least: float | None = None) -> float:
    """Check a finite number.

    Args:
        name: The setting.
        value: What was given.
        above: The bound that it must exceed, or `None`.
        at_least: The least value, or `None`.

    Raises:
        ValueError: If it is anything else.
    """
    wanted = f"a number above {above:g}" if above is not None else f"a number of at least {at_least or 0:g}"
    try:
        given = math.nan if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
    except OverflowError:
        given = math.inf
    least, beyond = at_least if at_least is not None else -math.inf, above if above is not None else -math.inf
    if not math.isfinite(given) or given < least or given <= beyond:
        raise ValueError(f"{name}={shown(value)}: allowed is {wanted}")
    return given


def whole(name: str, value: Any, *, at_least: int, at_most: int | None = None, why: str = "") -> int:
    """Check a whole number.

    Args:
        name: The setting.
        value: What was given.
        at_least: The least value.
        at_most: The greatest value, or `None`.
        why: Where the bound comes from.

    Raises:
        ValueError: If it is anything else.
    """
    bound = f"of at least {at_least}" if at_most is None else f"from {at_least} to {at_most}"
    most = value if at_most is None else at_most
    if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= most:
        raise ValueError(f"{name}={shown(value)}: allowed is a whole number {bound}{why and f' ({why})'}")
    return value


def allowed(name: str, value: Any, choices: Sequence[str]) -> str:
    """Check that a text is one of `choices`.

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={shown(value)}: allowed is {' or '.join(repr(choice) for choice in choices)}")
    return value


def hook(name: str, value: Any) -> None:
    """Check that a callback can be called, or is `None`.

    Raises:
        ValueError: If it is anything else.
    """
    if value is not None and not callable(value):
        raise ValueError(f"{name}={shown(value)}: allowed is a function or None")


def file_path(name: str, value: Any) -> str:
    """Check the path of a file; whether there can be one is seen when it is opened.

    Returns:
        The path as text.

    Raises:
        ValueError: If it is anything else.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(text, str) or not text or "\0" in text or text.endswith(os.sep):
        raise ValueError(f"{name}={shown(value)}: allowed is the path of a file")
    return text


def flag(name: str, value: Any) -> bool:
    """Check a bool.

    Raises:
        ValueError: If it is anything else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}={shown(value)}: allowed is True or False")  # noqa: TRY004 - as all settings
    return value


def shown(value: Any) -> str:
    """A setting's value for an error, short; text is never a secret where this is used."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a broken repr must not hide which setting is wrong
        text = f"<{type(value).__name__}>"
    text = text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - about a terminal's line
    return text if text.isprintable() else repr(text)[1:-1]  # a foreign `repr` may have several lines


def timeout_pair(timeout: float | tuple[float, float]) -> tuple[float, float]:
    """Check a timeout: seconds for all of a request, or for connecting and for the rest.

    Returns:
        The seconds for connecting, and for all of it.

    Raises:
        ValueError: If it is anything else.
    """
    parts = timeout if isinstance(timeout, tuple) and len(timeout) == 2 else (timeout,)  # noqa: PLR2004 - a pair
    if not all(isinstance(part, (int, float)) and part is not True and 0 < part < math.inf for part in parts):
        wanted = "a positive number of seconds, or a pair (connect, read)"
        raise ValueError(f"timeout must be {wanted}, not {shown(timeout)}")
    return float(parts[0]), float(sum(parts))


def proxy_url(proxy: str | None) -> str | None:
    """Check a proxy: a URL, `"environment"` or `None`. Its password stands in no error.

    Raises:
        ValueError: If it is anything else.
    """
    if proxy is None or proxy == "environment" or _is_proxy(proxy):
        return proxy
    schemes = ", ".join(_PROXY_SCHEMES)
    given = shown(proxy if not isinstance(proxy, str) else _without_password(proxy))
    raise ValueError(f"proxy must be None, 'environment' or a URL of scheme {schemes} with a host, not {given}")


def _is_proxy(proxy: Any) -> bool:
    if not isinstance(proxy, str) or not proxy.isascii() or not proxy.isprintable() or " " in proxy:
        return False
    from urllib.parse import urlsplit  # noqa: PLC0415 - not for importing this package

    try:
        parts = urlsplit(proxy)
        return parts.scheme in _PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _without_password(proxy: str) -> str:
    _, credentials, host = proxy.rpartition("@")
    # Without a host, what looks like a bad port is the password.
    return f"***@{host}" if credentials else re.sub(r":(?!//|\d*/?$).*", ":***", host)
