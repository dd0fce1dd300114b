-- A subject's document, or its heartbeat. Machines send this very text by its digest: whoever changes it puts the
-- former text into store/acl/machine_scripts.py.
-- KEYS[1] documents (hash), KEYS[2] seen (zset), KEYS[3] changed (zset), KEYS[4] its counter, KEYS[5] events.
-- ARGV[1] id, ARGV[2] document or '' for a heartbeat, ARGV[3] when this writer wrote last (what it was told) or '',
-- then of each event its type and data (JSON).
-- Answer: {now or 0, other}: 0 when a heartbeat found no document, and nothing was done; other is the document that was
-- there when somebody else wrote since ARGV[3], else nil.
-- Invariant: no two writes of a subject have one time, and a heartbeat makes no document.
-- include changed: changed
-- limits: MAX_EVENTS

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local other = false
local before = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[1]) or nil)
-- no two writes have one time, so that a second writer shows; further ahead the clock was set, or the time is damaged
if before and before >= now and before < now + 100 then now = math.floor(before) + 1 end
if before and ARGV[3] ~= '' and before ~= tonumber(ARGV[3]) then other = redis.call('HGET', KEYS[1], ARGV[1]) end
if ARGV[2] ~= '' then
  -- now and then a document goes out unchanged: that is no change
  if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
    changed()
  end
elseif redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  return {0, false}
end
redis.call('ZADD', KEYS[2], now, ARGV[1])
for i = 4, #ARGV, 2 do
  redis.pcall('XADD', KEYS[5], 'MAXLEN', '~', MAX_EVENTS, '*', 'type', ARGV[i], 'data', ARGV[i + 1])
end
return {now, other}
