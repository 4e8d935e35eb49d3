"""What the call is given for a row: plain data, which another process can make."""

from __future__ import annotations

from functools import partial
from operator import itemgetter, methodcaller
from typing import TYPE_CHECKING, Any, Final, cast

from .columns import TEXT, found_in, iso, moment_given_of, moment_of, moments_in, trait_of, zone_of
from .likely import formats_in, option_for
from .mapping import KINDS, NATIVE
from .problems import ImportProblem, RowProblem
from .rows import row_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..client import Client
    from ..errors import MessageError
    from .columns import Convert
    from .look import Look
    from .mapping import Kind
    from .mapping import Mapping as Plan

    Get = Callable[[Any], Any]
    Given = tuple[list[Any], dict[str, Any]]
    """What a call is given, by position and by name."""

_FIELDS: Final = {
    "userId": ("id", "user_id"),
    "accountId": ("account_id", "id"),
    "organizationId": ("organization_id", "id"),
    "externalId": ("id",),
    "customObjectId": ("object",),
    "previousId": ("previous_id",),
    "anonymousId": ("anonymous_id",),
    "event": ("event",),
    "name": ("name", "event"),
    "timestamp": ("timestamp",),
    "message_id": ("message_id",),
}
"""The settings to which a field of a message goes back, as errors name it."""
TYPE: Final = "type"
"""Why a row is refused of which a cell is not of its column's type."""
_SHOWN: Final = 80
_MISFITS: Final = (ValueError, TypeError, AttributeError, OverflowError, OSError)
"""What a converter raises for a cell that is not of its type, or for a JSON value that is no text."""


def call_of(client: Client, kind: str) -> Callable[..., object]:
    """What takes a `Given`.

    Args:
        client: The client.
        kind: One of `KINDS`, or `native`.
    """
    return client.enqueue if kind == NATIVE else cast("Callable[..., object]", getattr(client, KINDS[kind].call))


class Conversion:
    """What the calls for one source's rows are given.

    Args:
        plan: Which column becomes what.
        look: What the source looks like; the first cells are not asked for.
        kinds: The columns' types.
        started: The moment of rows that have none of their own, in ISO 8601 with a zone.
        where: What errors call the source.
        id_field: Where a native message has its id.

    Raises:
        ImportProblem: If native messages are to come out of cells.
    """

    def __init__(
        self,
        plan: Plan,
        look: Look,
        *,
        kinds: Mapping[str, str],
        started: str,
        where: str = "",
        id_field: str = "messageId",
    ) -> None:
        self._plan = plan
        self._look = look
        self._id_field = id_field
        self._json = look.form.kind == "jsonl"
        self._zone = zone_of(plan.timezone)
        self._places = {name: name if self._json else place for place, name in enumerate(look.columns) if name}
        self._kinds = kinds
        self._named = {*plan.fields.values(), *plan.drop}
        self._message_id = self._field(plan.fields["message_id"]) if "message_id" in plan.fields else None
        self.given: Callable[[Any, str], Given]
        """Makes of a row and its id what the call is given; raises `RowProblem` if a cell is not of its type."""
        if plan.kind == NATIVE:
            if not self._json:
                raise ImportProblem("native messages are JSON Lines", where=where, found=look.form.kind)
            self._message_id = methodcaller("get", id_field)
            self.given = self._native
            return
        self.given = self._compiled(KINDS[plan.kind], iso(moment_of("datetime", self._zone)(started)))

    def own_id(self, row: Any) -> str | None:
        """The id that a row brings with it, if it does."""
        if self._message_id is None:
            return None
        given = self._message_id(row)
        return None if given is None or given == "" else str(given)

    def refused(self, error: MessageError, raw: bytes) -> RowProblem:
        """What is wrong with a row of which the call was refused.

        Args:
            error: What the client said.
            raw: The bytes that the row is made of.
        """
        word = error.detail.partition(" ")[0]
        named = [self._plan.fields[name] for name in _FIELDS.get(word, ()) if name in self._plan.fields]
        if not named or named[0].startswith("="):
            return RowProblem(str(error.reason), error.detail)
        row = row_of(raw, self._look.form)
        column, cell = named[0], self._field(named[0])(row)
        if word == "timestamp":  # it may be text that nobody has read before
            try:
                moment_of(self._kinds[column], self._zone)(_text_of(cell))
            except _MISFITS:
                return _misfit(column, cell, self._kinds[column])
        return RowProblem(str(error.reason), error.detail, column=column, found=_shown(cell))

    def _native(self, row: dict[str, Any], own_id: str) -> Given:
        return [row if self._id_field in row else {**row, self._id_field: own_id}], {}

    def _compiled(self, kind: Kind, started: str) -> Callable[[Any, str], Given]:
        """For the rows of one kind, all that they have in common looked up once."""
        plan = self._plan
        arguments = [self._argument(name) for name in kind.arguments]
        if kind.content:
            arguments.append(self._content())
        keywords = [(name, self._optional(plan.fields[name])) for name in kind.keywords if name in plan.fields]
        keywords.append(("timestamp", self._moments(started)))

        def given(row: Any, own_id: str) -> Given:
            named = {"message_id": own_id}
            for name, get in keywords:
                named[name] = get(row)
            return [get(row) for get in arguments], named

        return given

    def _argument(self, name: str) -> Get:
        """An argument's value; what a call can be without is `None` where the cell is empty."""
        fields = self._plan.fields
        if name not in fields:
            return lambda _: None
        if name == "id" and fields.keys() & {"account_id", "organization_id", "anonymous_id"}:
            return self._optional(fields[name])
        return self._field(fields[name])

    def _optional(self, column: str) -> Get:
        get = self._field(column)
        return lambda row: None if (value := get(row)) == "" else value

    def _field(self, column: str) -> Get:
        if column.startswith("="):
            text = column[1:]
            return lambda _: text
        place = self._places[column]
        return methodcaller("get", place) if self._json else itemgetter(place)

    def _moments(self, started: str) -> Get:
        column = self._plan.fields.get("timestamp", f"={started}")
        get = self._field(column)
        if column.startswith("="):
            return get
        kind = self._kinds[column]
        convert = moment_given_of(kind, self._zone)

        def moment(row: Any) -> str:
            cell = get(row)
            try:
                return convert(_text_of(cell))
            except _MISFITS:
                raise _misfit(column, cell, kind) from None

        return moment

    def _content(self) -> Get:
        content = self._plan.content(self._look.columns)
        if self._json:
            return self._of_objects(content)
        if not content:
            return lambda _: {}
        places = {name: self._places[column] for name, column in content.items()}
        converters = {name: convert for name, column in content.items() if (convert := self._converter(column))}
        return _of_cells(places, converters, partial(self._which, places, converters))

    def _of_objects(self, wanted: Mapping[str, str]) -> Get:
        """What makes the traits or properties of an object, which says itself what is a number; null is none of these.

        Where nothing says which ones, they are all that nothing else names, null too.
        """
        named, is_open = self._named, self._plan.traits is None
        typed = {column: self._converter(column) for column in self._plan.types}
        converters = [(name, column, convert) for name, column in wanted.items() if (convert := typed.get(column))]

        def content_of(row: dict[str, Any]) -> dict[str, Any]:
            if is_open:
                content = {name: value for name, value in row.items() if name not in named}
            else:
                content = {name: value for name, column in wanted.items() if (value := row.get(column)) is not None}
            for name, column, convert in converters:
                value = content.get(name)
                if value is not None:
                    try:
                        content[name] = convert(_text_of(value))
                    except _MISFITS:
                        raise _misfit(column, value, self._kinds[column]) from None
            return content

        return content_of

    def _converter(self, column: str) -> Convert | None:
        return trait_of(self._kinds.get(column, TEXT), self._zone)

    def _which(self, places: Mapping[str, Any], converters: Mapping[str, Convert], row: list[str]) -> RowProblem:
        """The column whose cell is not of its type: found when it is known that there is one."""
        for name, convert in converters.items():
            cell = row[places[name]]
            if cell:
                try:
                    convert(cell)
                except _MISFITS:
                    column = self._look.columns[places[name]]
                    return _misfit(column, cell, self._kinds[column])
        return RowProblem(TYPE, "a cell is not of its column's type")


