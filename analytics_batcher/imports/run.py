"""The import of several sources: in the order that vendors need, through one client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ..retry import Retry
from .calls import kinds_of
from .connecting import from_environment
from .look import look_of
from .one_file import CHUNK_ROWS, FileImport
from .problems import Stopped
from .results import ImportResult, Sums
from .settling import Settling
from .source import STDIN, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .connecting import Connect
    from .look import Look
    from .results import Job, State

PATIENCE: Final = 600.0
"""Seconds without any progress after which an import ends: the vendor is down, or refuses the requests themselves."""


class Import:
    """One import of one or several sources, whose result can be read although it was interrupted.

    Args:
        jobs: The sources. They are sent in the order that vendors need: organizations, accounts, users, then the rest.
        connect: Makes the client, of the options that are given to it.
        progress: Is told how it goes on, a few times a second.
        show: Is told of each source, and what it looks like, before anything of it is sent.
        patience: Seconds without any progress after which it ends.
        restart: Whether to begin anew, whatever an earlier run has settled.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        *,
        connect: Connect = from_environment,
        progress: Callable[[State], object] | None = None,
        show: Callable[[Job, Look], object] | None = None,
        patience: float = PATIENCE,
        restart: bool = False,
    ) -> None:
        self.jobs = sorted(jobs, key=lambda job: job.plan.rank)
        self._connect = connect
        self._progress = progress
        self._show = show
        self._patience = patience
        self._restart = restart
        self._stop = False
        self._settling: Settling | None = None
        self._files: dict[str, Sums] = {}
        self._left = [job.path for job in self.jobs]
        self._retries = 0
        self._error: str | None = None

    @property
    def result(self) -> ImportResult:
        """What it came to so far."""
        stopped = self._stop and bool(self._left)
        return ImportResult(dict(self._files), tuple(self._left), self._retries, self._error, stopped)

    def stop(self) -> None:
        """End soon: what is in flight is given some seconds. May be called in a signal handler."""
        self._stop = True
        if self._settling is not None:
            self._settling.stop()

    def run(self) -> ImportResult:
        """Send the rows.

        Raises:
            ImportProblem: If a source, or a mapping, makes no sense. That of any file is said before anything is sent.
            OSError: If a file cannot be read or written.
            ValueError: If a setting is wrong.
        """
        for job in self.jobs:
            _check(job)
        settling = Settling(self._patience)
        link = self._connect(
            strict=True,
            on_drop=settling.hear,
            retry=Retry(max_age=None),
            buffer=None,
            dead_letters=None,
            when_full="drop_newest",
            max_queue_messages=4 * CHUNK_ROWS,
            max_queue_bytes=32 * 2**20,
            enabled=True,
        )
        self._settling = settling
        if self._stop:  # before there was anything to tell of it
            settling.stop()
        settling.use(link)
        client = link.client
        try:
            for job in self.jobs:
                link.check(job.plan.kind, job.path)
            for job in self.jobs:
                work = FileImport(job, client, settling, restart=self._restart, tell=self._tell, show=self._show)
                try:
                    work.run()
                finally:
                    self._files[job.path] = work.sums
                self._left.remove(job.path)
        except Stopped as stopped:
            self._error = None if self._stop else str(stopped)
        finally:
            self._retries = client.stats().retries
            client.shutdown(0)
        return self.result

    def _tell(self, state: State) -> None:
        self._files[state.path] = state.sums
        if self._progress is not None:
            self._progress(state)


def _check(job: Job) -> None:
    """Look at a file, so that what is wrong with a later one is said before the first one was sent."""
    if job.path != STDIN:
        source = Source(job.path, job.plan.encoding)
        try:
            kinds_of(job.plan, look_of(source, job.plan), source.name)
        finally:
            source.close()
