#!lua flags=
-- buffers/push: a message waits in its conversation's buffer, once, and the buffer is due in time.
--
-- reply  waits wait_ms                 -- the conversation is looked at after this, or as soon as its batch is done
-- reply  known                         -- it was there before
-- cost   O(log conversations), at most 10 commands
-- slot   {c:<shard>}

local seen     = KEYS[1]                -- string there, once this message has been heard
local talks    = KEYS[2]                -- hash   what waits of each conversation, and its batch under way
local heard    = KEYS[3]                -- hash   messages by number and conversation
local due      = KEYS[4]                -- zset   conversations by the moment (ms) at which they are looked at
local talk     = ARGV[1]                -- bytes  conversation
local message  = ARGV[2]                -- bytes  for whoever takes it
local quiet_ms = tonumber(ARGV[3])      -- ms     from the first message that waits to the batch; 0: all are due now
local most     = tonumber(ARGV[4])      -- messages that wait no longer
local life_ms  = ARGV[5]                -- ms     of the mark, and of what waits
local time_ms  = tonumber(ARGV[6])      -- ms     now; 0: as this server's clock has it

if not redis.call("SET", seen, 1, "NX", "PX", life_ms) then
  return {"known"}
end
local now_ms = time_ms
if now_ms == 0 then
  local time = redis.call("TIME")
  now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The first number, how many from there are a batch under way, the next free number, when the others are due; the lease.
local first, size, free, due_ms, lease = string.match(
  redis.call("HGET", talks, talk) or "1 0 1 0 - - 0 0", "^(%d+) (%d+) (%d+) (%d+) (.+)$")
local waiting = free - first - size + 1
local at_ms = now_ms + quiet_ms
if waiting > 1 then
  at_ms = math.min(at_ms, tonumber(due_ms))
end
if waiting >= most then
  at_ms = math.min(at_ms, now_ms)
end
redis.call("HSET", heard, free .. " " .. talk, message)
redis.call("HSET", talks, talk, string.format("%s %s %.0f %.0f %s", first, size, free + 1, at_ms, lease))

-- A batch under way is looked at when its lease is over; if Redis has lost when that is, the others are as good.
local looked_ms = size ~= "0" and redis.call("ZSCORE", due, talk)
if not looked_ms then
  looked_ms = at_ms
  redis.call("ZADD", due, string.format("%.0f", at_ms), talk)
end
for _, key in ipairs({talks, heard, due}) do
  redis.call("PEXPIRE", key, life_ms)
end
return {"waits", math.max(0, tonumber(looked_ms) - now_ms)}
