-- How much of the documents may be read at once.
-- KEYS: hashes of documents, each with its sorted set.
-- ARGV: most documents of each, bytes of one, bytes of an id, names, bytes of all.
-- Answer: of each hash {1 when all may be read at once, too large: id, bytes, …, the other ids when not}. What is of
-- another type than emp's is left to who reads it.

local most, bytes, name, names = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local left = tonumber(ARGV[5])
local function weigh(key, seen)
  local n, scores = redis.pcall('HLEN', key), redis.pcall('ZCARD', seen)
  if type(n) ~= 'number' or type(scores) ~= 'number' then return {1, {}, {}} end
  local all, large, ids = scores <= 2 * most and n <= most, {}, {}
  local function note(id, size)
    if #id > name then
      all = false
    elseif size > bytes or size > left then
      all = false
      if #large < 2 * names then large[#large + 1], large[#large + 2] = id, size end
    else
      left = left - size
      ids[#ids + 1] = id
    end
  end
  if n <= most then
    for _, id in ipairs(redis.call('HKEYS', key)) do note(id, redis.call('HSTRLEN', key, id)) end
  else
    local cursor = '0'
    repeat
      local part = redis.call('HSCAN', key, cursor, 'COUNT', 500)
      cursor = part[1]
      for i = 1, #part[2], 2 do note(part[2][i], #part[2][i + 1]) end
    until cursor == '0' or #ids >= most
  end
  return {all and 1 or 0, large, all and {} or ids}
end
local found = {}
for i = 1, #KEYS, 2 do found[#found + 1] = weigh(KEYS[i], KEYS[i + 1]) end
return found
