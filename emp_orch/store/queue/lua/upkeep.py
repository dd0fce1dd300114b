"""The queue's Lua, for people and the reconciler: cancel, retry, sweep, judge, forget.

As in queue_lua: each script runs after what it uses of queue_prelude and takes no KEYS; ARGV and answer are told above.
"""

from __future__ import annotations

# ARGV: id, why. Returns {'cancelled'} (it was waiting), {'requested'} (its worker is told), {'ended', status} or
# {'unknown'}.
CANCEL = """
local id, reason = ARGV[1], ARGV[2]
local key = JOB .. id
local document = call('HGET', JOBS, id)
if not document then return {'unknown'} end
local seq, _, sig = header(document)
local f = call('HMGET', key, 'status', 'worker_id')
local now = now_ms()
if not f[1] or f[1] == 'pending' then
  if not seq then return {'unknown'} end -- damaged: it fails when it is claimed
  call('ZREM', LANE .. sig, member(seq, id))
  call('UNLINK', SECRETS .. id)
  call('HSET', key, 'status', 'cancelled', 'finished_ms', whole(now), 'reason', reason)
  emit('job_cancelled', id, '', 'cancelled', '')
  call('ZADD', IN .. 'cancelled', whole(seq), id)
  return {'cancelled'}
end
if f[1] == 'assigned' or f[1] == 'in_progress' then
  if call('HSETNX', key, 'cancel', whole(now)) == 1 then
    call('HSET', key, 'cancel_reason', reason)
    call('LPUSH', WAKE .. (f[2] or ''), 'cancel:' .. id)
    call('PEXPIRE', WAKE .. (f[2] or ''), WAKE_KEPT_MS)
    emit('job_cancel_requested', id, f[2], f[1], '')
  end
  return {'requested'}
end
return {'ended', f[1]}
"""

# A person wants an ended job run again, at its old place, with all its attempts. ARGV: id, requirements (JSON), 1 when
# it had secrets, which its end took. Returns {'pending'}, {'refused', status}, {'forgotten'} or {'unknown'}.
RETRY = """
local id = ARGV[1]
local key = JOB .. id
local document = call('HGET', JOBS, id)
if not document then return {'unknown'} end
local seq, priority, sig = header(document)
if not seq then return {'unknown'} end
local f = call('HMGET', key, 'status', 'history', 'assigned_ms', 'worker_id', 'finished_ms', 'reason', 'cancel',
  'cancel_reason')
local status = f[1] or 'pending'
if status ~= 'failed' and status ~= 'cancelled' and status ~= 'timeout' then return {'refused', status} end
if ARGV[3] == '1' then return {'forgotten'} end
local now = now_ms()
call('ZREM', IN .. status, id)
local history = run_noted(f[2], f[3], f[4])
if f[7] then history = noted(history, entry(f[7], 'job_cancel_requested', f[4], f[8])) end
history = noted(history, entry(f[5] or whole(now), 'job_' .. status, f[4], f[6]))
call('HDEL', key, 'finished_ms', 'started_ms', 'assigned_ms', 'worker_id', 'token', 'progress', 'error', 'result',
  'reason', 'cancel', 'cancel_reason', 'run', 'runs', 'avoid', 'adopted', 'crashes')
call('HSET', key, 'status', 'pending',
  'history', noted(history, entry(whole(now), 'job_requeued', '', 'a person asked for it')))
emit('job_requeued', id, '', 'pending', '')
enqueue(id, seq, -priority, sig, ARGV[2], now)
return {'pending'}
"""

# ARGV: at most how many, ms by which a lease must be over. Passes on wakes that were not answered, forgets lanes long
# unused. Returns {id, token, worker, earlier runs, document, run, cancel, ms since it was claimed, needs} of the jobs
# whose lease is over.
SWEEP = """
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
    call('HDEL', UNWORKABLE, sig)
    call('HDEL', LANES_ENTRY, sig, '!' .. sig, '@' .. sig)
    call('DEL', LANE_CLASSES .. sig)
    gone = true
  end
end
local old = call('ZRANGEBYSCORE', CLASSES, '-inf', now - CLASS_KEPT_MS, 'LIMIT', 0, 10)
for i = 1, #old do
  call('ZREM', CLASSES, old[i])
  call('DEL', CLASS .. old[i], HEADS .. old[i])
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
    call('SREM', BEGUN, over[i])
  end
end
return answer
"""

# ARGV: lane, why nobody can serve it ('' when somebody can after all).
# Returns the number of waiting jobs that this changed, or -1 when the verdict was the same before.
JUDGE = """
local sig, why = ARGV[1], ARGV[2]
local before = call('HGET', UNWORKABLE, sig)
if (before or '') == why then return -1 end
local waiting = call('ZCARD', LANE .. sig)
local kind, now = 'lane_workable', now_ms()
if why == '' then
  call('HDEL', UNWORKABLE, sig)
  call('HDEL', LANES_ENTRY, '!' .. sig)
  local first = call('ZRANGE', LANE .. sig, 0, 0, 'WITHSCORES')
  if first[1] then new_head(sig, first[1], first[2]) end
  for _ = 1, waiting do if not wake_one(sig, now) then break end end
else
  call('HSET', UNWORKABLE, sig, why)
  call('HSET', LANES_ENTRY, '!' .. sig, '1')
  local classes = call('SMEMBERS', LANE_CLASSES .. sig)
  for c = 1, #classes do
    local heads = call('ZRANGE', HEADS .. classes[c], 0, -1)
    for i = 1, #heads do
      if string.sub(heads[i], -16) == sig then call('ZREM', HEADS .. classes[c], heads[i]) end
    end
  end
  kind = 'lane_unworkable'
end
if waiting > 0 then
  notice(kind, '{"type":"' .. kind .. '","lane":"' .. sig
    .. '","jobs":' .. whole(waiting) .. ',"reason":' .. cjson.encode(why) .. '}')
end
return waiting
"""

# Forget the oldest ended jobs of one status. ARGV: status, how many to keep where the fleet does not keep more, at most
# how many to forget. Returns how many.
TRIM = """
local most = math.max(tonumber(ARGV[2]), tonumber(call('GET', KEEP) or '') or 0)
return trim(ARGV[1], most, tonumber(ARGV[3]))
"""

# Forget ended jobs of one status, oldest first. ARGV: status, how many to keep, ended before (ms; 0: whenever), how
# many to pass over, at most how many to look at. Returns {how many were forgotten, how many were looked at}.
FORGET = """
local status, keep, before = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local from, limit = tonumber(ARGV[4]), tonumber(ARGV[5])
if before <= 0 then
  local done = trim(status, keep, limit)
  return {done, done}
end
local old, over = call('ZRANGE', IN .. status, from, from + limit - 1), {}
for i = 1, #old do
  local at = call('HGET', JOB .. old[i], 'finished_ms')
  if (tonumber(at or '0') or 0) < before then over[#over + 1] = old[i] end
end
if #over > 0 then
  call('ZREM', IN .. status, unpack(over))
  forget(over)
end
return {#over, #old}
"""
