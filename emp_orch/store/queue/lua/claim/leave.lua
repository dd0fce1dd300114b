-- A worker goes. A wake that was on its way to it is passed on.
-- ARGV: worker.
-- Answer: 1.
-- key names: WAITING, WAKING, WAKING_LANE, WAKE
-- include base: call, now_ms
-- include wakes: unwait, pass_on

local worker = ARGV[1]
local class = call('HGET', WAITING, worker)
if class then unwait(worker, class) end
call('DEL', WAKE .. worker)
if call('ZREM', WAKING, worker) == 1 then
  local sig = call('HGET', WAKING_LANE, worker)
  call('HDEL', WAKING_LANE, worker)
  if sig then pass_on(sig, now_ms()) end
end
return 1
