-- What changed after a number, and who is silent.
-- KEYS[1] changed (zset), KEYS[2] its counter, KEYS[3], KEYS[4] seen sets of machines and workers.
-- ARGV[1] the number up to which changes are known, ARGV[2] how long a silence counts (ms), ARGV[3] how many changes at
-- most.
-- Answer: now (ms), the counter, changed members, then ids and scores of silent machines, and of silent workers.

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local before = '(' .. string.format('%d', now - tonumber(ARGV[2]))
local after = '(' .. string.format('%d', now + tonumber(ARGV[2]))
-- What is of another type than emp's is no list of changes: then no number is told, and all is to be read.
local counter = redis.pcall('GET', KEYS[2]) or '0'
local function range(...)
  local found = redis.pcall('ZRANGEBYSCORE', ...)
  if not found.err then return found end
  counter = ''
  return {}
end
local function silent(seen)
  local found = range(seen, '-inf', before, 'WITHSCORES', 'LIMIT', 0, ARGV[3])
  for _, word in ipairs(range(seen, after, '+inf', 'WITHSCORES', 'LIMIT', 0, ARGV[3])) do
    found[#found + 1] = word
  end
  return found
end
local changed = range(KEYS[1], '(' .. ARGV[1], '+inf', 'LIMIT', 0, ARGV[3])
local machines, workers = silent(KEYS[3]), silent(KEYS[4])
return {string.format('%d', now), type(counter) == 'string' and counter or '', changed, machines, workers}
