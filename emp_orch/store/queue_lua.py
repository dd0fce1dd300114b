"""The queue's Lua: every change of a job is one script, so that no crash can leave half of it.

Each script runs after queue_prelude's functions. It takes no KEYS; ARGV and answer are told above it.
"""

from __future__ import annotations

# ARGV: id, service, payload, requirements, lane, priority, max_retries (JSON texts and numbers).
# Returns {1, 'pending'}, or {0, status} when the job is there already.
SUBMIT = """
local id, service, payload, requirements, sig = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local key = JOB .. id
local there = call('HGET', key, 'status')
if there then return {0, there} end
local now = now_ms()
local seq = call('INCR', SEQ)
call('HSET', key, 'id', id, 'service', service, 'status', 'pending', 'payload', payload,
  'requirements', requirements, 'lane', sig, 'priority', ARGV[6], 'max_retries', ARGV[7],
  'seq', seq, 'attempts', 0, 'created_ms', now, 'history', noted('', now, 'job_submitted', '', ''))
call('ZADD', JOBS, seq, id)
call('ZADD', STATUS .. 'pending', seq, id)
emit('job_submitted', id, '', 'pending', ',"service":' .. cjson.encode(service))
enqueue(id, seq, tonumber(ARGV[6]), sig, requirements, now)
return {1, 'pending'}
"""

# ARGV: worker, version of the lanes it knows, its group, token, lease ms, longest wait ms, then the lanes it serves.
# Returns {'stale'} when there are lanes it does not know, {'job', field, value, …}, or {'wait', ms}.
CLAIM = """
local worker, group, token, ttl, longest = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])
if (call('GET', LANES_VERSION) or '0') ~= ARGV[2] then return {'stale'} end
local now = now_ms()

local old_group = call('HGET', WAITING, worker)
if old_group then
  call('HDEL', WAITING, worker)
  call('ZREM', GROUP .. old_group, worker)
end
local woken_for = nil
if call('ZREM', WAKING, worker) == 1 then
  woken_for = call('HGET', WAKING_LANE, worker)
  call('HDEL', WAKING_LANE, worker)
end
call('DEL', WAKE .. worker)

local avoiding = call('EXISTS', AVOID) == 1
local best, best_score, best_sig = nil, nil, nil
for i = 7, #ARGV do
  local heads = call('ZRANGE', LANE .. ARGV[i], 0, avoiding and AVOID_SCAN - 1 or 0, 'WITHSCORES')
  for h = 1, #heads, 2 do
    local avoid = avoiding and call('HGET', AVOID, string.sub(heads[h], 22))
    local until_ms, whom
    if avoid then until_ms, whom = string.match(avoid, '^(%d+):(.*)$') end
    if until_ms and whom == worker and tonumber(until_ms) > now then
      longest = math.min(longest, tonumber(until_ms) - now)
    else
      local score = tonumber(heads[h + 1])
      if not best or score < best_score or (score == best_score and heads[h] < best) then
        best, best_score, best_sig = heads[h], score, ARGV[i]
      end
      break
    end
  end
end

-- Its wake was for a lane that still holds a job it does not take: pass the wake on.
if woken_for and woken_for ~= best_sig and call('EXISTS', LANE .. woken_for) == 1 then
  wake_one(woken_for, now)
end

if best then
  local id = string.sub(best, 22)
  local key = JOB .. id
  call('ZREM', LANE .. best_sig, best)
  local f = call('HMGET', key, 'seq', 'history')
  if avoiding then call('HDEL', AVOID, id) end
  call('HINCRBY', key, 'attempts', 1)
  call('HSET', key, 'status', 'assigned', 'worker_id', worker, 'token', token, 'assigned_ms', now,
    'history', noted(f[2], now, 'job_assigned', worker, ''))
  move(id, f[1], 'pending', 'assigned')
  call('ZADD', LEASES, now + ttl, id)
  emit('job_assigned', id, worker, 'assigned', '')
  local answer = call('HGETALL', key)
  table.insert(answer, 1, 'job')
  return answer
end

call('HSET', WAITING, worker, group)
if call('ZCARD', GROUP .. group) == 0 then
  for i = 7, #ARGV do call('SADD', LANE_GROUPS .. ARGV[i], group) end
end
call('ZADD', GROUP .. group, now + longest + WAIT_GRACE_MS, worker)
return {'wait', math.ceil(longest)}
"""

