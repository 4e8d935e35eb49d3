"""SIGTERM, whose default action ends a process without its exit hooks."""

from __future__ import annotations

import _thread
import os
import signal
import threading
import time
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NoReturn

from . import lifecycle
from .lanes import drain_all, end_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_STATUS: Final = 128 + signal.SIGTERM
"""What a shell, Docker and Kubernetes call the status of a process that SIGTERM has ended."""
_PATIENCE: Final = 1.0
"""Seconds that the main thread gets to restore the default action, which no other thread may."""
_CALLS: Final = 20


def install_sigterm_handler() -> None:
    """Let a SIGTERM deliver what is queued before it does what it did so far. For scripts that nobody else runs.

    The default action kills a process, and no exit hook runs. With this handler everything queued is sent first, for
    at most `shutdown_timeout` seconds, while the program goes on; what is left is dropped as `exit`, and the process
    is then killed by SIGTERM as before: `finally` blocks and exit handlers do not run. As the first process of a
    container, which the kernel does not let itself kill, it exits with status 143 instead.

    A handler that the program has set before stays in charge: what is queued is sent as soon as a SIGTERM comes, the
    handler is called at once, and whether the process ends is up to it. If it ends it in the ordinary way (by
    `sys.exit`, or by returning some time later) the exit hook does the rest. Where SIGTERM is ignored, it stays
    ignored. A second call changes nothing. Forked children inherit the handler.

    Python calls it in the main thread, as soon as that runs Python code: not within a long call of C code.

    Raises:
        ValueError: If this is not the main thread, the only one that may set signal handlers.
    """
    previous = signal.getsignal(signal.SIGTERM)
    if previous is None:
        text = "SIGTERM is handled by something that is not Python's, and stays so: it cannot be called from here"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        return
    kept = isinstance(previous, _Handler) or previous == signal.SIG_IGN
    try:
        signal.signal(signal.SIGTERM, previous if kept else _Handler(previous))
    except ValueError as error:
        text = f"install_sigterm_handler() must be called in the main thread, as every setting of a handler: {error}"
        raise ValueError(text) from None


class _Handler:
    """Sends what waits in a thread, and then lets the signal do what it did before.

    In a thread, and with the main one going on, because a signal handler interrupts the main thread anywhere: where it
    sends by itself, or where it holds a lock that a callback or a log handler needs. What waits for that in here waits
    in vain. Nor is `SystemExit` raised, though it would run `finally` blocks: a finalizer may swallow it, and where
    other threads live on it ends nothing, until the supervisor loses patience and kills the process with all its queue.

    `_sending_in` and `_sent_in` name a process, as a forked child has neither the thread nor what it had to send. They
    and `_due` are changed by single assignments, in the main thread and in the sending one.
    """

    def __init__(self, previous: Callable[[int, FrameType | None], Any] | int) -> None:
        self._previous = previous if callable(previous) else None
        self._sending_in = 0
        self._sent_in = 0
        self._due = 0.0  # after that, only a callback that does not return can hold the sending up

    def __call__(self, number: int, frame: FrameType | None) -> None:
        here = os.getpid()
        if self._sending_in != here:
            self._begin(here)
        elif self._previous is None and (self._sent_in == here or time.monotonic() > self._due):
            _end_by_sigterm()
        # Any other one that comes while the first is seen to changes nothing: some supervisors send two.
        if self._previous is not None:
            self._previous(number, frame)

    def _begin(self, here: int) -> None:
        if self._previous is None and lifecycle.is_ending():
            return  # the exit hook is at it, and the process ends with it
        begun = time.monotonic()
        self._due = max([end for _, end in lifecycle.deadlines(begun)], default=begun) + _PATIENCE
        self._sending_in = here
        work = self._send_and_end if self._previous is None else self._send
        try:
            # Unlike `Thread.start` it does not wait for the thread to begin, which gevent forbids to its event loop.
            _thread.start_new_thread(work, (begun,))
        except RuntimeError:  # the limit of threads, or an interpreter that is about to end
            self._sending_in = 0
            if self._previous is None:
                _send_here()
        except BaseException:
            self._sending_in = 0
            raise

    def _send(self, begun: float) -> None:
        try:
            drain_all(lifecycle.deadlines(begun), patient=False)
        finally:
            self._sending_in = 0

    def _send_and_end(self, begun: float) -> None:
        try:
            drain_all(lifecycle.deadlines(begun), patient=False)  # what comes meanwhile is still accepted
            _end(begun)
        finally:
            self._sent_in = os.getpid()
            # More than once, since one that comes just before the main thread begins to wait does not wake it.
            for _ in range(_CALLS):
                os.kill(self._sent_in, signal.SIGTERM)
                threading.Event().wait(_PATIENCE / _CALLS)
            os._exit(_STATUS)


def _end(begun: float) -> None:
    ends = lifecycle.deadlines(begun)
    end_all(ends)
    lifecycle.let_leave([pipeline for pipeline, _ in ends])


def _send_here() -> None:
    now = time.monotonic()
    if not any(pipeline.is_runner for pipeline, _ in lifecycle.deadlines(now)):
        _end(now)
        _end_by_sigterm()
    # It would wait for itself. A process that ends already goes on with that.
    if threading.main_thread().is_alive():
        raise SystemExit(_STATUS)


def _end_by_sigterm() -> NoReturn:
    with suppress(ValueError):  # called by the application in another thread
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    os._exit(_STATUS)  # for the first process of a container the kernel leaves the default action out
