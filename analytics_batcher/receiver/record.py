"""What the receiver keeps: plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Request:
    """One request that came in whole.

    Attributes:
        number: 1 for the first.
        at: The moment at which its headers had been read, in seconds of the monotonic clock.
        connection: The number of its TCP connection, 1 for the first.
        method: The method.
        path: The path, query included.
        headers: The headers, names in lower case; a repeated one is joined with commas. They hold the token.
        body: The body; empty if the receiver does not keep bodies.
        size: Bytes of the body.
        messages: The messages that could be read, whether stored or not.
        faults: What a strict vendor would object to.
        status: The status of the answer; None if there is none.
        stored: Whether the messages were stored, but for the refused ones.
        wire: The name of the wire by whose path it came; empty if the path is no wire's.
        warnings: What a vendor takes though it will not do what was meant.
        refused: The indexes of the messages that a partial failure refused.
        seconds: From `at` to the beginning of the answer; None if there is none.
    """

    number: int
    at: float
    connection: int
    method: str
    path: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    size: int
    messages: list[dict[str, Any]] = field(default_factory=list, repr=False)
    faults: tuple[str, ...] = ()
    status: int | None = None
    stored: bool = False
    wire: str = ""
    warnings: tuple[str, ...] = ()
    refused: tuple[int, ...] = ()
    seconds: float | None = None


@dataclass(frozen=True)
class Report:
    """What came in, in figures.

    Attributes:
        requests: Requests.
        accepted_requests: Requests whose messages were stored.
        messages: Stored messages, repeats included.
        unique_messages: Stored messages, each counted once by its type and id.
        repeats: Stored messages that had been stored before.
        by_kind: Unique messages by type.
        fullest_batch: Messages in the fullest request.
        largest_body: Bytes of the largest body.
        faults: What a strict vendor would object to.
    """

    requests: int
    accepted_requests: int
    messages: int
    unique_messages: int
    repeats: int
    by_kind: Mapping[str, int]
    fullest_batch: int
    largest_body: int
    faults: tuple[str, ...]
