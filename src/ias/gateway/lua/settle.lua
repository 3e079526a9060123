-- Replace what a request reserved by what it cost, in every counter that holds it. Any number of times: the first counts.
--
-- KEYS: 1 reservation of the request, 2 deadlines of the org's reservations
-- ARGV: 1 request id, 2 cost in nano-USD
-- Returns 1 when this call settled, 0 when there was nothing (left) to settle.

local held = redis.call('HMGET', KEYS[1], 'amount', 'counters', 'swept')
if not held[1] then
  return 0
end
local cost = ARGV[2]
for counter in string.gmatch(held[2], '[^\n]+') do
  if held[3] then
    redis.call('HINCRBY', counter, 'settled', string.format('%.0f', tonumber(cost) - tonumber(held[1])))
  else
    redis.call('HINCRBY', counter, 'reserved', '-' .. held[1])
    if cost ~= '0' then
      redis.call('HINCRBY', counter, 'settled', cost)
    end
  end
end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return 1
