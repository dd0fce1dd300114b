-- A job without a place gets the one that its record speaks of: a held one a lease that is over, for the sweep.
-- ARGV: id, requirements (JSON).
-- Answer: its status; '' when it has a place after all, or is gone.
-- key names: JOBS, JOB, JOBS_IN, LEASES
-- include base: call, now_ms, whole
-- include events: emit
-- include records: header
-- include lanes: enqueue
-- include stands: stands

local id, now = ARGV[1], now_ms()
local seq, priority, sig = header(call('HGET', JOBS, id) or '')
local status = call('HGET', JOB .. id, 'status') or 'pending'
if not seq or stands(id, seq, sig, status) then return '' end
if status == 'pending' then
  enqueue(id, seq, -priority, sig, ARGV[2], now)
  emit('job_requeued', id, '', 'pending', ',"reason":"its place in Redis was gone"')
elseif status == 'assigned' or status == 'in_progress' then
  call('ZADD', LEASES, now, id)
else
  call('ZADD', JOBS_IN .. status, whole(seq), id)
end
return status
