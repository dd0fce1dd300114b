-- Lanes and their heads.
-- Invariant: `heads:{class}` has, for every lane that the class serves, that holds jobs and is workable, an entry at or
-- before its first job.

-- This job is the first of its lane now.
-- key names: HEADS, LANES_ENTRY, LANE_CLASSES
-- include base: call
local function new_head(sig, entry, score)
  local known = call('HMGET', LANES_ENTRY, sig, '!' .. sig)
  call('HSET', LANES_ENTRY, sig, entry)
  if known[2] then return end
  local classes = call('SMEMBERS', LANE_CLASSES .. sig)
  for i = 1, #classes do
    if known[1] then call('ZREM', HEADS .. classes[i], known[1] .. '|' .. sig) end
    call('ZADD', HEADS .. classes[i], score, entry .. '|' .. sig)
  end
end

-- Make the lane known. True when it was not.
-- key names: LANES, LANES_VERSION, LANES_LOG, LANES_USED
-- include base: call, whole
local function know_lane(sig, requirements, now)
  if call('HSETNX', LANES, sig, requirements) == 0 then return false end
  local era, last = string.match(call('GET', LANES_VERSION) or '', '^(%d+):(%d+)$')
  if not era then era, last = whole(now), 0 end
  local number = whole(tonumber(last) + 1)
  call('ZADD', LANES_LOG, number, sig)
  call('SET', LANES_VERSION, era .. ':' .. number)
  call('ZADD', LANES_USED, now, sig)
  return true
end

-- A job back into its lane, at its place.
-- key names: LANE
-- include base: call
-- include records: member
-- include wakes: wake_classes, pass_on
-- include lanes: new_head, know_lane
local function enqueue(id, seq, score, sig, requirements, now)
  local new = know_lane(sig, requirements, now)
  local entry = member(seq, id)
  call('ZADD', LANE .. sig, score, entry)
  if call('ZRANGE', LANE .. sig, 0, 0)[1] == entry then new_head(sig, entry, score) end
  if new then wake_classes(sig, now) else pass_on(sig, now) end
end
