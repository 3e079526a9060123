-- Admit a request under every ceiling in scope, budgets and rate limits alike, or count it in none.
--
-- KEYS: 1 reservation of this request, 2 deadlines of the org's reservations, 3… one counter per budget, then one key per rate limit
-- ARGV: 1 request id, 2 amount (nano-USD), 3 tokens it is expected to use, 4 lifetime of the reservation (s),
--       5 prefix of reservation keys, 6 time in ms ('' for Redis' own), 7 how many budgets there are,
--       8 '1' when something of the request will have to be settled, else '0',
--       then for each budget: its limit ('' for a soft one, which counts but never refuses) and its time to live (s, 0 for ever),
--       then for each rate limit: its metric and its limit
-- Returns {1, swept, amount that would still fit (-1: no hard budget), …} or
--         {0, swept, index of the denying ceiling (from 1), what is left of it, ms to wait (-1: it can never fit; 0: nobody knows), …},
--         either followed, for each rate limit, by what is left of it and the ms until all of it is there again.
-- Amounts are nano-USD, whole and below 2^53, which Lua's doubles hold exactly.

local SWEPT_PER_CALL = 3
local SWEPT_KEPT_S = 86400
local FIRST_BUDGET = 3
local FIRST_LIMIT = FIRST_BUDGET + ARGV[7]

-- Reservations whose gateway died: what they held of budgets is counted as spent, since it may have been. Their tokens have drained
-- and their leases have run out by themselves.
-- The record stays for a day, so that a settlement that arrives late still corrects the sum.
local function sweep(now_s)
  local expired = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_s, 'LIMIT', 0, SWEPT_PER_CALL)
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

local now = clock(ARGV[6])
local expires_at = math.floor(now / 1000) + ARGV[4]
local amount, tokens = tonumber(ARGV[2]), tonumber(ARGV[3])
local swept = sweep(math.floor(now / 1000))

-- Budgets: the least that is left decides.
local least, least_index, fresh, argument = nil, nil, {}, 9
for i = FIRST_BUDGET, FIRST_LIMIT - 1 do
  local counted = redis.call('HMGET', KEYS[i], 'settled', 'reserved')
  fresh[i] = not counted[1] and not counted[2]
  if ARGV[argument] ~= '' then
    local left = tonumber(ARGV[argument]) - (tonumber(counted[1]) or 0) - (tonumber(counted[2]) or 0)
    if not least or left < least then
      least, least_index = left, i - 2
    end
  end
  argument = argument + 2
end

-- Rate limits: of those that deny, the longest wait decides, since only then trying again helps.
local rates, denying, wait_ms = {}, nil, 0
for i = FIRST_LIMIT, #KEYS do
  local rate = { key = KEYS[i], metric = ARGV[argument], limit = tonumber(ARGV[argument + 1]) }
  argument = argument + 2
  local denied_ms = nil
  if rate.metric == 'concurrency' then
    redis.call('ZREMRANGEBYSCORE', rate.key, '-inf', now)
    rate.period, rate.cost, rate.level = 1, 1, redis.call('ZCARD', rate.key)
    if rate.level >= rate.limit then
      denied_ms = 0
    end
  else
    rate.period = PERIOD_MS[rate.metric]
    rate.cost = (rate.metric == 'tokens_per_minute' and tokens or 1) * rate.period
    rate.level = level_of(redis.call('GET', rate.key), rate.metric, rate.limit, now)
    local over = rate.level + rate.cost - rate.limit * rate.period
    if rate.cost > rate.limit * rate.period then
      denied_ms = -1
    elseif over > 0 then
      denied_ms = empty_in(over, rate.metric, rate.limit, now)
    end
  end
  if denied_ms and (not denying or denied_ms == -1 or (wait_ms ~= -1 and denied_ms > wait_ms)) then
    denying, wait_ms = i - 2, denied_ms
  end
  rates[#rates + 1] = rate
end

local function add_rates(reply)
  for _, rate in ipairs(rates) do
    reply[#reply + 1] = math.max(0, math.floor((rate.limit * rate.period - rate.level) / rate.period))
    reply[#reply + 1] = rate.metric == 'concurrency' and 0 or empty_in(rate.level, rate.metric, rate.limit, now)
  end
  return reply
end

if least and amount > 0 and amount > least then
  return add_rates({ 0, swept, least_index, least, -1 })
end
if denying then
  local rate = rates[denying - (FIRST_LIMIT - FIRST_BUDGET)]
  local left = math.max(0, math.floor((rate.limit * rate.period - rate.level) / rate.period))
  return add_rates({ 0, swept, denying, left, wait_ms })
end

local counters, buckets, leases = {}, {}, {}
for i = FIRST_BUDGET, amount > 0 and FIRST_LIMIT - 1 or 0 do
  redis.call('HINCRBY', KEYS[i], 'reserved', ARGV[2])
  local time_to_live_s = ARGV[10 + 2 * (i - FIRST_BUDGET)]
  if fresh[i] and time_to_live_s ~= '0' then
    redis.call('EXPIRE', KEYS[i], time_to_live_s)
  end
  counters[#counters + 1] = KEYS[i]
end
for _, rate in ipairs(rates) do
  rate.level = rate.level + rate.cost
  if rate.metric == 'concurrency' then
    redis.call('ZADD', rate.key, expires_at * 1000, ARGV[1])
    redis.call('EXPIRE', rate.key, ARGV[4])
    leases[#leases + 1] = rate.key
  else
    store_level(rate.key, rate.level, rate.metric, rate.limit, now)
    if rate.metric == 'tokens_per_minute' then
      buckets[#buckets + 1] = string.format('%.0f ', rate.limit) .. rate.key
    end
  end
end
if ARGV[8] == '1' then
  redis.call('HSET', KEYS[1], 'amount', ARGV[2], 'counters', table.concat(counters, '\n'))
  if #buckets > 0 or #leases > 0 then
    redis.call('HSET', KEYS[1], 'tokens', ARGV[3],
      'buckets', table.concat(buckets, '\n'), 'leases', table.concat(leases, '\n'))
  end
  redis.call('ZADD', KEYS[2], expires_at, ARGV[1])
end
return add_rates({ 1, swept, least and least - amount or -1 })
