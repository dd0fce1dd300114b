-- Takes or renews the leader's lease. An epoch is at least the time (ms), so it rises also in a Redis that was emptied
-- and forgot the last one: agents keep the highest they have seen, and refuse what is below. One that is no such number
-- counts as forgotten, and so does one that is far ahead of the time and of what ARGV[1] knows: somebody wrote it, and
-- it would leave none above. A lease that has no end, or a far one, was not taken here: it ends with the time of one.
-- What is no text counts as not there.
-- KEYS[1] lease, KEYS[2] epoch.
-- ARGV[1] who, ARGV[2] ttl in ms, ARGV[3] the highest epoch that ARGV[1] knows of: where the clock was set back
-- besides, the time alone is no more than agents have seen.
-- Answer: {epoch, who, ttl} when ARGV[1] holds the lease now, else {'', holder, ms left, epoch}.
-- Invariant: one holds the lease, and each new leader has a higher epoch.
-- limits: MAX_LEASE_MS

local function text(key)
  local found = redis.pcall('GET', key)
  return type(found) == 'string' and found or false
end
local holder = text(KEYS[1])
local known = text(KEYS[2]) or ''
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if not string.match(known, '^%d+$') or #known > 15 then known = '' end
if known ~= '' and tonumber(known) > math.max(now, tonumber(ARGV[3])) + 1000000000 then known = '' end
if holder and holder ~= ARGV[1] then
  local left = redis.call('PTTL', KEYS[1])
  if left < 0 or left > MAX_LEASE_MS then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
end
if holder == ARGV[1] and known ~= '' then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {known, holder, ARGV[2]}
end
if holder and holder ~= ARGV[1] then
  return {'', holder, redis.call('PTTL', KEYS[1]), known ~= '' and known or '0'}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local highest = math.max(tonumber(known) or 0, tonumber(ARGV[3]))
local epoch = math.max(highest + 1, now)
redis.call('SET', KEYS[2], string.format('%.0f', epoch))
return {string.format('%.0f', epoch), ARGV[1], ARGV[2]}
