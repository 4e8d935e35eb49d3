"""The client but for the network and the clock, against a model: whatever happens, the laws hold at every step.

The test runs the same examples each time. `python tests/test_model.py 5000` runs that many others.
"""

from __future__ import annotations

import sys

from client_model import REACHED, Model
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from analytics_batcher import DropReason


def run(examples, *, derandomize):
    """Let so many things happen to as many clients."""
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            derandomize=derandomize,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_laws_hold():
    """Whatever is done, in whatever order, the laws hold; and every drop reason of a queue in memory was met."""
    run(400, derandomize=True)
    assert set(DropReason) - REACHED == {DropReason.SPOOL_FULL, DropReason.SPOOL_ERROR}


if __name__ == "__main__":
    run(int(sys.argv[1]), derandomize=False)
