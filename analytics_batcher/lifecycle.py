"""What happens to clients when the process forks or ends."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sys
import threading
import time
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from .log import logger
from .stamp import reseed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Watched(Protocol):
    """What is seen to: a pipeline."""

    name: str
    """What logs call it."""
    shutdown_timeout: float
    """Seconds that the exit hook may spend on it."""

    @property
    def unsettled(self) -> int:
        """How many messages would be lost with the process; found without waiting for a lock."""

    def join(self, timeout: float) -> None:
        """Wait for the thread of a stopped consumer, at most `timeout` seconds."""

    def after_fork(self) -> None:
        """In a forked child: begin empty."""


_FINALIZE_PRIORITY: Final = -100
_LEAVING: Final = 0.1
"""Seconds that the end waits for threads that have next to nothing more to do."""

# Strong references: what a collected client left behind is still to be sent. Changed by single C calls only, so that
# threads, finalizers and signal handlers may do so; whoever walks it takes a copy first.
_watched: dict[int, Watched] = {}
# All of them, those that ended too: their locks may be held by a thread that a forked child does not have.
_known: weakref.WeakSet[Watched] = weakref.WeakSet()
_installed = False
_follows_celery = False
_follows_multiprocessing = False
_end_all: Callable[[list[tuple[Any, float]]], object] | None = None
_finalizer: tuple[int, Any] = (0, None)
_ending = False


def watch(pipeline: Watched, end_all: Callable[[list[tuple[Any, float]]], object]) -> bool:
    """See to a pipeline at exit and after a fork, until it is forgotten.

    Args:
        pipeline: The pipeline.
        end_all: Shuts several down at the same time, each by its own deadline.

    Returns:
        Whether a thread may run it. None may in an exit handler: it would be stopped for ever wherever it is.
    """
    global _installed, _end_all  # noqa: PLW0603 - the process has one exit
    _end_all = end_all
    if not _installed:
        _installed = True
        atexit.register(shut_down)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)
        _follow_uwsgi()
    _follow_celery()
    _known.add(pipeline)
    _watched[id(pipeline)] = pipeline
    _follow_multiprocessing()
    main = threading.main_thread()
    if main.is_alive():
        return True
    # Exit handlers may be running already. Then one that is registered now, as `shut_down` may just have been, is not
    # called any more, and if it was registered before, it may be over.
    if _finish not in gc.callbacks:
        gc.callbacks.append(_finish)
    if threading.current_thread() is not main:
        return True
    gc.enable()  # without it there is no last collection
    return False


def forget(pipeline: Watched) -> None:
    """A pipeline came to its end by itself."""
    _watched.pop(id(pipeline), None)


def deadlines(begun: float) -> list[tuple[Any, float]]:
    """Every pipeline, and when its `shutdown_timeout` will have passed.

    Args:
        begun: Since when it runs, in seconds of the monotonic clock.
    """
    return [(pipeline, begun + pipeline.shutdown_timeout) for pipeline in tuple(_watched.values())]


def is_ending() -> bool:
    """Whether the exit hook is at work."""
    return _ending


def shut_down() -> None:
    """The exit hook: let every client deliver what it has, each within its own `shutdown_timeout`."""
    global _ending  # noqa: PLW0603 - the process has one exit
    _ending = True
    ends = deadlines(time.monotonic())
    try:
        _end_in_spite_of_signals(ends)
    finally:
        _ending = False
    let_leave(tuple(_known))


def _end_in_spite_of_signals(ends: list[tuple[Any, float]]) -> None:
    end_all = _end_all
    while end_all is not None:
        try:
            end_all(ends)
        except SystemExit:
            continue  # the process ends already: a supervisor has sent its signal once more
        except BaseException:  # another Ctrl-C, of one who will not wait: what is left is counted and told all the same
            end_all([(pipeline, 0.0) for pipeline, _ in ends])
            raise
        return


def let_leave(pipelines: Iterable[Watched]) -> None:
    """Wait a moment for the threads of pipelines that were shut down, before the process stops them wherever they are.

    That may be within the callback that is told of the last delivery, or within a line of the log.

    Args:
        pipelines: Those.
    """
    leaving = time.monotonic() + _LEAVING
    for pipeline in pipelines:
        pipeline.join(max(leaving - time.monotonic(), 0.0))


def _finish(_phase: str, _info: object) -> None:
    """At the last collection of garbage, which comes after the exit handlers, with every module still whole."""
    if not sys.is_finalizing() or not _watched:
        return
    if threading.active_count() == 1:
        shut_down()
        return
    # The other threads were stopped for ever wherever they were: any lock may be held, of ours, of `logging`.
    for pipeline in tuple(_watched.values()):
        forget(pipeline)
        if left := pipeline.unsettled:
            with suppress(OSError):
                os.write(2, f"{pipeline.name}: {left} messages were left behind and dropped at exit\n".encode())


def _after_fork() -> None:
    global _ending  # noqa: PLW0603 - the process has one exit
    _ending = False
    for pipeline in tuple(_known):
        pipeline.after_fork()
    _follow_multiprocessing()
    _follow_celery()


def _follow_multiprocessing() -> None:
    """Be told of the end of `multiprocessing`'s children, which leave without `atexit`."""
    global _follows_multiprocessing  # noqa: PLW0603 - as above
    if "billiard" in sys.modules:  # whose children are seen to by this module too, but load it after a fork's hooks
        importlib.import_module("multiprocessing.util")
    util = sys.modules.get("multiprocessing.util")
    if util is None:
        return
    if not _follows_multiprocessing:
        _follows_multiprocessing = True
        # A child clears what is registered for its end before it starts, but then calls this. That may be yet to come
        # where the client is made: a fork server's child loads the program's main module before.
        util.register_after_fork(_after_fork, _finalize_after_fork)
    # Not `parent_process()`, which knows nothing of the children of `billiard`.
    if getattr(sys.modules["multiprocessing.process"].current_process(), "_parent_pid", None) is not None:
        _finalize_after_fork()


