"""The default client, for scripts and for code that cannot hold an instance."""

from __future__ import annotations

import threading
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .calls import Calls
from .client import Client
from .stats import FlushResult

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .destinations import Destination


class _Default(Calls):
    """Hands every call to the configured client. `_client` is replaced under `_swap`, which no call takes."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._warned = False
        self._swap = threading.Lock()

    def configure(
        self, destination: Client | Destination | Sequence[Destination] | None = None, **options: Any
    ) -> Client:
        """Build the default client, and shut an earlier one down.

        Args:
            destination: As for `Client`; `None`: as `Client.from_env` reads the environment. Or a client, which becomes
                the default one as it is.
            options: Those of `Client`.

        Returns:
            The client, which the functions of this package use from now on.

        Raises:
            ValueError: If a setting is wrong, or an option is given with a client; an earlier client then stays.
        """
        client = _made(destination, options)
        earlier = self.replace(client)
        if earlier is not None and earlier is not client:
            earlier.shutdown()
        return client

    def replace(self, client: Client | None) -> Client | None:
        """Let the functions use another client, or none, from now on.

        Returns:
            The one that they used so far, which goes on.
        """
        with self._swap:
            earlier, self._client = self._client, client
        return earlier

    def _accept(  # noqa: PLR0917 - as its base
        self,
        message: dict[str, Any],
        timestamp: Any,
        message_id: Any,
        flags: int,
        field: str = "",
        content: Any = None,
    ) -> bool:
        client = self._client
        if client is None:
            return self._warn(4)
        # It is the same kind of thing.
        return client._accept(message, timestamp, message_id, flags, field, content)  # noqa: SLF001

    def enqueue(self, message: Any, *, to: str | None = None) -> bool:
        """As `Client.enqueue`."""
        client = self._client
        return client.enqueue(message, to=to) if client is not None else self._warn(3)

    def flush(self, timeout: float = 10.0) -> FlushResult:
        """As `Client.flush`; without a client there is nothing to do."""
        client = self._client
        if client is None:
            self._warn(3)
            return FlushResult()
        return client.flush(timeout)

    def shutdown(self, timeout: float | None = None) -> FlushResult:
        """As `Client.shutdown`; without a client there is nothing to do."""
        client = self._client
        if client is None:
            self._warn(3)
            return FlushResult()
        return client.shutdown(timeout)

    def _warn(self, level: int) -> bool:
        if not self._warned:
            self._warned = True
            with suppress(Warning):  # where warnings are errors, a call must not raise all the same
                text = "analytics_batcher is not configured: calls do nothing until analytics_batcher.configure(...)"
                warnings.warn(text, RuntimeWarning, stacklevel=level)
        return False


def _made(destination: Client | Destination | Sequence[Destination] | None, options: dict[str, Any]) -> Client:
    if destination is None:
        return Client.from_env(**options)
    if not isinstance(destination, Client):
        return Client(destination, **options)
    if options:
        raise ValueError(f"{min(options)} is given with a client: allowed is one or the other")
    return destination


_default = _Default()

configure = _default.configure
replace = _default.replace
identify = _default.identify
track = _default.track
account = _default.account
organization = _default.organization
custom_object = _default.custom_object
unlink = _default.unlink
page = _default.page
screen = _default.screen
alias = _default.alias
enqueue = _default.enqueue
flush = _default.flush
shutdown = _default.shutdown
