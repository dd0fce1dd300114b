-- What Redis gives a script (https://redis.io/docs/latest/develop/programmability/lua-api/), and no more. What a script
-- includes stands in the text that is checked: audit/lua.py puts each together first.
stds.redis = {
  read_globals = {
    "redis", "KEYS", "ARGV", "cjson", "cmsgpack", "bit", "struct",
    "math", "string", "table",
    "assert", "error", "ipairs", "next", "pairs", "pcall", "select", "tonumber", "tostring", "type", "unpack",
  },
}
std = "redis"
max_line_length = 120
-- A function that is included inside a branch has its own `now`, beside that of the script.
ignore = {"431"}
