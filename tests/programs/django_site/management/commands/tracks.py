"""A command that tracks three messages, and then ends as it is told to."""

from __future__ import annotations

import os
import signal
import threading

from django.core.management.base import BaseCommand, CommandError

import analytics_batcher


class Command(BaseCommand):
    """`tracks returns`, `tracks raises` or `tracks waits`."""

    def add_arguments(self, parser):
        """Say what it takes."""
        parser.add_argument("end", choices=["returns", "raises", "waits"])

    def handle(self, *_, end, **__):
        """Do it."""
        for number in range(3):
            analytics_batcher.track(f"{os.getpid()}-{number}", "Commanded", account_id="a")
        handler = signal.getsignal(signal.SIGTERM)
        self.stderr.write(f"SIGTERM is handled by {getattr(handler, '__module__', None)}")
        self.stderr.write("It has tracked")
        if end == "raises":
            raise CommandError("as it was told")
        while end == "waits":
            threading.Event().wait(0.05)