def _finalize_after_fork(_: object = None) -> None:
    global _finalizer  # noqa: PLW0603 - the process has one end
    from multiprocessing import util  # noqa: PLC0415 - only where the application uses it

    pid, finalizer = _finalizer
    if pid != os.getpid() or not finalizer.still_active():
        _finalizer = os.getpid(), util.Finalize(None, shut_down, exitpriority=_FINALIZE_PRIORITY)


def _follow_celery() -> None:
    """Celery's prefork children leave by `os._exit`, past `atexit` and finalizers, but send a signal before."""
    global _follows_celery  # noqa: PLW0603 - the signal is the process's
    signals = sys.modules.get("celery.signals")
    if signals is not None and not _follows_celery:
        _follows_celery = True
        signals.worker_process_shutdown.connect(_shut_down_with_celery, weak=False)


def _shut_down_with_celery(**_: object) -> None:
    shut_down()


def _follow_uwsgi() -> None:
    """Be told of forks by uWSGI's own hook: it forks in C and, unless told to, calls none of Python's."""
    uwsgi: Any = sys.modules.get("uwsgi")
    if uwsgi is None or not hasattr(uwsgi, "has_threads"):
        return
    reseed()  # this may be a worker, forked after the stamps' module was loaded
    if not uwsgi.has_threads:
        logger.warning("uWSGI runs without --enable-threads: all is sent at flush() and exit, little between requests")
    hooks = [getattr(uwsgi, "post_fork_hook", None)]
    spooler = getattr(uwsgi, "spooler", None)
    with suppress(Exception):  # not installed, or there is no master process: then nobody else can import it either
        # Not left to the application: imported later, it would put its hook in the place of ours.
        hooks.append(importlib.import_module("uwsgidecorators").postfork_chain_hook)
        if spooler is not None:
            uwsgi.spooler = spooler

    def forked() -> None:
        reseed()
        _after_fork()
        for hook in dict.fromkeys(hooks):
            if hook is not None:
                hook()

    uwsgi.post_fork_hook = forked
