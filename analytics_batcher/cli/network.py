"""How a vendor is reached from here: its name, its certificate, its clock, and what it says to our key."""

from __future__ import annotations

import http.client
import json
import math
import socket
import ssl
import threading
import time
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit

import certifi

from ..destinations.customerio import CustomerIO
from ..text import printable
from ..version import __version__
from .findings import Finding, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..destinations import Destination

_Result = TypeVar("_Result")
_REGION_PATH: Final = "/api/v1/accounts/region"
_MOST_BYTES: Final = 64 * 1024
_SOON_DAYS: Final = 14
_SKEW_SECONDS: Final = 60.0
"""A difference that matters: vendors sort by our times. A Date says whole seconds, and the answer takes its while."""
_DAY: Final = 86_400
_SUCCESS: Final = 2
_REDIRECT: Final = 3
_UNTRUSTED: Final = frozenset({18, 19, 20, 21})  # X509_V_ERR_*: self-signed, and of unknown authorities
_EXPIRED: Final = 10
_NOT_YET: Final = 9
_OTHER_HOST: Final = frozenset({62, 64})


class _Answer(NamedTuple):
    """What a server said to a request that changes nothing."""

    status: int
    date: str | None
    body: bytes
    at: float
    seconds: float


class _Late(Exception):  # noqa: N818 - a finding, and nobody's error
    """It took longer than it may."""


class Network:
    """The way to one destination.

    Args:
        destination: Where to.
        verify: Whether certificates are checked, or by what.
        timeout: Seconds for each look.
        region: Where Customer.io's workspace should be; `None` if nobody said.
    """

    def __init__(
        self, destination: Destination, *, verify: bool | str, timeout: float, region: str | None = None
    ) -> None:
        parts = urlsplit(destination.url)
        self._destination = destination
        self._host = parts.hostname or ""
        self._tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._verify = verify
        self._timeout = timeout
        self._wanted_region = region

    def findings(self) -> Iterator[Finding]:
        """Look from the name up, as far as it goes."""
        name = self._destination.name
        resolved = self._resolve()
        yield Finding(resolved.state, f"{name}: name", resolved.found, resolved.remedy)
        if resolved.state is State.FAULT:
            return
        reached = self._reach()
        yield Finding(reached.state, f"{name}: {'TLS' if self._tls else 'connection'}", reached.found, reached.remedy)
        if reached.state is State.FAULT:
            return
        yield from self._ask()

    def _resolve(self) -> Finding:
        try:
            found = _within(self._timeout, lambda: socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError, _Late) as error:
            remedy = "check the name (subdomain, region or base URL), and this machine's DNS"
            return Finding(State.FAULT, "", f"{self._host}: {_words(error)}", remedy)
        addresses = sorted({str(one[4][0]) for one in found})
        return Finding(State.FINE, "", f"{self._host}: {', '.join(addresses[:3])}{' ...' if addresses[3:] else ''}")

    def _reach(self) -> Finding:
        try:
            return _within(self._timeout, self._handshake)
        except ssl.SSLCertVerificationError as error:
            return Finding(State.FAULT, "", f"the certificate: {error.verify_message}", _certificate_remedy(error))
        except ssl.SSLError as error:
            remedy = "is it an HTTPS address, and nothing between that breaks TLS open?"
            return Finding(State.FAULT, "", f"TLS failed: {error.reason or type(error).__name__}", remedy)
        except (OSError, _Late) as error:
            remedy = "check the firewall; if there is a proxy, set ANALYTICS_BATCHER_PROXY"
            return Finding(State.FAULT, "", f"{self._host}:{self._port}: {_words(error)}", remedy)

    def _handshake(self) -> Finding:
        plain = socket.create_connection((self._host, self._port), self._timeout)
        if not self._tls:
            plain.close()
            return Finding(State.FINE, "", f"{self._host}:{self._port} answers, without TLS")
        with closing(self._context().wrap_socket(plain, server_hostname=self._host)) as connection:
            certificate, version = connection.getpeercert(), connection.version()
        if self._verify is False:
            remedy = "unset ANALYTICS_BATCHER_VERIFY, unless this is a test"
            return Finding(State.WARNING, "", f"{version}, but the certificate is not checked", remedy)
        return _end_of(dict(certificate or {}), str(version))

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
        if self._verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        own = Path(certifi.where() if self._verify is True else self._verify)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # the authorities of a delivery, and not the system's
        context.load_verify_locations(**{"capath" if own.is_dir() else "cafile": str(own)})
        return context

    def _ask(self) -> Iterator[Finding]:
        name, destination = self._destination.name, self._destination
        knows_us = isinstance(destination, CustomerIO)
        headers = {"User-Agent": f"analytics-batcher/{__version__}"}
        if knows_us:
            headers["Authorization"] = destination.headers()["Authorization"]
        try:
            answer = _within(self._timeout, lambda: self._get(_REGION_PATH if knows_us else "/", headers))
        except (OSError, http.client.HTTPException, _Late) as error:
            remedy = "is it the vendor's server, and not another?"
            yield Finding(State.FAULT, f"{name}: HTTP", f"no answer that can be read: {_words(error)}", remedy)
            return
        yield _skew(f"{name}: clock", answer)
        if knows_us:
            yield _region(f"{name}: key and region", answer, self._wanted_region)
        else:
            found = "the vendor documents no request that would show whether they are good and changes nothing"
            yield Finding(State.UNKNOWN, f"{name}: credentials", found, "the command send shows it")

    def _get(self, path: str, headers: Mapping[str, str]) -> _Answer:
        connection: http.client.HTTPConnection
        if self._tls:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout, context=self._context()
            )
        else:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        with closing(connection):
            started = time.monotonic()
            connection.request("GET", path, headers=dict(headers))
            answer = connection.getresponse()
            at, seconds = time.time(), time.monotonic() - started
            return _Answer(answer.status, answer.getheader("Date"), answer.read(_MOST_BYTES), at, seconds)


