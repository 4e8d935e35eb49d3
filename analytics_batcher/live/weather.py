"""The weather that a click makes: how the stand-in treats an application, for some seconds."""

from __future__ import annotations

import json
import math
import threading
import time
import zlib
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..receiver import Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..receiver import Request

CLEAR: Final = "clear"
_TENTH: Final = 10
_PARTIAL: Final = "customerio"  # the one vendor whose documented answer refuses some messages of a batch
_REFUSED: Final = "name: refused by the weather"


class Kind(NamedTuple):
    """One kind of weather.

    Attributes:
        label: What its button says.
        seconds: How long it lasts.
        told: What it does, for people.
    """

    label: str
    seconds: float
    told: str


KINDS: Final[Mapping[str, Kind]] = {
    "429": Kind("429 · 10 s", 10.0, "Every request is answered 429, with the seconds that are left as Retry-After."),
    "500": Kind("500 · 10 s", 10.0, "Every request is answered 500."),
    "hang": Kind("Hang · 30 s", 30.0, "No request is answered; what still waits at the end is cut off."),
    "tenth": Kind(
        "Refuse 1 in 10 · 30 s",
        30.0,
        "About one message in ten is refused, always the same ones: by Customer.io with a 207, by the others with a "
        "400 for the whole batch.",
    ),
    "207": Kind(
        "207 · 10 s",
        10.0,
        "Every batch is answered 207; Customer.io refuses the first message of each, the others take all.",
    ),
}


class Weather:
    """What is on, and for how long.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # Guards the two.
        self._lock = threading.Lock()
        self._name = CLEAR
        self._end = 0.0

    def turn(self, name: str) -> bool:
        """Make weather.

        Args:
            name: One of `KINDS`, or `"clear"`.

        Returns:
            Whether there is such weather.
        """
        if name != CLEAR and name not in KINDS:
            return False
        with self._lock:
            self._name = name
            self._end = self._clock() + (KINDS[name].seconds if name in KINDS else 0.0)
        return True

    def now(self) -> tuple[str, float]:
        """What is on, and the seconds that are left of it."""
        with self._lock:
            left = self._end - self._clock()
            return (self._name, left) if left > 0 else (CLEAR, 0.0)

    def decide(self, request: Request) -> Reply | None:
        """The answer to a request; None in clear weather, and where a faulty request would be refused anyway.

        Args:
            request: The request, with its messages and faults.
        """
        name, left = self.now()
        if name == "429":
            return Reply(HTTPStatus.TOO_MANY_REQUESTS, headers={"Retry-After": str(math.ceil(left))})
        if name == "500":
            return Reply(HTTPStatus.INTERNAL_SERVER_ERROR)
        if name == "hang":
            # A plain hang would hold its connection, and the thread of it, for as long as the receiver runs.
            return Reply(reset="before", delay=left)
        if name == CLEAR or request.faults:
            return None
        return _tenth(request) if name == "tenth" else _multi_status(request)

    def state(self) -> dict[str, Any]:
        """What is on, for the page."""
        name, left = self.now()
        return {"name": name, "left": math.ceil(left), "told": KINDS[name].told if name in KINDS else ""}


def _tenth(request: Request) -> Reply | None:
    refused = [index for index, message in enumerate(request.messages) if _chance(message) % _TENTH == 0]
    if not refused:
        return None
    if request.wire != _PARTIAL:
        return Reply(HTTPStatus.BAD_REQUEST)
    return Reply(partial=dict.fromkeys(refused, _REFUSED))


def _chance(message: Mapping[str, Any]) -> int:
    """A number that is the same however often a message is sent."""
    own = message.get("messageId", message.get("id", message))
    return zlib.crc32(json.dumps(own, sort_keys=True).encode())


def _multi_status(request: Request) -> Reply:
    return Reply(partial={0: _REFUSED}) if request.wire == _PARTIAL else Reply(HTTPStatus.MULTI_STATUS)
