-- Forget ended jobs of one status, oldest first.
-- ARGV: status, how many to keep, ended before (ms; 0: whenever), how many to pass over, at most how many to look at.
-- Answer: {how many were forgotten, how many were looked at}.
-- key names: JOB, JOBS_IN
-- include base: call
-- include retention: forget, trim

local status, keep, before = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local from, limit = tonumber(ARGV[4]), tonumber(ARGV[5])
if before <= 0 then
  local done = trim(status, keep, limit)
  return {done, done}
end
local old, over = call('ZRANGE', JOBS_IN .. status, from, from + limit - 1), {}
for i = 1, #old do
  local at = call('HGET', JOB .. old[i], 'finished_ms')
  if (tonumber(at or '0') or 0) < before then over[#over + 1] = old[i] end
end
if #over > 0 then
  call('ZREM', JOBS_IN .. status, unpack(over))
  forget(over)
end
return {#over, #old}
