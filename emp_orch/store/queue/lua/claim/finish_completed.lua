-- A part of next.lua: ends the jobs that this worker completed, and looks whether its class knows all lanes.
-- key names: JOB, SECRETS, JOBS_IN, JOBS_BEGUN, JOBS_AVOIDING, JOBS_FILES, LEASES, HEADS, LANES_VERSION, WORKER_CLASS
-- include base: call, now_ms, whole
-- include events: emit

local worker, class, token, ttl, longest = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local now = now_ms()
local now_text, lease_text = whole(now), whole(now + ttl)
local statuses, at = {}, 8
-- As `finish` does it, for the one verdict that is common.
for i = 1, tonumber(ARGV[7]) do
  local id, result = ARGV[at], ARGV[at + 2]
  local key = JOB .. id
  local f = call('HMGET', key, 'token', 'status', 'at', 'worker_id', 'runs')
  if f[1] ~= ARGV[at + 1] or (f[2] ~= 'assigned' and f[2] ~= 'in_progress') then
    statuses[i] = 'lost'
  else
    call('ZREM', LEASES, id)
    if f[2] == 'in_progress' then call('SREM', JOBS_BEGUN, id) end
    call('UNLINK', SECRETS .. id)
    call('HSET', key, 'status', 'completed', 'finished_ms', now_text, 'result', result)
    if f[5] then call('HDEL', key, 'error') end
    if string.find(result, '"path"', 1, true) then call('SADD', JOBS_FILES, id) end
    call('ZADD', JOBS_IN .. 'completed', string.match(f[3] or '', '|(%d+)|') or '0', id)
    emit('job_completed', id, f[4], 'completed', '')
    statuses[i] = 'completed'
  end
  at = at + 3
end

local known = call('MGET', LANES_VERSION, WORKER_CLASS .. class, JOBS_AVOIDING)
if known[2] ~= (known[1] or '0:0') then return {statuses, 'stale'} end
local avoiding, index = known[3], HEADS .. class
local woken_for = nil
