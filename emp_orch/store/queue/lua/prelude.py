"""What the queue's Lua scripts share: key names, limits, events, lanes, waking, forgetting.

Key names are written into the text of the scripts (one text per prefix), for they are many and most are
computed. So no script takes KEYS, and the queue needs one Redis, not a cluster. A script is given only what it
uses: every line before it is run anew at each call.

Where a job is:
- every job is in `jobs`: `1 if its payload is kept apart, else 0|seq|priority|lane|created ms|`, then its document
  as JSON;
- it waits: in `lane:{sig}`;
- a worker holds it: in `leases`, and in `jobs:begun` once its run has begun;
- it ended: in `jobs:in:{status}`.
`job:{id}` says what changed since it was submitted. What it gave as secrets stands in `secrets:{id}` until it ends.

Workers that are equal in all that any lane asks are a class. `heads:{class}` has, for every lane that the class serves,
that holds jobs and is workable, an entry at or before its first job: a claim looks at the best entries of its class,
however many lanes and jobs there are beside. An entry of a job that was taken is put right when it matters.

How workers wait: A worker that finds nothing registers in its class
with a deadline and blocks on its own wake list. A lane knows the classes that serve it; a submission pops one
waiting worker of one of them: no polling, no herd. What was woken is remembered until it claims; the reaper passes
the wake of a dead worker on.

Invariant: while a lane holds a job, no live worker that serves it waits, unless a wake is on its way, or it was
the last to fail that job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from emp_orch.render.quoting import lua_text
from emp_orch.store.fleet.events import MAX_EVENTS
from emp_orch.store.redis.keys import Keys

# A woken worker that does not claim within this time is taken for dead, and its wake passed on.
WAKE_ANSWER_MS = 2_000
# A waiting worker is taken for dead when it has not come back this long after its wait was to end.
WAIT_GRACE_MS = 3_000
WAKE_KEPT_MS = 60_000
# A lane that is empty and got no job for so long is forgotten.
LANE_KEPT_MS = 3_600_000
# What a class knows is forgotten when no worker of it waited for so long; the next one matches the lanes again.
CLASS_KEPT_MS = 3_600_000
# How far into a lane a claim looks past jobs that this worker is to avoid.
AVOID_SCAN = 16
# Progress messages kept for each job.
MAX_PROGRESS = 200
# A history past this many characters loses its oldest entries.
MAX_HISTORY = 20_000
# Of each model the workers that ran it last, so many, and for so long.
MAX_WARM = 8
WARM_KEPT_MS = 3_600_000
# Who puts an asset's file into its place or deletes it, and says nothing for so long, is gone.
MOVING_MS = 60_000


def _names(keys: Keys) -> dict[str, str]:
    return {
        "EVENTS": keys.events,
        "JOBS": keys.jobs,
        "JOB": keys.job(""),
        "PAYLOAD": keys.payload(""),
        "SECRETS": keys.secrets(""),
        "SAID": keys.progress(""),
        "SEQ": keys.jobs_seq,
        "MARK": keys.jobs_mark,
        "IN": keys.jobs_in(""),
        "BEGUN": keys.jobs_begun,
        "AVOIDING": keys.jobs_avoiding,
        "FILES": keys.jobs_files,
        "FORGOTTEN": keys.jobs_forgotten,
        "KEEP": keys.jobs_keep,
        "ASSETS": keys.assets,
        "MOVING": keys.assets_moving,
        "NAMING": keys.jobs_inputs,
        "LEASES": keys.leases,
        "LANE": keys.lane(""),
        "HEADS": keys.heads(""),
        "LANES": keys.lanes,
        "LANES_VERSION": keys.lanes_version,
        "LANES_LOG": keys.lanes_log,
        "LANES_USED": keys.lanes_used,
        "LANES_ENTRY": keys.lanes_entry,
        "UNWORKABLE": keys.lanes_unworkable,
        "LANE_CLASSES": keys.lane_classes(""),
        "CLASS": keys.worker_class(""),
        "CLASSES": keys.classes,
        "CLASSES_WAITING": keys.classes_waiting,
        "WAITING_IN": keys.waiting_in(""),
        "WAITING": keys.waiting,
        "WAKING": keys.waking,
        "WAKING_LANE": keys.waking_lane,
        "WAKE": keys.wake(""),
        "WARM": keys.warm(""),
    }


def numbers() -> dict[str, int]:
    return {
        "MAX_EVENTS": MAX_EVENTS,
        "WAKE_ANSWER_MS": WAKE_ANSWER_MS,
        "WAIT_GRACE_MS": WAIT_GRACE_MS,
        "WAKE_KEPT_MS": WAKE_KEPT_MS,
        "LANE_KEPT_MS": LANE_KEPT_MS,
        "CLASS_KEPT_MS": CLASS_KEPT_MS,
        "AVOID_SCAN": AVOID_SCAN,
        "MAX_PROGRESS": MAX_PROGRESS,
        "MAX_HISTORY": MAX_HISTORY,
        "MAX_WARM": MAX_WARM,
        "WARM_KEPT_MS": WARM_KEPT_MS,
        "MOVING_MS": MOVING_MS,
    }


_WORD = re.compile(r"[A-Za-z_]+")
_PART = re.compile(r"(?m)^ *--uses (.*)$")


def compose(keys: Keys, script: str) -> str:
    """`script`, after what it uses of this module.

    A line `--uses NAME …` begins a part that is seldom run: what only that part uses is put there.
    """
    pieces = {name: f"local {name} = {lua_text(v)}" for name, v in _names(keys).items()}
    pieces |= {name: f"local {name} = {v}" for name, v in numbers().items()}
    pieces |= _FUNCTIONS
    parts = {name for names in _PART.findall(script) for name in names.split()}
    always = _closure(pieces, set(_WORD.findall(_PART.sub("", script))) - parts)

    def lines(names: set[str]) -> str:
        return "\n".join(text for name, text in pieces.items() if name in names)

    inner = _PART.sub(lambda found: lines(_closure(pieces, set(found[1].split())) - always), script)
    return f"{lines(always)}\n{inner}"


def _closure(pieces: Mapping[str, str], names: set[str]) -> set[str]:
    """Those of `names` that are pieces, and all that they use."""
    used: set[str] = set()
    new = names & pieces.keys()
    while new:
        used |= new
        new = {w for name in new for w in _WORD.findall(pieces[name])} & pieces.keys() - used
    return used


def _functions(text: str) -> dict[str, str]:
    """Name → text, in order; each begins with `local NAME` or `local function NAME` at the left margin."""
    parts = re.split(r"(?m)^(?=local )", text.strip())
    return {re.match(r"local (?:function )?(\w+)", part)[1]: part.rstrip() for part in parts if part}  # type: ignore[index]


_FUNCTIONS = _functions("""
local call = redis.call

