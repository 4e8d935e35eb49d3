"""The import of one source: chunks of rows become calls, are settled, and only then the checkpoint moves."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from ..errors import DropReason, MessageError
from . import checkpoint as checkpoints
from .calls import call_of
from .checkpoint import Checkpoint, digest_of
from .look import Look, look_of
from .problems import ImportProblem, RowProblem, Stopped
from .reading import rows_of, task_of
from .rejected import Rejected
from .results import Job, State, Sums
from .rows import MOST_LINE_BYTES, Form, is_cut
from .source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..client import Client
    from .reading import Read
    from .settling import Fate, Settling

CHUNK_ROWS: Final = 2_500
_SHARED_ROWS: Final = 1_000  # one of several destinations tells of so many messages that it refuses at the calls
_CHUNK_BYTES: Final = 2**20


class FileImport:
    """The import of one source.

    Args:
        job: The source.
        client: What the rows go to, with `strict=True`.
        settling: Waits for the client.
        restart: Whether to begin anew, whatever an earlier run has settled.
        tell: Is told how it goes on.
        show: Is told what the source looks like, before anything of it is sent.
    """

    def __init__(
        self,
        job: Job,
        client: Client,
        settling: Settling,
        *,
        restart: bool,
        tell: Callable[[State], object],
        show: Callable[[Job, Look], object] | None = None,
    ) -> None:
        self._job = job
        self._client = client
        self._settling = settling
        self._restart = restart
        self._tell = tell
        self._show = show
        self._most = CHUNK_ROWS if len(client.stats().destinations) == 1 else _SHARED_ROWS
        self._form = Form()
        self._note: Checkpoint | None = None
        self._earlier = 0
        # What belongs to the chunk that is not settled yet.
        self._count = 0
        self._skipped = 0
        self._put: dict[str, tuple[int, bytes]] = {}
        self._refused: list[dict[str, Any]] = []

    @property
    def sums(self) -> Sums:
        """What became of the rows so far."""
        note = self._note
        if note is None:
            return Sums()
        return Sums(note.rows, note.delivered, note.rejected, note.skipped, self._earlier)

    def run(self) -> None:
        """Send the rows that are not settled yet.

        Raises:
            ImportProblem: As for `Import.run`.
            OSError: As for `Import.run`.
            Stopped: If it cannot go on now.
        """
        job = self._job
        source = Source(job.path, job.plan.encoding)
        try:
            look = look_of(source, job.plan)
            self._rejected = Rejected(job.rejected_path)
            try:
                self._resume(source, look)
            finally:
                self._rejected.close()
        finally:
            source.close()

    def _resume(self, source: Source, look: Look) -> None:
        job = self._job
        note = self._known(source, look)
        stream, last = source.at(note.offset, last=note.last_bytes)
        if note.last_bytes and digest_of(last) != note.last:
            raise self._changed()
        self._note, self._earlier, self._form = note, note.rows, look.form
        task = task_of(
            *(source, job.plan, look),
            offset=note.offset,
            line=note.line,
            started=note.started,
            id_field=self._settling.id_field,
        )
        self._conversion = task.conversion
        self._rejected.keep(note.rejected_bytes)
        if job.checkpoint_path is not None:  # before the first row: its time is to be the same in each run
            checkpoints.write(job.checkpoint_path, note)
        if self._show is not None:
            self._show(job, look)
        with closing(rows_of(task, source, stream)) as rows:
            self._send(rows, note)

    def _known(self, source: Source, look: Look) -> Checkpoint:
        path, head = self._job.checkpoint_path, source.head.data
        found = None if path is None or self._restart else checkpoints.read(path)
        if found is not None and not found.rows and found.mapping != self._job.plan.digest:
            found = None  # what was tried first did not work
        if found is None:
            now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
            return Checkpoint(len(head), digest_of(head), self._job.plan.digest, now, look.offset, look.line)
        if digest_of(head[: found.head_bytes]) != found.head:
            raise self._changed()
        if found.mapping != self._job.plan.digest:
            raise ImportProblem(
                "an import of this file was begun with other settings",
                where=str(path),
                expected="the same settings, or --restart to send all of its rows again",
            )
        return found

    def _changed(self) -> ImportProblem:
        return ImportProblem(
            "the file has changed since an import of it was begun",
            where=str(self._job.checkpoint_path),
            expected="the same file, or one that has grown; or --restart to send all of its rows",
        )

    def _send(self, rows: Iterator[Read], note: Checkpoint) -> None:
        self._say(0, "")
        call, most, known = call_of(self._client, self._job.plan.kind), self._most, self._put
        begin = end = note.offset
        end_line, last = note.line, b""
        for line, raw, row_end, row_end_line, own_id, given in rows:
            if type(given) is tuple:
                if own_id in known:  # or it would not be known which of the two was refused
                    begin = end
                    self._settle(end, end_line, last)
                problem = None
                try:
                    call(*given[0], **given[1])
                except MessageError as error:
                    problem = self._problem(error, raw, partial(call, *given[0], **given[1]))
                if problem is None:
                    known[own_id] = line, raw
                else:
                    self._refuse(line, raw, problem)
            elif given is None:
                self._skipped += 1
            else:
                self._refuse(line, raw, RowProblem(*given))
            self._count += 1
            end, end_line, last = row_end, row_end_line, raw
            if self._count >= most or end - begin > _CHUNK_BYTES:
                begin = end
                self._settle(end, end_line, last)
        self._settle(end, end_line, last, done=True)

    def _problem(self, error: MessageError, raw: bytes, again: Callable[[], object]) -> RowProblem | None:
        """Why a row was refused at once; `None` if it was for want of room only, and there is some now."""
        if error.reason == DropReason.QUEUE_FULL and self._put:
            self._await()
            try:
                again()
            except MessageError as other:
                error = other
            else:
                return None
        return self._conversion.refused(error, raw)

    def _refuse(self, line: int, raw: bytes, problem: RowProblem) -> None:
        more = {"column": problem.column, "found": problem.found, "expected": problem.expected}
        self._note_refused(
            line, raw, problem.reason, problem.detail, {name: text for name, text in more.items() if text}
        )

    def _note_refused(self, line: int, raw: bytes, reason: str, detail: str, more: dict[str, str]) -> None:
        row = self._form.text_of(raw).rstrip("\r\n")
        cut = {"row_cut_after_bytes": MOST_LINE_BYTES} if is_cut(raw) else {}
        self._refused.append(
            {"file": self._job.path, "line": line, "reason": reason, "detail": detail, **more, "row": row, **cut}
        )

    def _await(self) -> None:
        """Wait until what was put is settled, and note what was dropped of it."""
        for own_id, fate in self._settling.settle(self._say).items():
            if own_id not in self._put:  # a second destination refused it, too
                continue
            line, raw = self._put.pop(own_id)
            if fate.reason == DropReason.FILTERED:
                self._skipped += 1
            else:
                self._note_refused(line, raw, fate.reason, fate.detail, _who(own_id, fate))

    def _settle(self, offset: int, line: int, last: bytes, *, done: bool = False) -> None:
        """Settle the chunk: its refused rows are on the disk first, and then the checkpoint that knows of them."""
        note = self._note
        assert note is not None  # noqa: S101 - for the type checker
        if self._settling.is_stopping and not self._count:
            raise Stopped("it was asked to end")
        self._await()
        self._refused.sort(key=lambda one: int(one["line"]))
        rejected = len(self._refused)
        delivered = self._count - rejected - self._skipped
        if self._count or done != note.done:
            size = self._rejected.add(self._refused)
            moved = note.moved(offset=offset, line=line, last=last) if last else note
            self._note = replace(
                moved,
                rows=note.rows + self._count,
                delivered=note.delivered + delivered,
                rejected=note.rejected + rejected,
                skipped=note.skipped + self._skipped,
                rejected_bytes=size,
                done=done,
            )
            path = self._job.checkpoint_path
            if path is not None:
                checkpoints.write(path, self._note)
        self._count = self._skipped = 0
        self._put.clear()
        self._refused.clear()
        self._say(0, "")
        if self._settling.is_stopping and not done:
            raise Stopped("it was asked to end")

    def _say(self, pending: int, waiting: str) -> None:
        sums = self.sums
        self._tell(State(self._job.path, sums, sums.rows + self._count - pending, self._settling.retries, waiting))


def _who(own_id: str, fate: Fate) -> dict[str, str]:
    return {"destination": fate.destination, "id": own_id}