def _of_cells(places: Mapping[str, Any], converters: Mapping[str, Convert], which: Callable[[Any], RowProblem]) -> Get:
    """What makes the traits or properties of a row of cells; an empty cell is none."""
    columns = [(name, converters.get(name)) for name in places]
    take = itemgetter(*places.values())
    cells_of: Get = take if len(columns) > 1 else lambda row: (take(row),)

    def content_of(row: list[str]) -> dict[str, Any]:
        content = {}
        try:
            for (name, convert), cell in zip(columns, cells_of(row)):  # noqa: B905 - as many by their making
                if cell:
                    content[name] = cell if convert is None else convert(cell)
        except _MISFITS:
            raise which(row) from None
        return content

    return content_of


def _text_of(cell: Any) -> str:
    return cell if isinstance(cell, str) else "" if cell is None else str(cell)


def _misfit(column: str, cell: Any, kind: str) -> RowProblem:
    return RowProblem(TYPE, f"is no {kind}", column=column, found=_shown(cell), expected=kind)


def _shown(cell: Any) -> str:
    text = "nothing" if cell is None or cell == "" else repr(cell)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def kinds_of(plan: Plan, look: Look, where: str) -> dict[str, str]:
    """The types of a source's columns: as the mapping says, or else as the first look found.

    Raises:
        ImportProblem: If the column of the moments has none.
    """
    kinds = {}
    for column, cells in look.cells.items():
        kinds[column] = plan.types.get(column) or found_in([one for one in cells if isinstance(one, str)]).kind
    column = plan.fields.get("timestamp", "=")
    if not column.startswith("=") and column not in plan.types:
        texts = [one if isinstance(one, str) else str(one) for one in look.cells.get(column, ())]
        found = moments_in(texts)
        if found is None and any(texts):
            formats = formats_in(texts)
            other = option_for(column, formats) if formats else "--type says another format, such as %d/%m/%Y"
            raise ImportProblem(
                "the column of the timestamps has none that can be recognised",
                where=f"{where}, column {column}",
                found=repr(next(text for text in texts if text))[:_SHOWN],
                expected=f"ISO 8601 or Unix time; {other}",
            )
        kinds[column] = found.kind if found else "datetime"
    return kinds
