-- A part of next.lua: takes the best jobs that the class serves, as many as the worker wants.
-- key names: JOBS, JOB, PAYLOAD, SECRETS, LEASES, LANE
-- limits: AVOID_SCAN
-- include base: call, whole
-- include events: emit
-- include records: id_of

-- Take the best job over all lanes that the class serves out of its lane: place, score, lane. Nil: there is none.
local function pop()
  while true do
    local heads = call('ZRANGE', index, 0, 1)
    local name = heads[1]
    if not name then return nil end
    local sig = string.sub(name, -16)
    if not heads[2] then -- nothing to compare with: the entry may stay as it is
      local first = call('ZPOPMIN', LANE .. sig)
      if first[1] then return first[1], first[2], sig end
      call('ZREM', index, name)
      return nil
    end
    local first = call('ZRANGE', LANE .. sig, 0, 1, 'WITHSCORES')
    local exact = first[1] and first[1] .. '|' .. sig == name
    local follows = exact and 3 or 1
    call('ZREM', index, name)
    if first[follows] then call('ZADD', index, first[follows + 1], first[follows] .. '|' .. sig) end
    if exact then
      call('ZREM', LANE .. sig, first[1])
      return first[1], first[2], sig
    end
  end
end

if avoiding then
  -- The first job of a lane that this worker is not to avoid: its place and score.
  local function not_avoided(sig)
    local entries = call('ZRANGE', LANE .. sig, 0, AVOID_SCAN - 1, 'WITHSCORES')
    for e = 1, #entries, 2 do
      local avoid = call('HGET', JOB .. id_of(entries[e]), 'avoid') or ''
      local until_ms, whom = string.match(avoid, '^(%d+):(.*)$')
      if not until_ms or whom ~= worker or tonumber(until_ms) <= now then
        return entries[e], tonumber(entries[e + 1])
      end
      longest = math.min(longest, tonumber(until_ms) - now)
    end
  end

  -- As `pop`, while some jobs are to be passed over: every lane that could hold the best is looked into.
  pop = function()
    local from = 0
    local found, found_score, found_sig = nil, nil, nil
    while from >= 0 do
      local heads = call('ZRANGE', index, from, from + 63, 'WITHSCORES')
      from = #heads == 128 and from + 64 or -1
      for i = 1, #heads, 2 do
        local score, sig = tonumber(heads[i + 1]), string.sub(heads[i], -16)
        if found and (score > found_score or (score == found_score and heads[i] > found)) then
          from = -1
          break
        end
        local entry, s = not_avoided(sig)
        if entry and (not found or s < found_score or (s == found_score and entry < found)) then
          found, found_score, found_sig = entry, s, sig
        end
      end
    end
    if found then call('ZREM', LANE .. found_sig, found) end
    return found, found_score, found_sig
  end
end

-- Lease the job of this entry of a lane to the worker. Nil: it has no record.
local function take(entry, score, sig)
  local id = id_of(entry)
  local key = JOB .. id
  local document = call('HGET', JOBS, id)
  if not document then -- somebody deleted it: there is nothing to run
    call('UNLINK', SECRETS .. id)
    return nil
  end
  local new = call('HSET', key, 'status', 'assigned', 'worker_id', worker, 'token', token, 'assigned_ms', now_text,
    'at', score .. '|' .. whole(string.sub(entry, 1, 20)) .. '|' .. sig)
  local runs, err, needs, crashes = '0', '', '', ''
  if new < 5 then
    local f = call('HMGET', key, 'runs', 'error', 'needs', 'crashes')
    runs, err, needs, crashes = f[1] or '0', f[2] or '', f[3] or '', f[4] or ''
  end
  call('ZADD', LEASES, lease_text, id)
  emit('job_assigned', id, worker, 'assigned', '')
  return {id, document, runs, now_text, err, string.sub(document, 1, 1) == '1' and call('GET', PAYLOAD .. id) or '',
    needs, crashes}
end

local answer = {statuses, 'jobs'}
local left = tonumber(ARGV[6])
while left > 0 do
  local entry, score, sig = pop()
  if not entry then break end
  if sig == woken_for then woken_for = nil end
  local job = take(entry, score, sig)
  if job then
    answer[#answer + 1] = job
    left = left - 1
  end
end
