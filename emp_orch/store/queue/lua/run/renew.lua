-- A holder keeps its lease.
-- ARGV: id, token, lease ms.
-- Answer: 'ok', 'cancel' (the job is to be stopped) or 'lost'.
-- key names: LEASES
-- include base: call, now_ms

-- include held

-- A full Redis refuses a script's first write if it could need memory, and would so end every lease: this one does not.
call('ZREM', LEASES, id)
call('ZADD', LEASES, now_ms() + tonumber(ARGV[3]), id)
return f[3] and 'cancel' or 'ok'
