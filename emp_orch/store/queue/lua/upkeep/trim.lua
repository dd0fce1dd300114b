-- Forget the oldest ended jobs of one status.
-- ARGV: status, how many to keep where the fleet does not keep more, at most how many to forget.
-- Answer: how many were.
-- key names: JOBS_KEEP
-- include base: call
-- include retention: trim

local most = math.max(tonumber(ARGV[2]), tonumber(call('GET', JOBS_KEEP) or '') or 0)
return trim(ARGV[1], most, tonumber(ARGV[3]))
