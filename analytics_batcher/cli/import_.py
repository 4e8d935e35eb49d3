"""`import`: sends what is in files, resumable and exact."""

from __future__ import annotations

import json
import logging
import signal
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ..imports.calls import TYPE
from ..imports.dry import DryResult, columns_of, dry_run, found_types
from ..imports.likely import option_for
from ..imports.look import look_at
from ..imports.mapping import KINDS, NATIVE, Mapping, merged
from ..imports.mapping_file import from_toml, proposed, to_toml
from ..imports.problems import ImportProblem, RowProblem
from ..imports.results import ImportResult, Job, State
from ..imports.run import PATIENCE, Import
from ..imports.source import FALLBACK, STDIN, Source
from . import app
from .face import DONE, FAILED, SOME_REFUSED, WRONG_USAGE, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..imports.dry import Column
    from ..imports.look import Look
    from .face import Face
    from .progress import Progress

_SIGNALLED: Final = 128
_MOST_PROBLEMS: Final = 10_000
_EXAMPLES: Final = (
    (
        "{prog} accounts.csv --as account --id account_id --dry-run",
        "look at everything, and send nothing",
    ),
    (
        "{prog} events.csv.gz --as track --id user_id --event event --timestamp at --drop internal_note",
        "send events; the same command goes on after an interruption",
    ),
    (
        "{prog} accounts.csv users.csv events.csv --write-mapping",
        "make a mapping beside each file, to be looked at and corrected",
    ),
    (
        "{prog} accounts.csv users.csv events.csv",
        "send several files, each by the mapping beside it, accounts first",
    ),
)


def _columns(function: Any) -> Any:
    """The options that name a column."""
    for name, what in (
        ("message-id", "the message's id, where the rows have ids of their own"),
        ("timestamp", "the moment that the row is about"),
        ("object", "the vendor's id of the custom object"),
        ("name", "the name of a custom object's instance"),
        ("event", "the event's name, or the page's"),
        ("previous-id", "the id so far, of an alias"),
        ("anonymous-id", "the anonymous id, for Segment's kind"),
        ("organization-id", "the organization"),
        ("account-id", "the account"),
        ("user-id", "the user that an account's row concerns, for Segment's kind"),
        ("id", "the id of what the row is about; of a track: the user"),
    ):
        text = f"Column of {what}; or =TEXT for the same in all rows."
        function = click.option(f"--{name}", name.replace("-", "_"), metavar="COLUMN", help=text)(function)
    return function


@app.command("import", examples=_EXAMPLES)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--as", "kind", type=click.Choice(tuple(KINDS)), help="What each row is.")
@_columns
@click.option("--trait", "traits", multiple=True, metavar="NAME=COLUMN", help="A trait or property; without any: all.")
@click.option("--drop", multiple=True, metavar="COLUMN", help="A column that is not sent.")
@click.option(
    "--type", "types", multiple=True, metavar="COLUMN=TYPE", help="text, integer, ..., or a format: %d/%m/%Y."
)
@click.option("--timezone", metavar="NAME", help="The zone of moments that say none (UTC).")
@click.option("--native", is_flag=True, help="Rows are messages in the vendor's own form, and go out as they are.")
@click.option(
    "--mapping", metavar="FILE", help="A mapping in TOML (FILE.mapping.toml beside each file, if it is there)."
)
@click.option("--write-mapping", is_flag=True, help="Make a mapping of a first look at each file, and send nothing.")
@click.option("--dry-run", is_flag=True, help="Do everything but the sending, and tell of every problem.")
@click.option("--format", "format_", type=click.Choice(("csv", "jsonl")), help="How rows are written.")
@click.option("--encoding", metavar="NAME", help="The files' encoding.")
@click.option("--delimiter", metavar="CHARACTER", help="What separates cells; or tab.")
@click.option("--quote", metavar="CHARACTER", help="What encloses cells; or nothing.")
@click.option("--no-header", is_flag=True, help="The first row is data: columns are called 1, 2, and so on.")
@click.option("--rejected", type=click.Path(path_type=Path), help="Where refused rows go (FILE.rejected.jsonl).")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Where it is noted how far it got.")
@click.option("--restart", is_flag=True, help="Send all rows again, whatever an earlier run has settled.")
@click.option(
    "--patience", type=float, default=PATIENCE, show_default=True, help="Seconds without progress to end after."
)
def command(face: Face, files: tuple[str, ...], **options: Any) -> int:
    """Send what is in files: CSV, TSV or JSON Lines, gzipped or not; - is standard input.

    Interrupted in any way, the same command goes on where it was: a checkpoint beside the file moves on what is
    delivered, and each message's id comes from the row's content and position. Refused rows go to FILE.rejected.jsonl.
    The exit status is 0 if all rows were delivered, 3 if some were refused, 1 if it could not go on.
    """
    # What the client would log, the summary and the file of refused rows say better.
    logging.getLogger("analytics_batcher").addHandler(logging.NullHandler())
    if len(set(files)) < len(files):
        raise Problem("a file is named twice", status=WRONG_USAGE)
    if (options["rejected"] or options["checkpoint"]) and len(files) > 1:
        raise Problem("--rejected and --checkpoint are for one file", status=WRONG_USAGE)
    try:
        if options["write_mapping"]:
            return _write_mappings(face, files, options)
        jobs = [Job(file, _plan(file, options), options["rejected"], options["checkpoint"]) for file in files]
        return _dry(face, jobs) if options["dry_run"] else _send(face, jobs, options)
    except ImportProblem as problem:
        raise Problem(
            problem.what, where=problem.where, found=problem.found, expected=problem.expected, status=FAILED
        ) from problem


