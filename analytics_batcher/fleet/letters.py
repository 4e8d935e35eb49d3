"""Dead letters on the server: a stream, each of whose entries is a line as it stands in a file of dead letters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dead_letters import DeadLetters

if TYPE_CHECKING:
    from .shard_buffer import ShardBuffer


class StreamLetters(DeadLetters):
    """Writes the dead letters of one shard, in the step in which their messages are acknowledged.

    Args:
        buffer: The shard's, which does it.
        name: The destination's name.
        form: As for `DeadLetters`.
    """

    def __init__(self, buffer: ShardBuffer, name: str, **form: Any) -> None:
        super().__init__(Path(), name, **form)
        self._buffer = buffer

    def _append(self, lines: bytes) -> None:
        self._buffer.add_letters(lines.splitlines())
