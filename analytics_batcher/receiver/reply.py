"""How the receiver shall answer a request: plain data, and its form on the wire."""

from __future__ import annotations

import json
from dataclasses import KW_ONLY, dataclass, field
from http import HTTPStatus
from http.client import responses
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Reply:
    """One answer, or the lack of one.

    A faulty request is never stored, whatever its reply says.

    Attributes:
        status: The HTTP status, 200 to 999; 200 stands for the status with which the wire tells of success.
        body: The body. None: the wire's success body for a 2xx status, else a small JSON error.
        headers: Headers to add, or to put in the place of the usual ones (`Content-Type`, `Content-Length`).
        delay: Seconds to wait before answering, resetting or hanging. The messages are stored before that wait.
        hang: Never answer; the connection stays open until the receiver is stopped.
        reset: Reset the connection instead of answering: `"before"` or `"after"` the messages were stored.
        drip: Seconds between the single bytes of the whole answer, status line and headers included.
        store: Whether to store the messages. None: if a 2xx answer is given, or with a reset `"after"`.
        close: Announce `Connection: close`, and close the connection after the answer.
        partial: The messages to refuse by their indexes, each with the wire's kind of text (`"field: message"`), while
            the others are stored. Status and body are the wire's.
        drop_idle: Close the connection after the answer without announcing it, so that the client keeps a stale one.

    Raises:
        ValueError: `status` or `reset` is none of these, or `partial` goes with a failure of the whole.
    """

    status: int = 200
    _: KW_ONLY
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    hang: bool = False
    reset: Literal["before", "after"] | None = None
    drip: float | None = None
    store: bool | None = None
    close: bool = False
    drop_idle: bool = False
    partial: Mapping[int, str] | None = None

    def __post_init__(self) -> None:
        if not 200 <= self.status <= 999:  # noqa: PLR2004 - what a status line can hold, 1xx being no final answer
            raise ValueError(f"status must be 200 to 999, not {self.status}")
        if self.reset not in (None, "before", "after"):
            raise ValueError(f"reset must be None, 'before' or 'after', not {self.reset!r}")
        if self.partial is not None and not self.succeeds:
            raise ValueError(f"partial must go with a 2xx status, not {self.status}")

    @property
    def succeeds(self) -> bool:
        """Whether the status is 2xx."""
        return self.status // 100 == 2  # noqa: PLR2004 - the class of success

    @property
    def answers(self) -> bool:
        """Whether there will be an answer at all."""
        return not self.hang and self.reset is None

    @property
    def stores(self) -> bool:
        """Whether the messages of a faultless request are stored."""
        if self.store is not None:
            return self.store
        return self.reset == "after" or (self.answers and self.succeeds)

    def encode(self, *, head_only: bool = False, close: bool = False) -> bytes:
        """Write the answer as it goes over the wire.

        Args:
            head_only: Leave the body out, as the answer to a HEAD request must.
            close: Announce the end of the connection.

        Returns:
            The status line, the headers and the body.
        """
        phrase = responses.get(self.status, "Unnamed")
        body = json.dumps({"error": phrase}).encode() if self.body is None else self.body
        usual = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        if self.status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            body, usual = b"", {}
        if close:
            usual["Connection"] = "close"
        given = {name.lower() for name in self.headers}
        headers = {name: value for name, value in usual.items() if name.lower() not in given} | dict(self.headers)
        lines = [f"HTTP/1.1 {self.status} {phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode("latin-1") + (b"" if head_only else body)
