"""The queue's Lua, for those who submit and those who work: every change of a job is one script, so that no crash can
leave half of it. What people and the reconciler do is in queue_lua_care.

Each script runs after what it uses of queue_prelude. It takes no KEYS; ARGV and answer are told above it.
"""

from __future__ import annotations

# ARGV: 1 if nobody else can have made these ids, number of lanes; for each: lane, requirements (JSON), service; then
# for each job: id, number of its lane (from 1), priority, document (JSON), payload ('' when it is in the document),
# secrets (JSON or '').
# Returns for each job 1 (it is new), 0 (there already, the same) or -1 (there already, and another).
SUBMIT = """
local now = now_ms()
local fresh = ARGV[1] == '1'
local lanes, at = {}, 3
for i = 1, tonumber(ARGV[2]) do
  local sig = ARGV[at]
  local before = call('ZRANGE', LANE .. sig, 0, 0, 'WITHSCORES')
  lanes[i] = {sig = sig, service = ARGV[at + 2], n = 0, add = {}, best_score = tonumber(before[2]),
    empty = not before[1], requirements = ARGV[at + 1], middle = '|' .. sig .. '|' .. whole(now) .. '|'}
  at = at + 3
end
local count = (#ARGV - at + 1) / 6
-- numbers are for new jobs alone: by how many were given it is told whether jobs are gone (losses.py)
local seq = tonumber(call('GET', SEQ) or '') or 0
local answer, documents, made, only = {}, {}, 0, nil
for k = 1, count do
  local id, lane, priority, payload = ARGV[at], lanes[tonumber(ARGV[at + 1])], ARGV[at + 2], ARGV[at + 4]
  local head = (payload == '' and '0|' or '1|') .. whole(seq + made + 1) .. '|' .. priority
  local text = head .. lane.middle .. ARGV[at + 3]
  if fresh or call('HSETNX', JOBS, id, text) == 1 then
    documents[2 * made + 1], documents[2 * made + 2], made, only = id, text, made + 1, id
    if payload ~= '' then call('SET', PAYLOAD .. id, payload) end
    if ARGV[at + 5] ~= '' then call('SET', SECRETS .. id, ARGV[at + 5]) end
    local score, entry, n = -tonumber(priority), member(seq + made, id), lane.n
    lane.add[2 * n + 1], lane.add[2 * n + 2], lane.n = score, entry, n + 1
    if not lane.best_score or score < lane.best_score then lane.best, lane.best_score = entry, score end
    answer[k] = 1
  else
    local there = call('HGET', JOBS, id)
    local _, _, _, _, from = header(there)
    local same = from and string.sub(there, from) == ARGV[at + 3]
    if same and string.sub(there, 1, 1) == '1' then same = call('GET', PAYLOAD .. id) == payload end
    answer[k] = same and 0 or -1
  end
  at = at + 6
end
if made == 0 then return answer end
call('INCRBY', SEQ, made)
if fresh then call('HSET', JOBS, unpack(documents)) end
local anyone = call('EXISTS', CLASSES_WAITING) == 1
for i = 1, #lanes do
  local lane = lanes[i]
  if lane.n > 0 then
    -- not before: a lane that is known wakes only those who know that they serve it
    local new = lane.empty and know_lane(lane.sig, lane.requirements, now)
    call('ZADD', LANE .. lane.sig, unpack(lane.add))
    if lane.best then new_head(lane.sig, lane.best, lane.best_score) end
    if anyone then
      if new then wake_classes(lane.sig, now)
      else for _ = 1, lane.n do if not wake_one(lane.sig, now) then break end end end
    end
    if count > 1 then
      notice('jobs_submitted',
        '{"type":"jobs_submitted","lane":"' .. lane.sig .. '","service":' .. quoted(lane.service)
        .. ',"count":' .. whole(lane.n) .. ',"status":"pending"}')
    end
  end
end
if count == 1 then emit('job_submitted', only, '', 'pending', ',"service":' .. quoted(lanes[1].service)) end
return answer
"""

