-- Replace what a request reserved by what it used, in every ceiling that holds it. Any number of times: the first counts.
--
-- KEYS: 1 reservation of the request, 2 deadlines of the org's reservations
-- ARGV: 1 request id, 2 cost in nano-USD, 3 tokens, 4 time in ms ('' for Redis' own)
-- Returns 1 when this call settled, 0 when there was nothing (left) to settle.
--
-- A reservation whose deadline passed may have been swept by billing, which counts its amount as spent. Of rate limits nothing is left
-- of it then: its tokens have drained, its lease has run out.
-- What was held again after Redis had lost its data is billing's to count, once it is booked (decision 4). Until then its cost stays
-- reserved, so that no budget knows too little in between.

local BOOKED_WITHIN_S = 60

local held = redis.call('HMGET', KEYS[1], 'amount', 'counters', 'swept', 'tokens', 'buckets', 'leases', 'restored')
if not held[1] then
  return 0
end
if held[7] and not held[3] and ARGV[2] ~= '0' then
  for counter in string.gmatch(held[2], '[^\n]+') do
    redis.call('HINCRBY', counter, 'reserved', string.format('%.0f', tonumber(ARGV[2]) - tonumber(held[1])))
  end
  redis.call('HSET', KEYS[1], 'amount', ARGV[2])
  redis.call('ZADD', KEYS[2], redis.call('TIME')[1] + BOOKED_WITHIN_S, ARGV[1])
  return 1
end
local deadline = held[4] and redis.call('ZSCORE', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])

local cost = ARGV[2]
for counter in string.gmatch(held[2], '[^\n]+') do
  if held[3] and held[7] then  -- the ledger's part of the counter has it
  elseif held[3] then
    redis.call('HINCRBY', counter, 'settled', string.format('%.0f', tonumber(cost) - tonumber(held[1])))
  else
    redis.call('HINCRBY', counter, 'reserved', '-' .. held[1])
    if cost ~= '0' then
      redis.call('HINCRBY', counter, 'settled', cost)
    end
  end
end
if not deadline then  -- no rate limits, or swept
  return 1
end

for key in string.gmatch(held[6], '[^\n]+') do
  redis.call('ZREM', key, ARGV[1])
end
local excess = tonumber(ARGV[3]) - tonumber(held[4])
if held[5] == '' or excess == 0 then
  return 1
end
local now = tonumber(ARGV[4])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
if deadline * 1000 <= now then
  return 1
end

--@ buckets.lua

-- Tokens that were expected and not used go back; those that were not expected are owed.
for limit, key in string.gmatch(held[5], '(%d+) ([^\n]+)') do
  limit = tonumber(limit)
  local level = read_level(key, 'tokens_per_minute', limit) + excess * PERIOD_MS.tokens_per_minute
  store_level(key, math.max(0, level), 'tokens_per_minute', limit)
end
return 1
