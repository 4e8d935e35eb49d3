"""For an application's tests: a client that records what it is told, and says whether it was the right thing.

```python
recorder = Recorder(Vitally("acme", api_token="any"))
sign_up(recorder, "u1")  # your code
recorder.assert_tracked("Signed up", user_id="u1", properties={"plan": "pro", "at": ANY})
recorder.assert_nothing_lost()
```

With pytest there are two fixtures, `analytics` and `analytics_receiver`.
"""

from __future__ import annotations

from .matching import ANY, including
from .recorder import Recorder

__all__ = ["ANY", "Recorder", "including"]
