"""The Redis server: one connection to it, scripts on it, what is asked of it, and what goes wrong with it.

This is the only module that knows the `redis` package, which it loads when a connection is first made.
"""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ..settings import shown
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

GROUP: Final = "relays"
"""The consumer group of each stream."""
_SCHEMES: Final = ("redis", "rediss", "unix")
_STREAM: Final = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_LEAST_VERSION: Final = (6, 2)
_LEAST_SECONDS: Final = 0.05
_TEXT_CHARACTERS: Final = 300
_HINT: Final = "the fleet needs the package redis: pip install 'analytics-batcher[redis]'"


class Trouble(Exception):  # noqa: N818 - what is wrong is the server, or the way to it
    """The server did not do what it was asked to.

    Attributes:
        lasts: Whether it is a matter of settings, on which waiting is no help.
    """

    def __init__(self, detail: str, *, lasts: bool = False) -> None:
        super().__init__(printable(detail, limit=_TEXT_CHARACTERS))
        self.lasts = lasts


class Script:
    """A script in Lua, which the server runs as one step.

    Args:
        text: The script.
    """

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - the name that Redis gives it


class Keys:
    """The names of what a stream has on the server.

    All share one hash tag: on a cluster they are in one place, so that a script may use them together.

    Args:
        stream: The stream's name.
    """

    def __init__(self, stream: str) -> None:
        self._tag = f"{{{stream}}}"
        self.shards = f"{self._tag}:shards"
        self.relays = f"{self._tag}:relays"
        self.pause = f"{self._tag}:pause"
        self.fence = f"{self._tag}:fence"
        self.rate = f"{self._tag}:rate"
        self.dead = f"{self._tag}:dead"

    def stream(self, shard: int) -> str:
        """The entries of a shard."""
        return f"{self._tag}:{shard}"

    def books(self, shard: int) -> str:
        """What is counted of a shard: a hash."""
        return f"{self._tag}:{shard}:books"

    def lease(self, shard: int) -> str:
        """Who serves a shard."""
        return f"{self._tag}:{shard}:lease"

    def sent(self, sender: str) -> str:
        """The last batch that a sender added."""
        return f"{self._tag}:sent:{sender}"


def checked_url(url: Any) -> str:
    """Check a server's URL.

    Raises:
        ValueError: If it is none. What it says of the URL has no password in it.
    """
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        fits = parts.scheme in _SCHEMES and bool(parts.hostname or parts.scheme == "unix")
        _ = parts.port
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            "url (not shown, as it may have a password in it): allowed is redis://, rediss:// or unix:// and a server, "
            "such as redis://localhost:6379/0"
        )
    return str(url)


def address_of(url: str) -> str:
    """A URL without its credentials and options, to be shown."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return printable(f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}")


def checked_stream(stream: Any) -> str:
    """Check a stream's name.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(stream, str) or not _STREAM.fullmatch(stream):
        raise ValueError(f"stream={shown(stream)}: allowed are 1 to 100 letters, digits and any of _ . : -")
    return stream


