-- Reserve an amount in every counter in scope, or in none.
--
-- KEYS: 1 reservation of this request, 2 deadlines of the org's reservations, 3… one counter per budget
-- ARGV: 1 request id, 2 amount, 3 now (s), 4 expiry of the reservation (s), 5 prefix of reservation keys,
--       then for each counter: its limit ('' for a soft budget, which counts but never refuses) and its time to live (s, 0 for ever)
-- Returns {1, swept, amount that would still fit} or {0, swept, index of the denying budget (from 1), what it has left}.
-- Amounts are nano-USD, whole and below 2^53, which Lua's doubles hold exactly.

local SWEPT_PER_CALL = 3
local SWEPT_KEPT_S = 86400

-- Reservations whose gateway died: what they held is counted as spent, since it may have been.
-- The record stays for a day, so that a settlement that arrives late still corrects the sum.
local function sweep(now)
  local expired = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, SWEPT_PER_CALL)
  for _, request_id in ipairs(expired) do
    local key = ARGV[5] .. request_id
    local held = redis.call('HMGET', key, 'amount', 'counters', 'swept')
    if held[1] and not held[3] then
      for counter in string.gmatch(held[2], '[^\n]+') do
        redis.call('HINCRBY', counter, 'reserved', '-' .. held[1])
        redis.call('HINCRBY', counter, 'settled', held[1])
      end
      redis.call('HSET', key, 'swept', '1')
      redis.call('EXPIRE', key, SWEPT_KEPT_S)
    end
    redis.call('ZREM', KEYS[2], request_id)
  end
  return #expired
end

local amount = tonumber(ARGV[2])
local swept = sweep(ARGV[3])
local least, denying, fresh = nil, nil, {}

for i = 3, #KEYS do
  local limit = ARGV[2 * i]
  local counted = redis.call('HMGET', KEYS[i], 'settled', 'reserved')
  fresh[i] = not counted[1] and not counted[2]
  if limit ~= '' then
    local left = tonumber(limit) - (tonumber(counted[1]) or 0) - (tonumber(counted[2]) or 0)
    if not least or left < least then
      least, denying = left, i - 2
    end
  end
end

if least and amount > least then
  return {0, swept, denying, least}
end

local counters = {}
for i = 3, #KEYS do
  redis.call('HINCRBY', KEYS[i], 'reserved', ARGV[2])
  if fresh[i] and ARGV[2 * i + 1] ~= '0' then
    redis.call('EXPIRE', KEYS[i], ARGV[2 * i + 1])
  end
  counters[#counters + 1] = KEYS[i]
end
redis.call('HSET', KEYS[1], 'amount', ARGV[2], 'counters', table.concat(counters, '\n'))
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[1])
return {1, swept, least and least - amount or -1}
