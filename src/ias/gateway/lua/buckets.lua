-- What reserve.lua and settle.lua have in common; it is put in where they say so, after `now` (ms) is known.
--
-- A bucket is two doubles: its level, and the Redis time (ms) as of which it holds that. A level is in units (requests, tokens) times
-- the milliseconds of the bucket's period, so that draining is whole numbers: in a millisecond as much leaves as the limit. Those of
-- a minute drain so (GCRA, kept as a level: a limit may be changed at any time); a day's stays until midnight in UTC.
-- The largest level is below 2^53, which doubles hold exactly.

local DAY_MS = 86400000
local PERIOD_MS = { requests_per_minute = 60000, tokens_per_minute = 60000, requests_per_day = DAY_MS }

-- What is in a bucket now. A clock that was put back drains nothing.
local function read_level(key, metric, limit)
  local stored = redis.call('GET', key)
  if not stored then
    return 0
  end
  local level, at = struct.unpack('<dd', stored)
  if metric == 'requests_per_day' then
    return math.floor(at / DAY_MS) == math.floor(now / DAY_MS) and level or 0
  end
  return math.max(0, level - math.max(0, now - at) * limit)
end

-- How long (ms) until a bucket with this level is empty.
local function empty_in(level, metric, limit)
  if metric == 'requests_per_day' then
    return level > 0 and DAY_MS - now % DAY_MS or 0
  end
  return math.ceil(level / limit)
end

-- Kept a period longer than it takes to empty: the bucket's own reckoning decides, not the expiry.
local function store_level(key, level, metric, limit)
  redis.call('SET', key, struct.pack('<dd', level, now), 'PX', PERIOD_MS[metric] + empty_in(level, metric, limit))
end
