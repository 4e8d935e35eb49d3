"""The fleet's pace: one rate of requests over all relays of a stream, and a pause of all when the vendor asks for one.

The schedule is that of `Pace`, kept on the server and by the server's clock: the generic cell rate algorithm. The
moving window of the package `limits` keeps a rate too, but lets the requests of a window go all at once (measured at
ten a second: ten within 20 ms, then none for a second), has whole seconds only, so that a fractional rate needs a
longer window with a larger burst, and costs a connection and two calls of its own for each request. Here the one call
also says whether the shard is still ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .books import FENCED, LATE, LOST
from .server import Script, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .server import Keys, Server
    from .shards import Holding

_MICRO: Final = 1_000_000
_MILLI: Final = 1_000
_SLACK: Final = 20_000
"""Microseconds: about what a busy machine's threads are late, or a high rate would never be reached."""
_SOON: Final = 0.05
_UNREACHABLE: Final = 0.5
_LEAST: Final = 0.001

# Keys: as for `FENCED`, the pause, the rate's moment. Arguments: the token, and the microseconds between two requests,
# and those by which a request may come late and others still make up for it: waits end late, never early.
_CLAIM: Final = Script(f"""\
{FENCED}
local pause = redis.call('PTTL', KEYS[4])
if pause > 0 then return {{'WAIT', pause * 1000}} end
local interval = tonumber(ARGV[2])
if interval == 0 then return {{'OK'}} end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local free = tonumber(redis.call('GET', KEYS[5]) or 0)
if free > now then
  if free <= now + 2 * interval then return {{'WAIT', math.ceil(free - now)}} end
  free = now
end
free = (now - free < tonumber(ARGV[3]) and free or now) + interval
redis.call('SET', KEYS[5], string.format('%.0f', free), 'PX', math.ceil(interval / 500) + 1000)
return {{'OK'}}
""")

# Keys: as above. Arguments: the token, and milliseconds. It never shortens a pause.
_PAUSE: Final = Script(f"""\
{FENCED}
if redis.call('PTTL', KEYS[4]) < tonumber(ARGV[2]) then redis.call('SET', KEYS[4], token, 'PX', ARGV[2]) end
return {{'OK'}}
""")


class FleetPace:
    """One shard's view of the fleet's pace: what a consumer asks before each request. Used by one thread at a time.

    Args:
        server: The shard's connection.
        keys: The stream's keys.
        holding: The shard.
        rate: Requests a second, over the fleet; `None` for no bound.
        tell: Is told what went wrong with the server.
    """

    def __init__(
        self, server: Server, keys: Keys, holding: Holding, rate: float | None, tell: Callable[[Trouble], object]
    ) -> None:
        self._server = server
        shard = holding.shard
        self._keys = [keys.stream(shard), keys.books(shard), keys.lease(shard), keys.pause, keys.rate]
        self._holding = holding
        self._interval = 0 if rate is None else max(round(_MICRO / rate), 1)
        self._slack = max(self._interval, _SLACK)
        self._tell = tell

    def reset(self) -> None:
        """In a forked child: there is nothing to forget."""

    def claim(self, now: float) -> float:
        """Claim the next request.

        Args:
            now: The monotonic clock, by which nothing is decided here.

        Returns:
            0 if it is yours; else the seconds after which to ask again.
        """
        del now
        if not self._holding.is_sure:
            return _SOON
        try:
            answer = self._run(_CLAIM, self._interval, self._slack)
        except Trouble as trouble:
            self._tell(trouble)
            return _UNREACHABLE
        if answer[0] == LOST:
            self._holding.lost = True
            return _SOON
        if answer[0] == LATE:
            return _SOON
        return max(int(answer[1]) / _MICRO, _LEAST) if len(answer) > 1 else 0.0

    def pause(self, seconds: float) -> None:
        """Let no relay make a request for so long: the vendor asked for it. If that cannot be said, the others ask.

        Args:
            seconds: How long.
        """
        try:
            answer = self._run(_PAUSE, max(int(seconds * _MILLI), 1))
        except Trouble as trouble:
            self._tell(trouble)
        else:
            self._holding.lost |= answer[0] == LOST

    def _run(self, script: Script, *arguments: int) -> Sequence[bytes]:
        answer: Sequence[bytes] = self._server.run(script, self._keys, [self._holding.token, *arguments])
        return answer
