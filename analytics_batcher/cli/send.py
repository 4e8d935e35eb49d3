"""`send`: one message by options, or JSON Lines from standard input, flushed, with a receipt."""

from __future__ import annotations

import json
import math
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

import click

from .. import Client
from ..errors import MessageError
from . import app
from .face import DONE, FAILED, SOME_REFUSED, WRONG_USAGE, Face, Problem
from .neutral import NeutralFormError, call, content_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .. import Delivery, Drop, Stats
    from .progress import Progress

_CHUNK_LINES: Final = 500
_CHUNK_BYTES: Final = 4 * 2**20
_TURN: Final = 1.0
_SHOWN: Final = 20
_KEPT: Final = 100
"""Refusals that a receipt has in full: the others are counted, as input may be endless."""
# The message's field that is an option, by the kind; all other options mean the same in every kind.
_ID_FIELDS: Final = {
    "user": "userId",
    "account": "accountId",
    "organization": "organizationId",
    "custom-object": "externalId",
}
_AS: Final = ("user", "account", "organization", "track", "custom-object", "unlink", "page", "screen", "alias")
_TYPES: Final = {"custom-object": "customobjectinstance"}
_FIELDS: Final = {
    "user_id": "userId",
    "account_id": "accountId",
    "organization_id": "organizationId",
    "anonymous_id": "anonymousId",
    "object_id": "customObjectId",
    "previous_id": "previousId",
    "event": "event",
    "name": "name",
    "timestamp": "timestamp",
    "message_id": "messageId",
}


class _Receipt:
    """What came of what was sent. A client tells it of drops and deliveries in the thread that flushes.

    Attributes:
        read: Messages and lines so far.
        ways: The destinations: each message counts once for each of them, but for `read`.
        refused: How many were refused, here or by the vendor, by reason.
        details: The first of these in full.
        message_id: That of the only message, if it was given by options.
        statuses: How often the vendor answered what.
        lines: The lines of the chunk, by the message's id.
    """

    def __init__(self) -> None:
        self.read = 0
        self.ways = 1
        self.message_id = ""
        self.refused: dict[str, int] = {}
        self.details: list[dict[str, Any]] = []
        self.statuses: dict[int, int] = {}
        self.lines: dict[str, int] = {}

    def delivery(self, delivery: Delivery) -> None:
        """Hear of a batch."""
        self.statuses[delivery.status] = self.statuses.get(delivery.status, 0) + 1

    def drop(self, drop: Drop) -> None:
        """Hear of messages that were given up."""
        self.refused[str(drop.reason)] = self.refused.get(str(drop.reason), 0) + drop.count
        for message in drop.messages:
            found = str(message.get("messageId", "") or message.get("id", ""))
            self._keep(self.lines.get(found), found, str(drop.reason), drop.detail, drop.destination)

    def refuse(self, line: int | None, detail: str, reason: str = "invalid", message_id: str = "") -> None:
        """Note what was not accepted."""
        self.refused[reason] = self.refused.get(reason, 0) + self.ways
        self._keep(line, message_id, reason, detail, "")

    def _keep(self, line: int | None, message_id: str, reason: str, detail: str, destination: str) -> None:
        if len(self.details) < _KEPT:
            parts = {"line": line, "id": message_id, "reason": reason, "detail": detail, "destination": destination}
            self.details.append({name: value for name, value in parts.items() if value not in {None, ""}})


