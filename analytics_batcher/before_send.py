"""`before_send`: may change each message, or drop it, and is asked once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import DropReason
from .message import decode, replace
from .report import is_interrupt
from .stamp import NATIVE, STAMP_BYTES, flags_of

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    Check = Callable[[Mapping[str, Any]], tuple[DropReason, str] | None]


class BeforeSend:
    """Asks an application's hook, and remembers what it said for as long as a message is not settled.

    Args:
        hook: The application's.
        check: The destination's own check of a neutral message.
        default: Makes a JSON value of one that nobody knows, in what the hook returned.
    """

    def __init__(
        self,
        hook: Callable[[dict[str, Any]], Mapping[str, Any] | None],
        check: Check,
        default: Callable[[Any], Any] | None,
    ) -> None:
        self._hook = hook
        self._check = check
        self._default = default
        self._said: dict[bytes, bytes | tuple[DropReason, str]] = {}  # by stamp

    def reset(self) -> None:
        """Forget everything."""
        self._said = {}

    def keep(self, stamps: Container[bytes]) -> None:
        """Forget all other messages."""
        for stamp in [stamp for stamp in self._said if stamp not in stamps]:
            del self._said[stamp]

    def apply(self, record: bytes) -> bytes | tuple[DropReason, str]:
        """A record as the hook wants it sent, or why it is not to be."""
        stamp = record[:STAMP_BYTES]
        said = self._said.get(stamp)
        if said is None:
            said = self._said[stamp] = self._ask(record)
        return said

    def _ask(self, record: bytes) -> bytes | tuple[DropReason, str]:
        try:
            message = self._hook(decode(record))
            if message is None:
                return DropReason.FILTERED, "before_send returned None"
            changed = replace(record, message, self._default)
        except BaseException as error:
            if is_interrupt(error):
                raise  # and nothing else: whatever it raises, it fails closed, for this message alone
            return DropReason.FILTERED, f"before_send raised {type(error).__name__}"
        unfit = None if flags_of(changed) & NATIVE else self._check(decode(changed))
        return changed if unfit is None else unfit
