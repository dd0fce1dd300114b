-- What new_lanes.lua told was matched. Does nothing when another worker of the class was faster. The caller claims
-- next; of the class' waiting workers as many are woken as there are further jobs in those lanes, for whoever submitted
-- them did not know who serves them.
-- ARGV: class, version it knew, version it knows now, then the lanes it serves.
-- Answer: 1, or 0 when another was faster.
-- key names: LANE, HEADS, LANES, LANES_UNWORKABLE, LANE_CLASSES, WORKER_CLASS, CLASSES
-- include base: call, now_ms, whole
-- include wakes: wake_of

local class, now = ARGV[1], now_ms()
if (call('GET', WORKER_CLASS .. class) or '') ~= ARGV[2] then return 0 end
-- Another era: lanes were forgotten, and all are matched anew. Nobody of the class claims before that is done.
if string.match(ARGV[2], '^%d+') ~= string.match(ARGV[3], '^%d+') then call('DEL', HEADS .. class) end
for i = 4, #ARGV do
  local sig = ARGV[i]
  local known = call('HEXISTS', LANES, sig) == 1 -- or it was forgotten since: the class looks again
  if known then call('SADD', LANE_CLASSES .. sig, class) end
  if known and call('HEXISTS', LANES_UNWORKABLE, sig) == 0 then
    local first = call('ZRANGE', LANE .. sig, 0, 0, 'WITHSCORES')
    if first[1] then call('ZADD', HEADS .. class, first[2], first[1] .. '|' .. sig) end
    for _ = 2, call('ZCARD', LANE .. sig) do if not wake_of(class, sig, now) then break end end
  end
end
call('SET', WORKER_CLASS .. class, ARGV[3])
call('ZADD', CLASSES, whole(now), class)
return 1
