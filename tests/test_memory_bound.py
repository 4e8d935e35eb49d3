from __future__ import annotations

import pytest
from programs.harness import running

from analytics_batcher.receiver import Reply

QUEUE = 1_000_000
BODY = 500_000
TRACKED = 3_000
MESSAGE = 10_000


@pytest.mark.parametrize("listens", ["listens", "deaf"])
@pytest.mark.parametrize("when_full", ["drop_newest", "drop_oldest"])
def test_a_stuck_endpoint_cannot_fill_the_memory(receiver, when_full, listens):
    """30 MB tracked against an endpoint that is stuck hold no more than the queue's bound, a tenth, and one body."""
    stuck = []

    def decide(messages):
        if messages[0]["userId"] == "warm":
            return None
        if not stuck:
            stuck.append(len(messages))
            program.tell()
        return Reply(hang=True)

    receiver.decide = decide
    with running("memory", "fill", receiver.url, when_full, listens) as program:
        ended = program.end()

    facts = ended.facts
    assert (ended.status, ended.errors) == (0, "")
    # What is held, and what the queue itself says of it.
    assert facts["held"] <= 1.1 * QUEUE + BODY
    assert QUEUE - 2 * MESSAGE < facts["pending_bytes"] <= QUEUE
    # Everything else was counted, and nothing twice.
    full = facts["at_full"]
    assert (full["tracked"], full["delivered"]) == (TRACKED + 1, 1)
    assert full["dropped"] == {"queue_full": TRACKED - full["pending"]}
    assert facts["accepted"] == (TRACKED if when_full == "drop_oldest" else full["pending"])
    # What the end leaves behind, and what the callback was told of: of each drop, but not each message.
    assert facts["left"] == full["pending"]
    assert facts["dropped"] == {**full["dropped"], "exit": facts["left"]}
    assert stuck[0] >= 1
    if listens == "listens":
        assert facts["drops"] == TRACKED
        assert facts["left"] < facts["shown"] <= facts["left"] + 2 * QUEUE // 16 // MESSAGE
    else:
        assert facts["drops"] == 0
