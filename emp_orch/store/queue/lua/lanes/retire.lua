-- A lane asks what this class does not tell apart: all of it that wait are to find out what they are.
-- ARGV: class, lane.
-- Answer: 1.
-- include base: now_ms
-- include wakes: wake_of

local now = now_ms()
while wake_of(ARGV[1], ARGV[2], now) do end
return 1
