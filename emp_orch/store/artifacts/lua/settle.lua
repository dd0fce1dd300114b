-- An asset's file is in its place.
-- ARGV: digest.
-- Answer: none.
-- key names: ASSETS, ASSETS_MOVING
-- include base: call, now_ms

call('ZADD', ASSETS, now_ms(), ARGV[1])
call('ZREM', ASSETS_MOVING, ARGV[1])
