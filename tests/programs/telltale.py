"""Programs that tell a secret: run by `tests/test_security.py`, to see them caught."""

from __future__ import annotations

import logging
import sys

from canary import PERSON, TOKEN
from harness import say, start


def logs():
    """Log it at DEBUG, where nobody listens."""
    logging.getLogger("urllib3.connectionpool").debug("sent %s", {"Authorization": f"Basic {TOKEN}"})


def prints():
    """Print it."""
    sys.stderr.write(f"cannot deliver {PERSON}\n")


def says():
    """Say it to the test."""
    say(token=TOKEN)


if __name__ == "__main__":
    start({"logs": logs, "prints": prints, "says": says})
