"""A dry run: everything but the sending."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from ..client import Client
from .calls import Caller, kinds_of
from .columns import Found, found_in
from .ids import ids_for
from .mapping import NATIVE
from .one_file import look_of
from .problems import RowProblem
from .rows import Rows
from .source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..stats import Drop
    from .look import Look
    from .mapping import Mapping as Plan
    from .results import Job

SAMPLES: Final = 3
_EXAMPLES: Final = 3
_EXAMPLE_CHARACTERS: Final = 40


@dataclass(frozen=True)
class Column:
    """A column as an import takes it.

    Attributes:
        name: Its name.
        kind: Its type.
        becomes: What it becomes: a field, a trait's name; empty if it is not sent.
        examples: The first cells that are not empty.
        misfits: How many of the cells that were looked at are not of the type.
    """

    name: str
    kind: str
    becomes: str
    examples: Sequence[str]
    misfits: int = 0


@dataclass(frozen=True)
class DryResult:
    """What a dry run found: `rows == good + refused + skipped`.

    Attributes:
        rows: Rows.
        good: Those that would be sent.
        skipped: Blank ones.
        refused: Those that would be refused before they are sent, by reason.
        samples: The first messages, in neutral form, or native as given.
    """

    rows: int = 0
    good: int = 0
    skipped: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()


def columns_of(look: Look, plan: Plan, where: str) -> list[Column]:
    """What becomes of a source's columns.

    Args:
        look: What the source looks like.
        plan: Which column becomes what.
        where: What errors call the source.

    Raises:
        ImportProblem: If the column of the timestamps has none.
    """
    if plan.kind == NATIVE:
        return []
    kinds = kinds_of(plan, look, where)
    fields = {column: name for name, column in plan.fields.items()}
    traits = {column: f"trait {name}" for name, column in plan.content(look.columns).items()}
    columns = []
    for name in look.columns:
        if not name:
            continue
        texts = [str(cell) for cell in look.cells[name] if cell not in {"", None} or cell is False]
        found = found_in(texts)
        is_field = name in fields and fields[name] != "timestamp"
        columns.append(
            Column(
                name,
                "text" if is_field else kinds[name],
                fields.get(name) or traits.get(name, ""),
                [text[:_EXAMPLE_CHARACTERS] for text in texts[:_EXAMPLES]],
                found.cells - found.fitting if found.kind == kinds[name] and not is_field else 0,
            )
        )
    return columns


def found_types(look: Look) -> dict[str, Found]:
    """What a first look finds in each column."""
    return {name: found_in([cell for cell in cells if isinstance(cell, str)]) for name, cells in look.cells.items()}


def dry_run(
    job: Job,
    *,
    make_client: Callable[..., Client] = Client.from_env,
    show: Callable[[Sequence[Column]], object] | None = None,
    tell: Callable[[int, RowProblem], object] | None = None,
) -> DryResult:
    """Do all of an import but the sending; no file is written.

    Args:
        job: The source.
        make_client: Makes the client of the options that are given to it.
        show: Is told of the columns, before the rows are read.
        tell: Is told of each row that would be refused, with its line.

    Raises:
        ImportProblem: If a source, or a mapping, makes no sense.
        OSError: If a file cannot be read.
        ValueError: If a setting is wrong.
    """
    source = Source(job.path, job.plan.encoding)
    try:
        look = look_of(source, job.plan)
        if show is not None:
            show(columns_of(look, job.plan, source.name))
        stream, _ = source.at(look.offset)
        rows = Rows(stream, look.form, offset=look.offset, line=look.line, width=len(look.columns))
        return _Check(job, look, make_client, tell).run(rows, source.name)
    finally:
        source.close()


class _Check:
    def __init__(
        self,
        job: Job,
        look: Look,
        make_client: Callable[..., Client],
        tell: Callable[[int, RowProblem], object] | None,
    ) -> None:
        self._job = job
        self._look = look
        self._make_client = make_client
        self._tell = tell
        self._samples: list[Mapping[str, Any]] = []
        self._refused: Counter[str] = Counter()

    def run(self, rows: Rows, where: str) -> DryResult:
        """Call a client that never sends: the first messages are told as those that it leaves behind."""
        first = self._client(on_drop=self._keep)
        rest = self._client(when_full="drop_oldest", max_queue_messages=1)
        kinds = kinds_of(self._job.plan, self._look, where)
        started = datetime.now(timezone.utc)
        caller, other = (
            Caller(client, self._job.plan, self._look, kinds=kinds, started=started, where=where)
            for client in (first, rest)
        )
        id_of = ids_for(self._job.plan.digest)
        count = good = skipped = 0
        try:
            for line, row in rows:
                count += 1
                if row is None:
                    skipped += 1
                    continue
                try:
                    if isinstance(row, RowProblem):
                        raise row
                    own_id = caller.given_id(row) or id_of(line, b"".join(rows.taken))
                    caller.put(row, own_id)
                except RowProblem as problem:
                    self._refused[problem.reason] += 1
                    if self._tell is not None:
                        self._tell(line, problem)
                else:
                    good += 1
                    caller = other if good == SAMPLES else caller
        finally:
            first.shutdown(0)
            rest.shutdown(0)
        return DryResult(count, good, skipped, dict(self._refused), tuple(self._samples))

    def _client(self, **options: Any) -> Client:
        silent: dict[str, Any] = {"strict": True, "background": False, "buffer": None, "dead_letters": None}
        return self._make_client(**silent, enabled=True, **options)

    def _keep(self, drop: Drop) -> None:
        own = (message for message in drop.messages if message not in self._samples)  # one for each destination
        self._samples += list(own)[: SAMPLES - len(self._samples)]
