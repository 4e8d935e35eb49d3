"""`inspect`: the receiver, with what comes in as a person likes to read it: in lines, and on a live page."""

from __future__ import annotations

import argparse
import os
import secrets
import threading
from collections import deque
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from ..environment import PREFIX
from ..live.access import is_loopback
from ..live.serving import Live
from ..receiver import CustomerIOWire, Receiver, SegmentWire, VitallyWire
from .face import DONE, Face
from .parsing import parser_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..receiver import Request
    from ..receiver.wire import Wire

_DESCRIPTION: Final = """\
A stand-in for Vitally, Customer.io and Segment on this machine, each under its own path. It tells of each request in a
line, and of what a strict vendor would object to, until Ctrl-C. Point a client at it by ANALYTICS_BATCHER_BASE_URL, and
open its address in a browser: a page there shows each message as it arrives, and makes bad weather at a click.

It listens on this machine's loopback interface. With --host others can reach it: the page then asks for a token, which
is made up and printed in the page's address, unless ANALYTICS_BATCHER_INSPECT_TOKEN has one."""
_EXAMPLES: Final = (
    ("--port 8080", "on a port of your choice"),
    ("--json", "an object a request, for a script"),
    ("--host 0.0.0.0", "for other machines too; the page then needs its token"),
)
_TOKEN: Final = f"{PREFIX}INSPECT_TOKEN"
_LEAST_TOKEN: Final = 16
_MOST_UNTOLD: Final = 10_000
_MOST_PORT: Final = 65_535


def main(arguments: Sequence[str]) -> int:
    """Serve until interrupted.

    Args:
        arguments: What follows the command's name.

    Returns:
        The exit status.
    """
    parser = parser_of("inspect", _DESCRIPTION, _EXAMPLES)
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="the port to listen on (a free one)")
    parser.add_argument(
        "--host", type=_host, default="127.0.0.1", metavar="ADDRESS", help="the address to listen on (%(default)s)"
    )
    parser.add_argument("--token", default="test-token", help="the API token to ask for as Vitally (%(default)s)")
    parser.add_argument("--site-id", default="site", help="the site id to ask for as Customer.io (%(default)s)")
    parser.add_argument("--api-key", default="key", help="the API key to ask for as Customer.io (%(default)s)")
    parser.add_argument("--write-key", default="write-key", help="the write key to ask for as Segment (%(default)s)")
    given = parser.parse_args(arguments)
    face = Face(json=given.json, debug=given.debug)
    wires = (VitallyWire(given.token), CustomerIOWire(given.site_id, given.api_key), SegmentWire(given.write_key))
    return face.run(lambda: _serve(face, wires, given.host, given.port))


def _host(text: str) -> str:
    if not text:  # which would listen everywhere
        raise argparse.ArgumentTypeError("expected an address, such as 0.0.0.0")
    return text


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _MOST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: expected a number from 0 to {_MOST_PORT}")
    return int(text)


def _serve(face: Face, wires: Sequence[Wire], host: str, port: int) -> int:
    token = _token_for(host)
    lines = _Lines()
    live = Live(host, token, told=lines.add)
    receiver = Receiver(wires=wires, host=host, port=port, keep=False, pages=live)
    with receiver, suppress(KeyboardInterrupt):  # which is how it ends
        here = receiver.url if is_loopback(host) else _openable(receiver.url)
        face.say(f"listening on {receiver.url}")
        face.note(f"export ANALYTICS_BATCHER_BASE_URL={here}")
        if token and not os.environ.get(_TOKEN):
            face.note(f"open {here}/?token={token}")
        else:
            face.note(f"open {here}/" + f"?token=, and then what {_TOKEN} has" * bool(token))
        while True:
            requests, missed = lines.take()
            for request in requests:
                _tell(face, request)
            if missed:
                face.note(f"{missed} requests came too fast to be told here")
    return DONE


def _token_for(host: str) -> str:
    given = os.environ.get(_TOKEN, "")
    if given and (len(given) < _LEAST_TOKEN or not given.isascii() or not given.isprintable()):
        raise ValueError(f"{_TOKEN}: allowed are {_LEAST_TOKEN} ASCII characters or more (it is not shown)")
    return given or ("" if is_loopback(host) else secrets.token_urlsafe(24))


def _openable(url: str) -> str:
    """An address by which this machine reaches itself, where it listens on all of them."""
    return url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


class _Lines:
    """Requests that are still to be told; the oldest are passed over if the output does not keep up."""

    def __init__(self) -> None:
        # Guards the two, and tells of what is new.
        self._change = threading.Condition()
        self._requests: deque[Request] = deque(maxlen=_MOST_UNTOLD)
        self._missed = 0

    def add(self, request: Request) -> None:
        # Not the bodies: a line does not show them, and an output that stands still would keep them all.
        slim = replace(request, body=b"", messages=[{}] * len(request.messages))
        with self._change:
            self._missed += len(self._requests) == _MOST_UNTOLD
            self._requests.append(slim)
            self._change.notify()

    def take(self) -> tuple[list[Request], int]:
        """Wait for requests; take them, and the number of those that were passed over."""
        with self._change:
            # On Windows Ctrl-C does not end a wait, and so each is short.
            self._change.wait_for(lambda: self._requests, 1.0)
            taken, missed = list(self._requests), self._missed
            self._requests.clear()
            self._missed = 0
            return taken, missed


def _tell(face: Face, request: Request) -> None:
    objections = [*request.faults, *request.warnings]
    if face.json:
        face.result(
            {
                "number": request.number,
                "vendor": request.wire,
                "messages": len(request.messages),
                "bytes": request.size,
                "status": request.status,
                "faults": list(request.faults),
                "warnings": list(request.warnings),
            }
        )
        return
    status = "no answer" if request.status is None else f"status {request.status}"
    first = (
        f"{request.number}: {request.wire or request.path}: {len(request.messages)} messages, {request.size:,} bytes"
    )
    face.say(f"{first}, {status}, {'; '.join(objections) or 'no faults'}")
