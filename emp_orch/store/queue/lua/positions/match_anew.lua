-- All classes match all lanes anew; who waits does it at once.
-- ARGV: none.
-- Answer: 1.
-- key names: LANE, LANES, LANES_VERSION, LANES_LOG, LANES_USED
-- include base: call, now_ms, whole
-- include wakes: wake_classes

local now = now_ms()
local last = tonumber(string.match(call('GET', LANES_VERSION) or '', ':(%d+)$') or '0')
local sigs = call('HKEYS', LANES)
for i = 1, #sigs do
  if not call('ZSCORE', LANES_LOG, sigs[i]) then
    last = last + 1
    call('ZADD', LANES_LOG, whole(last), sigs[i])
  end
  call('ZADD', LANES_USED, 'NX', whole(now), sigs[i])
end
call('SET', LANES_VERSION, whole(now) .. ':' .. whole(last))
for i = 1, #sigs do
  if call('EXISTS', LANE .. sigs[i]) == 1 then wake_classes(sigs[i], now) end
end
return 1
