"""The counter of a rolling budget: what gateways and billing do alike to its hash in Redis.

`settled` and `reserved` are as in any budget's counter, `settled` being the sum over the window. Besides: `h{hour}`, how much of it
belongs to an hour (Unix time / 3600) by when its requests were admitted; `l{hour}`, how much of that billing vouches for; `oldest`,
the first hour that still counts. A window of N hours is the hour that has begun and the N before it: between N and N + 1 hours, so
that no N hours on end ever hold more than the limit.
"""

ROLL_LUA = """
local hour = math.floor(now / 3600000)
local known = tonumber(redis.call('HGET', key, 'oldest'))
local oldest = math.max(known or 0, hour - hours)
if known and known < oldest then
  for gone = known, math.min(oldest - 1, known + hours) do
    local spent = redis.call('HGET', key, 'h' .. gone)
    if spent then
      redis.call('HINCRBY', key, 'settled', string.format('%.0f', -tonumber(spent)))
      redis.call('HDEL', key, 'h' .. gone, 'l' .. gone)
    end
  end
end
if known ~= oldest then
  redis.call('HSET', key, 'oldest', oldest)
end
"""
"""Lets go of the hours that have left the window. Needs `key`, `hours` (of the window) and `now` (ms); gives `hour` and `oldest`."""

MOVE_LUA = """
for at, key in string.gmatch(rolling, '(%d+) ([^\\n]+)') do
  if tonumber(at) >= (tonumber(redis.call('HGET', key, 'oldest')) or 0) then
    redis.call('HINCRBY', key, 'h' .. at, moved)
  else
    redis.call('HINCRBY', key, 'settled', string.format('%.0f', -tonumber(moved)))
  end
end
"""
"""After `moved` (nano-USD, as text) was added to what is settled: puts it into the hours of admission that `rolling` names, a line
`{hour} {counter}` each; where the hour has left the window, it is taken back."""

HOURS_MAX = 2160
"""90 days: a counter has a field for each hour."""
