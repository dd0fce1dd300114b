-- Writes a member of a pool, or writes it anew.
-- KEYS[1] the members, KEYS[2] how many each pool has, KEYS[3] the mark of the members.
-- ARGV[1] id, ARGV[2] its document, ARGV[3] its pool, ARGV[4] how many the pool may have, 0: any number; ARGV[5] the
-- document that it replaces, as it was read; empty: it must not be there yet; '*': whatever stands there.
-- Answer: 1; 0 when the pool is full; -1 when another stands there than ARGV[5].
-- Invariant: the count of a pool is that of its members, and never rises above ARGV[4].

local before = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[5] ~= '*' and (before or '') ~= ARGV[5] then return -1 end
if not before then
  local most = tonumber(ARGV[4])
  local count = tonumber(redis.call('HGET', KEYS[2], ARGV[3]) or '0')
  if most > 0 and count >= most then return 0 end
  redis.call('HINCRBY', KEYS[2], ARGV[3], 1)
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('INCR', KEYS[3])
return 1
