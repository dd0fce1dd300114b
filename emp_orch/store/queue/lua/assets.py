"""The Lua of assets: each script runs after what it uses of queue_prelude and takes no KEYS.

`assets` alone decides whether a job may name an asset. A digest whose file is being put into its place or deleted
stands in `assets:moving` meanwhile, so that the two never meet.
"""

from __future__ import annotations

# ARGV: digest. 'there': it is kept, and was touched; 'wait': somebody is at it; 'go': put the file there, then SETTLE.
ARRIVE = """
local now = now_ms()
if call('ZSCORE', ASSETS, ARGV[1]) then
  call('ZADD', ASSETS, now, ARGV[1])
  return 'there'
end
local since = call('ZSCORE', MOVING, ARGV[1])
if since and now - tonumber(since) < MOVING_MS then return 'wait' end
call('ZADD', MOVING, now, ARGV[1])
return 'go'
"""

# ARGV: digest. Its file is in its place.
SETTLE = """
call('ZADD', ASSETS, now_ms(), ARGV[1])
call('ZREM', MOVING, ARGV[1])
"""

# ARGV: job ('' for none), digests. Returns those that are not kept; when all are, they are touched and the job noted.
NAME = """
local missing = {}
for i = 2, #ARGV do
  if not call('ZSCORE', ASSETS, ARGV[i]) then missing[#missing + 1] = ARGV[i] end
end
if #missing > 0 then return missing end
local now, said = now_ms(), ''
if ARGV[1] ~= '' then said = string.match(call('HGET', NAMING, ARGV[1]) or '', '^%d+( .*)$') or '' end
for i = 2, #ARGV do
  call('ZADD', ASSETS, now, ARGV[i])
  if not string.find(said .. ' ', ' ' .. ARGV[i] .. ' ', 1, true) then said = said .. ' ' .. ARGV[i] end
end
if ARGV[1] ~= '' then call('HSET', NAMING, ARGV[1], whole(now) .. said) end
return missing
"""

# ARGV: digest, ms. Returns 1 when it was last touched before that: then nobody may name it, and its file can go.
TAKE = """
local at = call('ZSCORE', ASSETS, ARGV[1])
if not at or tonumber(at) >= tonumber(ARGV[2]) then return 0 end
call('ZREM', ASSETS, ARGV[1])
call('ZADD', MOVING, now_ms(), ARGV[1])
return 1
"""
