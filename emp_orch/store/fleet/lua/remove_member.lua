-- Forgets a member of a pool.
-- KEYS[1] the members, KEYS[2] how many each pool has, KEYS[3] the mark of the members. ARGV[1] id, ARGV[2] its pool,
-- ARGV[3] the document as it was read, '*': whatever stands there.
-- Answer: 1; 0 when there is none; -1 when another stands there than ARGV[3].
-- Invariant: the count of a pool is that of its members.

local before = redis.call('HGET', KEYS[1], ARGV[1])
if not before then return 0 end
if ARGV[3] ~= '*' and before ~= ARGV[3] then return -1 end
redis.call('HDEL', KEYS[1], ARGV[1])
if redis.call('HINCRBY', KEYS[2], ARGV[2], -1) <= 0 then redis.call('HDEL', KEYS[2], ARGV[2]) end
redis.call('INCR', KEYS[3])
return 1
