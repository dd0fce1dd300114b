-- Removes a subject's document. Machines send this very text by its digest, as put.lua.
-- KEYS as of put.lua, without events. ARGV[1] id, ARGV[2] last seen (ms) the caller knows of, or '' for any.
-- Answer: 1 when removed, 0 when the subject has reported since.
-- include changed: changed
-- limits: FUTURE_MS

local seen = redis.call('ZSCORE', KEYS[2], ARGV[1])
local t = redis.call('TIME')
local latest = t[1] * 1000 + FUTURE_MS
if ARGV[2] ~= '' and seen and tonumber(seen) > tonumber(ARGV[2]) and tonumber(seen) < latest then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
changed()
return 1
