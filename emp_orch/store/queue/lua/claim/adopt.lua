-- A worker that starts takes over a job that its former life held.
-- ARGV: worker, new token, lease ms, id.
-- Answer: {document, earlier runs, assigned ms, error, payload, run, cancel, how often this run was taken over, needs,
-- crashes}, or {} when it does not hold it.
-- Invariant: the former life's token is void from here on.
-- key names: JOBS, JOB, PAYLOAD, LEASES
-- include base: call, now_ms, whole

local id = ARGV[4]
local key = JOB .. id
local f = call('HMGET', key, 'worker_id', 'status', 'runs', 'assigned_ms', 'error', 'run', 'cancel', 'adopted',
  'needs', 'crashes')
if f[1] ~= ARGV[1] or (f[2] ~= 'assigned' and f[2] ~= 'in_progress') then return {} end
local document = call('HGET', JOBS, id)
if not document then return {} end
call('HSET', key, 'token', ARGV[2])
call('ZADD', LEASES, now_ms() + tonumber(ARGV[3]), id)
local times = (tonumber(f[8]) or 0) + 1
call('HSET', key, 'adopted', whole(times))
local payload = string.sub(document, 1, 1) == '1' and call('GET', PAYLOAD .. id) or ''
return {document, f[3] or '0', f[4] or '0', f[5] or '', payload, f[6] or '', f[7] or '', times, f[9] or '',
  f[10] or ''}
