-- Counts the jobs, and marks a Redis without a mark.
-- KEYS: the mark, jobs, their sequence number, the fleet's last loss, then the ended jobs of each status.
-- Answer: {now ms, since, looks, told, forgotten, seq, known, ended, last loss}.

local t = redis.call('TIME')
local now = string.format('%d', t[1] * 1000 + math.floor(t[2] / 1000))
redis.call('HSETNX', KEYS[1], 'since', now)
local mark = redis.call('HMGET', KEYS[1], 'since', 'looks', 'told', 'forgotten')
local looks = (tonumber(mark[2]) or 0) + 1
redis.call('HSET', KEYS[1], 'looks', string.format('%d', looks))
local ended = 0
for i = 5, #KEYS do ended = ended + redis.call('ZCARD', KEYS[i]) end
local seq = tonumber(redis.call('GET', KEYS[3]) or '') or 0
return {now, mark[1], looks, mark[3] or '', tonumber(mark[4] or '') or 0, seq, redis.call('HLEN', KEYS[2]), ended,
  redis.call('GET', KEYS[4]) or ''}
