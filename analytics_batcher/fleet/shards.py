"""Who serves which shard: leases with fencing tokens, heartbeats, and how relays share the shards out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .books import COUNT, FENCE
from .server import GROUP, Script

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .server import Keys, Server

_TERM: Final = 0.75
"""The part of the lease after which the server gives a shard to another one; the rest is for this one to notice."""
_TURN: Final = 0.1
"""The part of the lease after which a relay looks again."""
_LONGEST_TURN: Final = 1.0
_MARGIN: Final = 0.1
"""The part of the lease by which a holder stops before the server gives the shard to another one."""
_HELD, _REFUSED, _NOT_OURS = b"HELD", b"SHARDS", "-"
_GRACE: Final = 0.3
"""The part of the lease for which a relay that had lost the server takes no shard: the holders may have lost it too."""
_FIXED_KEYS: Final = 3

# Keys: relays, fence, shards, and of each shard its stream, books and lease. Arguments: this relay, the term in
# milliseconds, the group, the number of shards, whether it may take any, and for each shard its token, or nothing, or
# a dash for one that it must not take.
_TURN_SCRIPT: Final = Script(f"""\
{COUNT}
local me, term, group, number, taking = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - 100 * term))
local known = redis.call('GET', KEYS[3])
if known and known ~= ARGV[4] then return {{'SHARDS', known}} end
if not known then redis.call('SET', KEYS[3], ARGV[4]) end
if taking then
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), me)
else
  redis.call('ZREM', KEYS[1], me)
end
local living = redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', now - term), '+inf')
local counts, answer, trimmed, free = {{}}, {{}}, 0, 0
for _, relay in ipairs(living) do counts[relay] = 0 end
local function keys_of(shard)
  local place = {_FIXED_KEYS} + 3 * (shard - 1)
  return KEYS[place + 1], KEYS[place + 2], KEYS[place + 3]
end
for shard = 1, number do
  local stream, books, lease = keys_of(shard)
  local holder, state = redis.call('GET', lease), ARGV[5 + shard]
  answer[shard] = ''
  if state ~= '' and state ~= '{_NOT_OURS}' then
    if not holder and redis.call('HGET', books, '{FENCE}') == state then
      redis.call('SET', lease, state)
      holder = state
    end
    answer[shard] = 'LOST'
    if holder == state then
      redis.call('PEXPIRE', lease, term)
      answer[shard] = 'HELD'
      trimmed = trimmed + count(stream, books)
    end
  end
  local owner = holder and string.match(holder, '^(.*)/')
  if owner and counts[owner] then counts[owner] = counts[owner] + 1 end
  if not holder then free = free + 1 end
  if not holder and state == '' and taking then answer[shard] = 'FREE' end
end
local least = number
for relay, held in pairs(counts) do
  if relay ~= me and held < least then least = held end
