"""A row's side within the process that may hang: it works with one library, and says facts as they come."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .libraries import LIBRARIES, Library, properties

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOCAL = {"127.0.0.1", "127.0.0.2", "localhost", "::1"}


class Case:
    """One library in one process.

    Args:
        library: Which one.
        url: The recording server.
        facts: The file that facts are appended to; forked children append to it too.
        folder: A folder of its own, which is also its home.
    """

    def __init__(self, library: str, url: str, facts: str, folder: str) -> None:
        self.library, self.url, self.folder = LIBRARIES[library], url, Path(folder)
        self._facts_path = facts
        self._facts = os.open(facts, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.on_error: Any = None

    @cached_property
    def client(self) -> Library:
        """The library's client, made when first asked for, which lives until the process ends."""
        return self.library(self.url, self.on_error)

    def say(self, **facts: Any) -> None:
        """Tell facts; later ones replace earlier ones of the same name."""
        os.write(self._facts, json.dumps(facts).encode() + b"\n")

    def at(self, stage: str) -> None:
        """Tell what begins, in case that it does not end."""
        self.say(stage=stage, moment=time.monotonic())

    def track(self, indexes: Iterable[int], **more: Any) -> None:
        """Track events as an application that looks after itself: it goes on where a call raises."""
        self.at("track()")
        client = self.client
        for index in indexes:
            try:
                client.track(properties(index, **more))
            except Exception as error:  # noqa: BLE001 - whatever it raises is a fact
                self.say(raised=type(error).__name__)
        self.at("exit")

    def flush(self) -> None:
        """Flush, and tell how long it took."""
        self._end("flush()", self.client.flush)

    def close(self) -> None:
        """Close, and tell how long it took."""
        self._end("shutdown()", self.client.close)

    def _end(self, stage: str, call: Any) -> None:
        self.at(stage)
        began = time.monotonic()
        try:
            call()
        except Exception as error:  # noqa: BLE001 - as above
            self.say(complained=type(error).__name__)
        self.say(seconds=time.monotonic() - began)
        self.at("exit")

    def deliver(self, pause: float = 4.0, times: int = 2) -> None:
        """What an application does that sends now and then: flush, wait, flush."""
        for turn in range(times):
            if turn:
                time.sleep(pause)
            self.flush()

    def leave(self) -> None:
        """End at once, without the library's exit."""
        os._exit(0)


def stay_local() -> None:
    """Refuse every connection and look-up that would leave this machine, whatever a library's defaults are."""

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and arguments[0].family in {socket.AF_INET, socket.AF_INET6}:
            host = arguments[1][0]
        elif event == "socket.getaddrinfo":
            host = arguments[0]
        else:
            return
        if host not in _LOCAL:
            raise OSError(f"{host} is not this machine")

    sys.addaudithook(watch)


def resident(name: str = "VmRSS") -> float:
    """Megabytes that are resident in this process, or with `VmHWM` were at most."""
    status = Path("/proc/self/status")
    if not status.exists():  # not Linux: the most is all that is known, and macOS tells it in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    for line in status.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)
