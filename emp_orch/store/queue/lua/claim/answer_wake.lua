-- A part of next_after_waiting.lua: this worker waits no more, and its wake is answered.
-- key names: WAITING, WAKING, WAKING_LANE, WAKE
-- include base: call

local old = call('HGET', WAITING, worker)
if old then
  -- include wakes: unwait
  unwait(worker, old)
end
if call('ZREM', WAKING, worker) == 1 then
  woken_for = call('HGET', WAKING_LANE, worker)
  call('HDEL', WAKING_LANE, worker)
end
call('DEL', WAKE .. worker)
