-- Gives what is not emp's another name.
-- KEYS[1] what is not emp's, KEYS[2] its other name.
-- ARGV[1] for how long that is kept, s; ARGV[2] up to which id (ms) its entries are kept under the old name, '' for
-- none.
-- Answer: how many were.

if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('EXPIRE', KEYS[2], ARGV[1])
if ARGV[2] == '' then return 0 end
local kept = redis.call('XRANGE', KEYS[2], '-', ARGV[2], 'COUNT', 50000)
for _, entry in ipairs(kept) do redis.call('XADD', KEYS[1], entry[1], unpack(entry[2])) end
return #kept
