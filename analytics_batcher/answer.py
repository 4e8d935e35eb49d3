"""What came back from one request: plain data, which the transport reads and the destination judges."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN: Final = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: [ -~]*)?\r\n((?:[!-9;-~]+:[\t -~]*\r\n)+)\r\n")
_WITHOUT_BODY: Final = frozenset({204, 304})


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


def plain_answer(data: bytes) -> Answer | None:
    """An answer as nearly all are: whole, of ASCII, its length given, and the connection stays open after it.

    `http.client` reads it by an e-mail parser, which takes longer than all else that is done for a batch.

    Args:
        data: All that has come so far.

    Returns:
        `None` if it is another one, or not all of it, or no answer: `http.client` is to say what that means.
    """
    start = _PLAIN.match(data)
    if start is None:
        return None
    headers: dict[str, str] = {}
    for line in start[2].decode().split("\r\n")[:-1]:
        field, _, value = line.partition(":")
        name = field.lower()
        value = value.lstrip(" \t")
        if name in headers or name == "transfer-encoding" or (name == "connection" and value.lower() != "keep-alive"):
            return None
        headers[name] = value
    status, body = int(start[1]), data[start.end() :]
    if headers.get("content-length") != str(len(body)) or status in _WITHOUT_BODY:
        return None
    return Answer(status, headers, body)
