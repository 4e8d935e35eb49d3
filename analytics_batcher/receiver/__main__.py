"""`python -m analytics_batcher.receiver`: serve until Ctrl-C, and tell of each request in a line."""

from __future__ import annotations

import argparse
from contextlib import suppress

from . import CustomerIOWire, Receiver, SegmentWire, VitallyWire


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m analytics_batcher.receiver",
        description="A stand-in for Vitally, Customer.io and Segment, each under its own path.",
    )
    parser.add_argument("--port", type=int, default=0, help="the port to listen on (default: a free one)")
    parser.add_argument("--token", default="test-token", help="Vitally's API token to ask for (default: %(default)s)")
    parser.add_argument("--site-id", default="site", help="Customer.io's site id (default: %(default)s)")
    parser.add_argument("--api-key", default="key", help="Customer.io's API key (default: %(default)s)")
    parser.add_argument("--write-key", default="write-key", help="Segment's write key (default: %(default)s)")
    options = parser.parse_args()
    wires = (
        VitallyWire(options.token),
        CustomerIOWire(options.site_id, options.api_key),
        SegmentWire(options.write_key),
    )
    with (
        Receiver(wires=wires, port=options.port, keep_bodies=False) as receiver,
        suppress(KeyboardInterrupt),
    ):
        _tell(f"listening on {receiver.url}")
        told = 0
        while True:
            told = _tell_requests(receiver, told)


def _tell_requests(receiver: Receiver, told: int) -> int:
    # On Windows Ctrl-C does not end a wait, and so each is short.
    receiver.wait_for(lambda r: len(r.requests) > told, timeout=1.0)
    new = receiver.requests[told:]
    for request in new:
        faults = "; ".join(request.faults) or "no faults"
        faults = "; but ".join([faults, *request.warnings])
        _tell(f"{request.number}: {len(request.messages)} messages, status {request.status}, {faults}")
    return told + len(new)


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - the lines are what the command is for


if __name__ == "__main__":
    main()
