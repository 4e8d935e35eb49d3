"""What a receiver can be given besides: pages for a browser, under paths that are no vendor's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator

    from .record import Request
    from .reply import Reply


class Pages(Protocol):
    """Pages, and what makes them worth looking at. All is called in the threads of connections, under no lock."""

    def page(self, request: Request) -> Generator[bytes, None, None] | None:
        """The whole answer to a request for a page, in parts.

        Args:
            request: The request, whose body has not been read and never will be.

        Returns:
            The parts; the connection is closed behind the last one. None: this is no request for a page.
        """

    def decide(self, request: Request) -> Reply | None:
        """The answer to a vendor's request, where neither `script` nor `Receiver.decide` has one.

        Args:
            request: The request, with its messages and faults.

        Returns:
            The answer; None for the normal one.
        """

    def watch(self, request: Request, answer: Reply) -> None:
        """Hear of a vendor's request, before it is answered.

        Args:
            request: As it would be kept.
            answer: What it is going to be answered.
        """

    def close(self) -> None:
        """End every page that is still being written."""
