"""What the queue's Lua scripts share: key names, limits, events, lanes, waking.

Key names are written into the text of the scripts (one text per prefix), for they are many and most are
computed. So no script takes KEYS, and the queue needs one Redis, not a cluster.

How workers wait: a worker that finds nothing registers in the zset of its *group* (workers that serve the
same lanes) with a deadline, and blocks on its own wake list. A lane knows the groups that may have waiting
workers. A submission pops one waiting worker from one of them: no polling, no herd. What was woken is
remembered until it claims; the reaper passes the wake of a dead worker on.

Invariant: while a lane holds a job, no live worker that serves it waits, unless a wake is on its way.
"""

from __future__ import annotations

from emp_orch.store.events import MAX_EVENTS
from emp_orch.store.keys import Keys

MAX_ENDED = 1_000
# A woken worker that does not claim within this time is taken for dead, and its wake passed on.
WAKE_ANSWER_MS = 2_000
# A waiting worker is taken for dead when it has not come back this long after its wait was to end.
WAIT_GRACE_MS = 3_000
WAKE_KEPT_MS = 60_000
# A lane that got no job for so long and is empty is forgotten.
LANE_KEPT_MS = 3_600_000
# How far into a lane a claim looks past jobs that this worker is to avoid.
AVOID_SCAN = 16


def _quoted(text: str) -> str:
    return (
        '"'
        + "".join(c if c.isalnum() or c in ":_-. {}" else "".join(f"\\{b:03d}" for b in c.encode()) for c in text)
        + '"'
    )


def prelude(keys: Keys) -> str:
    """Names and functions that all scripts share."""
    names = {
        "EVENTS": keys.events,
        "JOB": keys.job(""),
        "LANE": keys.lane(""),
        "LANES": keys.lanes,
        "LANES_VERSION": keys.lanes_version,
        "LANES_USED": keys.lanes_used,
        "LANE_GROUPS": keys.lane_groups(""),
        "GROUP": keys.group(""),
        "WAITING": keys.waiting,
        "WAKE": keys.wake(""),
        "WAKING": keys.waking,
        "WAKING_LANE": keys.waking_lane,
        "LEASES": keys.leases,
        "AVOID": keys.jobs_avoid,
        "JOBS": keys.jobs,
        "STATUS": keys.jobs_in(""),
        "ENDED": keys.jobs_ended,
        "SEQ": keys.jobs_seq,
    }
    numbers = {
        "MAX_EVENTS": MAX_EVENTS,
        "MAX_ENDED": MAX_ENDED,
        "WAKE_ANSWER_MS": WAKE_ANSWER_MS,
        "WAIT_GRACE_MS": WAIT_GRACE_MS,
        "WAKE_KEPT_MS": WAKE_KEPT_MS,
        "LANE_KEPT_MS": LANE_KEPT_MS,
        "AVOID_SCAN": AVOID_SCAN,
    }
    lines = [f"local {n} = {_quoted(v)}" for n, v in names.items()] + [f"local {n} = {v}" for n, v in numbers.items()]
    return "\n".join(lines) + _FUNCTIONS


_FUNCTIONS = """
local call = redis.call

local function now_ms()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- One event; `extra` is JSON text that begins with a comma, or ''.
local function emit(kind, id, worker, status, extra)
  local who = 'null'
  if worker and worker ~= '' then who = cjson.encode(worker) end
  local data = '{"type":"' .. kind .. '","job_id":' .. cjson.encode(id) .. ',"worker_id":' .. who
    .. ',"status":"' .. status .. '"' .. extra .. '}'
  call('XADD', EVENTS, 'MAXLEN', '~', MAX_EVENTS, '*', 'type', kind, 'data', data)
end

-- The history text with one more entry: objects joined by commas.
local function noted(history, now, kind, worker, reason)
  local entry = '{"at_ms":' .. string.format('%.0f', now) .. ',"event":"' .. kind .. '"'
  if worker and worker ~= '' then entry = entry .. ',"worker_id":' .. cjson.encode(worker) end
  if reason and reason ~= '' then entry = entry .. ',"reason":' .. cjson.encode(reason) end
  entry = entry .. '}'
  if history and history ~= '' then return history .. ',' .. entry end
  return entry
end

local function move(id, seq, before, after)
  call('ZREM', STATUS .. before, id)
  call('ZADD', STATUS .. after, seq, id)
end

local function member(seq, id)
  return string.format('%020.0f', seq) .. ':' .. id
end

local function wake(worker, sig, now)
  call('LPUSH', WAKE .. worker, sig)
  call('PEXPIRE', WAKE .. worker, WAKE_KEPT_MS)
  call('ZADD', WAKING, now, worker)
  call('HSET', WAKING_LANE, worker, sig)
end

-- Wake the one who has waited longest, of the first group that serves this lane and has anyone waiting.
local function wake_one(sig, now)
  local groups = call('SMEMBERS', LANE_GROUPS .. sig)
  for i = 1, #groups do
    while true do
      local first = call('ZPOPMIN', GROUP .. groups[i])
      if not first[1] then break end
      call('HDEL', WAITING, first[1])
      if tonumber(first[2]) >= now then
        wake(first[1], sig, now)
        return
      end
    end
    call('SREM', LANE_GROUPS .. sig, groups[i])
  end
end

-- A lane nobody knows yet: everyone who waits reads the lanes again.
local function wake_all(sig, now)
  local all = call('HGETALL', WAITING)
  for i = 1, #all, 2 do
    call('ZREM', GROUP .. all[i + 1], all[i])
    wake(all[i], sig, now)
  end
  call('DEL', WAITING)
end

local function enqueue(id, seq, priority, sig, requirements, now)
  call('ZADD', LANE .. sig, -priority, member(seq, id))
  call('ZADD', LANES_USED, now, sig)
  if call('HSETNX', LANES, sig, requirements) == 1 then
    -- unlike any version before, also after Redis lost its data
    call('SET', LANES_VERSION, string.format('%.0f', now) .. '-' .. call('HLEN', LANES))
    wake_all(sig, now)
  else
    wake_one(sig, now)
  end
end

-- Record the end, and forget the oldest ended jobs past the limit.
local function ended(id, now)
  call('ZADD', ENDED, now, id)
  call('HDEL', AVOID, id)
  local surplus = math.min(call('ZCARD', ENDED) - MAX_ENDED, 100)
  if surplus > 0 then
    local old = call('ZPOPMIN', ENDED, surplus)
    for i = 1, #old, 2 do
      local status = call('HGET', JOB .. old[i], 'status')
      if status then call('ZREM', STATUS .. status, old[i]) end
      call('ZREM', JOBS, old[i])
      call('DEL', JOB .. old[i])
    end
  end
end
"""
