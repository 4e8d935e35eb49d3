"""What a relay does with a shard on the server, each a step that nobody else sees half of."""

from __future__ import annotations

from typing import Final

from .books import COUNT, DELIVERED, DROPPED, FENCE, FENCED, REQUESTS, RETRIES, TRIMMED
from .entries import HELD, RECORD, REMOVED
from .server import Script

START: Final = "0-0"
"""Before the first entry."""

# Each begins as `FENCED` says. Further keys: where dead letters go.
ADOPT: Final = Script(f"""\
{FENCED}
local group, me = ARGV[2], ARGV[3]
redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
local found = redis.call('XAUTOCLAIM', stream, group, me, 0, ARGV[4], 'COUNT', 1000, 'JUSTID')
if found[1] == '{START}' then
  for _, one in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    if one[2] ~= me and one[4] == 0 then redis.call('XGROUP', 'DELCONSUMER', stream, group, one[2]) end
  end
end
return {{'OK', found[1]}}
""")
"""Makes this relay the one to whom what others left pending was delivered. Arguments: token, group, relay, cursor."""

READ: Final = Script(f"""\
{COUNT}
{FENCED}
local function read()
  return redis.pcall('XREADGROUP', 'GROUP', ARGV[2], ARGV[3], 'COUNT', ARGV[4], 'STREAMS', stream, ARGV[5])
end
local found = read()
if found and found.err and string.sub(found.err, 1, 7) == 'NOGROUP' then
  redis.call('XGROUP', 'CREATE', stream, ARGV[2], '0', 'MKSTREAM')
  found = read()
end
if found and found.err then return found end
local entries, last = {{}}, ''
for _, entry in ipairs(found and found[1][2] or {{}}) do
  local id, fields = entry[1], entry[2]
  last = id
  if fields then
    local content = fields
    for place = 1, #fields, 2 do
      if fields[place] == '{RECORD}' then content = fields[place + 1] end
    end
    entries[#entries + 1] = id
    entries[#entries + 1] = content
  else
    redis.call('XACK', stream, ARGV[2], id)
  end
end
return {{'OK', count(stream, books), last, entries}}
""")
"""Reads entries. Arguments: token, group, relay, how many, and after which of those pending here, or `>` for new ones.

Answers how many are trimmed since the last time, the last id, and of each entry that is still there its id and its
record, or its fields if it has none.
"""

SETTLE: Final = Script(f"""\
{COUNT}
{FENCED}
local group, place = ARGV[2], 6
local function settle(number)
  local known, gone = 0, 0
  for first = place, place + number - 1, 1000 do
    local last = math.min(first + 999, place + number - 1)
    known = known + redis.call('XACK', stream, group, unpack(ARGV, first, last))
  end
  local lost = count(stream, books)
  for first = place, place + number - 1, 1000 do
    local last = math.min(first + 999, place + number - 1)
    gone = gone + redis.call('XDEL', stream, unpack(ARGV, first, last))
  end
  place = place + number
  if gone > 0 then redis.call('HINCRBY', books, '{REMOVED}', gone) end
  if known > gone then redis.call('HINCRBY', books, '{TRIMMED}', gone - known) end
  return known, gone, lost
end
local size, done, given_up = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local delivered, removed, trimmed = settle(done)
local dropped, more, also = settle(given_up)
removed = removed + more
if removed > 0 then
  local held = tonumber(redis.call('HGET', books, '{HELD}') or 0) - size * removed / (done + given_up)
  if redis.call('XLEN', stream) == 0 then held = 0 end
  redis.call('HSET', books, '{HELD}', string.format('%.0f', math.max(held, 0)))
end
if delivered > 0 then redis.call('HINCRBY', books, '{DELIVERED}', delivered) end
if dropped > 0 then redis.call('HINCRBY', books, '{DROPPED}', dropped) end
for _, field in ipairs({{'{REQUESTS}', '{RETRIES}'}}) do
  if ARGV[place] ~= '0' then redis.call('HINCRBY', books, field, ARGV[place]) end
  place = place + 1
end
if dropped > 0 then
  for letter = place, #ARGV do redis.call('XADD', KEYS[4], '*', 'l', ARGV[letter]) end
end
return {{'OK', trimmed + also}}
""")
"""Acknowledges and deletes entries, once: run again after a lost answer it changes nothing more.

Arguments: token, group, the bytes of the entries, how many were delivered, how many are given up, their ids, requests,
retries, and dead letters. Of what somebody else removed in between only the rest stays counted as trimmed.
"""

RELEASE: Final = Script(f"{FENCED}redis.call('DEL', lease)\nredis.call('HDEL', books, '{FENCE}')\nreturn {{'OK'}}")
