"""The queue's Lua, for the reconciler alone: whether each job stands somewhere, and back to its place.

As in queue_lua: each script runs after what it uses of queue_prelude and takes no KEYS; ARGV and answer are told above.
"""

from __future__ import annotations

# Each job stands at one place: in its lane, in the leases, or among those that ended. Keys of these can be evicted.
# ARGV: the statuses of ended jobs. Returns {jobs known, places taken, lanes that hold jobs and that no class looks at}.
PLACES = """
local placed, blind, waits = call('ZCARD', LEASES), {}, call('EXISTS', CLASSES_WAITING) == 1
for i = 1, #ARGV do placed = placed + call('ZCARD', IN .. ARGV[i]) end
local sigs = call('HKEYS', LANES)
for i = 1, #sigs do
  local sig = sigs[i]
  local waiting = call('ZCARD', LANE .. sig)
  placed = placed + waiting
  if waiting > 0 and #blind < 100 and call('HEXISTS', UNWORKABLE, sig) == 0 then
    local classes = call('SMEMBERS', LANE_CLASSES .. sig)
    local seen = call('ZSCORE', LANES_LOG, sig) and (#classes > 0 or not waits)
    for c = 1, #classes do seen = seen and call('EXISTS', HEADS .. classes[c]) == 1 end
    if not seen then blind[#blind + 1] = sig end
  end
end
return {call('HLEN', JOBS), placed, blind}
"""

# Jobs without a record that a lane or a lease still names. ARGV: at most how many. Returns ids.
WITHOUT_RECORD = """
local most, found = tonumber(ARGV[1]), {}
local function look(ids, from)
  for i = 1, #ids do
    local id = string.sub(ids[i], from)
    if #found < most and call('HEXISTS', JOBS, id) == 0 then found[#found + 1] = id end
  end
end
local sigs = call('HKEYS', LANES)
for i = 1, #sigs do
  if #found < most then look(call('ZRANGE', LANE .. sigs[i], 0, most - 1), 22) end
end
look(call('ZRANGE', LEASES, 0, most - 1), 1)
return found
"""

# All classes match all lanes anew; who waits does it at once.
MATCH_ANEW = """
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
"""

_STANDS = """
local ENDED_IN = {'completed', 'failed', 'cancelled', 'timeout'}
local function stands(id, seq, sig, status)
  if call('ZSCORE', LEASES, id) then return true end
  for i = 1, #ENDED_IN do
    if call('ZSCORE', IN .. ENDED_IN[i], id) then return true end
  end
  return status == 'pending' and call('HEXISTS', LANES, sig) == 1 and call('ZSCORE', LANE .. sig, member(seq, id))
end
"""

# ARGV: cursor, about how many to look at. Returns {next cursor, then id, document, needs of each job without a place}.
STRAYS = (
    _STANDS
    + """
local page = call('HSCAN', JOBS, ARGV[1], 'COUNT', ARGV[2])
local answer = {page[1]}
for i = 1, #page[2], 2 do
  local id = page[2][i]
  local seq, _, sig = header(page[2][i + 1])
  local f = call('HMGET', JOB .. id, 'status', 'needs')
  if seq and not stands(id, seq, sig, f[1] or 'pending') then
    answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = id, page[2][i + 1], f[2] or ''
  end
end
return answer
"""
)

# A job without a place gets the one that its record speaks of: a held one a lease that is over, for the sweep.
# ARGV: id, requirements (JSON). Returns its status; '' when it has a place after all, or is gone.
PUT_BACK = (
    _STANDS
    + """
local id, now = ARGV[1], now_ms()
local seq, priority, sig = header(call('HGET', JOBS, id) or '')
local status = call('HGET', JOB .. id, 'status') or 'pending'
if not seq or stands(id, seq, sig, status) then return '' end
if status == 'pending' then
  enqueue(id, seq, -priority, sig, ARGV[2], now)
  emit('job_requeued', id, '', 'pending', ',"reason":"its place in Redis was gone"')
elseif status == 'assigned' or status == 'in_progress' then
  call('ZADD', LEASES, now, id)
else
  call('ZADD', IN .. status, whole(seq), id)
end
return status
"""
)
