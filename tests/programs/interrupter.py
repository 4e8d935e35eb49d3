"""Acts where a signal handler, a finalizer or an exception from another thread could come in."""

from __future__ import annotations

import opcode
import sys
import threading
from collections import Counter

TRACES_OPCODES = sys.version_info[:2] != (3, 12)  # where that crashes, in one thread of several
BEFORE_311 = sys.version_info < (3, 11)
JUMPS = {opcode.opmap[name] for name in opcode.opmap if "JUMP" in name and name != "JUMP_FORWARD"}


class Interrupter:
    """Acts once: at a new point of those in the package at which the interpreter lets signals and exceptions in.

    These points are the entries of functions, the returns from C, the jumps back, after a loop's condition was found
    true, and on Python 3.10 every return and most jumps; each is new when it is passed for the first and for the second
    time.

    Args:
        act: What to do there; it may raise.
        known: The points at which something was done before; the new one is added.
        consumer: Whether in the consumer's thread; if not, in the calling one.
    """

    RETURNS = {"call", "c_return"} | ({"return"} if BEFORE_311 else set())

    def __init__(self, act, known, *, consumer=False):
        self.place = self.thread = None
        self._act, self._known = act, known
        self._passed = Counter()
        self._module = threading if consumer else sys
        self._codes = {}

    def __enter__(self):
        self._module.settrace(self._trace)
        self._module.setprofile(self._profile)
        return self

    def __exit__(self, *_):
        self._module.setprofile(None)
        self._module.settrace(None)

    def is_over(self, client):
        """Whether a consumer came to its end, or went through without passing as many points."""
        return not client.stats().pending if self.thread is None else not self.thread.is_alive()

    def _is_ours(self, frame):
        if frame is None or self.place or "analytics_batcher/" not in frame.f_code.co_filename:
            return False
        return self._module is sys or threading.current_thread().name.startswith("analytics-batcher:")

    def _profile(self, frame, what, _):
        at = frame.f_back if what == "return" else frame
        if what in self.RETURNS and self._is_ours(at):
            self._pass(at, what)

    def _trace(self, frame, what, _):
        if not self._is_ours(frame):
            return None
        frame.f_trace_opcodes = TRACES_OPCODES
        if what == "opcode":
            before, self._codes[frame] = self._codes.get(frame, 0), frame.f_lasti
            if frame.f_lasti < before or (BEFORE_311 and self._jumped(frame, before)):
                self._pass(frame, "jump")
        elif what == "return":
            self._codes.pop(frame, None)
        return self._trace

    @staticmethod
    def _jumped(frame, before):
        return frame.f_lasti != before + 2 and frame.f_code.co_code[before] in JUMPS

    def _pass(self, frame, what):
        name = frame.f_code.co_filename.rpartition("analytics_batcher/")[2]
        place = f"{name}:{frame.f_lineno} {frame.f_code.co_name} ({what})"
        self._passed[place] += 1
        point = (place, self._passed[place])
        if self._passed[place] <= 2 and point not in self._known:
            self._known.add(point)
            self.place, self.thread = place, threading.current_thread()
            self._act()  # untraced, as it is in a callback; to end the tracing here has crashed Python 3.11
