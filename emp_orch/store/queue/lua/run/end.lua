-- A run is over.
-- ARGV: id, token, verdict (completed | failed | cancelled | timeout | pending), result, error (JSON or ''), reason,
-- avoid ms (0: none), 1 when the attempt does not count, 1 when only an expired lease may be ended, requirements
-- (JSON), crashes (JSON; '' when there is no new one).
-- Answer: the status the job got, or 'lost'.
-- Invariant: only the token of the lease ends a run, and once.
-- include base: now_ms
-- include ends: finish

return finish(ARGV[1], ARGV[2], {verdict = ARGV[3], result = ARGV[4], error = ARGV[5], reason = ARGV[6],
  avoid_ms = tonumber(ARGV[7]), uncounted = ARGV[8] == '1', expired = ARGV[9] == '1',
  requirements = ARGV[10], crashes = ARGV[11]}, now_ms())
