#!lua flags=
-- buffers/take: conversations that are due have each one batch, which is this worker's until its lease is over.
--
-- reply  found next_ms parts...        -- the next one is due after this (-1: there is none); of each batch its
--                                         conversation, the token of its first lease, its failures, its workers that
--                                         died in a row, ms since it was due, its size, and so many messages
-- cost   O(batches + log conversations), at most 6 commands + 4 per batch
-- slot   {c:<shard>}

local talks    = KEYS[1]                -- hash   what waits of each conversation, and its batch under way
local heard    = KEYS[2]                -- hash   messages by number and conversation
local due      = KEYS[3]                -- zset   conversations by the moment (ms) at which they are looked at
local token    = ARGV[1]                -- hex    random, of this call alone
local batches  = ARGV[2]                -- batches at most
local most     = tonumber(ARGV[3])      -- messages of a batch at most
local lease_ms = tonumber(ARGV[4])      -- ms     until a batch is another's, unless it is kept
local life_ms  = ARGV[5]                -- ms     of what waits
local time_ms  = tonumber(ARGV[6])      -- ms     now; 0: as this server's clock has it

local now_ms = time_ms
if now_ms == 0 then
  local time = redis.call("TIME")
  now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local reply = {"found", -1}
local lapsed = redis.call("ZRANGEBYSCORE", due, "-inf", string.format("%.0f", now_ms), "WITHSCORES", "LIMIT", 0, batches)
for i = 1, #lapsed, 2 do
  local talk = lapsed[i]
  local first, size, free, due_ms, born, failed, died = string.match(
    redis.call("HGET", talks, talk) or "1 0 1 0 - - 0 0", "^(%d+) (%d+) (%d+) (%d+) (%S+) %S+ (%d+) (%d+)$")
  if size == "0" then
    size, born, failed, died = string.format("%.0f", math.min(most, free - first)), token, 0, 0
  end
  if size == "0" then
    redis.call("ZREM", due, talk)       -- Redis has lost what waited
  else
    for _, part in ipairs({talk, born, tonumber(failed), tonumber(died), now_ms - lapsed[i + 1], tonumber(size)}) do
      reply[#reply + 1] = part
    end
    local numbers = {}
    for number = first, first + size - 1 do
      numbers[#numbers + 1] = string.format("%.0f %s", number, talk)
    end
    for _, message in ipairs(redis.call("HMGET", heard, unpack(numbers))) do
      reply[#reply + 1] = message or ""
    end
    local state = {first, size, free, due_ms, born, token, failed, string.format("%.0f", died + 1)}
    redis.call("HSET", talks, talk, table.concat(state, " "))
    redis.call("ZADD", due, string.format("%.0f", now_ms + lease_ms), talk)
  end
end
for _, key in ipairs(#lapsed > 0 and {talks, heard, due} or {}) do
  redis.call("PEXPIRE", key, life_ms)
end
local next = redis.call("ZRANGE", due, 0, 0, "WITHSCORES")[2]
reply[2] = next and math.max(0, next - now_ms) or -1
return reply
