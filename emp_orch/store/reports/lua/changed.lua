-- A document that is written or removed gets the next number of a counter. It begins at the time, so that after Redis
-- was emptied no number comes again, and who follows the changes sees that it began anew.
-- KEYS[1] documents, KEYS[3] changed (zset), KEYS[4] its counter. ARGV[1] id.
local function changed()
  local t = redis.call('TIME')
  local begun = string.format('%.0f', t[1] * 1000000 + t[2])
  redis.call('SET', KEYS[4], begun, 'NX')
  local number = redis.pcall('INCR', KEYS[4])
  if type(number) ~= 'number' then -- somebody else's: the numbers begin anew
    redis.call('SET', KEYS[4], begun)
    number = redis.call('INCR', KEYS[4])
  end
  redis.pcall('ZADD', KEYS[3], string.format('%.0f', number), KEYS[1] .. ' ' .. ARGV[1])
end
