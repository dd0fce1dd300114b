-- A person wants an ended job run again, at its old place, with all its attempts.
-- ARGV: id, requirements (JSON), 1 when it had secrets, which its end took.
-- Answer: {'pending'}, {'refused', status}, {'forgotten'} or {'unknown'}.
-- Invariant: a completed job is not run again.
-- key names: JOBS, JOB, JOBS_IN
-- include base: call, now_ms, whole
-- include events: emit
-- include history: entry, noted, run_noted
-- include records: header
-- include lanes: enqueue

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
call('ZREM', JOBS_IN .. status, id)
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
