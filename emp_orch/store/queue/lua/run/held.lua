-- A part of what a holder may do only while its lease stands.
-- ARGV: id, token, …
-- Answer: 'lost' when it does not hold the job. Else `f`: status, token, cancel, worker.
-- key names: JOB
-- include base: call

local id, token = ARGV[1], ARGV[2]
local key = JOB .. id
local f = call('HMGET', key, 'status', 'token', 'cancel', 'worker_id')
if f[2] ~= token or (f[1] ~= 'assigned' and f[1] ~= 'in_progress') then return 'lost' end
