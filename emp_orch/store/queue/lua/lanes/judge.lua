-- Notes why nobody can serve a lane, or that somebody can after all.
-- ARGV: lane, why nobody can serve it ('' when somebody can after all).
-- Answer: the number of waiting jobs that this changed, or -1 when the verdict was the same before.
-- Invariant: an unworkable lane has no entry in `heads:*`.
-- key names: LANE, HEADS, LANES_ENTRY, LANES_UNWORKABLE, LANE_CLASSES
-- include base: call, now_ms, whole
-- include events: notice
-- include wakes: wake_one
-- include lanes: new_head

local sig, why = ARGV[1], ARGV[2]
local before = call('HGET', LANES_UNWORKABLE, sig)
if (before or '') == why then return -1 end
local waiting = call('ZCARD', LANE .. sig)
local kind, now = 'lane_workable', now_ms()
if why == '' then
  call('HDEL', LANES_UNWORKABLE, sig)
  call('HDEL', LANES_ENTRY, '!' .. sig)
  local first = call('ZRANGE', LANE .. sig, 0, 0, 'WITHSCORES')
  if first[1] then new_head(sig, first[1], first[2]) end
  for _ = 1, waiting do if not wake_one(sig, now) then break end end
else
  call('HSET', LANES_UNWORKABLE, sig, why)
  call('HSET', LANES_ENTRY, '!' .. sig, '1')
  local classes = call('SMEMBERS', LANE_CLASSES .. sig)
  for c = 1, #classes do
    local heads = call('ZRANGE', HEADS .. classes[c], 0, -1)
    for i = 1, #heads do
      if string.sub(heads[i], -16) == sig then call('ZREM', HEADS .. classes[c], heads[i]) end
    end
  end
  kind = 'lane_unworkable'
end
if waiting > 0 then
  notice(kind, '{"type":"' .. kind .. '","lane":"' .. sig
    .. '","jobs":' .. whole(waiting) .. ',"reason":' .. cjson.encode(why) .. '}')
end
return waiting
