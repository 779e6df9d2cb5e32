#!lua flags=
-- events/open: the user's stream exists, and the caller knows where it ends.
--
-- reply  opened name                   -- its newest entry
-- cost   O(1), at most 3 commands
-- slot   {u:<user>}

local stream  = KEYS[1]                 -- stream the user's newest events
local token   = ARGV[1]                 -- hex    random, of the entry that begins a stream
local life_ms = ARGV[2]                 -- ms     of a stream without events

local last = redis.call("XREVRANGE", stream, "+", "-", "COUNT", "1")[1]
if last then
  return {"opened", string.match(last[1], "^%d+") .. "-" .. last[2][2]}
end
-- It begins with an entry that is no event: without one, "nothing yet" would look like "all forgotten".
redis.call("XADD", stream, "1-0", "token", token, "event", "")
redis.call("PEXPIRE", stream, life_ms)
return {"opened", "1-" .. token}
