-- The answer to a claim was lost: back with what it took, as if it had not been. Costs as much as there are held jobs.
-- ARGV: the claim's token.
-- Answer: how many went back.
-- key names: JOB, LEASES, LANES
-- include base: call, now_ms
-- include records: place_of
-- include ends: finish

local held, now, back = call('ZRANGE', LEASES, 0, -1), now_ms(), 0
for i = 1, #held do
  local f = call('HMGET', JOB .. held[i], 'token', 'at')
  if f[1] == ARGV[1] then
    local _, _, sig = place_of(held[i], f[2])
    local requirements = sig and call('HGET', LANES, sig)
    if requirements then -- else its lease will be over
      finish(held[i], f[1], {verdict = 'pending', result = '', error = '', avoid_ms = 0, uncounted = true,
        reason = 'the answer to its claim was lost', requirements = requirements}, now)
      back = back + 1
    end
  end
end
return back
