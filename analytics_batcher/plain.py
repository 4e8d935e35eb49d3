"""What orjson may be handed as it is: the caller's plain data, copied."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

# Two kinds of bounds, since a few lists that refer to each other are a tree without end, or of any size.
_LEVELS: Final = 254  # as many as orjson takes
_VALUES: Final = 2_000_000
_OVERHEAD: Final = 20  # a container takes the memory of so many values
_FEW: Final = 100
_UUID_BITS: Final = 128


def plain_copy(content: dict[str, Any]) -> dict[str, Any] | None:
    """A private copy of what orjson writes without running any Python code; `None` of anything else.

    For an Enum it reads `value`, which is Python code, in which a signal handler may raise and another thread may
    change the dict that is being written; either has crashed the interpreter, as has a UUID that was never finished
    (orjson 3.8 to 3.13). `mend` is safe. A copy, since another thread may put such a value there after the look at it:
    that has crashed the interpreter too, at its usual pace of switching threads.

    Args:
        content: A plain dict. Neither it nor anything in it is changed.
    """
    copy, room = content.copy(), None
    try:
        for key, value in copy.items():
            kind = type(value)
            if kind is str or kind is int or kind is bool or kind is float or value is None:
                continue
            if type(key) is not str:  # to put the copy in its place would run the key's own code
                return None
            if kind is list and len(value) <= _FEW:  # what is common, in half of the time that `_plain` takes
                own = [*value]
                for item in own:
                    kind = type(item)
                    if not (kind is str or kind is int or kind is bool or kind is float or item is None):
                        break
                else:
                    copy[key] = own
                    continue
            room = room or [_VALUES]
            if (plain := _plain(value, room, _LEVELS)) is None:
                return None
            copy[key] = plain
    except RecursionError:  # the caller's own stack is deep already
        return None
    return copy


def _plain(value: Any, room: list[int], levels: int) -> Any:
    kind = type(value)
    if kind is UUID:
        number = getattr(value, "int", None)
        return value if type(number) is int and not number >> _UUID_BITS else None
    if kind is not dict and kind is not list and kind is not tuple:
        return None
    copy: Any = value.copy() if kind is dict else [*value]
    room[0] -= len(copy) + _OVERHEAD
    if room[0] < 0 or not levels:
        return None
    for place, item in copy.items() if kind is dict else enumerate(copy):
        kind = type(item)
        if kind is str or kind is int or kind is bool or kind is float or item is None:
            continue
        if type(place) is not str and type(place) is not int:  # as above
            return None
        if (plain := _plain(item, room, levels - 1)) is None:
            return None
        copy[place] = plain
    return copy