# What a holder may do only while its lease stands. ARGV: id, token, …
_FENCE = """
local id, token = ARGV[1], ARGV[2]
local key = JOB .. id
local f = call('HMGET', key, 'status', 'token', 'cancel', 'seq', 'worker_id', 'history')
if f[2] ~= token or (f[1] ~= 'assigned' and f[1] ~= 'in_progress') then return 'lost' end
"""

# ARGV: id, token, lease ms. Returns 'ok', 'cancel' (the job is to be stopped) or 'lost'.
RENEW = (
    _FENCE
    + """
call('ZADD', LEASES, now_ms() + tonumber(ARGV[3]), id)
return f[3] and 'cancel' or 'ok'
"""
)

# ARGV: id, token, progress (JSON). Returns as RENEW.
PROGRESS = (
    _FENCE
    + """
if f[1] == 'assigned' then
  call('HSET', key, 'status', 'in_progress', 'started_ms', now_ms())
  move(id, f[4], 'assigned', 'in_progress')
end
call('HSET', key, 'progress', ARGV[3])
emit('job_progress', id, f[5], 'in_progress', ',"progress":' .. ARGV[3])
return f[3] and 'cancel' or 'ok'
"""
)

# A run is over. ARGV: id, token, verdict (completed | failed | cancelled | timeout | pending), result, error (JSON or
# ''), reason, avoid ms (0: none), 1 when the attempt does not count, 1 when only an expired lease may be ended.
# Returns the status the job got, or 'lost'. A job whose cancellation was asked for is not run again.
END = (
    _FENCE
    + """
local now = now_ms()
local verdict, reason, avoid_ms = ARGV[3], ARGV[6], tonumber(ARGV[7])
if ARGV[9] == '1' then
  local lease = call('ZSCORE', LEASES, id)
  if lease and tonumber(lease) > now then return 'lost' end
end
if f[3] and verdict ~= 'completed' then verdict = 'cancelled' end
call('ZREM', LEASES, id)
call('HDEL', key, 'token', 'cancel')
if ARGV[5] ~= '' then call('HSET', key, 'error', ARGV[5]) end
local about = ''
if reason ~= '' then about = ',"reason":' .. cjson.encode(reason) end
move(id, f[4], f[1], verdict)

if verdict == 'pending' then
  call('HSET', key, 'status', 'pending', 'history', noted(f[6], now, 'job_requeued', f[5], reason))
  call('HDEL', key, 'worker_id', 'progress', 'started_ms', 'assigned_ms')
  if ARGV[8] == '1' then call('HINCRBY', key, 'attempts', -1) end
  if avoid_ms > 0 then call('HSET', AVOID, id, string.format('%.0f', now + avoid_ms) .. ':' .. f[5]) end
  local q = call('HMGET', key, 'priority', 'lane', 'requirements')
  emit('job_requeued', id, f[5], 'pending', about)
  enqueue(id, tonumber(f[4]), tonumber(q[1]), q[2], q[3], now)
  return verdict
end

local kind = 'job_' .. verdict
call('HSET', key, 'status', verdict, 'finished_ms', now, 'history', noted(f[6], now, kind, f[5], reason))
if ARGV[4] ~= '' then call('HSET', key, 'result', ARGV[4]) end
if verdict == 'completed' then
  call('HDEL', key, 'error')
  call('HSET', key, 'progress', '{"fraction":1}')
end
emit(kind, id, f[5], verdict, about)
ended(id, now)
return verdict
"""
)

# ARGV: id, who asks. Returns {'cancelled'} (it was waiting), {'requested'} (its worker is told),
# {'ended', status} or {'unknown'}.
CANCEL = """
local id, reason = ARGV[1], ARGV[2]
local key = JOB .. id
local f = call('HMGET', key, 'status', 'seq', 'lane', 'worker_id', 'history')
if not f[1] then return {'unknown'} end
local now = now_ms()
if f[1] == 'pending' or f[1] == 'unworkable' then
  call('ZREM', LANE .. f[3], member(tonumber(f[2]), id))
  call('HSET', key, 'status', 'cancelled', 'finished_ms', now,
    'history', noted(f[5], now, 'job_cancelled', '', reason))
  move(id, f[2], f[1], 'cancelled')
  emit('job_cancelled', id, '', 'cancelled', '')
  ended(id, now)
  return {'cancelled'}
end
if f[1] == 'assigned' or f[1] == 'in_progress' then
  if call('HSETNX', key, 'cancel', '1') == 1 then
    call('LPUSH', WAKE .. f[4], 'cancel:' .. id)
    call('PEXPIRE', WAKE .. f[4], WAKE_KEPT_MS)
    call('HSET', key, 'history', noted(f[5], now, 'job_cancel_requested', f[4], reason))
    emit('job_cancel_requested', id, f[4], f[1], '')
  end
  return {'requested'}
end
return {'ended', f[1]}
"""

