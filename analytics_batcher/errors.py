"""The errors that this package raises, and the reasons for which a message can be dropped."""

from __future__ import annotations

from enum import Enum
from typing import Final


class DropReason(str, Enum):
    """Why a message was dropped. Each member is a plain string too: `DropReason.INVALID == "invalid"`."""

    INVALID = "invalid"
    """Refused at the call: a required field is missing or of the wrong type."""
    UNSERIALIZABLE = "unserializable"
    """Refused at the call: it cannot be written as JSON at all."""
    TOO_LARGE = "too_large"
    """Larger than the destination's limit of a message, or refused by the vendor as too large."""
    QUEUE_FULL = "queue_full"
    """There was no room, and `when_full` chose this message."""
    CLOSED = "closed"
    """The client had been shut down."""
    FILTERED = "filtered"
    """`before_send` returned `None`, or raised."""
    REJECTED = "rejected"
    """The vendor refused it."""
    EXPIRED = "expired"
    """It waited longer than `Retry.max_age`."""
    UNSUPPORTED = "unsupported"
    """The destination has no such message."""
    EXIT = "exit"
    """Left behind in memory when the process ended."""
    SPOOL_FULL = "spool_full"
    """There was no room in the file of a durable buffer, or on its disk."""
    SPOOL_ERROR = "spool_error"
    """The file of a durable buffer could not be written in time, or a message in it could not be read."""

    __str__ = str.__str__


class AnalyticsError(Exception):
    """The root of every error of this package.

    Wrong settings raise `ValueError` or `TypeError`, as everywhere in Python.
    """


class MessageError(AnalyticsError):
    """A message was not accepted. Raised by the calls of a client with `strict=True` only.

    Attributes:
        reason: The reason under which the drop would have been counted without `strict`.
        detail: What was wrong, without the message's content.
    """

    reason: DropReason = DropReason.INVALID

    def __init__(self, detail: str, reason: DropReason | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if reason is not None:
            self.reason = reason


class InvalidMessage(MessageError):  # noqa: N818 - the public contract names it so
    """A field is missing or wrong, or the message cannot be written as JSON."""


class MessageTooLarge(MessageError):  # noqa: N818 - the public contract names it so
    """The message is larger than the destination's, or the queue's, limit."""

    reason = DropReason.TOO_LARGE


class QueueFull(MessageError):  # noqa: N818 - the public contract names it so
    """There was no room in the queue."""

    reason = DropReason.QUEUE_FULL


class SpoolError(MessageError):
    """The file of a durable buffer could not be written."""

    reason = DropReason.SPOOL_ERROR


class ClientClosed(MessageError):  # noqa: N818 - the public contract names it so
    """The client had been shut down."""

    reason = DropReason.CLOSED


class TransportError(AnalyticsError):
    """A request got no answer.

    Attributes:
        kind: What failed, in one word: `connect`, `timeout`, `reset`, `tls`, `proxy` or `request`.
    """

    def __init__(self, detail: str, kind: str) -> None:
        super().__init__(detail)
        self.kind = kind

    def __reduce__(self) -> tuple[type[TransportError], tuple[str, str]]:  # as its arguments are not all of `args`
        return type(self), (str(self), self.kind)


class InvalidResponse(AnalyticsError):  # noqa: N818 - the public contract names it so
    """A direct `batch()` was answered with another status than 2xx.

    Attributes:
        status: The HTTP status.
        body: The beginning of the answer's body, escaped, at most 1,000 characters, without secrets.
    """

    def __init__(self, detail: str, status: int, body: str) -> None:
        super().__init__(detail)
        self.status = status
        self.body = body

    def __reduce__(self) -> tuple[type[InvalidResponse], tuple[str, int, str]]:  # as above
        return type(self), (str(self), self.status, self.body)


_BY_REASON: Final[dict[DropReason, type[MessageError]]] = {
    DropReason.TOO_LARGE: MessageTooLarge,
    DropReason.QUEUE_FULL: QueueFull,
    DropReason.SPOOL_FULL: QueueFull,
    DropReason.SPOOL_ERROR: SpoolError,
    DropReason.CLOSED: ClientClosed,
}


def refusal(reason: DropReason, detail: str) -> MessageError:
    """The error that a `strict` client raises instead of counting a drop for `reason`."""
    return _BY_REASON.get(reason, InvalidMessage)(detail, reason)
