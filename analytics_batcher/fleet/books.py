"""What the scripts of relays have in common: the fence before each write, and what relays count of a shard."""

from __future__ import annotations

from typing import Final

from .entries import ADDED, HELD, REMOVED

TRIMMED: Final = "trimmed"
"""In the books: entries that neither a producer's bound nor a relay removed."""
DELIVERED: Final = "delivered"
"""In the books: messages that the vendor took."""
DROPPED: Final = "dropped"
"""In the books: messages that relays gave up."""
REQUESTS: Final = "requests"
"""In the books: requests to the vendor."""
RETRIES: Final = "retries"
"""In the books: of these, the ones that repeated messages of an earlier one."""
FENCE: Final = "fence"
"""In the books: the token of whoever held the shard last."""
OK: Final = b"OK"
LOST: Final = b"LOST"
"""The answer of a fenced script to whoever does not hold the shard any more."""
LATE: Final = b"LATE"
"""Its answer if the lease ran out, and nobody else has had the shard since: it may be renewed."""

FENCED: Final = f"""\
local stream, books, lease, token = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local holder = redis.call('GET', lease)
if not holder and redis.call('HGET', books, '{FENCE}') == token then return {{'{LATE.decode()}'}} end
if holder ~= token then return {{'{LOST.decode()}'}} end
redis.call('HDEL', books, '')
"""
"""How each write of a relay to a shard begins. Keys: the shard's stream, books and lease; argument: the holder's token.

The last line changes nothing. It is a write that needs no memory: after it a server without any takes the others too,
and relays are who make room there.
"""

COUNT: Final = f"""\
local function count(stream, books)
  local found = redis.call('HMGET', books, '{ADDED}', '{REMOVED}', '{HELD}')
  local left = redis.call('XLEN', stream)
  local lost = tonumber(found[1] or 0) - tonumber(found[2] or 0) - left
  if lost > 0 then
    redis.call('HINCRBY', books, '{TRIMMED}', lost)
    redis.call('HINCRBY', books, '{REMOVED}', lost)
    local held = math.floor(tonumber(found[3] or 0) * left / (left + lost))
    redis.call('HSET', books, '{HELD}', string.format('%.0f', held))
  elseif lost < 0 then
    redis.call('HINCRBY', books, '{ADDED}', -lost)
    lost = 0
  end
  return lost
end
"""
"""A function of a script: counts entries that somebody else removed as trimmed, and says how many are new of these.

Their bytes are not known any more: those that are left are taken to be of the same size. What somebody else added is
counted as added.
"""