# As SUBMIT does it, for what is common: one job under an id that nobody else can have made. ARGV: id, lane, priority,
# document, payload ('' when it is in the document), requirements, service, secrets (JSON or ''), key of its models (or
# ''). Returns {1}.
SUBMIT_ONE = """
local id, sig, priority, payload = ARGV[1], ARGV[2], ARGV[3], ARGV[5]
local now = now_ms()
local first = call('ZRANGE', LANE .. sig, 0, 0, 'WITHSCORES')
local seq = call('INCR', SEQ)
call('HSET', JOBS, id, (payload == '' and '0|' or '1|') .. string.format('%d', seq) .. '|' .. priority .. '|' .. sig
  .. '|' .. string.format('%d', now) .. '|' .. ARGV[4])
if payload ~= '' then call('SET', PAYLOAD .. id, payload) end
if ARGV[8] ~= '' then call('SET', SECRETS .. id, ARGV[8]) end
local entry, new = string.format('%020d', seq) .. ':' .. id, false
if not first[1] or -priority < tonumber(first[2]) then
  --uses know_lane new_head
  new = not first[1] and know_lane(sig, ARGV[6], now)
  call('ZADD', LANE .. sig, -priority, entry)
  new_head(sig, entry, -priority)
else
  call('ZADD', LANE .. sig, -priority, entry)
end
if call('EXISTS', CLASSES_WAITING) == 1 then
  --uses wake_classes wake_one wake_warm
  if new then wake_classes(sig, now)
  elseif ARGV[9] == '' or not wake_warm(ARGV[9], sig, now) then wake_one(sig, now) end
end
notice('job_submitted',
  '{"type":"job_submitted","job_id":"' .. id .. '","worker_id":null,"status":"pending","service":'
  .. cjson.encode(ARGV[7]) .. '}')
return {1}
"""

# Finish completed jobs and claim the next, in one trip. NEXT_AFTER_WAITING is for a worker that waited or just started.
# ARGV: worker, its class, token, lease ms, longest wait ms, how many it wants, number of finished jobs; for each: id,
# token, result (JSON). Returns {statuses of the finished, 'stale'} when the class does not know all lanes, {statuses,
# 'wait', ms}, or {statuses, 'jobs', {id, document, earlier runs, assigned ms, error, payload, needs,
# crashes}, …}.
_FINISH_COMPLETED = """
local worker, class, token, ttl, longest = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local now = now_ms()
local now_text, lease_text = whole(now), whole(now + ttl)
local statuses, at = {}, 8
-- As `finish` does it, for the one verdict that is common.
for i = 1, tonumber(ARGV[7]) do
  local id, result = ARGV[at], ARGV[at + 2]
  local key = JOB .. id
  local f = call('HMGET', key, 'token', 'status', 'at', 'worker_id', 'runs')
  if f[1] ~= ARGV[at + 1] or (f[2] ~= 'assigned' and f[2] ~= 'in_progress') then
    statuses[i] = 'lost'
  else
    call('ZREM', LEASES, id)
    if f[2] == 'in_progress' then call('SREM', BEGUN, id) end
    call('UNLINK', SECRETS .. id)
    call('HSET', key, 'status', 'completed', 'finished_ms', now_text, 'result', result)
    if f[5] then call('HDEL', key, 'error') end
    if string.find(result, '"path"', 1, true) then call('SADD', FILES, id) end
    call('ZADD', IN .. 'completed', string.match(f[3] or '', '|(%d+)|') or '0', id)
    emit('job_completed', id, f[4], 'completed', '')
    statuses[i] = 'completed'
  end
  at = at + 3
end

local known = call('MGET', LANES_VERSION, CLASS .. class, AVOIDING)
if known[2] ~= (known[1] or '0:0') then return {statuses, 'stale'} end
local avoiding, index = known[3], HEADS .. class
local woken_for = nil
"""

_ANSWER_WAKE = """
local old = call('HGET', WAITING, worker)
if old then
  --uses unwait
  unwait(worker, old)
end
if call('ZREM', WAKING, worker) == 1 then
  woken_for = call('HGET', WAKING_LANE, worker)
  call('HDEL', WAKING_LANE, worker)
end
call('DEL', WAKE .. worker)
"""

_CLAIM = """
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
"""

_HAND_ON_WAKE = """
-- Its wake was for a lane of which it took nothing: if that lane still holds a job, another is to have it.
if woken_for then
  --uses pass_on
  pass_on(woken_for, now)
end
"""

_WAIT = """
if #answer > 2 or tonumber(ARGV[6]) == 0 then return answer end

call('HSET', WAITING, worker, class)
if call('ZADD', WAITING_IN .. class, whole(now + longest + WAIT_GRACE_MS), worker) == 1 then
  call('SADD', CLASSES_WAITING, class)
end
call('ZADD', CLASSES, now_text, class)
return {statuses, 'wait', whole(math.ceil(longest))}
"""

# In two forms: what a worker needs that was idle or has just started is no little part of the whole.
NEXT_AFTER_WAITING = _FINISH_COMPLETED + _ANSWER_WAKE + _CLAIM + _HAND_ON_WAKE + _WAIT
NEXT = _FINISH_COMPLETED + _CLAIM + _WAIT

