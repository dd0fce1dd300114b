-- Jobs without a record that a lane or a lease still names.
-- ARGV: at most how many.
-- Answer: ids.
-- key names: JOBS, LEASES, LANE, LANES
-- include base: call

local most, found = tonumber(ARGV[1]), {}
local function look(ids, from)
  for i = 1, #ids do
    local id = string.sub(ids[i], from)
    if #found < most and call('HEXISTS', JOBS, id) == 0 then found[#found + 1] = id end
  end
end
local sigs = call('HKEYS', LANES)
for i = 1, #sigs do
  if #found < most then look(call('ZRANGE', LANE .. sigs[i], 0, most - 1), 22) end
end
look(call('ZRANGE', LEASES, 0, most - 1), 1)
return found
