-- Makes a generation the current one.
-- KEYS[1] current number, KEYS[2] the new spec, KEYS[3] the one that falls out. ARGV[1] number, ARGV[2] spec.
-- Answer: 1, or 0 when the current number is not ARGV[1] − 1: somebody else applied meanwhile.
-- Invariant: numbers follow one another, and what one names is not written again.

local current = tonumber(redis.call('GET', KEYS[1]) or '0')
if current ~= tonumber(ARGV[1]) - 1 then return 0 end
redis.call('SET', KEYS[2], ARGV[2])
redis.call('SET', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
