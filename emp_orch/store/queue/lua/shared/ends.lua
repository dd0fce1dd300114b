-- The end of a run. Invariant: a job leaves its lease and gets its next place in one script.

-- A held job back into its lane. `f`: what `finish` read.
-- key names: JOB, JOBS_AVOIDING
-- include base: call, whole
-- include history: entry, noted, run_noted
-- include lanes: enqueue
local function give_back(id, f, score, seq, sig, how, now)
  local key = JOB .. id
  local h = call('HMGET', key, 'history', 'assigned_ms')
  local more = run_noted(h[1], h[2], f[5])
  call('HSET', key, 'status', 'pending', 'history', noted(more, entry(whole(now), 'job_requeued', f[5], how.reason)))
  if how.error ~= '' then call('HSET', key, 'error', how.error) end
  if not how.uncounted then call('HSET', key, 'runs', whole((tonumber(f[6]) or 0) + 1)) end
  if how.avoid_ms > 0 then
    local until_ms = now + how.avoid_ms
    call('HSET', key, 'avoid', whole(until_ms) .. ':' .. (f[5] or ''))
    if (tonumber(call('GET', JOBS_AVOIDING)) or 0) < until_ms then
      call('SET', JOBS_AVOIDING, whole(until_ms), 'PX', how.avoid_ms)
    end
  end
  call('HDEL', key, 'worker_id', 'token', 'progress', 'started_ms', 'assigned_ms', 'cancel', 'cancel_reason',
    'run', 'adopted')
  enqueue(id, tonumber(seq), score, sig, how.requirements, now)
end

-- End or give back a run, while its lease stands: the status that the job got, or 'lost'. A job whose cancellation
-- was asked for is not run again. `how`: verdict, result, error (JSON or ''), reason, avoid_ms (0: none), uncounted,
-- expired (only a lease that is over may be ended), crashes (JSON; nil or '': no new one). Nothing that a damaged
-- record holds may raise here: what was written before would stand, and the job be nowhere. A job whose place is
-- unknown cannot run again: it fails.
-- key names: JOB, SECRETS, JOBS_IN, JOBS_BEGUN, JOBS_FILES, LEASES
-- include base: call, whole
-- include events: emit
-- include records: place_of
-- include ends: give_back
local function finish(id, token, how, now)
  local key = JOB .. id
  local f = call('HMGET', key, 'status', 'token', 'cancel', 'at', 'worker_id', 'runs')
  if f[2] ~= token or (f[1] ~= 'assigned' and f[1] ~= 'in_progress') then return 'lost' end
  if how.expired then
    local lease = call('ZSCORE', LEASES, id)
    if lease and tonumber(lease) > now then return 'lost' end
  end
  local verdict, about = how.verdict, ''
  if f[3] and verdict ~= 'completed' then verdict = 'cancelled' end
  local score, seq, sig = place_of(id, f[4])
  if verdict == 'pending' and not seq then verdict = 'failed' end
  call('ZREM', LEASES, id)
  if how.crashes and how.crashes ~= '' then call('HSET', key, 'crashes', how.crashes) end
  if f[1] == 'in_progress' then call('SREM', JOBS_BEGUN, id) end
  if verdict ~= 'completed' then call('SADD', JOBS_FILES, id) end -- it may have saved some before it went wrong
  if how.reason ~= '' then about = ',"reason":' .. cjson.encode(how.reason) end
  if verdict == 'pending' then
    give_back(id, f, score, seq, sig, how, now)
    emit('job_requeued', id, f[5], 'pending', about)
    return verdict
  end
  call('UNLINK', SECRETS .. id)
  call('HSET', key, 'status', verdict, 'finished_ms', whole(now))
  if verdict == 'completed' then
    call('HSET', key, 'result', how.result)
    call('HDEL', key, 'error')
    if string.find(how.result, '"path"', 1, true) then call('SADD', JOBS_FILES, id) end
  elseif how.error ~= '' then
    call('HSET', key, 'error', how.error)
  end
  if how.reason ~= '' then call('HSET', key, 'reason', how.reason) end
  call('ZADD', JOBS_IN .. verdict, seq or '0', id)
  emit('job_' .. verdict, id, f[5], verdict, about)
  return verdict
end
