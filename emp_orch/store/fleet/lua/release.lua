-- Gives the lease back if ARGV[1] holds it, and so wakes who stands by.
-- KEYS[1] lease, KEYS[2] events.
-- ARGV[1] who, ARGV[2] type and ARGV[3] data of the event that tells it, ARGV[4] how many events are kept.
-- Answer: 1, else 0.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'type', ARGV[2], 'data', ARGV[3])
return 1
