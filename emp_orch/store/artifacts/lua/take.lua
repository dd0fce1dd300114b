-- An asset that was not touched for long is to go: then nobody may name it, and its file can be deleted.
-- ARGV: digest, ms.
-- Answer: 1 when it was last touched before that, else 0.
-- Invariant: `assets` alone decides whether a job may name an asset. A digest whose file is being put into its place or
-- deleted stands in `assets:moving` meanwhile, so that the two never meet.
-- key names: ASSETS, ASSETS_MOVING
-- include base: call, now_ms

local at = call('ZSCORE', ASSETS, ARGV[1])
if not at or tonumber(at) >= tonumber(ARGV[2]) then return 0 end
call('ZREM', ASSETS, ARGV[1])
call('ZADD', ASSETS_MOVING, now_ms(), ARGV[1])
return 1
