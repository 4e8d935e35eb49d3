"""A message as a `curl` that sends it again, the secret left out of it."""

from __future__ import annotations

from shlex import quote
from typing import Final

_BASIC: Final = '-u "${SITE_ID:-site}:$TOKEN"'
_RAW: Final = '-H "Authorization: Basic $TOKEN"'
_WRITE_KEY: Final = '-u "$TOKEN:"'


def curl_of(vendor: str, url: str, text: str) -> str:
    """Write the command.

    Args:
        vendor: The name of the wire.
        url: Where to.
        text: The message as it was sent.

    Returns:
        A command for a POSIX shell, which finds the secret in `$TOKEN`; empty for an unknown vendor.
    """
    if vendor == "vitally":
        auth, data = _RAW, quote(f"[{text}]")
    elif vendor == "customerio":
        auth, data = _BASIC, quote(f'{{"batch":[{text}]}}')
    elif vendor == "segment":
        # The quoting is left for the shell to put the key in.
        auth, data = _WRITE_KEY, quote(f'{{"batch":[{text}],"writeKey":"') + '"$TOKEN"' + quote('"}')
    else:
        return ""
    return f"curl {auth} -H 'Content-Type: application/json' --data-binary {data} {quote(url)}"