def _within(seconds: float, work: Callable[[], _Result]) -> _Result:
    """What a work returns; a look-up, and a server that sends a byte now and then, can be left in no other way."""
    results: list[_Result] = []
    errors: list[Exception] = []

    def do() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - it is raised by who waits
            errors.append(error)

    thread = threading.Thread(target=do, daemon=True, name="analytics-batcher-doctor")
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise _Late(f"no answer within {seconds:g} s")
    return results[0]


def _words(error: Exception) -> str:
    return printable(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def _certificate_remedy(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _UNTRUSTED:
        return "if a proxy of yours breaks TLS open, set ANALYTICS_BATCHER_VERIFY to the path of its CA certificate"
    if error.verify_code in {_EXPIRED, _NOT_YET}:
        return "check this machine's clock; else tell whoever runs the server"
    if error.verify_code in _OTHER_HOST:
        return "check the name: the server has a certificate for another one"
    return "check what answers there, and ANALYTICS_BATCHER_VERIFY"


def _end_of(certificate: Mapping[str, Any], version: str) -> Finding:
    end = ssl.cert_time_to_seconds(str(certificate["notAfter"]))
    days = math.floor((end - time.time()) / _DAY)
    found = f"{version}, the certificate is good for {days} days more, until {certificate['notAfter']}"
    if days < _SOON_DAYS:
        return Finding(State.WARNING, "", found, "it should be renewed by whoever runs the server")
    return Finding(State.FINE, "", found)


def _skew(what: str, answer: _Answer) -> Finding:
    try:
        said = parsedate_to_datetime(answer.date or "").timestamp()
    except (TypeError, ValueError):
        return Finding(State.UNKNOWN, what, "the server says no date")
    # It was true at some moment of the exchange, and cuts the second off.
    ahead = answer.at - answer.seconds / 2 - (said + 0.5)
    if abs(ahead) <= _SKEW_SECONDS:
        return Finding(State.FINE, what, f"within {max(abs(ahead), 1.0):.0f} s of the server's")
    found = f"{abs(ahead):,.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
    return Finding(State.FAULT, what, found, "set this machine's clock (NTP): messages carry its time")


def _region(what: str, answer: _Answer, wanted: str | None) -> Finding:
    """What Customer.io says of the key: https://docs.customer.io/integrations/api/track, "Find your account region"."""
    if answer.status in {401, 403}:
        remedy = "take site id and API key from the workspace's settings, Tracking API, and check the region"
        return Finding(State.FAULT, what, f"the vendor does not know the key: HTTP {answer.status}", remedy)
    if answer.status // 100 == _REDIRECT:
        remedy = "the workspace may be of the other region: set ANALYTICS_BATCHER_CUSTOMERIO_REGION"
        return Finding(State.FAULT, what, f"the vendor answers from elsewhere: HTTP {answer.status}", remedy)
    try:
        said = json.loads(answer.body) if answer.status // 100 == _SUCCESS else None
    except ValueError:
        said = None
    region = said.get("region") if isinstance(said, dict) else None
    if region not in {"us", "eu"}:
        return Finding(State.UNKNOWN, what, f"the vendor did not say: HTTP {answer.status}")
    if wanted is not None and wanted != region:
        found = f"the key is good, but the workspace is in {region}, and not in {wanted}"
        return Finding(State.FAULT, what, found, f"set ANALYTICS_BATCHER_CUSTOMERIO_REGION={region}")
    return Finding(State.FINE, what, f"the key is good, the workspace is in {region}")
