"""A mapping: which column becomes which field of which call. It comes from options, or from a file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .columns import check, zone_of
from .problems import ImportProblem

if TYPE_CHECKING:
    from collections.abc import Mapping as Map


class Kind(NamedTuple):
    """A kind of message.

    Attributes:
        call: The client's method.
        arguments: The settings that name its positional arguments, in order.
        content: Whether it has traits or properties.
        keywords: The settings that it takes besides.
        rank: Its place in the order that vendors need.
    """

    call: str
    arguments: tuple[str, ...]
    content: bool
    keywords: tuple[str, ...]
    rank: int


_OF_ALL: Final = ("anonymous_id",)
KINDS: Final = {
    "organization": Kind("organization", ("id",), True, _OF_ALL, 0),
    "account": Kind("account", ("id",), True, ("user_id", "organization_id", *_OF_ALL), 1),
    "user": Kind("identify", ("id",), True, ("account_id", "organization_id", *_OF_ALL), 2),
    "custom-object": Kind("custom_object", ("id", "object"), True, ("name", "account_id", "organization_id"), 3),
    "alias": Kind("alias", ("previous_id", "id"), False, _OF_ALL, 4),
    "track": Kind("track", ("id", "event"), True, ("account_id", "organization_id", *_OF_ALL), 5),
    "page": Kind("page", ("id", "event"), True, _OF_ALL, 5),
    "screen": Kind("screen", ("id", "event"), True, _OF_ALL, 5),
    "unlink": Kind("unlink", ("id", "account_id"), False, _OF_ALL, 6),
}
NATIVE: Final = "native"
NATIVE_RANK: Final = 5
SETTINGS: Final = (
    *("id", "user_id", "account_id", "organization_id", "anonymous_id", "previous_id"),
    *("event", "name", "object", "timestamp", "message_id"),
)
"""What names a column; or, after a `=`, is the text itself."""
READING: Final = ("format", "encoding", "delimiter", "quote")


@dataclass(frozen=True)
class Mapping:
    """Which column becomes what.

    Attributes:
        kind: One of `KINDS`, or `native`.
        fields: The settings, each with the name of a column, or with a text after a `=`.
        traits: The column of each trait or property; `None`: all columns that nothing else names.
        drop: Columns that are not sent.
        types: The types of columns, where the first look shall not decide.
        timezone: The time zone of moments that say none.
        format: `csv` or `jsonl`; this and the rest: `None` where it is found out.
        encoding: The encoding.
        delimiter: What separates cells.
        quote: What encloses them.
        header: Whether the first row has the columns' names.
    """

    kind: str
    fields: Map[str, str] = field(default_factory=dict)
    traits: Map[str, str] | None = None
    drop: tuple[str, ...] = ()
    types: Map[str, str] = field(default_factory=dict)
    timezone: str = "UTC"
    format: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    header: bool = True

    def __post_init__(self) -> None:
        if self.kind != NATIVE and self.kind not in KINDS:
            known = ", ".join((*KINDS, NATIVE))
            raise ImportProblem("there is no such kind of message", where="as", found=self.kind, expected=known)
        for kind in self.types.values():
            check(kind)
        if self.format not in {None, "csv", "jsonl"}:
            raise ImportProblem(
                "there is no such format", where="format", found=str(self.format), expected="csv, jsonl"
            )
        zone_of(self.timezone)
        if self.kind != NATIVE:
            self._check_fields(KINDS[self.kind])

    def _check_fields(self, kind: Kind) -> None:
        taken = {*kind.arguments, *kind.keywords, "timestamp", "message_id"}
        for name in self.fields:
            if name not in taken:
                raise ImportProblem(f"a message of kind {self.kind} has no such field", where=_option(name))
        optional = {"id"} if {"account_id", "organization_id", "anonymous_id"} & self.fields.keys() else set()
        optional = optional if self.kind in {"track", "user", "page", "screen"} else set()
        for name in kind.arguments:
            if name not in self.fields and name not in optional:
                raise ImportProblem(
                    f"a message of kind {self.kind} needs it", where=_option(name), expected="a column, or =TEXT"
                )
        if self.traits and not kind.content:
            raise ImportProblem(f"a message of kind {self.kind} has no traits", where="trait")

    @property
    def rank(self) -> int:
        """Its place in the order that vendors need."""
        return NATIVE_RANK if self.kind == NATIVE else KINDS[self.kind].rank

    @property
    def digest(self) -> str:
        """What tells it from another mapping: rows that were sent by that one are not the same messages."""
        parts = {one.name: getattr(self, one.name) for one in fields(self)}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    @property
    def columns(self) -> set[str]:
        """The columns that it names."""
        fields = {column for column in self.fields.values() if not column.startswith("=")}
        return {*fields, *(self.traits or {}).values(), *self.drop, *self.types}

    def checked(self, columns: tuple[str, ...], where: str) -> Mapping:
        """Itself, if every column that it names is there.

        Raises:
            ImportProblem: If one is not.
        """
        named = {_option(name): column for name, column in self.fields.items() if not column.startswith("=")}
        named.update({f"trait {name}": column for name, column in (self.traits or {}).items()})
        named.update({f"drop {column}": column for column in self.drop})
        named.update({f"type {column}": column for column in self.types})
        for setting, column in named.items():
            if column not in columns:
                known = ", ".join(name for name in columns if name)
                raise ImportProblem(
                    f"there is no column for {setting}", where=f"{where}:1", found=known, expected=column
                )
        return self

    def content(self, columns: tuple[str, ...]) -> dict[str, str]:
        """The column of each trait or property."""
        if self.kind == NATIVE or not KINDS[self.kind].content:
            return {}
        if self.traits is not None:
            return dict(self.traits)
        used = {*self.fields.values(), *self.drop, ""}
        return {name: name for name in columns if name not in used}


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def merged(mapping: Mapping, given: Map[str, Any]) -> Mapping:
    """A mapping with what options say besides: they come before it.

    Args:
        mapping: The mapping of a file.
        given: Attributes; what is `None` or empty says nothing.
    """
    said = {name: value for name, value in given.items() if value not in (None, {}, ())}
    for name in ("fields", "types"):
        if name in said:
            said[name] = {**getattr(mapping, name), **said[name]}
    return replace(mapping, **said)
