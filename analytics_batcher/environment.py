"""A client's settings out of the environment."""

from __future__ import annotations

import inspect
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

from .buffers.redis import RedisBuffer
from .buffers.sqlite import SqliteBuffer
from .destinations.customerio import CustomerIO
from .destinations.segment import Segment
from .destinations.vitally import Vitally
from .retry import Retry
from .settings import shown
from .text import Secret, printable, seal_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .destinations import Destination

AnyClient = TypeVar("AnyClient")
PREFIX: Final = "ANALYTICS_BATCHER_"
_FIRST_WORD: Final = re.compile(r"(?:Retry\.)?(\w+)")
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})
_OF_DESTINATIONS: Final = (
    *("VITALLY_SUBDOMAIN", "VITALLY_API_TOKEN", "SEGMENT_WRITE_KEY"),
    *("CUSTOMERIO_SITE_ID", "CUSTOMERIO_API_KEY", "CUSTOMERIO_REGION"),
)
_OF_COMMANDS: Final = ("INSPECT_TOKEN",)
_WHOLE: Final = frozenset({"batch_messages", "batch_bytes", "message_bytes"})
_NUMBERS: Final = frozenset({"max_requests_per_second"})
_HOOKS: Final = frozenset({"before_send", "on_drop", "on_delivery", "default"})


def make(
    client: Callable[..., AnyClient], options: Mapping[str, Any], variables: Mapping[str, Any] | None = None
) -> AnyClient:
    """Make a client as the environment says.

    Args:
        client: Its class.
        options: Options that come before those of the environment.
        variables: What to read in the environment's place; may hold more than text.

    Raises:
        ValueError: If a variable is missing, unknown, or its value is wrong; it names the variable.
    """
    reader = _Reader(os.environ if variables is None else variables)
    destinations = reader.destinations()
    chosen = {}
    for name, default in _options_of(client).items():
        given = None if name == "buffer" else reader.give(name.upper())
        if given is not None:
            chosen[name] = _value(name, given, default)
    retry = reader.retry()
    if retry is not None:
        chosen["retry"] = retry
    chosen.update(reader.buffer())
    reader.finish()
    variables = {name: "SPOOL" if name == "buffer" else name.upper() for name in chosen.keys() - options.keys()}
    with _naming(variables):
        return client(destinations, **{**chosen, **options})


@contextmanager
def _naming(variables: Mapping[str, str]) -> Iterator[None]:
    """Say the variable in errors that name a setting, as all of them do in their first word."""
    try:
        yield
    except ValueError as error:
        setting = _FIRST_WORD.match(str(error))
        if setting is None or setting[1] not in variables:
            raise
        raise ValueError(f"{PREFIX}{variables[setting[1]]}: {error}") from None


class _Reader:
    """Reads variables, and knows which of them nobody asked for."""

    def __init__(self, variables: Mapping[str, Any]) -> None:
        # An empty variable is an unset one: that is how many tools unset them.
        unset = (None, "")
        self._left = {
            name: value for name, value in variables.items() if name.startswith(PREFIX) and value not in unset
        }

    def give(self, name: str) -> Any:
        return seal_url(self._left.pop(PREFIX + name, None))

    def take(self, name: str) -> str | None:
        value = self.give(name)
        if value is None or isinstance(value, str):
            return value
        # Its value is not shown: it may be a secret.
        raise ValueError(f"{PREFIX}{name} is {type(value).__name__}: allowed is text")

    def secret(self, name: str) -> Secret:
        return Secret(self.need(name))

    def need(self, name: str) -> str:
        value = self.take(name)
        if value is None:
            raise ValueError(f"{PREFIX}{name} is not set")
        return value

    def destinations(self) -> list[Destination]:
        kinds = [kind.strip() for kind in self.need("DESTINATION").split(",")]
        base_url = self.take("BASE_URL")
        # One host would get the secrets of all: a receiver on this machine may, to which alone plain http is taken.
        if base_url is not None and len(kinds) > 1 and not base_url.lower().startswith("http:"):
            raise ValueError(f"{PREFIX}BASE_URL: allowed with several destinations is plain http to this machine")
        given: dict[str, Any] = {} if base_url is None else {"base_url": base_url}
        unknown = [kind for kind in kinds if kind not in _KINDS]
        if unknown:
            raise ValueError(f"{PREFIX}DESTINATION={shown(unknown[0])}: allowed is {' or '.join(map(repr, _KINDS))}")
        if len(set(kinds)) < len(kinds):
            raise ValueError(f"{PREFIX}DESTINATION={shown(','.join(kinds))}: allowed is each name once")
        return [_KINDS[kind](self, given) for kind in kinds]

    def retry(self) -> Retry | None:
        given: dict[str, Any] = {}
        for name, default in (("base", 0.5), ("cap", 60.0), ("jitter", "full"), ("max_age", 0.0)):
            value = self.give(f"RETRY_{name.upper()}")
            if value is not None:
                plain = value == "auto" or isinstance(default, str)
                given[name] = value if plain else _value(f"retry_{name}", value, default)
        with _naming({name: f"RETRY_{name.upper()}" for name in given}):
            return Retry(**given) if given else None

    def buffer(self) -> dict[str, Any]:
        """What keeps messages, if anything is said of that. A spool is the stage of what is shipped to Redis."""
        spool, url = self.give("SPOOL"), self.take("REDIS_URL")
        url = url and Secret(url)
        given: dict[str, Any] = {}
        for name, default in (("stream", ""), ("shards", 1), ("allow_volatile", False)):
            value = self.give(f"REDIS_{name.upper()}")
            if value is not None:
                given[name] = value if name == "stream" else _value(f"redis_{name}", value, default)
        if url is None and given:
            self.need("REDIS_URL")
        stage = None if spool is None else SqliteBuffer(spool)
        if url is None:
            return {} if stage is None else {"buffer": stage}
        with _naming({name: f"REDIS_{name.upper()}" for name in ("url", *given)}):
            return {"buffer": RedisBuffer(url, stage=stage, **given)}

    def finish(self) -> None:
        for name in (*_OF_DESTINATIONS, *_OF_COMMANDS):  # what is for another, or for a command, does no harm
            self.take(name)
        if self._left:
            # Its value may be a secret under a misspelt name.
            raise ValueError(f"{printable(min(self._left))}: there is no such setting")


