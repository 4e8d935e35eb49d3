"""What is particular to one vendor, as the receiver sees it."""

from __future__ import annotations

import json
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .reply import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Judgement(NamedTuple):
    """What a wire finds in a request.

    Attributes:
        messages: The messages that could be read.
        faults: What a strict vendor would object to; a single one means that the request is refused whole.
        warnings: What the vendor takes, though it will not do what the sender meant.
        status: The status with which faults are answered.
    """

    messages: list[dict[str, Any]]
    faults: list[str]
    warnings: Sequence[str] = ()
    status: int = HTTPStatus.BAD_REQUEST


class Wire(Protocol):
    """What is particular to one vendor. Header names are in lower case; no fault may repeat a secret.

    A fault or a warning of one message begins with its place: `message[3]` or `batch[3]`.

    These a wire may have besides:

    - `name: str`, which requests are marked with. Without it: the name of the class in lower case.
    - `accept(messages) -> Reply`, the answer to a good request. Without it: 200 with `success`.
    - `partial(messages, errors) -> Reply | None`, the answer to a request of which the messages at the indexes in
      `errors` are refused, each with its text; None if there is no such answer. Without it there is none.
    - `refuse(status, faults) -> bytes`, the body of the answer to a faulty request. Without it: a small JSON error.
    """

    @property
    def path(self) -> str:
        """The one path that it serves."""

    @property
    def success(self) -> bytes:
        """The body of a 2xx answer."""

    def authorize(self, headers: Mapping[str, str]) -> list[str]:
        """The faults of the credentials, to be answered with 401."""

    def judge(self, headers: Mapping[str, str], body: bytes) -> Judgement | tuple[list[dict[str, Any]], list[str]]:
        """The messages that could be read, the faults, and perhaps warnings and the status of the faults."""

    def key(self, message: Mapping[str, Any]) -> tuple[str, str]:
        """The type of a faultless message, and its id within that type."""


def name_of(wire: Wire) -> str:
    """The name of a wire."""
    return str(getattr(wire, "name", type(wire).__name__.lower()))


def refusal(wire: Wire, status: int, faults: Sequence[str]) -> bytes:
    """The body of the answer to a faulty request."""
    refuse = getattr(wire, "refuse", None)
    body: bytes = json.dumps({"error": faults[0]}).encode() if refuse is None else refuse(status, faults)
    return body


def completed(reply: Reply, wire: Wire, messages: list[dict[str, Any]]) -> Reply:
    """Fill in what a reply leaves open.

    Args:
        reply: The reply.
        wire: The wire that the request came in by.
        messages: The request's messages.

    Returns:
        The reply with the wire's status, body and headers; as it is if it tells of a failure.

    Raises:
        ValueError: The reply refuses some messages, for which the wire has no answer.
    """
    if not reply.succeeds:
        return reply
    own = _own_answer(reply, wire, messages)
    status = own.status if reply.status == HTTPStatus.OK else reply.status
    if reply.body is not None:
        return replace(reply, status=status)
    given = {name.lower() for name in reply.headers}
    headers = {name: value for name, value in own.headers.items() if name.lower() not in given} | dict(reply.headers)
    return replace(reply, status=status, body=own.body, headers=headers)


def _own_answer(reply: Reply, wire: Wire, messages: list[dict[str, Any]]) -> Reply:
    if reply.partial is None:
        accept = getattr(wire, "accept", None)
        accepted: Reply = Reply(body=wire.success) if accept is None else accept(messages)
        return accepted
    partial = getattr(wire, "partial", None)
    refused: Reply | None = None if partial is None else partial(messages, reply.partial)
    if refused is None:
        raise ValueError(f"partial: {name_of(wire)} has no answer that refuses some messages")
    return refused
