-- Writes one text of the leader's: a machine's configuration, the status, the memory.
-- KEYS[3] where. ARGV[3] the text. The others, and the answer: as of fence.lua.

-- include fence
redis.call('SET', KEYS[3], ARGV[3])
return {1, ''}
