-- A worker ran a model.
-- ARGV: worker, the model's key.
-- Answer: 1.
-- key names: WARM
-- limits: MAX_WARM, WARM_KEPT_MS
-- include base: call, now_ms, whole

local key = WARM .. ARGV[2]
call('ZADD', key, whole(now_ms()), ARGV[1])
call('ZREMRANGEBYRANK', key, 0, -MAX_WARM - 1)
call('PEXPIRE', key, WARM_KEPT_MS)
return 1
