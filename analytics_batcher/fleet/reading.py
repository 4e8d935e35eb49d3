"""An entry as it was read from a stream, which may be anybody's."""

from __future__ import annotations

import math
import time
from struct import Struct
from typing import Final, NamedTuple

from ..encoding import OPTIONS, dumps, loads
from ..stamp import HEAD_BYTES, NATIVE, new_head
from ..text import printable

_SHOWN: Final = 1_000
_LATEST: Final = 253_402_300_800.0  # the year 10000
_wall_of: Final = Struct(">d").unpack_from


class Entry(NamedTuple):
    """An entry.

    Attributes:
        id: Its id.
        content: Its record; its fields, if it has none.
    """

    id: bytes
    content: bytes | list[bytes]

    @property
    def is_record(self) -> bool:
        """Whether it is what producers add: a stamp and a JSON object."""
        content = self.content
        if not isinstance(content, bytes) or len(content) < HEAD_BYTES + 2:
            return False
        wall = _wall_of(content)[0]
        if not (math.isfinite(wall) and 0 <= wall < _LATEST):
            return False
        try:
            return isinstance(loads(content[HEAD_BYTES:]), dict)
        except ValueError:
            return False


def as_record(entry: Entry) -> bytes:
    """An entry that is no record as one that says so, so that it can be told and kept as any message is."""
    fields = entry.content if isinstance(entry.content, list) else [b"r", entry.content]
    shown = [printable(field, limit=_SHOWN) for field in fields]
    message = {"entry": entry.id.decode(), "fields": dict(zip(shown[::2], shown[1::2], strict=False))}
    return new_head(NATIVE) + dumps(message, None, OPTIONS)


def age_of(entry: Entry) -> float:
    """Seconds since a record was made, by the wall clocks; of what is none, since it came to the server."""
    moment = _wall_of(entry.content)[0] if entry.is_record else int(entry.id.split(b"-")[0]) / 1000  # type: ignore[arg-type] # a record is bytes
    return max(time.time() - float(moment), 0.0)
