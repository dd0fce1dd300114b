-- The job needs what the worker's service does not have: it goes to the lane of those who have it, at its place, and
-- the run does not count.
-- ARGV: id, token, reason, lane, requirements (JSON), all that workers found it needs (JSON).
-- Answer: as end.lua.
-- key names: JOBS
-- include base: call, now_ms, whole
-- include records: header, place_of
-- include ends: finish

-- include held

local document = call('HGET', JOBS, id) or ''
local score, seq = place_of(id, call('HGET', key, 'at'))
local _, priority, _, created, from = header(document)
if seq and from and not f[3] then
  call('HSET', JOBS, id, string.sub(document, 1, 1) .. '|' .. seq .. '|' .. whole(priority) .. '|' .. ARGV[4] .. '|'
    .. created .. '|' .. string.sub(document, from))
  call('HSET', key, 'needs', ARGV[6], 'at', score .. '|' .. seq .. '|' .. ARGV[4])
  call('HDEL', key, 'avoid')
end
return finish(id, token, {verdict = 'pending', result = '', error = '', reason = ARGV[3], avoid_ms = 0,
  uncounted = true, requirements = ARGV[5]}, now_ms())
