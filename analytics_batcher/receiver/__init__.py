"""A local stand-in for an analytics vendor: for tests, for the demo, and for a look at what would be sent.

```python
with Receiver(api_token="test-token") as receiver:
    receiver.script(Reply(500), Reply(429, headers={"Retry-After": "1"}))
    ...  # point a client at receiver.url
    assert receiver.wait_for(lambda r: len(r.messages) == 10)
    assert receiver.faults == ()
```
"""

from __future__ import annotations

from .record import Report, Request
from .reply import Reply
from .server import Receiver

__all__ = ["Receiver", "Reply", "Report", "Request"]
