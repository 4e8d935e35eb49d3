"""A terminal as a person has it: a pseudo-terminal of some width, and what is then to be seen on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

_CONTROL = re.compile(r"\x1b\[(\??)(\d*)(?:;\d+)*([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\r\n]|[^\x1b\r\n]")


class Screen:
    """What the characters that a program wrote look like. A line that is too long goes on in the next one, as on glass.

    Attributes:
        text: All that was written.
        colours: Whether a colour was set.
        frames: What was to be seen whenever something was about to be drawn anew.
    """

    def __init__(self, columns):
        self.columns, self.text, self.colours, self.frames = columns, "", False, []
        self._rows, self._row, self._column = [[]], 0, 0

    def write(self, text):
        """Show what was written."""
        self.text += text
        for found in _CONTROL.finditer(text):
            self._do(found[0], found[1], found[2], found[3])

    def _do(self, token, private, number, letter):
        if letter in {"A", "K"} and (not self.frames or self.frames[-1] != self.lines):
            self.frames.append(self.lines)
        if letter == "A":
            self._row = max(self._row - int(number or 1), 0)
        elif letter == "K":
            self._rows[self._row] = []
        elif letter == "m":
            self.colours |= bool(re.search(r"(?<!\d)(3[1-8]|9[0-7])(?!\d)", token))
        elif token == "\r":
            self._column = 0
        elif token == "\n":
            self._next()
        elif not letter and not private and not token.startswith("\x1b"):
            if self._column == self.columns:
                self._next()
            row = self._rows[self._row]
            row.extend(" " * (self._column - len(row) + 1))
            row[self._column] = token
            self._column += 1

    def _next(self):
        self._row, self._column = self._row + 1, 0
        if self._row == len(self._rows):
            self._rows.append([])

    @property
    def lines(self):
        """The lines that are to be seen, but for empty ones."""
        return [line for row in self._rows if (line := "".join(row).rstrip())]


@contextlib.contextmanager
def on_terminal(command, environment, columns=80, *, colours=True):
    """Start a program on a terminal; yields it and its terminal's other end."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    kept = {name: value for name, value in environment.items() if name not in {"NO_COLOR", "COLUMNS", "LINES", "CI"}}
    kept |= {"TERM": "xterm-256color"} | ({} if colours else {"NO_COLOR": "1"})
    process = subprocess.Popen(command, env=kept, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    try:
        yield process, ours
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def seen(command, environment, columns=80, *, colours=True, seconds=60.0, hear=None):
    """Run a program on a terminal to its end: its exit status, and the screen.

    Args:
        command: The program.
        environment: Its environment.
        columns: How wide the terminal is.
        colours: Whether colours are wanted.
        seconds: The most that it may take.
        hear: Called with the process and the screen whenever something was written.
    """
    screen, end, left = Screen(columns), time.monotonic() + seconds, b""
    with on_terminal(command, environment, columns, colours=colours) as (process, ours):
        while True:
            assert time.monotonic() < end, f"the program did not end in time: {screen.lines}"
            if not select.select([ours], [], [], 0.2)[0]:
                continue
            try:
                chunk = os.read(ours, 65_536)
            except OSError:  # the other end has closed, on Linux
                chunk = b""
            if not chunk:
                break
            left += chunk
            with contextlib.suppress(UnicodeDecodeError):
                text, left = left.decode(), b""
                screen.write(text)
            if hear is not None:
                hear(process, screen)
        return process.wait(10), screen