def _vitally(reader: _Reader, given: dict[str, Any]) -> Destination:
    subdomain, api_token = reader.take("VITALLY_SUBDOMAIN"), reader.secret("VITALLY_API_TOKEN")
    names = {"Vitally": "VITALLY_SUBDOMAIN", "subdomain": "VITALLY_SUBDOMAIN", "api_token": "VITALLY_API_TOKEN"}
    with _naming({**names, "base_url": "BASE_URL"}):
        return Vitally(subdomain, api_token=api_token, **given)


def _customerio(reader: _Reader, given: dict[str, Any]) -> Destination:
    region = reader.take("CUSTOMERIO_REGION") or "us"
    site_id, api_key = reader.secret("CUSTOMERIO_SITE_ID"), reader.secret("CUSTOMERIO_API_KEY")
    names = {"site_id": "CUSTOMERIO_SITE_ID", "api_key": "CUSTOMERIO_API_KEY", "region": "CUSTOMERIO_REGION"}
    with _naming({**names, "base_url": "BASE_URL"}):
        return CustomerIO(site_id, api_key, region=region, **given)


def _segment(reader: _Reader, given: dict[str, Any]) -> Destination:
    with _naming({"write_key": "SEGMENT_WRITE_KEY", "base_url": "BASE_URL"}):
        return Segment(reader.secret("SEGMENT_WRITE_KEY"), **given)


_KINDS: Final[dict[str, Callable[[_Reader, dict[str, Any]], Destination]]] = {
    "vitally": _vitally,
    "customerio": _customerio,
    "segment": _segment,
}


def _value(name: str, text: Any, default: Any) -> Any:
    """A variable's text as a value of the kind that the option's default has; what is no text, as it is."""
    if not isinstance(text, str):
        return text
    if name in _HOOKS:
        raise ValueError(f"{PREFIX}{name.upper()}: a function cannot be given in the environment")
    if name == "retry":
        raise ValueError(f"{PREFIX}RETRY={shown(text)}: allowed are {PREFIX}RETRY_BASE and its like, one for each part")
    try:
        return seal_url(_parsed(name, text.strip(), default))
    except ValueError:
        wanted = "a whole number" if name in _WHOLE or type(default) is int else "a number"
        wanted = "true or false" if type(default) is bool or name == "gzip" else wanted
        raise ValueError(f"{PREFIX}{name.upper()}={shown(text)}: allowed is {wanted}") from None


def _parsed(name: str, text: str, default: Any) -> Any:
    lowered = text.lower()
    parsed: Any = text
    if lowered == "none":
        return None
    if name == "timeout" and "," in text:
        connect, reading = text.split(",")
        parsed = float(connect), float(reading)
    elif name in _WHOLE or type(default) is int:
        parsed = int(text)
    elif type(default) is float or name in _NUMBERS:
        parsed = float(text)
    elif lowered in _TRUE or lowered in _FALSE:
        parsed = lowered in _TRUE
    elif (type(default) is bool or name == "gzip") and name != "verify":
        raise ValueError
    return parsed


def _options_of(client: Callable[..., object]) -> dict[str, Any]:
    """The names of a client class's options, each with its default; those too that it hands on to its base."""
    makers = [client]
    if isinstance(client, type):
        makers = [base for base in client.__mro__ if "__init__" in vars(base) and base is not object]
    options: dict[str, Any] = {}
    for maker in makers:
        parameters = inspect.signature(maker).parameters.values()
        own = {one.name: one.default for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY}
        options = {**own, **options}
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
            break
    return options