# A person wants an ended job run again, at its old place, with all its attempts. ARGV: id.
# Returns {'pending'}, {'refused', status} or {'unknown'}.
RETRY = """
local id = ARGV[1]
local key = JOB .. id
local f = call('HMGET', key, 'status', 'seq', 'priority', 'lane', 'requirements', 'history')
if not f[1] then return {'unknown'} end
if f[1] ~= 'failed' and f[1] ~= 'cancelled' and f[1] ~= 'timeout' then return {'refused', f[1]} end
local now = now_ms()
call('ZREM', ENDED, id)
call('HDEL', key, 'finished_ms', 'started_ms', 'assigned_ms', 'worker_id', 'progress', 'error', 'result')
call('HSET', key, 'status', 'pending', 'attempts', 0,
  'history', noted(f[6], now, 'job_requeued', '', 'a person asked for it'))
move(id, f[2], f[1], 'pending')
emit('job_requeued', id, '', 'pending', '')
enqueue(id, tonumber(f[2]), tonumber(f[3]), f[4], f[5], now)
return {'pending'}
"""

# A worker goes. ARGV: worker. A wake that was on its way to it is passed on.
LEAVE = """
local worker = ARGV[1]
local group = call('HGET', WAITING, worker)
if group then
  call('HDEL', WAITING, worker)
  call('ZREM', GROUP .. group, worker)
end
call('DEL', WAKE .. worker)
if call('ZREM', WAKING, worker) == 1 then
  local sig = call('HGET', WAKING_LANE, worker)
  call('HDEL', WAKING_LANE, worker)
  if sig and call('EXISTS', LANE .. sig) == 1 then wake_one(sig, now_ms()) end
end
return 1
"""

# The lanes and their version at one moment. Returns {version, sig, requirements, …}.
READ_LANES = """
local answer = call('HGETALL', LANES)
table.insert(answer, 1, call('GET', LANES_VERSION) or '0')
return answer
"""

# ARGV: at most how many. Passes on wakes that were not answered, forgets lanes long unused.
# Returns {id, token, attempts, max_retries, worker, …} of the jobs whose lease is over.
SWEEP = """
local now, limit = now_ms(), tonumber(ARGV[1])
local silent = call('ZRANGEBYSCORE', WAKING, '-inf', now - WAKE_ANSWER_MS, 'LIMIT', 0, limit)
for i = 1, #silent do
  local sig = call('HGET', WAKING_LANE, silent[i])
  call('ZREM', WAKING, silent[i])
  call('HDEL', WAKING_LANE, silent[i])
  if sig and call('EXISTS', LANE .. sig) == 1 then wake_one(sig, now) end
end
local unused = call('ZRANGEBYSCORE', LANES_USED, '-inf', now - LANE_KEPT_MS, 'LIMIT', 0, limit)
for i = 1, #unused do
  if call('EXISTS', LANE .. unused[i]) == 1 then
    call('ZADD', LANES_USED, now, unused[i])
  else
    call('ZREM', LANES_USED, unused[i])
    call('HDEL', LANES, unused[i])
    call('DEL', LANE_GROUPS .. unused[i])
  end
end
local answer = {}
local over = call('ZRANGEBYSCORE', LEASES, '-inf', now, 'LIMIT', 0, limit)
for i = 1, #over do
  local f = call('HMGET', JOB .. over[i], 'token', 'attempts', 'max_retries', 'worker_id')
  if f[1] then
    for _, v in ipairs({over[i], f[1], f[2], f[3], f[4]}) do table.insert(answer, v) end
  else
    call('ZREM', LEASES, over[i])
  end
end
return answer
"""
