#!lua flags=
-- catalog/drop: a loader that failed gives its lease back, so that the next one need not wait for its end.
--
-- reply  dropped                       -- nobody loads this entry now
-- reply  lost                          -- the lease was another's, or over
-- cost   O(1), at most 2 commands
-- slot   {catalog}

local lease  = KEYS[1]                  -- string generation and token of who loads this entry
local loaded = ARGV[1]                  -- bytes  generation under which the lease was given
local token  = ARGV[2]                  -- bytes  the caller's, as in its look

if redis.call("GET", lease) ~= loaded .. " " .. token then
  return {"lost"}
end
redis.call("DEL", lease)
return {"dropped"}