# The answer to a claim was lost: back with what it took, as if it had not been. ARGV: the claim's token. Costs as
# much as there are held jobs.
UNCLAIM = """
local held, now, back = call('ZRANGE', LEASES, 0, -1), now_ms(), 0
for i = 1, #held do
  local f = call('HMGET', JOB .. held[i], 'token', 'at')
  if f[1] == ARGV[1] then
    local _, _, sig = place_of(held[i], f[2])
    local requirements = sig and call('HGET', LANES, sig)
    if requirements then -- else its lease will be over
      finish(held[i], f[1], {verdict = 'pending', result = '', error = '', avoid_ms = 0, uncounted = true,
        reason = 'the answer to its claim was lost', requirements = requirements}, now)
      back = back + 1
    end
  end
end
return back
"""

# ARGV: class, at most how many. Returns {version the class knows or '', version it knows after these, lane,
# requirements, …}: the lanes that its workers have not matched yet; all when there is another era.
NEW_LANES = """
local version = call('GET', LANES_VERSION) or '0:0'
local known = call('GET', CLASS .. ARGV[1]) or ''
local era, last = string.match(version, '^(%d+):(%d+)$')
local known_era, from = string.match(known, '^(%d+):(%d+)$')
if known_era ~= era then from = 0 end
local sigs = call('ZRANGEBYSCORE', LANES_LOG, '(' .. from, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[2])
local answer = {known, version}
for i = 1, #sigs, 2 do
  answer[#answer + 1] = sigs[i]
  answer[#answer + 1] = call('HGET', LANES, sigs[i]) or ''
  last = sigs[i + 1]
end
if #sigs == 2 * tonumber(ARGV[2]) then answer[2] = era .. ':' .. last end
return answer
"""

# What NEW_LANES told was matched. ARGV: class, version it knew, version it knows now, then the lanes it serves.
# Does nothing when another worker of the class was faster. The caller claims next; of the class' waiting workers as
# many are woken as there are further jobs in those lanes, for whoever submitted them did not know who serves them.
REGISTER = """
local class, now = ARGV[1], now_ms()
if (call('GET', CLASS .. class) or '') ~= ARGV[2] then return 0 end
-- Another era: lanes were forgotten, and all are matched anew. Nobody of the class claims before that is done.
if string.match(ARGV[2], '^%d+') ~= string.match(ARGV[3], '^%d+') then call('DEL', HEADS .. class) end
for i = 4, #ARGV do
  local sig = ARGV[i]
  local known = call('HEXISTS', LANES, sig) == 1 -- or it was forgotten since: the class looks again
  if known then call('SADD', LANE_CLASSES .. sig, class) end
  if known and call('HEXISTS', UNWORKABLE, sig) == 0 then
    local first = call('ZRANGE', LANE .. sig, 0, 0, 'WITHSCORES')
    if first[1] then call('ZADD', HEADS .. class, first[2], first[1] .. '|' .. sig) end
    for _ = 2, call('ZCARD', LANE .. sig) do if not wake_of(class, sig, now) then break end end
  end
end
call('SET', CLASS .. class, ARGV[3])
call('ZADD', CLASSES, whole(now), class)
return 1
"""

# A lane asks what this class does not tell apart: all of it that wait are to find out what they are. ARGV: class, lane.
RETIRE = """
local now = now_ms()
while wake_of(ARGV[1], ARGV[2], now) do end
return 1
"""

# What a holder may do only while its lease stands. ARGV: id, token, …
_FENCE = """
local id, token = ARGV[1], ARGV[2]
local key = JOB .. id
local f = call('HMGET', key, 'status', 'token', 'cancel', 'worker_id')
if f[2] ~= token or (f[1] ~= 'assigned' and f[1] ~= 'in_progress') then return 'lost' end
"""

# ARGV: id, token, lease ms. Returns 'ok', 'cancel' (the job is to be stopped) or 'lost'.
RENEW = (
    _FENCE
    + """
-- A full Redis refuses a script's first write if it could need memory, and would so end every lease: this one does not.
call('ZREM', LEASES, id)
call('ZADD', LEASES, now_ms() + tonumber(ARGV[3]), id)
return f[3] and 'cancel' or 'ok'
"""
)

