"""One clock, and threads of which one runs at a time: the system as the model sees it.

The threads are real ones that hand each other a baton when they wait, so that a run repeats itself to the letter. No
wait takes time: once everybody waits, the clock is set to the next moment that somebody waits for.
"""

from __future__ import annotations

import _thread
import functools
import math
import threading
from random import Random
from types import SimpleNamespace

from analytics_batcher import assembly, client, delivery, lanes, pipeline, retry, stamp
from analytics_batcher.buffers import memory
from analytics_batcher.consumer import Consumer

TICK = 1e-6  # a system never wakes anybody early
_READS = 3_000
_REAL_SECONDS = 900.0  # hours of that time, in which a thread dies every second, take minutes


class Spinning(BaseException):
    """Somebody reads the clock again and again, and never waits."""


class Ended(BaseException):
    """The world's end, thrown into what still waits."""


class Task:
    """A thread of the world, and what it waits for."""

    def __init__(self):
        self.baton = _thread.allocate_lock()
        self.baton.acquire()
        self.until = 0.0
        self.ready = None
        self.error = None
        self.thread = None

    def is_due(self, now):
        """Whether it may go on."""
        return self.until <= now or (self.ready is not None and self.ready())


class World:
    """A clock and its threads. The one that makes it is the main thread.

    Attributes:
        now: The monotonic clock.
        ahead: How far the wall clock is ahead of it.
        thrown: What ended threads.
        has_threads: Whether the system starts another thread.
        forks: How often the process forked.
    """

    def __init__(self):
        self.now = 1_000.0
        self.ahead = 1_700_000_000.0
        self.thrown = []
        self.has_threads = True
        self.forks = 0
        self.main = self.current = Task()
        self.tasks = [self.main]
        self._ghosts = []
        self._reads = 0

    def install(self, patch):
        """Put this world's clock, locks, threads and chance in the system's place, in the modules that use them."""
        clock = SimpleNamespace(monotonic=self.monotonic, time=self.time)
        for module in (client, delivery, lanes, pipeline, retry):
            patch.setattr(module, "time", clock)
        patch.setattr(stamp, "_monotonic", self.monotonic)
        patch.setattr(stamp, "_wall", self.time)
        patch.setattr(assembly, "Consumer", functools.partial(Consumer, clock=self.monotonic))
        patch.setattr(retry, "_chance", Random(0))
        locks = SimpleNamespace(**{**vars(_thread), "allocate_lock": functools.partial(Lock, self)})
        threads = SimpleNamespace(**{**vars(threading), "Thread": functools.partial(Thread, self)})
        for module in (memory, pipeline):
            patch.setattr(module, "_thread", locks)
            patch.setattr(module, "threading", threads)

    def monotonic(self):
        """The monotonic clock."""
        self._reads += 1
        if self._reads > _READS:
            self._reads = 0
            raise Spinning
        return self.now

    def time(self):
        """The wall clock."""
        return self.now + self.ahead

    def sleep(self, seconds):
        """Let time pass, for everybody."""
        self.wait(self.now + seconds)

    def wait(self, until=math.inf, ready=None):
        """Let the others run, until a moment, or until `ready()`."""
        me = self.current
        if me.error is None:
            me.until, me.ready = until, ready
            self._hand_to(self._next())
            if not me.baton.acquire(timeout=_REAL_SECONDS):
                raise RuntimeError("the baton was lost")
        if me.error is not None:
            raise me.error

    def start(self, target):
        """Start a thread, which runs when the present one waits."""
        task = Task()
        task.thread = threading.Thread(target=self._run, args=(task, target), daemon=True)
        self.tasks.append(task)
        task.thread.start()

    def fork(self):
        """Become a forked child, in which only the thread that forks lives on."""
        self._ghosts += [task for task in self.tasks if task is not self.current]
        self.tasks = [self.current]
        self.forks += 1

    def end(self):
        """End every thread that is left."""
        for task in [*self._ghosts, *self.tasks]:
            if task is not self.main:
                task.error = Ended()
                self._hand_to(task)
                assert self.main.baton.acquire(timeout=_REAL_SECONDS)
                task.thread.join(_REAL_SECONDS)

    def _run(self, task, target):
        task.baton.acquire()
        try:
            if task.error is None:
                target()
        except Ended:
            pass
        except BaseException as error:  # noqa: BLE001 - what ends a thread is for the test to judge
            self.thrown.append(error)
        finally:
            if task in self.tasks:
                self.tasks.remove(task)
            self._hand_to(self._next() if task.error is None else self.main)

    def _hand_to(self, task):
        self.current = task
        task.baton.release()

    def _next(self):
        """Who goes on: of those that may, the one that ran the longest ago."""
        due = [task for task in self.tasks if task.is_due(self.now)]
        if not due:
            moment = min(task.until for task in self.tasks)
            if moment == math.inf:
                self.main.error = RuntimeError("everybody waits for ever")
                return self.main
            self.now = moment + TICK
            self._reads = 0
            due = [task for task in self.tasks if task.is_due(self.now)]
        self.tasks.remove(due[0])
        self.tasks.append(due[0])
        return due[0]


class Thread:
    """A thread of the world, in the form of `threading.Thread`."""

    def __init__(self, world, *, target, name, daemon):
        assert name.startswith("analytics-batcher:")
        assert daemon
        self._world = world
        self._target = target

    def start(self):
        """Start it, if the system still starts threads."""
        if not self._world.has_threads:
            raise RuntimeError("can't start new thread")
        self._world.start(self._target)


class Lock:
    """A lock of the world, in the form of `_thread.lock`."""

    def __init__(self, world):
        self._world = world
        self._locked = False

    def acquire(self, *, timeout=-1):
        """Take it, or say that the time is over."""
        if self._locked and timeout:
            until = math.inf if timeout < 0 else self._world.now + timeout
            self._world.wait(until, lambda: not self._locked)
        taken = not self._locked
        self._locked = True
        return taken

    def release(self):
        """Let another one have it."""
        if not self._locked:
            raise RuntimeError("release unlocked lock")
        self._locked = False

    def locked(self):
        """Whether somebody has it."""
        return self._locked
