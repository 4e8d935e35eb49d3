"""A local stand-in for an analytics vendor: for tests, for the demo, and for a look at what would be sent.

```python
with Receiver(api_token="test-token") as receiver:
    receiver.script(Reply(500), Reply(429, headers={"Retry-After": "1"}))
    ...  # point a client at receiver.url
    assert receiver.wait_for(lambda r: len(r.messages) == 10)
    assert receiver.faults == ()
```

That is Vitally; `wire=CustomerIOWire(...)` or `wire=SegmentWire(...)` makes it another one, and `wires=[...]` all of
them at once.
"""

from __future__ import annotations

from .customerio import CustomerIOWire
from .record import Report, Request
from .reply import Reply
from .segment import SegmentWire
from .server import Receiver
from .vitally import VitallyWire

__all__ = ["CustomerIOWire", "Receiver", "Reply", "Report", "Request", "SegmentWire", "VitallyWire"]
