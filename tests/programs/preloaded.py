"""What a fork server loads before it forks, in `tests/test_fork.py`: it makes a client, and tracks by it."""

from __future__ import annotations

import os

from harness import make_client, track

track(make_client(os.environ["RECEIVER"], flush_interval=60), "parent", 3)
