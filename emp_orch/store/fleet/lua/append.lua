-- Writes entries of the journal.
-- KEYS[3] the journal. ARGV[3] its length, then type and data of each entry. The others, and the answer: as of
-- fence.lua.

-- include fence
for i = 4, #ARGV, 2 do
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'type', ARGV[i], 'data', ARGV[i + 1])
end
return {1, ''}
