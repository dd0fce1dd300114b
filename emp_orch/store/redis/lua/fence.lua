-- A part at the beginning of what only the leader writes: Redis compares who writes with who leads.
-- KEYS[1] lease, KEYS[2] epoch. ARGV[1] who, ARGV[2] its epoch. The script finds its own keys from KEYS[3] and
-- arguments from ARGV[3] on.
-- Answer: {0, holder} when ARGV[1] does not hold the lease, or holds it with another epoch; the script itself answers
-- {1, ''}.

local holder = redis.call('GET', KEYS[1]) or ''
if holder ~= ARGV[1] then return {0, holder} end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return {0, ''} end
