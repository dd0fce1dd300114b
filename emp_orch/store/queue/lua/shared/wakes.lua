-- Waking workers that wait. A worker that finds nothing registers in its class with a deadline, and blocks on its own
-- wake list. What was woken is remembered until it claims; the sweep passes the wake of a dead worker on.
-- Invariant: while a lane holds a job, no live worker that serves it waits, unless a wake is on its way, or it was the
-- last to fail that job.

-- Wake this worker for a job of this lane.
-- key names: WAKING, WAKING_LANE, WAKE
-- limits: WAKE_KEPT_MS
-- include base: call
local function wake(worker, sig, now)
  call('LPUSH', WAKE .. worker, sig)
  call('PEXPIRE', WAKE .. worker, WAKE_KEPT_MS)
  call('ZADD', WAKING, now, worker)
  call('HSET', WAKING_LANE, worker, sig)
end

-- Wake the one of this class who has waited longest; true when there was one.
-- key names: CLASSES_WAITING, WAITING_IN, WAITING
-- include base: call
-- include wakes: wake
local function wake_of(class, sig, now)
  while true do
    local first = call('ZPOPMIN', WAITING_IN .. class)
    if not first[1] then
      call('SREM', CLASSES_WAITING, class)
      return false
    end
    call('HDEL', WAITING, first[1])
    if tonumber(first[2]) >= now then
      wake(first[1], sig, now)
      return true
    end
  end
end

-- Wake one worker that serves this lane; true when one waited. A few classes are tried before all are looked at. For
-- a lane that is called unworkable nobody is woken: two who wait would hand on the wake for ever.
-- key names: LANES_UNWORKABLE, LANE_CLASSES, CLASSES_WAITING
-- include base: call
-- include wakes: wake_of
local function wake_one(sig, now)
  local some = call('SRANDMEMBER', CLASSES_WAITING, 8)
  if #some == 0 or call('HEXISTS', LANES_UNWORKABLE, sig) == 1 then return false end
  local serves = call('SMISMEMBER', LANE_CLASSES .. sig, unpack(some))
  for i = 1, #some do
    if serves[i] == 1 and wake_of(some[i], sig, now) then return true end
  end
  local all = call('SINTER', LANE_CLASSES .. sig, CLASSES_WAITING)
  for i = 1, #all do
    if wake_of(all[i], sig, now) then return true end
  end
  return false
end

-- Nobody waits in this class any more when the last one went.
-- key names: CLASSES_WAITING, WAITING_IN, WAITING
-- include base: call
local function unwait(worker, class)
  call('HDEL', WAITING, worker)
  call('ZREM', WAITING_IN .. class, worker)
  if call('EXISTS', WAITING_IN .. class) == 0 then call('SREM', CLASSES_WAITING, class) end
end

-- Wake the one of those that ran this model last who waits and serves this lane; true when there was one.
-- key names: LANES_UNWORKABLE, LANE_CLASSES, WAITING_IN, WAITING, WARM
-- limits: MAX_WARM
-- include base: call
-- include wakes: wake, unwait
local function wake_warm(model, sig, now)
  local warm = call('ZRANGE', WARM .. model, 0, MAX_WARM - 1, 'REV')
  if #warm == 0 or call('HEXISTS', LANES_UNWORKABLE, sig) == 1 then return false end
  local classes = call('HMGET', WAITING, unpack(warm))
  for i = 1, #warm do
    local worker, class = warm[i], classes[i]
    if class and call('SMISMEMBER', LANE_CLASSES .. sig, class)[1] == 1 then
      local until_ms = call('ZSCORE', WAITING_IN .. class, worker)
      if until_ms and tonumber(until_ms) >= now then
        unwait(worker, class)
        wake(worker, sig, now)
        return true
      end
    end
  end
  return false
end

-- A lane nobody knows yet: one worker of each class looks whether its class serves it.
-- key names: CLASSES_WAITING
-- include base: call
-- include wakes: wake_of
local function wake_classes(sig, now)
  local classes = call('SMEMBERS', CLASSES_WAITING)
  for i = 1, #classes do wake_of(classes[i], sig, now) end
end

-- A wake that was not made use of goes to another: to one that serves the lane, or else to those who do not know yet
-- whether they do, for it may have been on its way to find out.
-- key names: LANE, LANES_VERSION, LANES_UNWORKABLE, WORKER_CLASS, CLASSES_WAITING
-- include base: call
-- include wakes: wake_of, wake_one
local function pass_on(sig, now)
  if call('EXISTS', LANE .. sig) == 0 or call('HEXISTS', LANES_UNWORKABLE, sig) == 1 then return end
  if wake_one(sig, now) then return end
  local version, classes = call('GET', LANES_VERSION), call('SMEMBERS', CLASSES_WAITING)
  for i = 1, #classes do
    if call('GET', WORKER_CLASS .. classes[i]) ~= version then wake_of(classes[i], sig, now) end
  end
end
