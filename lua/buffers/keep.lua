#!lua flags=
-- buffers/keep: the batch is this worker's for longer, or it is given back and waits for the next one.
--
-- reply  kept                          -- so it is
-- reply  lost                          -- it is another's, or over: nothing has changed
-- cost   O(log conversations), at most 6 commands
-- slot   {c:<shard>}

local talks   = KEYS[1]                 -- hash   what waits of each conversation, and its batch under way
local due     = KEYS[2]                 -- zset   conversations by the moment (ms) at which they are looked at
local talk    = ARGV[1]                 -- bytes  conversation
local token   = ARGV[2]                 -- hex    of the lease
local wait_ms = tonumber(ARGV[3])       -- ms     until it is another's
local how     = ARGV[4]                 -- word   kept; failed: this try is counted; free: given back as if untried
local life_ms = ARGV[5]                 -- ms     of what waits
local time_ms = tonumber(ARGV[6])       -- ms     now; 0: as this server's clock has it

local now_ms = time_ms
if now_ms == 0 then
  local time = redis.call("TIME")
  now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local kept, lease, failed = string.match(redis.call("HGET", talks, talk) or "", "^(.+) (%S+) (%d+) %d+$")
if lease ~= token then
  return {"lost"}
end
if how ~= "kept" then                   -- its worker lives, and has no more to do with it
  failed = string.format("%.0f", failed + (how == "failed" and 1 or 0))
  redis.call("HSET", talks, talk, table.concat({kept, "-", failed, "0"}, " "))
end
redis.call("ZADD", due, string.format("%.0f", now_ms + wait_ms), talk)
for _, key in ipairs({talks, due}) do
  redis.call("PEXPIRE", key, life_ms)
end
return {"kept"}
