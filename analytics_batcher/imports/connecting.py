"""What an import sends through: a client, and the destinations that it was made of."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import environment
from ..client import Client
from .mapping import NATIVE
from .problems import ImportProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..destinations import Destination

    Connect = Callable[..., "Connected"]


class Connected(NamedTuple):
    """A client and its destinations.

    Attributes:
        destinations: Where to.
        client: What takes the rows.
    """

    destinations: Sequence[Destination]
    client: Client

    @property
    def id_field(self) -> str:
        """Where a native message carries its id: these go to one destination."""
        return self.destinations[0].id_field

    def check(self, kind: str, where: str) -> None:
        """Whether messages of this kind can go there.

        Raises:
            ImportProblem: If they are native, and there are several destinations.
        """
        if kind == NATIVE and len(self.destinations) > 1:
            names = ", ".join(one.name for one in self.destinations)
            raise ImportProblem("native messages are of one vendor's form", where=where, found=names, expected="one")


def connected(destinations: Sequence[Destination], **options: Any) -> Connected:
    """Make a client.

    Args:
        destinations: Where to.
        options: As of `Client`.

    Raises:
        ValueError: If a setting is wrong.
    """
    return Connected(destinations, Client(destinations, **options))


# So that the environment is read, and checked, just as for a client.
connected.__signature__ = inspect.signature(Client)  # type: ignore[attr-defined] # what `inspect` looks for


def from_environment(**options: Any) -> Connected:
    """The same as the environment says.

    Args:
        options: As of `Client`; they come before those of the environment.

    Raises:
        ValueError: If a setting is wrong; it names the variable.
    """
    return environment.make(connected, options)
