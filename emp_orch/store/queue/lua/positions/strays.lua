-- Jobs that stand nowhere.
-- ARGV: cursor, about how many to look at.
-- Answer: {next cursor, then id, document, needs of each job without a place}.
-- key names: JOBS, JOB
-- include base: call
-- include records: header
-- include stands: stands

local page = call('HSCAN', JOBS, ARGV[1], 'COUNT', ARGV[2])
local answer = {page[1]}
for i = 1, #page[2], 2 do
  local id = page[2][i]
  local seq, _, sig = header(page[2][i + 1])
  local f = call('HMGET', JOB .. id, 'status', 'needs')
  if seq and not stands(id, seq, sig, f[1] or 'pending') then
    answer[#answer + 1], answer[#answer + 2], answer[#answer + 3] = id, page[2][i + 1], f[2] or ''
  end
end
return answer
