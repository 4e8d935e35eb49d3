"""What a row of the table is."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .server import Recorder, Refusing, Reply, Request, fine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .case import Case
    from .verdict import Cell, Seen


@dataclass(frozen=True)
class Row:
    """One thing that happens to applications.

    Args:
        name: Short, for the command line.
        title: What happens.
        wanted: What is fine: the criterion, the same for every library.
        work: The application, in a process of its own.
        judge: Reads a cell from what was seen.
        weather: How the endpoint behaves.
        limit: Seconds after which the process counts as hanging.
        log_level: Of the application's logging; `None`: it configures none.
        prepare: Puts files into the case's own folder beforehand.
        server: What stands at the endpoint's address.
        absent: Libraries that have no such thing, and what it is that they have not.
    """

    name: str
    title: str
    wanted: str
    work: Callable[[Case], None]
    judge: Callable[[Seen], Cell]
    weather: Callable[[Request, Recorder], Reply] = fine
    limit: float = 15.0
    log_level: int | None = logging.WARNING
    prepare: Callable[[Path], None] = lambda _: None
    server: type[Recorder | Refusing] = Recorder
    absent: Mapping[str, str] = field(default_factory=dict)
