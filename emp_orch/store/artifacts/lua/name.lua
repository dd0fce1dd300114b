-- A job names assets: when all are kept, they are touched and the job noted.
-- ARGV: job ('' for none), digests.
-- Answer: those that are not kept.
-- key names: ASSETS, JOBS_INPUTS
-- include base: call, now_ms, whole

local missing = {}
for i = 2, #ARGV do
  if not call('ZSCORE', ASSETS, ARGV[i]) then missing[#missing + 1] = ARGV[i] end
end
if #missing > 0 then return missing end
local now, said = now_ms(), ''
if ARGV[1] ~= '' then said = string.match(call('HGET', JOBS_INPUTS, ARGV[1]) or '', '^%d+( .*)$') or '' end
for i = 2, #ARGV do
  call('ZADD', ASSETS, now, ARGV[i])
  if not string.find(said .. ' ', ' ' .. ARGV[i] .. ' ', 1, true) then said = said .. ' ' .. ARGV[i] end
end
if ARGV[1] ~= '' then call('HSET', JOBS_INPUTS, ARGV[1], whole(now) .. said) end
return missing
