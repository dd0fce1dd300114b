-- Each job stands at one place: in its lane, in the leases, or among those that ended. Keys of these can be evicted.
-- ARGV: the statuses of ended jobs.
-- Answer: {jobs known, places taken, lanes that hold jobs and that no class looks at}.
-- key names: JOBS, JOBS_IN, LEASES, LANE, HEADS, LANES, LANES_LOG, LANES_UNWORKABLE, LANE_CLASSES, CLASSES_WAITING
-- include base: call

local placed, blind, waits = call('ZCARD', LEASES), {}, call('EXISTS', CLASSES_WAITING) == 1
for i = 1, #ARGV do placed = placed + call('ZCARD', JOBS_IN .. ARGV[i]) end
local sigs = call('HKEYS', LANES)
for i = 1, #sigs do
  local sig = sigs[i]
  local waiting = call('ZCARD', LANE .. sig)
  placed = placed + waiting
  if waiting > 0 and #blind < 100 and call('HEXISTS', LANES_UNWORKABLE, sig) == 0 then
    local classes = call('SMEMBERS', LANE_CLASSES .. sig)
    local seen = call('ZSCORE', LANES_LOG, sig) and (#classes > 0 or not waits)
    for c = 1, #classes do seen = seen and call('EXISTS', HEADS .. classes[c]) == 1 end
    if not seen then blind[#blind + 1] = sig end
  end
end
return {call('HLEN', JOBS), placed, blind}
