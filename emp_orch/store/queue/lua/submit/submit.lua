-- Takes jobs in: each gets its record, a place in its lane, and the lane a worker that is woken.
-- ARGV: 1 if nobody else can have made these ids, number of lanes; for each: lane, requirements (JSON), service; then
-- for each job: id, number of its lane (from 1), priority, document (JSON), payload ('' when it is in the document),
-- secrets (JSON or '').
-- Answer: for each job 1 (it is new), 0 (there already, the same) or -1 (there already, and another).
-- Invariant: a record that is there is not written again.
-- key names: JOBS, PAYLOAD, SECRETS, JOBS_SEQ, LANE, CLASSES_WAITING
-- include base: call, now_ms, whole
-- include events: notice, quoted, emit
-- include records: member, header
-- include wakes: wake_one, wake_classes
-- include lanes: new_head, know_lane

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
local seq = tonumber(call('GET', JOBS_SEQ) or '') or 0
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
call('INCRBY', JOBS_SEQ, made)
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
