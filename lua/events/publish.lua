#!lua flags=
-- events/publish: an event stands in one user's stream, once, and whoever listens has heard it.
--
-- reply  published name                -- it is the newest entry now, under this name
-- reply  repeated                      -- it was published before
-- cost   O(1), at most 6 commands
-- slot   {u:<user>}

local stream  = KEYS[1]                 -- stream the user's newest events; its name is also the channel of the listeners
local mark    = KEYS[2]                 -- string there, once this event is in the stream
local event   = ARGV[1]                 -- bytes  the event as clients get it
local token   = ARGV[2]                 -- hex    random, of this entry alone
local most    = ARGV[3]                 -- events that a stream keeps
local life_ms = ARGV[4]                 -- ms     of a stream after its last event
local mark_ms = ARGV[5]                 -- ms     for which a repeat is known

if redis.call("EXISTS", mark) == 1 then
  return {"repeated"}
end

-- Entries are numbered, so that a gap shows, and carry a token: Redis may lose its last moments and count them again.
local number, before = 1, "0"
local last = redis.call("XREVRANGE", stream, "+", "-", "COUNT", "1")[1]
if last then
  local n = string.match(last[1], "^%d+")
  number, before = tonumber(n) + 1, n .. "-" .. last[2][2]
end
number = string.format("%.0f", number)
redis.call("XADD", stream, "MAXLEN", "=", most, number .. "-0", "token", token, "event", event)
redis.call("PEXPIRE", stream, life_ms)
redis.call("SET", mark, "1", "PX", mark_ms)

-- With the name of the entry before it: a listener that has not that one has missed something.
local name = number .. "-" .. token
redis.call("PUBLISH", stream, name .. " " .. before .. " " .. event)
return {"published", name}
