-- A worker does not have a model at hand any more.
-- ARGV: worker, the model's key.
-- Answer: 1, or 0 when it was not known to.
-- key names: WARM
-- include base: call

return call('ZREM', WARM .. ARGV[2], ARGV[1])
