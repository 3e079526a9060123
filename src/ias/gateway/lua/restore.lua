-- Hold again what a request that is being served held in a Redis that has lost its data. Any number of times: who holds a reservation
-- holds no more.
--
-- KEYS: 1 reservation of this request, 2 deadlines of the org's reservations, 3… one counter per budget
-- ARGV: 1 request id, 2 amount (nano-USD), 3 lifetime of the reservation (s), 4 whose reservation it is (ReservationClaim),
--       then for each budget its time to live (s, 0 for ever)
-- Returns 1 when it was held again, 0 when it was held already.

if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
local counters = {}
for i = 3, #KEYS do
  local fresh = redis.call('EXISTS', KEYS[i]) == 0
  redis.call('HINCRBY', KEYS[i], 'reserved', ARGV[2])
  if fresh and ARGV[i + 2] ~= '0' then
    redis.call('EXPIRE', KEYS[i], ARGV[i + 2])
  end
  counters[i - 2] = KEYS[i]
end
redis.call('HSET', KEYS[1], 'amount', ARGV[2], 'claim', ARGV[4], 'counters', table.concat(counters, '\n'), 'restored', '1')
redis.call('ZADD', KEYS[2], redis.call('TIME')[1] + ARGV[3], ARGV[1])
return 1
