-- Keeps the inputs of a round.
-- KEYS[3] the rounds. ARGV[3] how many are kept, ARGV[4] the record, ARGV[5] the version of emp that wrote it. The
-- others, and the answer: as of fence.lua.

-- include fence
redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[3], '*', 'round', ARGV[4], 'version', ARGV[5])
return {1, ''}