-- Appended to the events, when their stream takes anything: a notice that is lost is worth no job.
local function notice(kind, data)
  redis.pcall('XADD', EVENTS, 'MAXLEN', '~', MAX_EVENTS, '*', 'type', kind, 'data', data)
end

local function now_ms()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- A whole number as text; `..` would round it to 14 digits.
local function whole(number)
  return string.format('%d', number)
end

-- A text as JSON. Ids and names need no escape, and the check is cheaper than cjson.
local function quoted(text)
  if string.find(text, '^[%w%._%-]*$') then return '"' .. text .. '"' end
  return cjson.encode(text)
end

-- One event; `extra` is JSON text that begins with a comma, or ''.
local function emit(kind, id, worker, status, extra)
  local who = 'null'
  if worker and worker ~= '' then who = quoted(worker) end
  notice(kind, '{"type":"' .. kind .. '","job_id":' .. quoted(id) .. ',"worker_id":' .. who
    .. ',"status":"' .. status .. '"' .. extra .. '}')
end

-- One entry of a history, a line of JSON.
local function entry(at, kind, worker, reason)
  local text = '{"at_ms":' .. at .. ',"event":"' .. kind .. '"'
  if worker and worker ~= '' then text = text .. ',"worker_id":' .. quoted(worker) end
  if reason and reason ~= '' then text = text .. ',"reason":' .. cjson.encode(reason) end
  return text .. '}\\n'
end

