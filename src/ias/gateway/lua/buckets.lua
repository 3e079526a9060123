-- What reserve.lua and settle.lua have in common: it stands before each of them.
--
-- A bucket is a string: its level, and the Redis time (ms) as of which it holds that. A level is in units (requests, tokens) times the
-- milliseconds of the bucket's period, so that draining is whole numbers: in a millisecond as much leaves as the limit. Those of
-- a minute drain so (GCRA, kept as a level: a limit may be changed at any time); a day's stays until midnight in UTC.
-- The largest level is below 2^53, which Lua's doubles hold exactly.

local DAY_MS = 86400000
local PERIOD_MS = { requests_per_minute = 60000, tokens_per_minute = 60000, requests_per_day = DAY_MS }

-- Redis' own clock in milliseconds, the one clock that all gateways share; or a test's.
local function clock(given)
  if given ~= '' then
    return tonumber(given)
  end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- What is in a bucket now. A clock that was put back drains nothing.
local function level_of(stored, metric, limit, now)
  if not stored then
    return 0
  end
  local level, at = string.match(stored, '^(%d+) (%d+)$')
  level, at = tonumber(level), tonumber(at)
  if metric == 'requests_per_day' then
    return math.floor(at / DAY_MS) == math.floor(now / DAY_MS) and level or 0
  end
  return math.max(0, level - math.max(0, now - at) * limit)
end

-- How long (ms) until a bucket with this level is empty.
local function empty_in(level, metric, limit, now)
  if metric == 'requests_per_day' then
    return level > 0 and DAY_MS - now % DAY_MS or 0
  end
  return math.ceil(level / limit)
end

-- Kept a period longer than it takes to empty: the bucket's own reckoning decides, not the expiry.
local function store_level(key, level, metric, limit, now)
  local kept_ms = PERIOD_MS[metric] + empty_in(level, metric, limit, now)
  redis.call('SET', key, string.format('%.0f %.0f', level, now), 'PX', string.format('%.0f', kept_ms))
end

