"""A relay's settings, checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..options import limits_of
from ..retry import Retry
from ..settings import file_path, flag, hook, number, shown, whole
from ..streams import checked_stream, checked_url
from ..transport import Transport

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from ..batch import Limits
    from ..destinations import Destination
    from ..stats import Delivery, Drop

IN_STREAM: Final = "stream"
"""As `dead_letters`: in a stream beside the others."""
_LEAST_LEASE: Final = 0.5
_MOST_SHARDS: Final = 1_024
_SERVER_SECONDS: Final = 5.0


@dataclass(frozen=True)
class RelaySettings:
    """What `Relay` documents.

    Raises:
        ValueError: If a setting is wrong; it names the setting, the value and what is allowed.
    """

    url: str = field(repr=False)
    destination: Destination
    stream: str
    shards: int
    max_requests_per_second: float | None
    dead_letters_path: str | os.PathLike[str] | None
    lease: float
    retry: Retry
    timeout: float | tuple[float, float]
    lowered: tuple[int | None, int | None, int | None]
    flush_interval: float
    gzip: bool | None
    proxy: str | None
    verify: bool | str
    on_drop: Callable[[Drop], object] | None
    on_delivery: Callable[[Delivery], object] | None
    allow_volatile: bool
    shutdown_timeout: float
    limits: Limits = field(init=False)
    dead_letters: Path | None = field(init=False)
    dead_letters_in_stream: bool = field(init=False)

    def __post_init__(self) -> None:
        checked_url(self.url)
        checked_stream(self.stream)
        whole("shards", self.shards, at_least=1, at_most=_MOST_SHARDS, why="one relay may have to serve all")
        if self.max_requests_per_second is not None:
            number("max_requests_per_second", self.max_requests_per_second, above=0)
        number("lease", self.lease, at_least=_LEAST_LEASE)
        if not isinstance(self.retry, Retry):
            raise ValueError(f"retry={shown(self.retry)}: allowed is Retry(...)")  # noqa: TRY004 - as all settings
        for name in ("flush_interval", "shutdown_timeout"):
            number(name, getattr(self, name), at_least=0)
        for name in ("on_drop", "on_delivery"):
            hook(name, getattr(self, name))
        flag("allow_volatile", self.allow_volatile)
        if self.gzip is not None:
            flag("gzip", self.gzip)
        self._set("limits", limits_of(self.destination, *self.lowered))
        in_stream = self.dead_letters_path == IN_STREAM
        self._set("dead_letters_in_stream", in_stream)
        path = self.dead_letters_path
        if path is not None:
            path = Path(file_path("dead_letters", path)).absolute()  # the application may change its folder
        self._set("dead_letters", path)
        Transport(timeout=self.timeout, proxy=self.proxy, verify=self.verify).close()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    @property
    def server_timeout(self) -> float:
        """Seconds for the server to answer: so few that a lease may be renewed on another connection."""
        return min(_SERVER_SECONDS, self.lease / 2)
