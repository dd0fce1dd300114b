-- An asset's file is at hand.
-- ARGV: digest.
-- Answer: 'there': it is kept, and was touched; 'wait': somebody is at it; 'go': put the file there, then settle.lua.
-- Invariant: `assets` alone decides whether a job may name an asset. A digest whose file is being put into its place or
-- deleted stands in `assets:moving` meanwhile, so that the two never meet.
-- key names: ASSETS, ASSETS_MOVING
-- limits: MOVING_MS
-- include base: call, now_ms

local now = now_ms()
if call('ZSCORE', ASSETS, ARGV[1]) then
  call('ZADD', ASSETS, now, ARGV[1])
  return 'there'
end
local since = call('ZSCORE', ASSETS_MOVING, ARGV[1])
if since and now - tonumber(since) < MOVING_MS then return 'wait' end
call('ZADD', ASSETS_MOVING, now, ARGV[1])
return 'go'
