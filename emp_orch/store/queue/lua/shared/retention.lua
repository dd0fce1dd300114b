-- Forgetting ended jobs.

-- Forget these ended jobs. Those that left files are remembered until somebody deletes the files.
-- key names: JOBS, JOB, PAYLOAD, SECRETS, PROGRESS, JOBS_MARK, JOBS_FILES, JOBS_FORGOTTEN, JOBS_INPUTS
-- include base: call, whole
local function forget(ids)
  local has = call('SMISMEMBER', JOBS_FILES, unpack(ids))
  local names = {}
  for i = 1, #ids do
    local id = ids[i]
    if has[i] == 1 then
      call('SREM', JOBS_FILES, id)
      call('RPUSH', JOBS_FORGOTTEN, id)
    end
    local at = 4 * i
    names[at - 3], names[at - 2], names[at - 1], names[at] = JOB .. id, PAYLOAD .. id, PROGRESS .. id, SECRETS .. id
  end
  call('HDEL', JOBS, unpack(ids))
  call('HSET', JOBS_MARK, 'forgotten', whole((tonumber(call('HGET', JOBS_MARK, 'forgotten') or '') or 0) + #ids))
  call('HDEL', JOBS_INPUTS, unpack(ids))
  call('UNLINK', unpack(names))
end

-- Forget the oldest ended jobs of this status past `most`; at most `limit` of them.
-- key names: JOBS_IN
-- include base: call
-- include retention: forget
local function trim(status, most, limit)
  local surplus = math.min(call('ZCARD', JOBS_IN .. status) - most, limit)
  if surplus <= 0 then return 0 end
  local ids = call('ZRANGE', JOBS_IN .. status, 0, surplus - 1)
  call('ZREMRANGEBYRANK', JOBS_IN .. status, 0, surplus - 1)
  forget(ids)
  return surplus
end