@app.command(
    "send",
    examples=(
        ('{prog} --as track --id user-1 --account-id acme --event "Signed up" --trait plan=pro', "an event"),
        ("{prog} --as account --id acme --trait name=Acme --trait seats:=5", "an account with a number"),
        ("{prog} < messages.jsonl", 'lines such as {"type": "track", "userId": "u", "event": "e"}'),
        ("{prog} --native < operations.jsonl", "lines in the vendor's own form"),
    ),
)
@click.option("--as", "kind", type=click.Choice(_AS), help="What the one message is; without it, lines are read.")
@click.option("--id", "own_id", metavar="ID", help="Its id: of the user, account, organization or object.")
@click.option("--user-id", metavar="ID", help="The user, of an account for Segment.")
@click.option("--account-id", metavar="ID", help="The account that it belongs to.")
@click.option("--organization-id", metavar="ID", help="The organization that it belongs to.")
@click.option("--anonymous-id", metavar="ID", help="The anonymous id, for Segment and Customer.io.")
@click.option("--object-id", metavar="ID", help="The vendor's id of the custom object.")
@click.option("--previous-id", metavar="ID", help="The id so far, of an alias.")
@click.option("--event", metavar="NAME", help="The event's name.")
@click.option("--name", metavar="NAME", help="The name of a page, screen or custom object.")
@click.option(
    "--trait", "traits", multiple=True, metavar="NAME=TEXT", help="A trait or property; NAME:=JSON for others."
)
@click.option("--timestamp", metavar="TIME", help="When it happened, in ISO 8601 (now).")
@click.option("--message-id", metavar="ID", help="Its message id (a new one).")
@click.option("--native", is_flag=True, help="The lines are in the vendor's own form.")
@click.option("--to", metavar="DESTINATION", help="Which of several destinations native lines are for.")
@click.option("--timeout", type=click.FloatRange(min=0), default=30.0, help="The most seconds for 500 messages (30).")
def command(face: Face, **given: Any) -> int:
    """Send one message, given by options, or JSON Lines from standard input, and say what came of it.

    The exit status is 0 if all was delivered, 3 if some was refused, 1 if some could not be delivered in time.
    """
    kind, native, to, timeout = (given.pop(name) for name in ("kind", "native", "to", "timeout"))
    receipt = _Receipt()
    if kind is None:
        chosen = [name for name, value in given.items() if value]
        if chosen:
            option = {"own_id": "id", "traits": "trait"}.get(chosen[0], chosen[0].replace("_", "-"))
            raise Problem(f"--{option} needs --as", status=WRONG_USAGE)
        if sys.stdin.isatty():
            face.note("Reading messages, a line each, to the end of the input (Ctrl-D).")
    elif native:
        raise Problem("--native is for lines from standard input, and excludes --as", status=WRONG_USAGE)
    message = None if kind is None else _message(kind, given)
    started = time.monotonic()
    with _client(receipt) as client:
        receipt.ways = len(client.stats().destinations) or 1
        try:
            with face.progress("Sending", None if message is None else 1, unit="messages") as progress:
                if message is None:
                    lines = sys.stdin.buffer
                    _send_lines(client, lines, receipt, progress, native=native, to=to, timeout=timeout)
                else:
                    _send_one(client, message, receipt, progress, timeout)
        except KeyboardInterrupt:
            _show(face, client, receipt, time.monotonic() - started)
            raise
        return _show(face, client, receipt, time.monotonic() - started)


def _client(receipt: _Receipt) -> Client:
    # Without a thread: Ctrl-C then interrupts what it waits for. Straight to the vendor: a receipt is for what arrived.
    return Client.from_env(
        background=False,
        buffer=None,
        strict=True,  # so that a refusal is known while its line is
        when_full="drop_newest",
        on_drop=receipt.drop,
        on_delivery=receipt.delivery,
        shutdown_timeout=0.0,
    )


def _message(kind: str, given: dict[str, Any]) -> dict[str, Any]:
    """The neutral message that the options describe."""
    message: dict[str, Any] = {"type": _TYPES.get(kind, kind)}
    if given["own_id"] is not None:
        message[_ID_FIELDS.get(kind, "userId")] = given["own_id"]
    message |= {field: given[option] for option, field in _FIELDS.items() if given[option] is not None}
    content = content_of(message["type"])
    if given["traits"]:
        if not content:
            raise Problem(f"--trait: a message of type {kind} has none", status=WRONG_USAGE)
        message[content] = dict(_trait(text) for text in given["traits"])
    message.setdefault("messageId", str(uuid.uuid4()))
    return message


def _trait(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip(":"):
        raise Problem(
            "a trait without a name and a value",
            where="--trait",
            found=repr(text),
            expected="NAME=TEXT or NAME:=JSON",
            status=WRONG_USAGE,
        )
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value)
    except ValueError:
        raise Problem(
            "the value is no JSON",
            where=f"--trait {name[:-1]}",
            found=repr(value),
            expected='such as 5, true or "text"',
            status=WRONG_USAGE,
        ) from None


