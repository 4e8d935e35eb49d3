"""The Redis server: one connection to it, scripts on it, what is asked of it, and what goes wrong with it.

This is the only module that knows the `redis` package, which it loads when a connection is first made.
"""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from ..streams import address_of, checked_url, secrets_of
from ..text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

GROUP: Final = "relays"
"""The consumer group of each stream."""
_LEAST_VERSION: Final = (6, 2)
_LEAST_SECONDS: Final = 0.05
_TEXT_CHARACTERS: Final = 300
_IN_SCRIPT: Final = re.compile(r"@user_script: ?\d+: -?([A-Z]+ [^@]*)$")
_BY_SCRIPT: Final = re.compile(r" script: [0-9a-f]{40}, on @user_script:\d+\.?")
_HINT: Final = "the fleet needs the package redis: pip install 'analytics-batcher[redis]'"


class Trouble(Exception):  # noqa: N818 - what is wrong is the server, or the way to it
    """The server did not do what it was asked to.

    Args:
        detail: What it said, or what came of it.
        lasts: Whether it is a matter of settings, on which waiting is no help.
        hide: Secrets that the server may have repeated.
    """

    def __init__(self, detail: str, *, lasts: bool = False, hide: Sequence[str] = ()) -> None:
        super().__init__(printable(detail, limit=_TEXT_CHARACTERS, hide=hide))
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


class Server:
    """One connection to a Redis server. Used by one thread at a time.

    Args:
        url: Where it is, its credentials included.
        timeout: Seconds for the server to connect, and to answer.
        allow_volatile: Whether a server is good enough that forgets what it has.

    Raises:
        ImportError: If the extra is not installed; it names the extra.
        ValueError: If the URL is none, or has options that do not belong to it.
    """

    _address = ""  # of one that is half made, and shown with an error's variables

    def __init__(self, url: str, *, timeout: float, allow_volatile: bool = False) -> None:
        self._url = checked_url(url)
        self._address = address_of(self._url)
        self._secrets = secrets_of(self._url)
        self._timeout = timeout
        self._allow_volatile = allow_volatile
        self._client: Any = None
        self.until = 0.0
        """When what is under way must have ended, in seconds of the monotonic clock."""
        if not self._can_be_made():
            raise ValueError(
                f"url ({self._address}, its options are not shown): allowed are db, username, password and "
                "client_name, and with rediss:// what redis-py takes as ssl_..."
            )
        self.version: tuple[int, ...] = ()

    def __repr__(self) -> str:
        return f"Server({self._address!r})"

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
        most = time.monotonic() + self._timeout
        self.until = most if deadline is None else min(deadline, most)
        try:
            client = self._connected()
            self.until = most + patience if deadline is None else min(deadline, most + patience)
            return client.execute_command(*command)
        except redis.exceptions.NoScriptError:
            raise
        except Trouble:
            self.close()  # to look again at what it was about
            raise
        except redis.exceptions.ResponseError as error:
            if _is_elsewhere(str(error)):
                self.close()  # the next connection may lead there
            raise self._trouble(error) from None
        except (redis.exceptions.RedisError, OSError, ValueError) as error:  # the last is of a name that cannot be one
            self.close()  # or an answer that comes late would be taken for that to the next call
            raise self._trouble(error) from None
        except BaseException:
            self.close()  # interrupted in between: as above
            raise

    def _trouble(self, error: Exception) -> Trouble:
        return Trouble(_text_of(error), lasts=_lasts(error), hide=self._secrets)

    def _connected(self) -> Any:
        if self._client is None:
            client = _redis().Redis(connection_pool=self._pool(), single_connection_client=True)
            try:
                self._check(client.info("everything"))
            except BaseException:
                client.connection.disconnect()
                raise
            self._client = client
        return self._client

    def _pool(self) -> Any:
        redis = _redis()
        options = redis.connection.parse_url(self._url)
        kind = _bounded(options.pop("connection_class", redis.connection.Connection), self)
        options["retry"] = redis.retry.Retry(redis.backoff.NoBackoff(), 0)  # or a batch might be sent twice
        return redis.ConnectionPool(connection_class=kind, **options)

    def _can_be_made(self) -> bool:
        """Whether the URL's options are those of a connection. Apart, since an error is shown with its frames."""
        _redis()
        try:
            self._pool().make_connection()
        except Exception:  # noqa: BLE001 - whatever the package says of them: their values may be secret
            return False
        return True

    def _check(self, told: dict[str, Any]) -> None:
        """See whether the server keeps what it is given."""
        self.version = tuple(int(part) for part in re.findall(r"\d+", str(told.get("redis_version", "0")))[:3])
        text = ".".join(map(str, self.version))
        if self.version < _LEAST_VERSION:
            raise Trouble(f"redis_version {text}: 6.2 or later is needed", lasts=True)
        if told.get("loading"):  # until it has read its append-only file, it says that it has none
            raise Trouble("loading: the server is still reading what it has kept")
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


def _bounded(kind: Any, server: Server) -> Any:
    """A kind of connection of which no wait outlasts `server.until`, be it for a greeting or for an answer."""

    class Bounded(kind):  # type: ignore[misc] # the kind is the URL's
        def _bound(self) -> float:
            left = max(server.until - time.monotonic(), _LEAST_SECONDS)
            if self._sock is not None:
                self._sock.settimeout(left)
            return left

        def _connect(self) -> Any:
            self.socket_timeout = self.socket_connect_timeout = self._bound()
            return super()._connect()

        def send_packed_command(self, *arguments: Any, **options: Any) -> Any:
            self._bound()
            return super().send_packed_command(*arguments, **options)

        def read_response(self, *arguments: Any, **options: Any) -> Any:
            self._bound()
            return super().read_response(*arguments, **options)

    return Bounded


def _lasts(error: Exception) -> bool:
    """Whether it will not pass by itself."""
    exceptions = _redis().exceptions
    refused = (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError)
    return isinstance(error, refused) or str(error).startswith(("WRONGPASS", "NOAUTH", "NOPERM", "unknown command"))


def _is_elsewhere(text: str) -> bool:
    """Whether another server is the one to be asked now: this one was the master, or had the keys."""
    return any(word in text for word in ("READONLY", "read only replica", "MASTERDOWN", "CLUSTERDOWN", "MOVED"))


def _text_of(error: Exception) -> str:
    """What an error says; of one within a script, what was wrong there."""
    inside = _IN_SCRIPT.search(str(error))
    if inside is not None:
        return inside[1]
    text = _BY_SCRIPT.sub("", str(error))
    plain = type(error) is _redis().exceptions.ResponseError  # of the others, the name stands for the text's first word
    return text if plain else f"{type(error).__name__}: {text}"


def _redis() -> ModuleType:
    try:
        import redis  # noqa: PLC0415 - an extra, and not for those who have no fleet
        import redis.backoff  # noqa: PLC0415 - as above
        import redis.connection  # noqa: PLC0415 - as above
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
