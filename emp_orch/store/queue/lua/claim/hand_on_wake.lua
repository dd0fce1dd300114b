-- A part of next_after_waiting.lua: its wake was for a lane of which it took nothing. If that lane still holds a job,
-- another is to have it.

if woken_for then
  -- include wakes: pass_on
  pass_on(woken_for, now)
end
