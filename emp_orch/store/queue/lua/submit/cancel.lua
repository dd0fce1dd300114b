-- A person wants a job no more: one that waits ends, of one that is held its worker is told.
-- ARGV: id, why.
-- Answer: {'cancelled'} (it was waiting), {'requested'} (its worker is told), {'ended', status} or {'unknown'}.
-- Invariant: only its worker, or the reaper, ends a job that is held.
-- key names: JOBS, JOB, SECRETS, JOBS_IN, LANE, WAKE
-- limits: WAKE_KEPT_MS
-- include base: call, now_ms, whole
-- include events: emit
-- include records: member, header

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
  call('ZADD', JOBS_IN .. 'cancelled', whole(seq), id)
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