# ARGV: id, token, progress (JSON). Returns as RENEW.
PROGRESS = (
    _FENCE
    + """
if f[1] == 'assigned' then
  call('HSET', key, 'status', 'in_progress', 'started_ms', whole(now_ms()))
  call('SADD', BEGUN, id)
end
call('HSET', key, 'progress', ARGV[3])
redis.pcall('XADD', SAID .. id, 'MAXLEN', MAX_PROGRESS, '*', 'data', ARGV[3])
emit('job_progress', id, f[4], 'in_progress', ',"progress":' .. ARGV[3])
return f[3] and 'cancel' or 'ok'
"""
)

# Under which name the service knows this run. ARGV: id, token, {connector, url, ref} (JSON). Returns as RENEW.
BEGAN = (
    _FENCE
    + """
call('HSET', key, 'run', ARGV[3])
call('SADD', FILES, id)
return f[3] and 'cancel' or 'ok'
"""
)

# What the job gave as secrets. ARGV: id, token. Returns JSON, '' when there is nothing, or 'lost'.
SECRETS_OF = (
    _FENCE
    + """
return call('GET', SECRETS .. id) or ''
"""
)

# A run is over. ARGV: id, token, verdict (completed | failed | cancelled | timeout | pending), result, error (JSON or
# ''), reason, avoid ms (0: none), 1 when the attempt does not count, 1 when only an expired lease may be ended,
# requirements (JSON), crashes (JSON; '' when there is no new one). Returns the status the job got, or 'lost'.
END = """
return finish(ARGV[1], ARGV[2], {verdict = ARGV[3], result = ARGV[4], error = ARGV[5], reason = ARGV[6],
  avoid_ms = tonumber(ARGV[7]), uncounted = ARGV[8] == '1', expired = ARGV[9] == '1',
  requirements = ARGV[10], crashes = ARGV[11]}, now_ms())
"""

# The job needs what the worker's service does not have: it goes to the lane of those who have it, at its place, and the
# run does not count. ARGV: id, token, reason, lane, requirements (JSON), all that workers found it needs (JSON).
# Returns as END.
LACKS = (
    _FENCE
    + """
local document = call('HGET', JOBS, id) or ''
local score, seq = place_of(id, call('HGET', key, 'at'))
local _, priority, _, created, from = header(document)
if seq and from and not f[3] then
  call('HSET', JOBS, id, string.sub(document, 1, 1) .. '|' .. seq .. '|' .. whole(priority) .. '|' .. ARGV[4] .. '|'
    .. created .. '|' .. string.sub(document, from))
  call('HSET', key, 'needs', ARGV[6], 'at', score .. '|' .. seq .. '|' .. ARGV[4])
  call('HDEL', key, 'avoid')
end
return finish(id, token, {verdict = 'pending', result = '', error = '', reason = ARGV[3], avoid_ms = 0,
  uncounted = true, requirements = ARGV[5]}, now_ms())
"""
)

# A worker that starts takes over a job that its former life held. ARGV: worker, new token, lease ms, id.
# Returns {document, earlier runs, assigned ms, error, payload, run, cancel, how often this run was taken over, needs,
# crashes}, or {} when it does not hold it.
ADOPT = """
local id = ARGV[4]
local key = JOB .. id
local f = call('HMGET', key, 'worker_id', 'status', 'runs', 'assigned_ms', 'error', 'run', 'cancel', 'adopted',
  'needs', 'crashes')
if f[1] ~= ARGV[1] or (f[2] ~= 'assigned' and f[2] ~= 'in_progress') then return {} end
local document = call('HGET', JOBS, id)
if not document then return {} end
call('HSET', key, 'token', ARGV[2])
call('ZADD', LEASES, now_ms() + tonumber(ARGV[3]), id)
local times = (tonumber(f[8]) or 0) + 1
call('HSET', key, 'adopted', whole(times))
local payload = string.sub(document, 1, 1) == '1' and call('GET', PAYLOAD .. id) or ''
return {document, f[3] or '0', f[4] or '0', f[5] or '', payload, f[6] or '', f[7] or '', times, f[9] or '',
  f[10] or ''}
"""

# A worker ran a model. ARGV: worker, the model's key.
RAN = """
local key = WARM .. ARGV[2]
call('ZADD', key, whole(now_ms()), ARGV[1])
call('ZREMRANGEBYRANK', key, 0, -MAX_WARM - 1)
call('PEXPIRE', key, WARM_KEPT_MS)
return 1
"""

# A worker does not have a model at hand any more. ARGV: worker, the model's key.
COOLED = """
return call('ZREM', WARM .. ARGV[2], ARGV[1])
"""

# A worker goes. ARGV: worker. A wake that was on its way to it is passed on.
LEAVE = """
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
"""
