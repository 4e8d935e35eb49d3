"""What happens to clients when the process forks or ends."""

from __future__ import annotations

import atexit
import os
import sys
import time
import weakref
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable


class Watched(Protocol):
    """What is seen to: a pipeline."""

    shutdown_timeout: float
    """Seconds that the exit hook may spend on it."""

    def after_fork(self) -> None:
        """In a forked child: begin empty."""


_FINALIZE_PRIORITY: Final = -100

# Strong references: what a collected client left behind is still to be sent. Changed by single C calls only, so that
# threads, finalizers and signal handlers may do so; whoever walks it takes a copy first.
_watched: dict[int, Watched] = {}
# All of them, those that ended too: their locks may be held by a thread that a forked child does not have.
_known: weakref.WeakSet[Watched] = weakref.WeakSet()
_installed = False
_end_all: Callable[[list[tuple[Any, float]]], object] | None = None
_finalizes_in = 0


def watch(pipeline: Watched, end_all: Callable[[list[tuple[Any, float]]], object]) -> None:
    """See to a pipeline at exit and after a fork, until it is forgotten.

    Args:
        pipeline: The pipeline.
        end_all: Shuts several down at the same time, each by its own deadline.
    """
    global _installed, _end_all  # noqa: PLW0603 - the process has one exit
    _end_all = end_all
    if not _installed:
        _installed = True
        atexit.register(shut_down)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=_after_fork)
    _known.add(pipeline)
    _watched[id(pipeline)] = pipeline
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        _finalize_with_multiprocessing()


def forget(pipeline: Watched) -> None:
    """A pipeline came to its end by itself."""
    _watched.pop(id(pipeline), None)


def shut_down() -> None:
    """The exit hook: let every client deliver what it has, each within its own `shutdown_timeout`."""
    now = time.monotonic()
    if _end_all is not None:
        _end_all([(pipeline, now + pipeline.shutdown_timeout) for pipeline in tuple(_watched.values())])


def _after_fork() -> None:
    for pipeline in tuple(_known):
        pipeline.after_fork()
    util = sys.modules.get("multiprocessing.util")
    if util is not None and _watched:
        # A `multiprocessing` child leaves without `atexit`, and clears what is registered for its end before it
        # starts, but then calls this.
        util.register_after_fork(_after_fork, _finalize_after_fork)


def _finalize_after_fork(_: object) -> None:
    _finalize_with_multiprocessing()


def _finalize_with_multiprocessing() -> None:
    global _finalizes_in  # noqa: PLW0603 - the process has one end
    from multiprocessing import util  # noqa: PLC0415 - only where the application uses it

    if _finalizes_in != os.getpid():
        _finalizes_in = os.getpid()
        util.Finalize(None, shut_down, exitpriority=_FINALIZE_PRIORITY)
