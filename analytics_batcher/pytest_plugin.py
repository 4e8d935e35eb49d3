"""Two fixtures for pytest. Nothing happens, and nothing is loaded, before a test asks for one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .receiver import Receiver
    from .testing import Recorder


@pytest.fixture
def analytics() -> Iterator[Recorder]:
    """A client that records instead of sending, with assertions; the functions of `analytics_batcher` use it, too."""
    from .testing import Recorder  # noqa: PLC0415 - not for those who do not ask for it

    with Recorder() as recorder, recorder.installed():
        yield recorder


@pytest.fixture
def analytics_receiver() -> Iterator[Receiver]:
    """A local stand-in for all vendors, over real HTTP, at `.url`; its token, keys and ids are `test-token`."""
    from .receiver import CustomerIOWire, Receiver, SegmentWire, VitallyWire  # noqa: PLC0415 - as above

    token = "test-token"  # noqa: S105 - it opens nothing
    with Receiver(wires=[VitallyWire(token), CustomerIOWire(token, token), SegmentWire(token)]) as receiver:
        yield receiver
