-- Under which name the service knows this run.
-- ARGV: id, token, {connector, url, ref} (JSON).
-- Answer: as renew.lua.
-- key names: JOBS_FILES
-- include base: call

-- include held

call('HSET', key, 'run', ARGV[3])
call('SADD', JOBS_FILES, id)
return f[3] and 'cancel' or 'ok'
