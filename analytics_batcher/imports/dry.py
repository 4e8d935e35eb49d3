"""A dry run: everything but the sending."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..calls import segment_flags
from ..encoding import loads
from ..errors import DropReason, MessageError
from ..message import encode, native_flags
from ..stamp import ID_GIVEN, TIME_GIVEN, new_head
from .calls import call_of, kinds_of
from .columns import Found, found_in
from .connecting import from_environment
from .likely import likely_in
from .look import look_of
from .mapping import NATIVE
from .problems import RowProblem
from .reading import rows_of, task_of
from .source import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..destinations import Destination
    from ..stats import Drop
    from .connecting import Connect, Connected
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
        examples: The first different cells that are not empty.
        misfits: How many of the cells that were looked at are not of the type.
        likely: What else it may be meant as, which only a person can tell.
    """

    name: str
    kind: str
    becomes: str
    examples: Sequence[str]
    misfits: int = 0
    likely: Sequence[str] = ()


class Sample(NamedTuple):
    """A message as it would go.

    Attributes:
        destination: Where to, by name.
        message: In the destination's own form.
    """

    destination: str
    message: Mapping[str, Any]


@dataclass(frozen=True)
class DryResult:
    """What a dry run found: `rows == good + refused + skipped`.

    Attributes:
        rows: Rows.
        good: Those that would be sent.
        skipped: Blank ones.
        refused: Those that would be refused before they are sent, by reason.
        samples: The first messages, as they would go to each destination.
    """

    rows: int = 0
    good: int = 0
    skipped: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    samples: Sequence[Sample] = ()


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
    read = {} if look.form.kind == "jsonl" else {name: (kinds[name], look.cells[name]) for name in traits}
    likely = likely_in({name: one for name, one in read.items() if name not in plan.types})
    columns = []
    for name in look.columns:
        if not name:
            continue
        texts = [str(cell) for cell in look.cells[name] if cell is not None and cell != ""]
        found = found_in(texts)
        is_field = name in fields and fields[name] != "timestamp"
        columns.append(
            Column(
                name,
                "text" if is_field else kinds[name],
                fields.get(name) or traits.get(name, ""),
                [text[:_EXAMPLE_CHARACTERS] for text in islice(dict.fromkeys(texts), _EXAMPLES)],
                found.cells - found.fitting if found.kind == kinds[name] and not is_field else 0,
                likely.get(name, ()),
            )
        )
    return columns


def found_types(look: Look) -> dict[str, Found]:
    """What a first look finds in each column."""
    return {name: found_in([cell for cell in cells if isinstance(cell, str)]) for name, cells in look.cells.items()}


def dry_run(
    job: Job,
    *,
    connect: Connect = from_environment,
    show: Callable[[Look, Sequence[Column]], object] | None = None,
    tell: Callable[[int, RowProblem], object] | None = None,
) -> DryResult:
    """Do all of an import but the sending; no file is written.

    Args:
        job: The source.
        connect: Makes the client, of the options that are given to it.
        show: Is told what the source looks like, and of the columns, before the rows are read.
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
            show(look, columns_of(look, job.plan, source.name))
        return _Check(job, connect, tell).run(source, look)
    finally:
        source.close()


class _Check:
    def __init__(self, job: Job, connect: Connect, tell: Callable[[int, RowProblem], object] | None) -> None:
        self._job = job
        self._connect = connect
        self._tell = tell
        self._samples: list[Sample] = []
        self._refused: Counter[str] = Counter()

    def run(self, source: Source, look: Look) -> DryResult:
        """Call a client that never sends: the first messages are told as those that it leaves behind."""
        link = self._link(on_drop=self._keep)
        self._destinations = {one.name: one for one in link.destinations}
        first, rest = link.client, self._link(when_full="drop_oldest", max_queue_messages=1).client
        plan = self._job.plan
        link.check(plan.kind, source.name)
        started = datetime.now(timezone.utc).isoformat()
        how = {"offset": look.offset, "line": look.line}
        task = task_of(source, plan, look, **how, started=started, id_field=link.id_field)
        conversion, stream = task.conversion, source.at(look.offset)[0]
        call, other = call_of(first, plan.kind), call_of(rest, plan.kind)
        count = good = skipped = 0
        try:
            with closing(rows_of(task, source, stream)) as rows:
                for line, raw, _, _, _, given in rows:
                    count += 1
                    if given is None:
                        skipped += 1
                    elif type(given) is not tuple:
                        self._refuse(line, RowProblem(*given))
                    else:
                        try:
                            call(*given[0], **given[1])
                        except MessageError as error:
                            self._refuse(line, conversion.refused(error, raw))
                        else:
                            good += 1
                            call = other if good == SAMPLES else call
        finally:
            first.shutdown(0)
            rest.shutdown(0)
        return DryResult(count, good, skipped, dict(self._refused), tuple(self._samples))

    def _refuse(self, line: int, problem: RowProblem) -> None:
        self._refused[problem.reason] += 1
        if self._tell is not None:
            self._tell(line, problem)

    def _link(self, **options: Any) -> Connected:
        silent: dict[str, Any] = {"strict": True, "background": False, "buffer": None, "dead_letters": None}
        return self._connect(**silent, enabled=True, **options)

    def _keep(self, drop: Drop) -> None:
        if drop.reason == DropReason.EXIT:  # or else this destination does not take it
            destination = self._destinations[drop.destination]
            is_native = self._job.plan.kind == NATIVE
            wires = [_wire(destination, message, is_native=is_native) for message in drop.messages]
            self._samples += [Sample(drop.destination, wire) for wire in wires]


def _wire(destination: Destination, message: Mapping[str, Any], *, is_native: bool) -> dict[str, Any]:
    """A message that was not sent, as it would have been."""
    if is_native:
        flags = native_flags(message, destination.id_field, destination.time_field)
    else:
        flags = segment_flags(message) | ID_GIVEN | TIME_GIVEN
    wire: dict[str, Any] = loads(destination.wire(new_head(flags) + encode(dict(message))))
    return wire
