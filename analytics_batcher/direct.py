"""The direct `batch()`: one request of the vendor's own form, now."""

from __future__ import annotations

import gzip
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from .destinations import Action, read_json
from .encoding import Unserializable
from .errors import InvalidResponse
from .message import encode
from .text import mask, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .answer import Answer
    from .destinations import Destination
    from .options import Options
    from .transport import Transport

_SUCCESS: Final = range(200, 300)
_BODY_CHARACTERS: Final = 1_000
_TELLING: Final = 8
"""The characters from which on a secret is not found by chance in a vendor's own words."""


@dataclass(frozen=True)
class BatchResult:
    """The answer to a direct `batch()`. Truthy: the vendor named no errors.

    Attributes:
        status: The HTTP status, a 2xx; 0 from a disabled client.
        body: The answer's body: what JSON it is, else its text.
        errors: What it lists under `errors`, as the vendor has it: with `batch_index` in a 207 of Customer.io's.
    """

    status: int
    body: Any
    errors: tuple[Any, ...] = ()

    def __bool__(self) -> bool:
        return not self.errors


def send_batch(
    destination: Destination, messages: Any, options: Options, connect: Callable[[Options], Transport] | None = None
) -> BatchResult:
    """Send messages as they are, in one request.

    Args:
        destination: Where to.
        messages: A list of dicts in the destination's own form.
        options: The client's settings.
        connect: Makes what posts it; `None`: over the network.

    Raises:
        TypeError: If `messages` is no list.
        ValueError: If it is empty, over the limits, or cannot be written as JSON.
        TransportError: If no answer came.
        InvalidResponse: If the answer's status is not 2xx.
    """
    request = _Request(destination, messages, options)
    if not options.enabled:
        return BatchResult(0, None, ("the client is disabled: nothing was sent",))
    transport = (connect or _transport)(options)
    try:
        return _result(destination, transport.post(destination.url, request.headers, request.body))
    finally:
        transport.close()


def _transport(options: Options) -> Transport:
    from .transport import Transport  # noqa: PLC0415 - not where there is no network

    return Transport(timeout=options.timeout, proxy=options.proxy, verify=options.verify)


class _Request:
    """Keeps the body, which may hold the secret, out of the variables of frames through which errors pass."""

    __slots__ = ("body", "headers")

    def __init__(self, destination: Destination, messages: Any, options: Options) -> None:
        self.body = _body(destination, messages, options)
        self.headers = destination.headers()
        if options.gzip and destination.gzip:
            self.body, self.headers = gzip.compress(self.body, mtime=0), {**self.headers, "Content-Encoding": "gzip"}


def _result(destination: Destination, answer: Answer) -> BatchResult:
    verdict = destination.verdict(answer)
    answer = _masked(answer, destination.secrets)
    if answer.status not in _SUCCESS:
        text = printable(answer.body, _BODY_CHARACTERS, hide=destination.secrets)[:_BODY_CHARACTERS]
        detail = printable(verdict.detail, _BODY_CHARACTERS, hide=destination.secrets)
        raise InvalidResponse(detail, answer.status, text)
    said = read_json(answer)
    errors = said.get("errors") if isinstance(said, dict) else None
    named = tuple(errors) if isinstance(errors, list) else ()
    if not named and verdict.action is not Action.DELIVERED:  # a captive portal says 200 too
        named = (verdict.detail,)
    return BatchResult(answer.status, answer.body.decode("utf-8", "replace") if said is None else said, named)


def _masked(answer: Answer, secrets: Sequence[str]) -> Answer:
    """An answer without the secrets that it repeats."""
    said = answer.body.decode("utf-8", "replace")
    masked = mask(said, [secret for secret in secrets if len(secret) >= _TELLING])
    return answer if masked == said else replace(answer, body=masked.encode())


def _body(destination: Destination, messages: Any, options: Options) -> bytes:
    limits = destination.limits
    if not isinstance(messages, list):
        raise TypeError(f"messages must be a list, not {type(messages).__name__}")
    if not 1 <= len(messages) <= limits.messages:
        raise ValueError(f"{len(messages)} messages: {destination.name} takes 1 to {limits.messages}")
    wires = []
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            raise ValueError(f"message {place} is no dict")  # noqa: TRY004 - the list's content, as its size, is a value
        try:
            wires.append(encode(message, options.default))
        except Unserializable as error:
            raise ValueError(f"message {place} cannot be written as JSON: {printable(str(error))}") from None
        if len(wires[-1]) > limits.message_bytes:
            raise ValueError(f"message {place} has {len(wires[-1])} bytes: allowed are {limits.message_bytes}")
    body = destination.body(wires, time.time())
    if len(body) > limits.bytes:
        raise ValueError(f"{len(body)} bytes: {destination.name} takes {limits.bytes} in one request")
    return body