-- `history` with `more`, without its oldest entries when it grows too long.
local function noted(history, more)
  local text = (history or '') .. more
  if #text <= MAX_HISTORY then return text end
  local cut = string.find(text, '\\n', #text - MAX_HISTORY, true)
  return string.sub(text, cut + 1)
end

local function member(seq, id)
  return string.format('%020d', seq) .. ':' .. id
end

local function id_of(entry)
  return string.sub(entry, 22)
end

-- seq, priority, lane, created, and where the document begins; of an entry of `jobs`.
local function header(document)
  local _, stop, seq, priority, sig, created =
    string.find(document, '^%d|(%d+)|(%-?%d+)|(%x+)|(%d+)|')
  return tonumber(seq), tonumber(priority), sig, created, stop and stop + 1
end

local function wake(worker, sig, now)
  call('LPUSH', WAKE .. worker, sig)
  call('PEXPIRE', WAKE .. worker, WAKE_KEPT_MS)
  call('ZADD', WAKING, now, worker)
  call('HSET', WAKING_LANE, worker, sig)
end

-- Wake the one of this class who has waited longest; true when there was one.
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
local function wake_one(sig, now)
  local some = call('SRANDMEMBER', CLASSES_WAITING, 8)
  if #some == 0 or call('HEXISTS', UNWORKABLE, sig) == 1 then return false end
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
local function unwait(worker, class)
  call('HDEL', WAITING, worker)
  call('ZREM', WAITING_IN .. class, worker)
  if call('EXISTS', WAITING_IN .. class) == 0 then call('SREM', CLASSES_WAITING, class) end
end

-- Wake the one of those that ran this model last who waits and serves this lane; true when there was one.
local function wake_warm(model, sig, now)
  local warm = call('ZRANGE', WARM .. model, 0, MAX_WARM - 1, 'REV')
  if #warm == 0 or call('HEXISTS', UNWORKABLE, sig) == 1 then return false end
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
local function wake_classes(sig, now)
  local classes = call('SMEMBERS', CLASSES_WAITING)
  for i = 1, #classes do wake_of(classes[i], sig, now) end
end

-- A wake that was not made use of goes to another: to one that serves the lane, or else to those who do not know yet
-- whether they do, for it may have been on its way to find out.
local function pass_on(sig, now)
  if call('EXISTS', LANE .. sig) == 0 or call('HEXISTS', UNWORKABLE, sig) == 1 or wake_one(sig, now) then return end
  local version, classes = call('GET', LANES_VERSION), call('SMEMBERS', CLASSES_WAITING)
  for i = 1, #classes do
    if call('GET', CLASS .. classes[i]) ~= version then wake_of(classes[i], sig, now) end
  end
end

-- This job is the first of its lane now.
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
local function enqueue(id, seq, score, sig, requirements, now)
  local new = know_lane(sig, requirements, now)
  local entry = member(seq, id)
  call('ZADD', LANE .. sig, score, entry)
  if call('ZRANGE', LANE .. sig, 0, 0)[1] == entry then new_head(sig, entry, score) end
  if new then wake_classes(sig, now) else pass_on(sig, now) end
end

-- Forget these ended jobs. Those that left files are remembered until somebody deletes the files.
local function forget(ids)
  local has = call('SMISMEMBER', FILES, unpack(ids))
  local names = {}
  for i = 1, #ids do
    local id = ids[i]
    if has[i] == 1 then
      call('SREM', FILES, id)
      call('RPUSH', FORGOTTEN, id)
    end
    local at = 4 * i
    names[at - 3], names[at - 2], names[at - 1], names[at] = JOB .. id, PAYLOAD .. id, SAID .. id, SECRETS .. id
  end
  call('HDEL', JOBS, unpack(ids))
  call('HSET', MARK, 'forgotten', whole((tonumber(call('HGET', MARK, 'forgotten') or '') or 0) + #ids))
  call('HDEL', NAMING, unpack(ids))
  call('UNLINK', unpack(names))
end

-- Forget the oldest ended jobs of this status past `most`; at most `limit` of them.
local function trim(status, most, limit)
  local surplus = math.min(call('ZCARD', IN .. status) - most, limit)
  if surplus <= 0 then return 0 end
  local ids = call('ZRANGE', IN .. status, 0, surplus - 1)
  call('ZREMRANGEBYRANK', IN .. status, 0, surplus - 1)
  forget(ids)
  return surplus
end

-- The history of a job whose present run is over, without that it ended.
local function run_noted(history, at, worker)
  if not at then return history or '' end
  return noted(history, entry(at, 'job_assigned', worker, ''))
end

-- Score, sequence number and lane of a held job; `at`: what its claim noted. Nil when its records are damaged.
local function place_of(id, at)
  local score, seq, sig = string.match(at or '', '^(%-?%d+)|(%d+)|(%x+)$')
  if seq then return score, seq, sig end
  local number, priority, lane = header(call('HGET', JOBS, id) or '')
  if number then return whole(-priority), whole(number), lane end
end

-- A held job back into its lane. `f`: what `finish` read.
local function give_back(id, f, score, seq, sig, how, now)
  local key = JOB .. id
  local h = call('HMGET', key, 'history', 'assigned_ms')
  local more = run_noted(h[1], h[2], f[5])
  call('HSET', key, 'status', 'pending', 'history', noted(more, entry(whole(now), 'job_requeued', f[5], how.reason)))
  if how.error ~= '' then call('HSET', key, 'error', how.error) end
  if not how.uncounted then call('HSET', key, 'runs', whole((tonumber(f[6]) or 0) + 1)) end
  if how.avoid_ms > 0 then
    local until_ms = now + how.avoid_ms
    call('HSET', key, 'avoid', whole(until_ms) .. ':' .. (f[5] or ''))
    if (tonumber(call('GET', AVOIDING)) or 0) < until_ms then
      call('SET', AVOIDING, whole(until_ms), 'PX', how.avoid_ms)
    end
  end
  call('HDEL', key, 'worker_id', 'token', 'progress', 'started_ms', 'assigned_ms', 'cancel', 'cancel_reason',
    'run', 'adopted')
  enqueue(id, tonumber(seq), score, sig, how.requirements, now)
end

-- End or give back a run, while its lease stands: the status that the job got, or 'lost'. A job whose cancellation
-- was asked for is not run again. `how`: verdict, result, error (JSON or ''), reason, avoid_ms (0: none), uncounted,
-- expired (only a lease that is over may be ended), crashes (JSON; nil or '': no new one). Nothing that a damaged
-- record holds may raise here: what was written before would stand, and the job be nowhere. A job whose place is
-- unknown cannot run again: it fails.
local function finish(id, token, how, now)
  local key = JOB .. id
  local f = call('HMGET', key, 'status', 'token', 'cancel', 'at', 'worker_id', 'runs')
  if f[2] ~= token or (f[1] ~= 'assigned' and f[1] ~= 'in_progress') then return 'lost' end
  if how.expired then
    local lease = call('ZSCORE', LEASES, id)
    if lease and tonumber(lease) > now then return 'lost' end
  end
  local verdict, about = how.verdict, ''
  if f[3] and verdict ~= 'completed' then verdict = 'cancelled' end
  local score, seq, sig = place_of(id, f[4])
  if verdict == 'pending' and not seq then verdict = 'failed' end
  call('ZREM', LEASES, id)
  if how.crashes and how.crashes ~= '' then call('HSET', key, 'crashes', how.crashes) end
  if f[1] == 'in_progress' then call('SREM', BEGUN, id) end
  if verdict ~= 'completed' then call('SADD', FILES, id) end -- it may have saved some before it went wrong
  if how.reason ~= '' then about = ',"reason":' .. cjson.encode(how.reason) end
  if verdict == 'pending' then
    give_back(id, f, score, seq, sig, how, now)
    emit('job_requeued', id, f[5], 'pending', about)
    return verdict
  end
  call('UNLINK', SECRETS .. id)
  call('HSET', key, 'status', verdict, 'finished_ms', whole(now))
  if verdict == 'completed' then
    call('HSET', key, 'result', how.result)
    call('HDEL', key, 'error')
    if string.find(how.result, '"path"', 1, true) then call('SADD', FILES, id) end
  elseif how.error ~= '' then
    call('HSET', key, 'error', how.error)
  end
  if how.reason ~= '' then call('HSET', key, 'reason', how.reason) end
  call('ZADD', IN .. verdict, seq or '0', id)
  emit('job_' .. verdict, id, f[5], verdict, about)
  return verdict
end
""")
