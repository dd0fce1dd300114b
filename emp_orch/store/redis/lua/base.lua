-- Functions that scripts of all rooms use.

-- Sends one command; an error of it ends the script.
local call = redis.call

-- Redis' time, ms.
-- include base: call
local function now_ms()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- A whole number as text; `..` would round it to 14 digits.
local function whole(number)
  return string.format('%d', number)
end
