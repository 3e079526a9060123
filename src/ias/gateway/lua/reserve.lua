-- Admit a request under every ceiling in scope, budgets and rate limits alike, or count it in none. Any number of times: who holds a
-- reservation is admitted again and holds no more.
--
-- KEYS: 1 reservation of this request, 2 deadlines of the org's reservations, 3… one counter per budget, then one key per rate limit,
--       then for each rolling budget the counters of the other parts of its window, the newer before the older; the first is of the
--       part that follows the request's
-- ARGV: 1 request id, 2 amount (nano-USD), 3 tokens it is expected to use, 4 lifetime of the reservation (s),
--       5 whose reservation it is (contracts.spending.ReservationClaim), 6 time in ms ('' for Redis' own), 7 how many budgets there are,
--       8 '0' when nothing of the request will have to be settled, else '1', or '2' when there are rolling budgets,
--       then for each budget: its limit ('~' before it for a soft one, which refuses only once that is spent, whatever is reserved; ''
--       for one that refuses nothing) and its time to live (s, 0 for ever),
--       then for each rate limit: its metric and its limit,
--       then, when there are rolling budgets, one list of them in the reverse order of their counters: 'budget (from 1), other
--       parts, time in ms at which the oldest of them is no longer counted, ms that a part lasts', each after a comma
-- Returns {1, amount that would still fit (-1: no hard budget), …} or
--         {0, index of the denying ceiling (from 1), what is left of it, ms to wait (-1: it can never fit; 0: nobody knows), …},
--         either followed, for each rate limit, by what is left of it and the ms until all of it is there again.
--         For a budget bound to the calendar ms to wait is -1, too: the end of its window is the gateway's to know.
-- Amounts are nano-USD, whole and below 2^53, which Lua's doubles hold exactly.

local BUDGETS = tonumber(ARGV[7])
local LIMITS = #KEYS - 2 - BUDGETS

local now = tonumber(ARGV[6])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local expires_at = math.floor(now / 1000) + ARGV[4]
local amount, tokens = tonumber(ARGV[2]), tonumber(ARGV[3])

-- Rolling budgets: what the other parts of their windows hold counts as well. Put down the oldest first.
local rolling = nil
if ARGV[8] == '2' then
  rolling = {}
  local last = #KEYS
  for index, count, moves_on_ms, part_ms in string.gmatch(ARGV[#ARGV], '(%d+) (%d+) (%d+) (%d+)') do
    local window = { settled = 0, reserved = 0, moves_on_ms = tonumber(moves_on_ms), part_ms = tonumber(part_ms) }
    for i = 1, tonumber(count) do
      local counted = redis.call('HMGET', KEYS[last + 1 - i], 'settled', 'reserved')
      window[i] = { settled = tonumber(counted[1]) or 0, reserved = tonumber(counted[2]) or 0 }
      window.settled, window.reserved = window.settled + window[i].settled, window.reserved + window[i].reserved
    end
    rolling[tonumber(index)] = window
    last = last - count
  end
  LIMITS = last - 2 - BUDGETS
end

-- Budgets: the one with the least left decides. What costs nothing counts in none and is refused by none.
local least, least_index, spent_index, fresh = nil, nil, nil, {}
for i = 1, BUDGETS do
  local counted = redis.call('HMGET', KEYS[2 + i], 'settled', 'reserved')
  fresh[i] = not counted[1] and not counted[2]
  local settled, reserved = tonumber(counted[1]) or 0, tonumber(counted[2]) or 0
  local window = rolling and rolling[i]
  if window then
    table.insert(window, #window, { settled = settled, reserved = reserved })
    settled, reserved = settled + window.settled, reserved + window.reserved
  end
  local limit = ARGV[7 + 2 * i]
  if limit:sub(1, 1) == '~' then
    if tonumber(limit:sub(2)) <= settled then
      spent_index = i
    end
  elseif limit ~= '' then
    local left = tonumber(limit) - settled - reserved
    if not least or left < least then
      least, least_index = left, i
    end
  end
end
local denying, denied_left, wait_ms = nil, 0, nil
if least and amount > 0 and amount > least then
  denying, denied_left, wait_ms = least_index, least, -1
end
if spent_index and amount > 0 then
  denying, denied_left, wait_ms = spent_index, 0, -1
end
local window = denying and rolling and rolling[denying]
if window then  -- it has room when enough of its parts, the oldest first, are no longer counted
  local limit = ARGV[7 + 2 * denying]
  local is_soft = limit:sub(1, 1) == '~'
  local room = is_soft and tonumber(limit:sub(2)) - 1 or tonumber(limit) - amount
  for i = 1, #window do
    room = room - window[i].settled - (is_soft and 0 or window[i].reserved)
  end
  for i = 1, #window do
    room = room + window[i].settled + (is_soft and 0 or window[i].reserved)
    if room >= 0 then
      wait_ms = math.max(1, window.moves_on_ms + (i - 1) * window.part_ms - now)
      break
    end
  end
end

-- Whether the request holds what it asks for already: an earlier call admitted it, whose reply was lost, say.
local function is_held()
  return ARGV[8] ~= '0' and redis.call('ZSCORE', KEYS[2], ARGV[1])
end

local function reserve_amount()
  local held = {}
  for i = 1, amount > 0 and BUDGETS or 0 do
    redis.call('HINCRBY', KEYS[2 + i], 'reserved', ARGV[2])
    local time_to_live_s = ARGV[8 + 2 * i]
    if fresh[i] and time_to_live_s ~= '0' then
      redis.call('EXPIRE', KEYS[2 + i], time_to_live_s)
    end
    held[i] = KEYS[2 + i]
  end
  return table.concat(held, '\n')
end

if LIMITS == 0 then
  if denying then
    return is_held() and { 1, denied_left } or { 0, denying, denied_left, wait_ms }
  end
  if ARGV[8] ~= '0' and redis.call('ZADD', KEYS[2], 'NX', expires_at, ARGV[1]) == 1 then
    redis.call('HSET', KEYS[1], 'amount', ARGV[2], 'claim', ARGV[5], 'counters', reserve_amount())
  end
  return { 1, least and least - amount or -1 }
end

--@ buckets.lua

-- Rate limits. Of those that deny, the one with the longest wait decides: to come back earlier would not help.
local levels, costs = {}, {}
local held = is_held()
if held then
  denying = nil
end
local is_poor = denying ~= nil
for i = 1, LIMITS do
  local key, metric, limit = KEYS[2 + BUDGETS + i], ARGV[7 + 2 * (BUDGETS + i)], tonumber(ARGV[8 + 2 * (BUDGETS + i)])
  local denied_ms = nil
  if metric == 'concurrency' then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
    levels[i], costs[i] = redis.call('ZCARD', key), held and 0 or 1
    if levels[i] >= limit then
      denied_ms = 0
    end
  else
    local period = PERIOD_MS[metric]
    costs[i] = held and 0 or (metric == 'tokens_per_minute' and tokens or 1) * period
    levels[i] = read_level(key, metric, limit)
    local over = levels[i] + costs[i] - limit * period
    if costs[i] > limit * period then
      denied_ms = -1
    elseif over > 0 then
      denied_ms = empty_in(over, metric, limit)
    end
  end
  local is_worse = denied_ms and (not denying or denied_ms == -1 or (wait_ms ~= -1 and denied_ms > wait_ms))
  if is_worse and not is_poor and not held then
    denying, wait_ms = BUDGETS + i, denied_ms
  end
end

-- What is left of each limit, after this request where it was admitted, goes into the reply.
local reply = denying and { 0, denying, denied_left, wait_ms } or { 1, least and least - amount or -1 }
local buckets, leases = {}, {}
for i = 1, LIMITS do
  local key, metric, limit = KEYS[2 + BUDGETS + i], ARGV[7 + 2 * (BUDGETS + i)], tonumber(ARGV[8 + 2 * (BUDGETS + i)])
  local level = denying and levels[i] or levels[i] + costs[i]
  local left, full_in = limit - level, 0
  if metric ~= 'concurrency' then
    left, full_in = math.floor(limit - level / PERIOD_MS[metric]), empty_in(level, metric, limit)
  end
  reply[#reply + 1] = math.max(0, left)
  reply[#reply + 1] = full_in
  if denying then
    if denying == BUDGETS + i then
      reply[3] = math.max(0, left)
    end
  elseif held then  -- counted already
  elseif metric == 'concurrency' then
    redis.call('ZADD', key, expires_at * 1000, ARGV[1])
    redis.call('EXPIRE', key, ARGV[4])
    leases[#leases + 1] = key
  else
    store_level(key, level, metric, limit)
    if metric == 'tokens_per_minute' then
      buckets[#buckets + 1] = ARGV[8 + 2 * (BUDGETS + i)] .. ' ' .. key
    end
  end
end
if not denying and not held and ARGV[8] ~= '0' then
  redis.call('HSET', KEYS[1], 'amount', ARGV[2], 'claim', ARGV[5], 'counters', reserve_amount(), 'tokens', ARGV[3],
    'buckets', table.concat(buckets, '\n'), 'leases', table.concat(leases, '\n'))
  redis.call('ZADD', KEYS[2], expires_at, ARGV[1])
end
return reply
