-- The history of a job: lines of JSON, the oldest first.

-- One entry of a history, a line of JSON.
-- include events: quoted
local function entry(at, kind, worker, reason)
  local text = '{"at_ms":' .. at .. ',"event":"' .. kind .. '"'
  if worker and worker ~= '' then text = text .. ',"worker_id":' .. quoted(worker) end
  if reason and reason ~= '' then text = text .. ',"reason":' .. cjson.encode(reason) end
  return text .. '}\n'
end

-- `history` with `more`, without its oldest entries when it grows too long.
-- limits: MAX_HISTORY
local function noted(history, more)
  local text = (history or '') .. more
  if #text <= MAX_HISTORY then return text end
  local cut = string.find(text, '\n', #text - MAX_HISTORY, true)
  return string.sub(text, cut + 1)
end

-- The history of a job whose present run is over, without that it ended.
-- include history: entry, noted
local function run_noted(history, at, worker)
  if not at then return history or '' end
  return noted(history, entry(at, 'job_assigned', worker, ''))
end
