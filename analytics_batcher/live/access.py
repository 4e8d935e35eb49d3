"""Who may see the page: known names only, against DNS rebinding; a token beyond this machine; no foreign clicks."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ..text import seal

if TYPE_CHECKING:
    from ..receiver import Request

HEADER: Final = "x-analytics-batcher"
"""What the page's own requests carry when they change something; a form of another site cannot."""
_LOCALHOST: Final = "localhost"


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's loopback interface, by name or address."""
    address = _address(host)
    return host == _LOCALHOST if address is None else address.is_loopback


class Access:
    """Judges requests for the page.

    Args:
        host: The address that the receiver listens on.
        token: What a browser must bring once; empty if none is needed.
    """

    def __init__(self, host: str, token: str = "") -> None:
        self._host = host.lower()
        self._token = token = seal(token)
        self._session = seal(secrets.token_urlsafe(24))

    def problem(self, request: Request) -> str:
        """Why a request is not answered; empty if it may be.

        Args:
            request: The request.
        """
        host = request.headers.get("host", "")
        if not self._knows(host):
            return "This name is not this machine's. Open the page by the address that inspect printed."
        # A link to the page may stand anywhere; what it asks for, only the page itself asks for.
        elsewhere = request.headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}
        if elsewhere and request.path.partition("?")[0] != "/":
            return "Another site asks for this."
        if request.method == "GET":
            return ""
        if request.headers.get(HEADER) is None or request.headers.get("origin") != f"http://{host}":
            return "Only the page itself can do that."
        return ""

    def _knows(self, given: str) -> bool:
        try:
            parts = urlsplit(f"//{given}")
            name = (parts.hostname or "").lower() if parts.port != 0 else ""  # the port is read, for it may be none
        except ValueError:
            return False
        if is_loopback(name) or name == self._host:
            return True
        # A name that is rebound is no address; and who listens everywhere does not know all of his.
        own = _address(self._host)
        return own is not None and own.is_unspecified and _address(name) is not None

    def admits(self, request: Request) -> bool:
        """Whether the request carries the session of somebody who has brought the token, or needs none."""
        if not self._token:
            return True
        cookies = (cookie.strip().partition("=") for cookie in request.headers.get("cookie", "").split(";"))
        return any(name == self._cookie(request) and _same(value, self._session) for name, _, value in cookies)

    def cookie_for(self, request: Request, token: str) -> str | None:
        """The cookie for who brings the token; None if it is not the right one.

        Args:
            request: The request.
            token: What it brings.
        """
        if not self._token or not _same(token, self._token):
            return None
        return f"{self._cookie(request)}={self._session}; Path=/; HttpOnly; SameSite=Strict"

    @staticmethod
    def _cookie(request: Request) -> str:
        # Cookies do not know ports: each receiver of a machine has its own name.
        port = urlsplit(f"//{request.headers.get('host', '')}").port or 80
        return f"analytics-batcher-{port}"


def _same(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(), secret.encode())


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
