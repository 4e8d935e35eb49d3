"""What producers add to a stream and relays take from it: the entries, a shard's books, and the script that adds.

An entry is one record in one field, `RECORD`. A shard's books are a hash, all of whose counts only grow but for `HELD`.
Whoever removes entries writes in the same script: `REMOVED` grows by their number, and `HELD` shrinks by their records'
bytes and an `OVERHEAD` for each; a shard without entries holds 0.
"""

from __future__ import annotations

from typing import Final

from .server import Script

RECORD: Final = "r"
"""The one field of an entry: a record's bytes as they stand in a buffer."""
OVERHEAD: Final = 32
"""Bytes that an entry counts for beside its record's. Measured on a server: 14 to 26 for records of 150 to 1,000 bytes,
and another 91 while it is with a relay."""
ADDED: Final = "added"
"""In the books: entries that producers added."""
REMOVED: Final = "removed"
"""In the books: entries that relays removed, or found to have been trimmed by others."""
HELD: Final = "bytes"
"""In the books: the bytes of the entries that are there now, with relays or not, each one's overhead included."""
SENT_SECONDS: Final = 86_400
"""Seconds for which the server remembers a sender's last batch."""

ADD: Final = Script(f"""\
local known, last = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if known and known ~= ARGV[1] then return {{'SHARDS', known}} end
if last == ARGV[2] .. ' ' .. ARGV[3] then return {{'AGAIN'}} end
if last and tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[2]) then return {{'STALE'}} end
local place, sums = 6, {{}}
for key = 3, #KEYS, 2 do
  local count, size = tonumber(ARGV[place]), tonumber(ARGV[place + 1])
  local length, held = redis.call('XLEN', KEYS[key]), tonumber(redis.call('HGET', KEYS[key + 1], '{HELD}') or 0)
  if length == 0 then held = 0 end
  if length + count > tonumber(ARGV[4]) or held + size > tonumber(ARGV[5]) then
    return {{'FULL', KEYS[key], length, held}}
  end
  sums[key] = held + size
  place = place + 2 + count
end
redis.call('SET', KEYS[2], ARGV[2] .. ' ' .. ARGV[3], 'EX', {SENT_SECONDS})
if not known then redis.call('SET', KEYS[1], ARGV[1]) end
place = 6
for key = 3, #KEYS, 2 do
  local count = tonumber(ARGV[place])
  redis.call('HINCRBY', KEYS[key + 1], '{ADDED}', count)
  redis.call('HSET', KEYS[key + 1], '{HELD}', string.format('%.0f', sums[key]))
  for record = place + 2, place + 1 + count do redis.call('XADD', KEYS[key], '*', '{RECORD}', ARGV[record]) end
  place = place + 2 + count
end
return {{'ADDED'}}
""")
"""Adds a batch: all of it, over all shards that it is for, or nothing, and once.

Keys: `Keys.shards`, `Keys.sent` of the sender, and for each shard that gets something its stream and its books.
Arguments: the number of shards; the batch's number, greater than those of the sender's earlier ones; the batch's name,
which no other batch has; the most entries and the most bytes of a shard; and for each shard in the keys' order the
number of its records, their bytes with an `OVERHEAD` for each, and they themselves.

Answers: `ADDED`; `AGAIN`, if it was there already; `FULL`, with the shard's key, entries and bytes; `SHARDS`, with the
number that the stream has; `STALE`, if another sender, a copy of this one, uses its name.
"""
