-- Tells a loss, once.
-- KEYS: the mark, the fleet's last loss, its journal, the events.
-- ARGV: the mark at the look, the new mark, the loss, for how long it is kept, type and data of the entry, length of
-- the journal and of the events.
-- Answer: 1, or 0 when another has told it.

if redis.call('HGET', KEYS[1], 'since') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'since', ARGV[2], 'told', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[7], '*', 'type', ARGV[5], 'data', ARGV[6])
redis.call('XADD', KEYS[4], 'MAXLEN', '~', ARGV[8], '*', 'type', ARGV[5], 'data', ARGV[6])
return 1
