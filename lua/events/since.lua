#!lua flags=no-writes
-- events/since: what a user's stream has after one entry, in its order.
--
-- reply  rest entries...               -- name, event, name, event …; fewer than asked for: that is all
-- reply  reset                         -- the stream has not this entry, or another in its place: nobody knows
-- cost   O(entries), 1 command
-- slot   {u:<user>}

local stream = KEYS[1]                  -- stream  the user's newest events
local number = ARGV[1]                  -- number  of the entry that the caller has
local token  = ARGV[2]                  -- hex     of that entry
local most   = tonumber(ARGV[3])        -- entries wanted

local found = redis.call("XRANGE", stream, number .. "-0", "+", "COUNT", most + 1)
if not found[1] or found[1][1] ~= number .. "-0" or found[1][2][2] ~= token then
  return {"reset"}
end
local reply = {"rest"}
for i = 2, #found do
  local fields = found[i][2]
  reply[#reply + 1] = string.match(found[i][1], "^%d+") .. "-" .. fields[2]
  reply[#reply + 1] = fields[4]
end
return reply
