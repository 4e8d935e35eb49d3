"""A request, taken apart into what the page shows: a short row for each message, its text, and the request's facts."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..receiver.reading import elements, inflated
from .neutral import neutral_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ..receiver import Reply, Request

FAULTY: Final = 1
"""A row's mark: the vendor objects to this message, or to its request as a whole."""
WARNED: Final = 2
"""A row's mark: the vendor takes it, but does not do what was meant."""
NOT_STORED: Final = 4
"""A row's mark: it was not taken, for whatever reason."""
MOST_TEXT: Final = 4 * 2**20

_PLACE: Final = re.compile(r"(?:message|batch)\[(\d+)\][:.]? ?(.*)", re.DOTALL)
_ROW_TEXT: Final = 120
_HEADER_TEXT: Final = 200
_ANSWER_BYTES: Final = 4_096
# Everything else may hold a secret, and is shown by its name only.
_HARMLESS: Final = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "host"),
        *("transfer-encoding", "user-agent", "x-strict-mode"),
    }
)
_HIDDEN: Final = "[not shown]"
_GZIP: Final = b"\x1f\x8b"
_INFLATED: Final = 32 * 2**20


class Facts(NamedTuple):
    """What all messages of a request have in common.

    Attributes:
        number: The request's.
        at: When it came, in milliseconds of Unix time.
        connection: The number of its TCP connection.
        method: Its method.
        path: Its path.
        vendor: The wire's name; empty for an unknown path.
        status: The answer's; None if there is none.
        seconds: Until the answer.
        size: Bytes of the body as it came.
        messages: How many it holds.
        stored: How many of them were taken.
        headers: Those that cannot hold a secret with their values.
        faults: What concerns no single message.
        warnings: What concerns no single message.
        answer: The beginning of the answer's body.
    """

    number: int
    at: int
    connection: int
    method: str
    path: str
    vendor: str
    status: int | None
    seconds: float | None
    size: int
    messages: int
    stored: int
    headers: Mapping[str, str]
    faults: Sequence[str]
    warnings: Sequence[str]
    answer: str


class Row(NamedTuple):
    """One message, before it has a number.

    Attributes:
        cells: What stands in the list: kind, user, account, event, bytes, request, place from 1, messages, vendor,
            mark, status. A request without a readable message has one row, whose kind is `request`.
        text: The message as it was sent, in UTF-8; empty if there is none, or if it is too large to be kept.
        key: What makes it the same as another one; None without an id.
        faults: What the vendor objects to in it.
        warnings: What the vendor will not do.
    """

    cells: tuple[Any, ...]
    text: bytes
    key: int | None
    faults: Sequence[str]
    warnings: Sequence[str]


def take_apart(request: Request, answer: Reply, at: int) -> tuple[Facts, list[Row]]:
    """Take a request apart.

    Args:
        request: The request, with its body.
        answer: What it was answered.
        at: The moment, in milliseconds of Unix time.
    """
    try:
        return _take_apart(request, _texts(request), answer, at)
    except RecursionError:
        # What was just not too deep for the receiver can be so here, where more frames stand on the stack already.
        warning = "the page cannot show its messages: they are too deep"
        bare = replace(request, messages=[], warnings=(*request.warnings, warning))
        return _take_apart(bare, [], answer, at)


def _take_apart(request: Request, texts: Sequence[str], answer: Reply, at: int) -> tuple[Facts, list[Row]]:
    places = [place for place, text in enumerate(texts) if text.startswith("{")]
    faults, of_request = _by_place(request.faults, places)
    warnings, also_of_request = _by_place(request.warnings, places)
    facts = Facts(
        number=request.number,
        at=at,
        connection=request.connection,
        method=request.method,
        path=request.path,
        vendor=request.wire,
        status=request.status,
        seconds=request.seconds,
        size=request.size,
        messages=len(request.messages),
        stored=len(request.messages) - len(request.refused) if request.stored else 0,
        headers=_shown(request.headers),
        faults=of_request,
        warnings=also_of_request,
        answer=(answer.body or b"")[:_ANSWER_BYTES].decode("utf-8", "replace") if answer.answers else "",
    )
    refused = frozenset(request.refused)
    rows = []
    for index, (message, place) in enumerate(zip(request.messages, places, strict=True)):
        own, warned = faults.get(place, ()), warnings.get(place, ())
        mark = FAULTY * bool(own or of_request or index in refused) | WARNED * bool(warned or also_of_request)
        mark |= NOT_STORED * (index in refused or not request.stored)
        text = texts[place].encode()
        place_in = (facts.number, index + 1, facts.messages)
        kept = text if len(text) <= MOST_TEXT else b""
        cells = (*_names(facts.vendor, message), len(text), *place_in, facts.vendor, mark, facts.status)
        rows.append(Row(cells, kept, _key(facts.vendor, message), own, warned))
    if not rows:
        mark = FAULTY * bool(request.faults) | WARNED * bool(request.warnings) | NOT_STORED
        alone = ("request", "", "", "", request.size, request.number, 0, 0, request.wire, mark, request.status)
        rows.append(Row(alone, b"", None, (), ()))
    return facts, rows


def _names(vendor: str, message: Mapping[str, Any]) -> tuple[str, str, str, str]:
    """A message's kind, its user, its account, and its event or what else names it."""
    neutral = neutral_of(vendor, message) or message
    kind = neutral.get("type", "")
    if neutral is message and "action" in message:
        kind = f"{_short(kind)}/{_short(message['action'])}"
    user = neutral.get("userId") or neutral.get("anonymousId") or _identifiers(message)
    account = neutral.get("accountId") or neutral.get("organizationId") or ""
    name = next((neutral[field] for field in ("event", "name", "previousId", "externalId") if field in neutral), "")
    return _short(kind), _short(user), _short(account), _short(name)


def _texts(request: Request) -> list[str]:
    """The elements of the batch as they were written; none if nothing could be read."""
    if not request.messages:
        return []
    body = request.body
    # By what it is and not by its header, which may be wrong, and is then a fault.
    if body.startswith(_GZIP):
        body = inflated(body, _INFLATED)
    return elements(body, None if body.lstrip().startswith(b"[") else "batch")


def _by_place(said: Iterable[str], places: Sequence[int]) -> tuple[Mapping[int, Sequence[str]], Sequence[str]]:
    """What is said of single messages, by their places, without the place; and the rest."""
    of_one: defaultdict[int, list[str]] = defaultdict(list)
    rest = []
    known = frozenset(places)
    for one in said:
        match = _PLACE.fullmatch(one)
        if match is not None and int(match[1]) in known:
            of_one[int(match[1])].append(match[2])
        else:
            rest.append(one)
    return of_one, rest


def _shown(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        _short(name): value[:_HEADER_TEXT] if name in _HARMLESS else _HIDDEN for name, value in sorted(headers.items())
    }


def _identifiers(message: Mapping[str, Any]) -> Any:
    """Whom an operation of Customer.io is about that has no neutral form."""
    who = message.get("identifiers")
    return next(iter(who.values()), "") if isinstance(who, dict) else ""


def _key(vendor: str, message: Mapping[str, Any]) -> int | None:
    # Vitally and Segment have one id for messages of several types; Customer.io's operations have one, if events.
    own = message.get("messageId", message.get("id"))
    if not isinstance(own, (str, int, float)):
        return None
    return hash((vendor, str(message.get("type")), str(message.get("action")), own))


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _ROW_TEXT else f"{text[: _ROW_TEXT - 1]}…"
