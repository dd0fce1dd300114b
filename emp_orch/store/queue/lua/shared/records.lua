-- How a job stands in `jobs`, in its lane and in its own hash.

-- An entry of a lane, the first of its score first: sequence number and id.
local function member(seq, id)
  return string.format('%020d', seq) .. ':' .. id
end

-- The job of an entry of a lane.
local function id_of(entry)
  return string.sub(entry, 22)
end

-- seq, priority, lane, created, and where the document begins; of an entry of `jobs`.
local function header(document)
  local _, stop, seq, priority, sig, created =
    string.find(document, '^%d|(%d+)|(%-?%d+)|(%x+)|(%d+)|')
  return tonumber(seq), tonumber(priority), sig, created, stop and stop + 1
end

-- Score, sequence number and lane of a held job; `at`: what its claim noted. Nil when its records are damaged.
-- key names: JOBS
-- include base: call, whole
-- include records: header
local function place_of(id, at)
  local score, seq, sig = string.match(at or '', '^(%-?%d+)|(%d+)|(%x+)$')
  if seq then return score, seq, sig end
  local number, priority, lane = header(call('HGET', JOBS, id) or '')
  if number then return whole(-priority), whole(number), lane end
end
