"""How the messages of a dead owner become another's."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .owners import Estate, Owner, names
from .spool_books import RECORD_OVERHEAD, Line
from .spool_disk import Trouble
from .spool_file import STREAM_BITS
from .spool_lines import SpoolLines

if TYPE_CHECKING:
    from .spool_file import Stream


def _boot_name() -> str:
    """The name of the system's run, if it has one: as long as it is the same, so is the monotonic clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


BOOT: Final = _boot_name()


class SpoolHeir(SpoolLines):
    """Takes over what dead owners have left, and lets others take over what it leaves itself."""

    def _own_name(self) -> str:
        return (self._owner or self._new_owner()).name

    def _new_owner(self) -> Owner:
        try:
            owner = Owner(self._file.path)
        except OSError as error:
            raise self._file.say(Trouble(error.strerror or type(error).__name__)) from None
        if self._owner is None:
            self._owner = owner
            return owner
        owner.leave(forget=True)  # a signal handler has been here meanwhile
        return self._owner

    def _adopt(self) -> None:
        """Take over what dead owners have left for this destination."""
        mine = None if self._owner is None else self._owner.name
        for keeper in self._file.keepers(self._destination):
            if keeper != mine:
                self._adopt_from(keeper)
        if self._owner is None:
            return
        known = {line.id for line in self._lines} | self._ended
        new = [stream for stream in self._file.streams(self._owner.name) if stream.id not in known]
        for stream in new:
            self._take_up(stream)
        if new:
            self._load(*self._ahead)

    def _adopt_from(self, keeper: str) -> None:
        try:
            estate = Estate(self._file.path, keeper)
        except OSError as error:
            raise self._file.say(Trouble(error.strerror or type(error).__name__)) from None
        adopted = False
        try:
            if estate.is_free:
                with self._file.turn as mine:
                    if mine:
                        self._file.adopt(self._own_name(), keeper, self._destination)
                        adopted = True
        finally:
            estate.close(forget=adopted)

    def _sweep(self) -> None:
        """Remove the files of owners who are dead and have left nothing."""
        with suppress(Trouble, OSError):
            left = self._file.all_keepers()
            for name in set(names(self._file.path)) - left:
                estate = Estate(self._file.path, name)
                estate.close(forget=name not in self._file.all_keepers())

    def _take_up(self, stream: Stream) -> None:
        count = abs(stream.left)
        line = Line(stream.id, is_ours=False, left=count, same_boot=stream.boot == BOOT != "")
        line.is_counted = stream.left >= 0
        line.weight = weight = self._sample(line) * count
        with self._lock:
            lines = (*self._lines, line)
            self._changes += 1
            self._lines = lines
            self._held += count
            self._bytes += weight
            self._far += count
            self._foreign += count
            self.ledger.recovered += count

    def _sample(self, line: Line) -> int:
        """The bytes of a message, from the first ones."""
        row = line.id << STREAM_BITS
        sizes: list[int] = []
        with suppress(Trouble):
            sizes = [len(record or b"") for _, record in self._file.read(row, self._end_of(line), 20)]
        return sum(sizes) // max(len(sizes), 1) + RECORD_OVERHEAD

    def _end_lines(self) -> None:
        """Forget streams of others of which nothing is left."""
        if self._owner is None:
            return
        for line in self._lines:
            if not line.is_ours and not line.left and line.open <= 0:
                with self._file.turn as mine:
                    if mine:
                        self._ended.add(line.id)  # if the file is damaged, it may still be there
                        self._file.end_stream(line.id, self._owner.name)
                        self._lines = tuple([other for other in self._lines if other is not line])

    def _begin_anew(self) -> None:
        """If the file is gone: what is in memory is sent, what was only there is lost, and the next one is another."""
        for line in self._lines:
            if line.left:
                self._add(line, line.position, (), wall=None)
        try:
            with self._file.reading, self._file.turn as mine:
                if not mine or self._held:
                    return
                owner, self._owner = self._owner, None
                if owner is not None:
                    owner.leave(forget=True)
                self._debts = ()
                self._own.id = 0
                self._lines = (self._own,)
                self._file.close()
        except RuntimeError:
            return

    def finish(self) -> None:
        """Nobody takes or settles any more: let another one take what is left."""
        if self._finished:
            return
        with suppress(RuntimeError, Trouble):
            self._pay()
            if self._owner is not None:
                self._end_lines()
                if self._own.id and not self._held:
                    with self._file.turn as mine:
                        if mine:
                            self._file.end_stream(self._own.id, self._owner.name)
        with suppress(RuntimeError), self._file.reading, self._file.turn as mine:
            if mine:
                self._finished = True
                self._left_at = self._count_left()
                self._file.close()
                if self._owner is not None:
                    self._owner.leave(forget=not self._held and not self._debts)

    def _look_after_heirs(self) -> None:
        """After the end: count what others have taken over since."""
        if not self._left_at or self._owner is None or not Path(self._file.path).exists():
            return
        with suppress(Trouble):
            keepers = self._file.kept_by(tuple(self._left_at))
            for stream in tuple(self._left_at):
                if keepers.get(stream) != self._owner.name:
                    self._hand_over(stream)
        with self._file.reading:
            self._file.close()

    def _hand_over(self, stream: int) -> None:
        count = self._left_at[stream]
        with self._lock:
            left = {one: count for one, count in self._left_at.items() if one != stream}
            if stream in self._left_at:
                self._left_at = left
                self._held -= count
                self.ledger.handed_over += count
                if not self._held:
                    self._bytes = 0
                    self._ready = deque()