class Server:
    """One connection to a Redis server. Used by one thread at a time.

    Args:
        url: Where it is, its credentials included.
        timeout: Seconds for the server to connect, and to answer.
        allow_volatile: Whether a server is good enough that forgets what it has.
    """

    def __init__(self, url: str, *, timeout: float, allow_volatile: bool = False) -> None:
        self._url = url
        self._timeout = timeout
        self._allow_volatile = allow_volatile
        self._client: Any = None
        self.version: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"Server({address_of(self._url)!r})"

    def reset(self) -> None:
        """In a forked child: the connection is the parent's."""
        self._client = None

    def close(self) -> None:
        """Close the connection; the next call makes another."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                client.connection.disconnect()

    def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[Any], *, deadline: float | None = None
    ) -> Any:
        """Run a script.

        Args:
            script: The script.
            keys: Its keys.
            arguments: Its arguments.
            deadline: When it must have ended, in seconds of the monotonic clock, or `None`.

        Raises:
            Trouble: If it was not run, or nobody knows whether.
        """
        redis = _redis()
        try:
            return self.call("EVALSHA", script.sha, len(keys), *keys, *arguments, deadline=deadline)
        except redis.exceptions.NoScriptError:
            return self.call("EVAL", script.text, len(keys), *keys, *arguments, deadline=deadline)

    def call(self, *command: Any, deadline: float | None = None, patience: float = 0.0) -> Any:
        """Make one call.

        Args:
            command: The command and its arguments.
            deadline: As for `run`.
            patience: Seconds that the server may let us wait by this very command.

        Raises:
            Trouble: If it was not done, or nobody knows whether.
        """
        redis = _redis()
        try:
            client = self._connected(deadline)
            self._be_done_by(client, deadline, patience)
            return client.execute_command(*command)
        except redis.exceptions.NoScriptError:
            raise
        except redis.exceptions.ResponseError as error:
            raise Trouble(str(error), lasts=_lasts(error)) from None
        except (redis.exceptions.RedisError, OSError) as error:
            self.close()  # or an answer that comes late would be taken for that to the next call
            raise Trouble(f"{type(error).__name__}: {error}", lasts=_lasts(error)) from None
        except BaseException:
            self.close()  # interrupted in between: as above
            raise

    def _connected(self, deadline: float | None) -> Any:
        if self._client is None:
            redis = _redis()
            timeout = self._timeout if deadline is None else _between(deadline - time.monotonic(), self._timeout)
            client = redis.Redis.from_url(
                self._url,
                socket_timeout=self._timeout,
                socket_connect_timeout=timeout,
                retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),  # or a batch might be added more than once
                single_connection_client=True,
            )
            self._be_done_by(client, deadline, 0.0)
            self._check(client.info("everything"))
            self._client = client
        return self._client

    def _be_done_by(self, client: Any, deadline: float | None, patience: float) -> None:
        most = self._timeout + patience
        client.connection.connect()  # if it is not
        sock = client.connection._sock  # noqa: SLF001 - a call has no timeout of its own there
        sock.settimeout(most if deadline is None else _between(deadline - time.monotonic(), most))

    def _check(self, told: dict[str, Any]) -> None:
        """See whether the server keeps what it is given."""
        self.version = tuple(int(part) for part in re.findall(r"\d+", str(told.get("redis_version", "0")))[:3])
        text = ".".join(map(str, self.version))
        if self.version < _LEAST_VERSION:
            raise Trouble(f"redis_version {text}: 6.2 or later is needed", lasts=True)
        if told.get("role", "master") != "master":
            raise Trouble(f"role {told.get('role')}: a master is needed, as a replica takes no entries")
        if self._allow_volatile:
            return
        policy = told.get("maxmemory_policy", "noeviction")
        if policy != "noeviction":
            raise Trouble(
                f"maxmemory-policy {policy}: noeviction is needed, or the server drops entries that nobody has read; "
                "allow_volatile=True takes it all the same",
                lasts=True,
            )
        if not told.get("aof_enabled"):
            raise Trouble(
                "appendonly no: yes is needed, or the server forgets accepted entries when it is killed; "
                "allow_volatile=True takes it all the same",
                lasts=True,
            )


def _between(seconds: float, most: float) -> float:
    return min(max(seconds, _LEAST_SECONDS), most)


def _lasts(error: Exception) -> bool:
    """Whether it will not pass by itself."""
    return str(error).startswith(("WRONGPASS", "NOAUTH", "NOPERM", "ERR unknown command", "invalid username"))


def _redis() -> ModuleType:
    try:
        import redis  # noqa: PLC0415 - an extra, and not for those who have no fleet
        import redis.backoff  # noqa: PLC0415 - as above
        import redis.retry  # noqa: PLC0415 - as above
    except ImportError:
        raise ImportError(_HINT) from None
    return redis


def load() -> None:
    """Load what the calls need, in the thread that makes a client.

    Raises:
        ImportError: If the extra is not installed; it names the extra.
    """
    _redis()
