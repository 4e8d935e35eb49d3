"""What came back from one request: plain data, which the transport reads and the destination judges."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Answer:
    """An HTTP answer.

    Attributes:
        status: The HTTP status.
        headers: The headers; names are looked up in lower case.
        body: At most 64 KiB of the body as it came over the wire, never inflated. As the headers, it may repeat
            anything, and so its `repr` shows neither.
        truncated: Whether there was more of the body than was read.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    truncated: bool = False
