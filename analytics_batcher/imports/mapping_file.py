"""A mapping as a TOML file, and a first one for a file that little was said of."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .mapping import KINDS, NATIVE, READING, SETTINGS, Mapping
from .problems import ImportProblem

if TYPE_CHECKING:
    from collections.abc import Mapping as Map

    from .columns import Found

_TEXTS: Final = ("as", *SETTINGS, *READING, "timezone")
_KNOWN: Final = (*_TEXTS, "header", "drop", "traits", "types")


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
    _check(path, given)
    return Mapping(
        given["as"],
        {name: given[name] for name in SETTINGS if name in given},
        given.get("traits"),
        tuple(given.get("drop", [])),
        given.get("types", {}),
        given.get("timezone", "UTC"),
        **{name: given.get(name) for name in READING},
        header=given.get("header", True),
    )


def _check(path: str, given: Map[str, Any]) -> None:
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


def _toml() -> Any:
    try:
        return import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ImportError:  # Python 3.10
        raise ImportProblem("a mapping file needs tomli with Python 3.10", expected="pip install tomli") from None


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
    for name in READING:
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
