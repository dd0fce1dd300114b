-- Sends a machine a command.
-- KEYS[3] the machine's commands. ARGV[3] length of the stream, ARGV[4] the command. The others, and the answer: as of
-- fence.lua.

-- include fence
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], '*', 'command', ARGV[4])
return {1, ''}
