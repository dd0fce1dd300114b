-- The lanes that a class's workers have not matched yet; all when there is another era.
-- ARGV: class, at most how many.
-- Answer: {version the class knows or '', version it knows after these, lane, requirements, …}.
-- key names: LANES, LANES_VERSION, LANES_LOG, WORKER_CLASS
-- include base: call

local version = call('GET', LANES_VERSION) or '0:0'
local known = call('GET', WORKER_CLASS .. ARGV[1]) or ''
local era, last = string.match(version, '^(%d+):(%d+)$')
local known_era, from = string.match(known, '^(%d+):(%d+)$')
if known_era ~= era then from = 0 end
local sigs = call('ZRANGEBYSCORE', LANES_LOG, '(' .. from, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local answer = {known, version}
for i = 1, #sigs, 2 do
  answer[#answer + 1] = sigs[i]
  answer[#answer + 1] = call('HGET', LANES, sigs[i]) or ''
  last = sigs[i + 1]
end
if #sigs == 2 * tonumber(ARGV[2]) then answer[2] = era .. ':' .. last end
return answer