def _send_one(client: Client, message: dict[str, Any], receipt: _Receipt, progress: Progress, timeout: float) -> int:
    receipt.read, receipt.message_id = 1, message["messageId"]
    try:
        call(client, message)
    except NeutralFormError as error:
        raise Problem(str(error), hint="--help shows the options", status=WRONG_USAGE) from None
    except MessageError as error:
        receipt.refuse(None, error.detail, str(error.reason), receipt.message_id)
    return _flush(client, receipt, progress, timeout)


def _send_lines(
    client: Client,
    lines: Iterable[bytes],
    receipt: _Receipt,
    progress: Progress,
    *,
    native: bool,
    to: str | None,
    timeout: float,
) -> int:
    count = size = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        receipt.read += 1
        _take(client, line, number, receipt, native=native, to=to)
        count, size = count + 1, size + len(line)
        if count >= _CHUNK_LINES or size >= _CHUNK_BYTES:
            left = _flush(client, receipt, progress, timeout)
            if left:
                return left  # what was not read is not lost: the caller has it
            receipt.lines, count, size = {}, 0, 0
    return _flush(client, receipt, progress, timeout)


def _take(client: Client, line: bytes, number: int, receipt: _Receipt, *, native: bool, to: str | None) -> None:
    """Queue a line's message, or note why not."""
    try:
        message = json.loads(line)
        if isinstance(message, dict):
            if not native:
                message.setdefault("messageId", str(uuid.uuid4()))
            receipt.lines[str(message.get("messageId") or message.get("id"))] = number
        _ = client.enqueue(message, to=to) if native else call(client, message)
    except NeutralFormError as error:
        receipt.refuse(number, str(error))
    except MessageError as error:
        receipt.refuse(number, error.detail, str(error.reason))
    except json.JSONDecodeError as error:
        receipt.refuse(number, f"column {error.colno}: {error.msg}")
    except (UnicodeDecodeError, RecursionError) as error:
        receipt.refuse(number, f"no JSON that can be read: {type(error).__name__}")


def _flush(client: Client, receipt: _Receipt, progress: Progress, timeout: float) -> int:
    """Deliver what was accepted, and say meanwhile what it waits for; how many were not delivered in time."""
    end = time.monotonic() + timeout
    while True:
        client.flush(max(min(end - time.monotonic(), _TURN), 0.0))
        stats = client.stats()
        progress.update(
            done=receipt.read - math.ceil(stats.pending / receipt.ways),
            refused=sum(receipt.refused.values()),
            retries=stats.retries,
            waiting=(stats.last_error or "an answer") if stats.pending else "",
        )
        if not stats.pending or time.monotonic() >= end:
            return stats.pending


def _show(face: Face, client: Client, receipt: _Receipt, seconds: float) -> int:
    stats = client.stats()
    left = stats.pending
    facts: dict[str, Any] = {
        "read": receipt.read,
        "delivered": stats.delivered,
        "refused": receipt.refused,
        "left": left,
        "requests": stats.requests,
        "seconds": round(seconds, 3),
    }
    if receipt.message_id:
        facts = {"message id": receipt.message_id, **facts}
    if left:
        facts["last error"] = stats.last_error
    if face.json:
        facts["answers"] = {str(status): count for status, count in receipt.statuses.items()}
        facts["refusals"] = receipt.details
        facts["destinations"] = {name: _side(one) for name, one in stats.destinations.items()}
    elif receipt.ways > 1:
        facts["delivered"] = {name: one.delivered for name, one in stats.destinations.items()}
    if receipt.details and not face.json:
        rows = [
            (str(one.get("line", "")), one["reason"], one.get("detail", ""), one.get("id", ""))
            for one in sorted(receipt.details, key=lambda one: one.get("line", 0))[:_SHOWN]
        ]
        face.table("Refused", ("line", "reason", "detail", "message id"), rows)
    face.result(facts, "Receipt")
    if left:
        return FAILED
    return SOME_REFUSED if receipt.refused else DONE


def _side(stats: Stats) -> dict[str, Any]:
    return {"delivered": stats.delivered, "dropped": dict(stats.dropped), "left": stats.pending}


def main(arguments: Sequence[str]) -> int:
    """Send.

    Args:
        arguments: What follows the command's name.

    Returns:
        The exit status.
    """
    return app.run(command, arguments)
