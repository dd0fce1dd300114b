-- As submit.lua does it, for what is common: one job under an id that nobody else can have made.
-- ARGV: id, lane, priority, document, payload ('' when it is in the document), requirements, service, secrets (JSON or
-- ''), key of its models (or '').
-- Answer: {1}.
-- key names: JOBS, PAYLOAD, SECRETS, JOBS_SEQ, LANE, CLASSES_WAITING
-- include base: call, now_ms
-- include events: notice

local id, sig, priority, payload = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local now = now_ms()
local first = call('ZRANGE', LANE .. sig, 0, 0, 'WITHSCORES')
local seq = call('INCR', JOBS_SEQ)
call('HSET', JOBS, id, (payload == '' and '0|' or '1|') .. string.format('%d', seq) .. '|' .. priority .. '|' .. sig
  .. '|' .. string.format('%d', now) .. '|' .. ARGV[4])
if payload ~= '' then call('SET', PAYLOAD .. id, payload) end
if ARGV[8] ~= '' then call('SET', SECRETS .. id, ARGV[8]) end
local entry, new = string.format('%020d', seq) .. ':' .. id, false
if not first[1] or -priority < tonumber(first[2]) then
  -- include lanes: know_lane, new_head
  new = not first[1] and know_lane(sig, ARGV[6], now)
  call('ZADD', LANE .. sig, -priority, entry)
  new_head(sig, entry, -priority)
else
  call('ZADD', LANE .. sig, -priority, entry)
end
if call('EXISTS', CLASSES_WAITING) == 1 then
  -- include wakes: wake_classes, wake_one, wake_warm
  if new then wake_classes(sig, now)
  elseif ARGV[9] == '' or not wake_warm(ARGV[9], sig, now) then wake_one(sig, now) end
end
notice('job_submitted',
  '{"type":"job_submitted","job_id":"' .. id .. '","worker_id":null,"status":"pending","service":'
  .. cjson.encode(ARGV[7]) .. '}')
return {1}
