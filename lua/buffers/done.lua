#!lua flags=
-- buffers/done: the batch is over, and what has come meanwhile has its turn.
--
-- reply  over wait_ms                  -- so it is; the conversation is due again after this (-1: nothing waits)
-- reply  lost                          -- it is another's, or was over before: nothing has changed
-- cost   O(log conversations), at most 8 commands
-- slot   {c:<shard>}

local talks   = KEYS[1]                 -- hash   what waits of each conversation, and its batch under way
local heard   = KEYS[2]                 -- hash   messages by number and conversation
local due     = KEYS[3]                 -- zset   conversations by the moment (ms) at which they are looked at
local talk    = ARGV[1]                 -- bytes  conversation
local token   = ARGV[2]                 -- hex    of the lease
local life_ms = ARGV[3]                 -- ms     of what waits
local time_ms = tonumber(ARGV[4])       -- ms     now; 0: as this server's clock has it

local now_ms = time_ms
if now_ms == 0 then
  local time = redis.call("TIME")
  now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local first, size, free, due_ms, lease = string.match(
  redis.call("HGET", talks, talk) or "", "^(%d+) (%d+) (%d+) (%d+) %S+ (%S+) %d+ %d+$")
if lease ~= token then
  return {"lost"}
end
local numbers, behind = {}, string.format("%.0f", first + size)
for number = first, behind - 1 do
  numbers[#numbers + 1] = string.format("%.0f %s", number, talk)
end
redis.call("HDEL", heard, unpack(numbers))
if behind == free then
  redis.call("HDEL", talks, talk)
  redis.call("ZREM", due, talk)
  return {"over", -1}
end

local at_ms = math.max(now_ms, tonumber(due_ms))
redis.call("HSET", talks, talk, table.concat({behind, "0", free, due_ms, "- - 0 0"}, " "))
redis.call("ZADD", due, string.format("%.0f", at_ms), talk)
for _, key in ipairs({talks, heard, due}) do
  redis.call("PEXPIRE", key, life_ms)
end
return {"over", at_ms - now_ms}
