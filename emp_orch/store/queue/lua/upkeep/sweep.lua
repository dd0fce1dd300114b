-- Passes on wakes that were not answered, forgets lanes long unused, finds leases that are over.
-- ARGV: at most how many, ms by which a lease must be over.
-- Answer: {id, token, worker, earlier runs, document, run, cancel, ms since it was claimed, needs} of the jobs whose
-- lease is over.
-- key names: JOBS, JOB, JOBS_BEGUN, LEASES, LANE, HEADS, LANES, LANES_VERSION, LANES_LOG, LANES_USED, LANES_ENTRY
-- key names: LANES_UNWORKABLE, LANE_CLASSES, WORKER_CLASS, CLASSES, WAITING_IN, WAKING, WAKING_LANE
-- limits: WAKE_ANSWER_MS, LANE_KEPT_MS, CLASS_KEPT_MS
-- include base: call, now_ms, whole
-- include wakes: unwait, pass_on

local now, limit = now_ms(), tonumber(ARGV[1])
local silent = call('ZRANGEBYSCORE', WAKING, '-inf', now - WAKE_ANSWER_MS, 'LIMIT', 0, limit)
for i = 1, #silent do
  local sig = call('HGET', WAKING_LANE, silent[i])
  call('ZREM', WAKING, silent[i])
  call('HDEL', WAKING_LANE, silent[i])
  if sig then pass_on(sig, now) end
end
local unused = call('ZRANGEBYSCORE', LANES_USED, '-inf', now - LANE_KEPT_MS, 'LIMIT', 0, limit)
local gone = false
for i = 1, #unused do
  local sig = unused[i]
  local entries = call('HMGET', LANES_ENTRY, sig, '@' .. sig)
  if call('EXISTS', LANE .. sig) == 1 or (entries[1] or '') ~= (entries[2] or '') then
    call('ZADD', LANES_USED, whole(now), sig)
    call('HSET', LANES_ENTRY, '@' .. sig, entries[1] or '')
  else
    call('ZREM', LANES_USED, sig)
    call('HDEL', LANES, sig)
    call('ZREM', LANES_LOG, sig)
    call('HDEL', LANES_UNWORKABLE, sig)
    call('HDEL', LANES_ENTRY, sig, '!' .. sig, '@' .. sig)
    call('DEL', LANE_CLASSES .. sig)
    gone = true
  end
end
local old = call('ZRANGEBYSCORE', CLASSES, '-inf', now - CLASS_KEPT_MS, 'LIMIT', 0, 10)
for i = 1, #old do
  call('ZREM', CLASSES, old[i])
  call('DEL', WORKER_CLASS .. old[i], HEADS .. old[i])
  -- Who still stands here died while it waited, and was never woken.
  local dead = call('ZRANGE', WAITING_IN .. old[i], 0, -1)
  for w = 1, #dead do unwait(dead[w], old[i]) end
  local sigs = call('HKEYS', LANES)
  for l = 1, #sigs do call('SREM', LANE_CLASSES .. sigs[l], old[i]) end
end
if gone then
  local last = string.match(call('GET', LANES_VERSION) or '', ':(%d+)$') or '0'
  call('SET', LANES_VERSION, whole(now) .. ':' .. last)
end
local answer = {}
local over = call('ZRANGEBYSCORE', LEASES, '-inf', now - tonumber(ARGV[2]), 'LIMIT', 0, limit)
for i = 1, #over do
  local f = call('HMGET', JOB .. over[i], 'token', 'worker_id', 'runs', 'run', 'status', 'cancel',
    'assigned_ms', 'needs')
  local document = call('HGET', JOBS, over[i])
  if f[1] and document and (f[5] == 'assigned' or f[5] == 'in_progress') then
    answer[#answer + 1] = {over[i], f[1], f[2] or '', f[3] or '', document, f[4] or '', f[6] or '',
      whole(now - (tonumber(f[7] or '') or now)), f[8] or ''}
  else
    call('ZREM', LEASES, over[i]) -- a stranger's deed: no record, or none that is held
    call('SREM', JOBS_BEGUN, over[i])
  end
end
return answer