def main(arguments: Sequence[str]) -> int:
    """Import files.

    Args:
        arguments: What follows the command's name.

    Returns:
        The exit status.
    """
    return app.run(command, arguments)


def _mapping_of(file: str) -> Path:
    return Path(f"{file}.mapping.toml" if file != STDIN else "stdin.mapping.toml")


def _said(options: dict[str, Any]) -> dict[str, Any]:
    """What the options say of a mapping."""
    names = ("id", "user_id", "account_id", "organization_id", "anonymous_id", "previous_id")
    fields = {name: options[name] for name in (*names, "event", "name", "object", "timestamp", "message_id")}
    return {
        "fields": {name: column for name, column in fields.items() if column is not None},
        "traits": _pairs("--trait", options["traits"]) or None,
        "drop": tuple(options["drop"]),
        "types": _pairs("--type", options["types"]),
        "timezone": options["timezone"],
        "format": options["format_"],
        "encoding": options["encoding"],
        "delimiter": options["delimiter"],
        "quote": options["quote"],
        "header": False if options["no_header"] else None,
    }


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not sign or not name or not value:
            raise Problem(f"{option} wants two names", found=text, expected="NAME=COLUMN", status=WRONG_USAGE)
        pairs[name] = value
    return pairs


def _plan(file: str, options: dict[str, Any]) -> Mapping:
    said = _said(options)
    beside = _mapping_of(file)
    path = options["mapping"] or (str(beside) if beside.exists() and not options["kind"] else None)
    kind = NATIVE if options["native"] else options["kind"]
    if path is not None:
        return merged(from_toml(path), {**said, "kind": kind})
    if kind is None:
        raise Problem(
            "it is not said what the rows are",
            where=file,
            expected="--as KIND, --native, or a mapping",
            hint=f"--write-mapping makes {beside}",
            status=WRONG_USAGE,
        )
    given = {name: value for name, value in said.items() if value is not None}
    return Mapping(kind, **given)


def _write_mappings(face: Face, files: Sequence[str], options: dict[str, Any]) -> int:
    for file in files:
        path = Path(options["mapping"]) if options["mapping"] else _mapping_of(file)
        if path.exists():
            raise ImportProblem("there is a mapping already", where=str(path), expected="no file, or another name")
        said = _said(options)
        source = Source(file, said["encoding"])
        try:
            look = look_at(source, kind=said["format"], delimiter=said["delimiter"], quote=said["quote"])
        finally:
            source.close()
        plan = proposed(options["kind"] or "", look.columns, said)
        path.write_text(to_toml(plan, look.columns, found_types(look)), encoding="utf-8")
        _show_columns(face, file, plan, look, columns_of(look, plan, source.name))
        face.note(f"{path} is for you to look at and correct; --dry-run then tries it")
    return DONE


def _show_columns(face: Face, file: str, plan: Mapping, look: Look, columns: Sequence[Column]) -> None:
    if columns:
        rows = [(one.name, _type_of(one), one.becomes or "not sent", ", ".join(one.examples)) for one in columns]
        face.table(file, ("column", "type", "becomes", "examples"), rows)
    if plan.encoding is None and look.form.encoding == FALLBACK:
        face.note(f"{file} is not UTF-8, and is taken for {FALLBACK}; --encoding says another, such as cp1250")
    alike: dict[tuple[str, ...], list[str]] = {}
    for one in columns:
        if one.likely:
            alike.setdefault((one.kind, *one.likely), []).append(one.name)
    for (kind, *kinds), (first, *others) in alike.items():
        rest = f"; likewise {', '.join(others)}" if others else ""
        face.note(f"{file}, column {first} is taken as {kind}; {option_for(first, kinds)}{rest}")


def _type_of(column: Column) -> str:
    return f"{column.kind} ({column.misfits} are not)" if column.misfits else column.kind