end
local mine = counts[me] or 0
for shard = 1, number do
  if answer[shard] == 'FREE' then
    answer[shard] = ''
    if mine < math.floor(number / #living) or mine <= least then
      local stream, books, lease = keys_of(shard)
      local token = me .. '/' .. redis.call('INCR', KEYS[2])
      redis.call('SET', lease, token, 'PX', term)
      redis.call('HSET', books, '{FENCE}', token)
      redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
      answer[shard] = token
      mine, free = mine + 1, free - 1
    end
  end
end
local surplus = mine - math.ceil(number / math.max(#living, 1))
if surplus <= 0 and free == 0 and mine - least > 1 then surplus = 1 end
return {{'OK', math.max(surplus, 0), trimmed, answer}}
""")

_LEAVE: Final = Script("return redis.call('ZREM', KEYS[1], ARGV[1])")

_boot_clock: Final = getattr(time, "CLOCK_BOOTTIME", None)


def sure_clock() -> float:
    """Seconds of a clock that goes on while the machine is suspended, where there is one."""
    return time.monotonic() if _boot_clock is None else time.clock_gettime(_boot_clock)


class Holding:
    """A shard that this relay holds.

    Its coordinator sets `sure_until` and `leaving`, and whoever finds it out sets `lost`, each in single assignments.

    Attributes:
        shard: Its number.
        token: Ours, which no other holder ever has.
        sure_until: When another relay may have it at the earliest, by `sure_clock`, less a margin.
        leaving: Whether to give it up as soon as nothing is in flight.
        lost: Whether another relay has had it meanwhile: nothing more may be sent or written.
    """

    __slots__ = ("leaving", "lost", "shard", "sure_until", "token")

    def __init__(self, shard: int, token: str, sure_until: float) -> None:
        self.shard = shard
        self.token = token
        self.sure_until = sure_until
        self.leaving = self.lost = False

    @property
    def is_sure(self) -> bool:
        """Whether it is surely ours now."""
        return not self.lost and sure_clock() < self.sure_until


class WrongShards(Exception):  # noqa: N818 - what is wrong is the setting
    """The stream has another number of shards than this relay was given."""


class Turn(NamedTuple):
    """What came of one look at the shards.

    Attributes:
        taken: What is ours since now.
        surplus: How many of ours others should have.
        trimmed: Entries found to have been removed by somebody else.
    """

    taken: list[Holding]
    surplus: int
    trimmed: int


class Shards:
    """One relay's part in sharing out the shards of a stream. Used by one thread at a time.

    Args:
        server: A connection of its own.
        keys: The stream's keys.
        relay: This relay's name, which no other one has.
        number: How many shards there are.
        lease: Seconds for which no shard may be without a relay, as long as one lives.
    """

    def __init__(self, server: Server, keys: Keys, relay: str, number: int, lease: float) -> None:
        self._server = server
        self._keys = keys
        self._relay = relay
        self._number = number
        self._grace, self._patient_until = _GRACE * lease, 0.0
        self._began = self._failed = False
        self._term, self._margin = _TERM * lease, _MARGIN * lease
        self.turn_seconds = min(_TURN * lease, _LONGEST_TURN)
        self._names = [keys.relays, keys.fence, keys.shards]
        for shard in range(number):
            self._names += [keys.stream(shard), keys.books(shard), keys.lease(shard)]

    def look(self, held: Mapping[int, Holding], busy: Collection[int], *, taking: bool = True) -> Turn:
        """Renew what is held, take what is free and our share, and see whether it is more than that.

        Args:
            held: What is held, by shard. Those that are not ours any more are marked so.
            busy: Shards that must not be taken, because a request of an earlier time may be in flight.
            taking: Whether to take any, and to be counted among those that do.

        Raises:
            Trouble: If the server did not answer.
            WrongShards: If the stream has another number of shards.
        """
        begun = sure_clock()
        if self._failed or begun < self._patient_until:
            busy = range(self._number)
        states = [self._state(shard, held, busy) for shard in range(self._number)]
        deadline = time.monotonic() + self._term / 2
        arguments = [self._relay, int(self._term * 1000), GROUP, self._number, int(taking), *states]
        failed, self._failed = self._failed, self._began
        answer = self._server.run(_TURN_SCRIPT, self._names, arguments, deadline=deadline)
        if failed:
            self._patient_until = sure_clock() + self._grace
        self._began, self._failed = True, False
        if answer[0] == _REFUSED:
            raise WrongShards(f"the stream has {int(answer[1])} shards, and this relay was given shards={self._number}")
        return self._read(answer, held, begun + self._term - self._margin)

    @staticmethod
    def _state(shard: int, held: Mapping[int, Holding], busy: Collection[int]) -> str:
        if shard in held and not held[shard].lost:
            return held[shard].token
        return _NOT_OURS if shard in held or shard in busy else ""

    @staticmethod
    def _read(answer: Any, held: Mapping[int, Holding], sure_until: float) -> Turn:
        taken = []
        for shard, state in enumerate(answer[3]):
            if shard in held and not held[shard].lost:
                if state == _HELD:
                    held[shard].sure_until = sure_until
                else:
                    held[shard].lost = True
            elif state:
                taken.append(Holding(shard, state.decode(), sure_until))
        return Turn(taken, int(answer[1]), int(answer[2]))

    def leave(self) -> None:
        """At the end: let others know at once that this relay is gone.

        Raises:
            Trouble: If the server did not answer.
        """
        self._server.run(_LEAVE, [self._keys.relays], [self._relay], deadline=time.monotonic() + self._term)

    def close(self) -> None:
        """Close the connection."""
        self._server.close()
