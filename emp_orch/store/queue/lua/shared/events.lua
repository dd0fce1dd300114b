-- What the queue tells to those who listen.

-- Appended to the events, when their stream takes anything: a notice that is lost is worth no job.
-- key names: EVENTS
-- limits: MAX_EVENTS
local function notice(kind, data)
  redis.pcall('XADD', EVENTS, 'MAXLEN', '~', MAX_EVENTS, '*', 'type', kind, 'data', data)
end

-- A text as JSON. Ids and names need no escape, and the check is cheaper than cjson.
local function quoted(text)
  if string.find(text, '^[%w%._%-]*$') then return '"' .. text .. '"' end
  return cjson.encode(text)
end

-- One event; `extra` is JSON text that begins with a comma, or ''.
-- include events: notice, quoted
local function emit(kind, id, worker, status, extra)
  local who = 'null'
  if worker and worker ~= '' then who = quoted(worker) end
  notice(kind, '{"type":"' .. kind .. '","job_id":' .. quoted(id) .. ',"worker_id":' .. who
    .. ',"status":"' .. status .. '"' .. extra .. '}')
end
