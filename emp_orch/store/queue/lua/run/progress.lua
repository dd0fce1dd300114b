-- What a run says of its progress.
-- ARGV: id, token, progress (JSON).
-- Answer: as renew.lua.
-- key names: PROGRESS, JOBS_BEGUN
-- limits: MAX_PROGRESS
-- include base: call, now_ms, whole
-- include events: emit

-- include held

if f[1] == 'assigned' then
  call('HSET', key, 'status', 'in_progress', 'started_ms', whole(now_ms()))
  call('SADD', JOBS_BEGUN, id)
end
call('HSET', key, 'progress', ARGV[3])
redis.pcall('XADD', PROGRESS .. id, 'MAXLEN', MAX_PROGRESS, '*', 'data', ARGV[3])
emit('job_progress', id, f[4], 'in_progress', ',"progress":' .. ARGV[3])
return f[3] and 'cancel' or 'ok'
