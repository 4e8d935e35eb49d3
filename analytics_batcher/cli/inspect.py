"""`inspect`: the receiver, with what comes in as a person likes to read it."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from ..receiver import CustomerIOWire, Receiver, SegmentWire, VitallyWire
from .face import DONE, Face
from .parsing import parser_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..receiver import Request

_DESCRIPTION: Final = """\
A stand-in for Vitally, Customer.io and Segment on this machine, each under its own path. It tells of each request in a
line, and of what a strict vendor would object to, until Ctrl-C. Point a client at it by ANALYTICS_BATCHER_BASE_URL."""
_EXAMPLES: Final = (
    ("--port 8080", "on a port of your choice"),
    ("--json", "an object a request, for a script"),
)
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
    parser.add_argument("--token", default="test-token", help="the API token to ask for as Vitally (%(default)s)")
    parser.add_argument("--site-id", default="site", help="the site id to ask for as Customer.io (%(default)s)")
    parser.add_argument("--api-key", default="key", help="the API key to ask for as Customer.io (%(default)s)")
    parser.add_argument("--write-key", default="write-key", help="the write key to ask for as Segment (%(default)s)")
    given = parser.parse_args(arguments)
    face = Face(json=given.json, debug=given.debug)
    wires = (VitallyWire(given.token), CustomerIOWire(given.site_id, given.api_key), SegmentWire(given.write_key))
    return face.run(lambda: _serve(face, Receiver(wires=wires, port=given.port, keep_bodies=False)))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= _MOST_PORT):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: expected a number from 0 to {_MOST_PORT}")
    return int(text)


def _serve(face: Face, receiver: Receiver) -> int:
    with receiver, suppress(KeyboardInterrupt):  # which is how it ends
        face.say(f"listening on {receiver.url}")
        face.note(f"export ANALYTICS_BATCHER_BASE_URL={receiver.url}")
        told = 0
        while True:
            # On Windows Ctrl-C does not end a wait, and so each is short.
            receiver.wait_for(lambda r, told=told: len(r.requests) > told, timeout=1.0)  # type: ignore[misc]
            new = receiver.requests[told:]
            for request in new:
                _tell(face, request)
            told += len(new)
    return DONE


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
