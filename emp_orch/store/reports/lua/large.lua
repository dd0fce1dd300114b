-- Which documents are too large.
-- KEYS: a hash of documents. ARGV: bytes of one, then ids.
-- Answer: id, bytes, … of those that are larger.

local found = {}
for i = 2, #ARGV do
  local size = redis.pcall('HSTRLEN', KEYS[1], ARGV[i])
  if type(size) == 'number' and size > tonumber(ARGV[1]) then found[#found + 1], found[#found + 2] = ARGV[i], size end
end
return found
