-- A part of next.lua: the answer; a worker that got nothing is registered as waiting.
-- key names: CLASSES, CLASSES_WAITING, WAITING_IN, WAITING
-- limits: WAIT_GRACE_MS
-- include base: call, whole

if #answer > 2 or tonumber(ARGV[6]) == 0 then return answer end

call('HSET', WAITING, worker, class)
if call('ZADD', WAITING_IN .. class, whole(now + longest + WAIT_GRACE_MS), worker) == 1 then
  call('SADD', CLASSES_WAITING, class)
end
call('ZADD', CLASSES, now_text, class)
return {statuses, 'wait', whole(math.ceil(longest))}