def _dry(face: Face, jobs: Sequence[Job]) -> int:
    facts: dict[str, Any] = {"rows": 0, "good": 0, "refused": {}, "skipped": 0}
    problems: list[dict[str, Any]] = []
    samples: list[Any] = []
    misfits: Counter[tuple[str, str, str]] = Counter()
    for job in sorted(jobs, key=lambda one: one.plan.rank):

        def show(look: Look, columns: Sequence[Column], job: Job = job) -> None:
            _show_columns(face, job.path, job.plan, look, columns)

        def tell(line: int, problem: RowProblem, job: Job = job) -> None:
            if problem.reason == TYPE and problem.column != job.plan.fields.get("timestamp"):
                misfits[job.path, problem.column, problem.expected] += 1
            if face.json:
                parts = {"file": job.path, "line": line, "reason": problem.reason, "detail": problem.detail}
                more = {"column": problem.column, "found": problem.found, "expected": problem.expected}
                if len(problems) < _MOST_PROBLEMS:
                    problems.append({**parts, **{name: text for name, text in more.items() if text}})
            else:
                face.say(_line_of(job.path, line, problem))

        result = dry_run(job, show=show, tell=tell)
        _add(facts, result)
        samples += [sample._asdict() for sample in result.samples]
        for sample in result.samples:
            face.say(f"would send to {sample.destination}: {json.dumps(sample.message, ensure_ascii=False)}")
    for (path, column, kind), count in misfits.items():
        of = "cell is" if count == 1 else "cells are"
        face.note(f"{path}, column {column}: {count:,} {of} no {kind}; --type {column}=text takes any")
    extra = {"problems": problems, "samples": samples} if face.json else {}
    face.result({**facts, **extra}, title="Nothing was sent")
    return SOME_REFUSED if facts["refused"] else DONE


def _add(facts: dict[str, Any], result: DryResult) -> None:
    facts["rows"] += result.rows
    facts["good"] += result.good
    facts["skipped"] += result.skipped
    for reason, count in result.refused.items():
        facts["refused"][reason] = facts["refused"].get(reason, 0) + count


def _line_of(path: str, line: int, problem: RowProblem) -> str:
    where = f"{path}:{line}" + (f", column {problem.column}" if problem.column else "")
    found = f"; found {problem.found}" if problem.found else ""
    expected = f"; expected {problem.expected}" if problem.expected else ""
    return f"{where}: {problem.reason}: {problem.detail}{found}{expected}"


class _Bars:
    """Shows one bar after the other, a file each.

    Args:
        face: Shows them.
    """

    def __init__(self, face: Face) -> None:
        self._face = face
        self._path: str | None = None
        self._shown: Any = None
        self._bar: Progress | None = None

    def tell(self, state: State) -> None:
        """Show how it goes on."""
        if state.path != self._path or self._bar is None:
            self.end()
            self._path = state.path
            self._shown = self._face.progress(state.path, _rows_in(state.path), start=state.sums.earlier)
            self._bar = self._shown.__enter__()
        if self._bar is not None:
            self._bar.update(done=state.put, refused=state.sums.rejected, retries=state.retries, waiting=state.waiting)

    def end(self) -> None:
        """The last one is over."""
        if self._shown is not None:
            self._shown.__exit__(None, None, None)
            self._shown = None


def _rows_in(path: str) -> int | None:
    """About so many: a quoted cell may have lines of its own."""
    if path == STDIN:
        return None
    source = Source(path)
    try:
        lines = source.count_lines()
    finally:
        source.close()
    return None if lines is None else max(lines - 1, 0)


def _send(face: Face, jobs: Sequence[Job], options: dict[str, Any]) -> int:
    bars, begun = _Bars(face), time.monotonic()

    def show(job: Job, look: Look) -> None:
        bars.end()
        _show_columns(face, job.path, job.plan, look, columns_of(look, job.plan, job.path))

    work = Import(jobs, progress=bars.tell, show=show, patience=options["patience"], restart=options["restart"])
    with _stopping(work) as came:
        try:
            result = work.run()
        finally:
            bars.end()
    _report(face, jobs, result, time.monotonic() - begun)
    if result.error is not None:
        raise Problem("the import could not go on", found=result.error, hint="the same command goes on where it was")
    if result.left:
        face.note("interrupted; the same command goes on where it was")
        return _SIGNALLED + came[0] if came else FAILED
    return SOME_REFUSED if result.sums.rejected else DONE


def _report(face: Face, jobs: Sequence[Job], result: ImportResult, seconds: float) -> None:
    sums = asdict(result.sums)
    facts: dict[str, Any] = {**sums, "retries": result.retries, "seconds": round(seconds, 1)}
    if len(jobs) > 1 or face.json:
        facts["files"] = {path: asdict(one) for path, one in result.files.items()} if face.json else None
        facts["left"] = list(result.left) if face.json else (", ".join(result.left) or None)
        rows = [
            (path, *(f"{count:,}" if face.draws else str(count) for count in asdict(one).values()))
            for path, one in result.files.items()
        ]
        face.table("", ("file", *sums), rows)
    places = [str(job.rejected_path) for job in jobs if job.path in result.files and result.files[job.path].rejected]
    if places:
        facts["rejected_rows_in"] = places if face.json else ", ".join(places)
    face.result(facts)


@contextmanager
def _stopping(work: Import) -> Iterator[list[int]]:
    """At the first Ctrl-C or SIGTERM end soon, with what is in flight settled; at the second one at once."""
    came: list[int] = []
    before: dict[int, Any] = {}

    def stop(number: int, _: object) -> None:
        came.append(number)
        work.stop()
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, stop)
    try:
        yield came
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
