"""A mapping: which column becomes which field of which call. It comes from options or from a TOML file."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .columns import check, zone_of
from .problems import ImportProblem

if TYPE_CHECKING:
    from collections.abc import Mapping as Map

    from .columns import Found


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
_READING: Final = ("format", "encoding", "delimiter", "quote")
_TEXTS: Final = ("as", *SETTINGS, *_READING, "timezone")
_KNOWN: Final = (*_TEXTS, "header", "drop", "traits", "types")


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
        if self.kind == NATIVE:
            return
        kind = KINDS[self.kind]
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


def from_toml(path: str) -> Mapping:
    """Read a mapping.

    Args:
        path: The file.

    Raises:
        ImportProblem: If it says something that no mapping says.
        OSError: If it cannot be read.
    """
    text = Path(path).read_text(encoding="utf-8")
    toml = _toml()
    try:
        given: dict[str, Any] = toml.loads(text)
    except toml.TOMLDecodeError as error:
        raise ImportProblem(f"is not TOML: {error}", where=path) from None
    for name in given:
        if name not in _KNOWN:
            raise ImportProblem("there is no such setting", where=path, found=name, expected=", ".join(_KNOWN))
    for name in _TEXTS:
        if not isinstance(given.get(name, ""), str):
            raise ImportProblem("a setting is not text", where=f"{path}, {name}", found=repr(given[name]))
    for name in ("traits", "types"):
        table = given.get(name, {})
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            raise ImportProblem("is no table of texts", where=f"{path}, {name}")
    drop, header = given.get("drop", []), given.get("header", True)
    if not isinstance(drop, list) or not all(isinstance(value, str) for value in drop):
        raise ImportProblem("is no list of columns", where=f"{path}, drop")
    if not isinstance(header, bool):
        raise ImportProblem("is neither true nor false", where=f"{path}, header")
    if "as" not in given:
        raise ImportProblem("the kind of message is missing", where=f"{path}, as", expected=", ".join((*KINDS, NATIVE)))
    return Mapping(
        given["as"],
        {name: given[name] for name in SETTINGS if name in given},
        given.get("traits"),
        tuple(drop),
        given.get("types", {}),
        given.get("timezone", "UTC"),
        **{name: given.get(name) for name in _READING},
        header=header,
    )


def _toml() -> Any:
    try:
        return import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ImportError:  # Python 3.10
        raise ImportProblem("a mapping file needs tomli with Python 3.10", expected="pip install tomli") from None


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


def to_toml(mapping: Mapping, columns: tuple[str, ...], found: Map[str, Found]) -> str:
    """A mapping as a file, with what the first look found beside each column.

    Args:
        mapping: The mapping.
        columns: The columns' names, in their order.
        found: What was found in them.
    """
    lines = [
        '# Which column becomes what. A text that begins with = stands for itself: event = "=Signed in"',
        f"as = {_quoted(mapping.kind)}",
    ]
    lines += [f"{name} = {_quoted(mapping.fields[name])}" for name in SETTINGS if name in mapping.fields]
    if mapping.kind != NATIVE:
        known = KINDS[mapping.kind]
        missing = [name for name in SETTINGS if name in {*known.arguments, *known.keywords, "timestamp"}]
        lines += [f'# {name} = ""' for name in missing if name not in mapping.fields]
    lines.append(f"drop = [{', '.join(map(_quoted, mapping.drop))}]")
    lines.append(f"timezone = {_quoted(mapping.timezone)}")
    for name in _READING:
        value = getattr(mapping, name)
        if value is not None:
            lines.append(f"{name} = {_quoted(value)}")
    if not mapping.header:
        lines.append("header = false")
    lines += ["", "# The column of each trait or property", "[traits]"]
    lines += [f"{_quoted(name)} = {_quoted(column)}" for name, column in mapping.content(columns).items()]
    lines += ["", "# The type of each column: a cell that is not of it is refused", "[types]"]
    for name in columns:
        if name in found:
            one = found[name]
            kind = mapping.types.get(name, one.kind)
            misfits = f", {one.cells - one.fitting} are not" if one.fitting < one.cells else ""
            lines.append(f"{_quoted(name)} = {_quoted(kind)}  # {one.cells} cells{misfits}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


_IDS: Final = ("user_id", "userid", "account_id", "accountid", "external_id", "id", "email")
_MOMENTS: Final = ("timestamp", "occurred_at", "event_time", "sent_at", "time", "created_at", "date")
_EVENTS: Final = ("event", "event_name", "event_type", "action")


def proposed(kind: str, columns: tuple[str, ...], given: Map[str, Any]) -> Mapping:
    """A mapping for a file that nothing, or little, was said of, by the columns' names; for a person to correct.

    Args:
        kind: The kind of messages; empty if that was not said.
        columns: The columns' names.
        given: Attributes that were said.
    """
    by_name = {name.lower().replace(" ", "_").replace("-", "_"): name for name in columns if name}
    said = {name: value for name, value in given.items() if value not in (None, {}, ())}
    settings = dict(said.pop("fields", {}))

    def propose(setting: str, names: tuple[str, ...]) -> None:
        for name in names:
            if setting not in settings and name in by_name and by_name[name] not in settings.values():
                settings[setting] = by_name[name]

    if not kind:
        eventful = any(name in by_name for name in _EVENTS) or "event" in settings
        kind = "track" if eventful else "account" if "user_id" not in by_name and "account_id" in by_name else "user"
    own = ("account_id", "accountid", "id") if kind == "account" else _IDS
    propose("id", ("organization_id", "id") if kind == "organization" else own)
    known = {*KINDS[kind].arguments, *KINDS[kind].keywords} if kind != NATIVE else set()
    if "event" in known:
        propose("event", _EVENTS)
        settings.setdefault("event", "=Imported")
    for name in ("account_id", "organization_id"):
        if name in known:
            propose(name, (name, name.replace("_", "")))
    if kind in {"track", "page", "screen"}:
        propose("timestamp", _MOMENTS)
    if "id" in known and "id" not in settings:
        settings["id"] = next((name for name in columns if name), "")
    return Mapping(kind, settings, **said)
