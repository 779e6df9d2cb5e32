#!lua flags=
-- catalog/keep: what was loaded is kept, if nothing has changed since its lease was given.
--
-- reply  kept                          -- it is there, and the lease is over
-- reply  lost                          -- the catalog changed, or another was faster: nothing is kept
-- cost   O(1), at most 6 commands
-- slot   {catalog}

local generation = KEYS[1]              -- hash   now: the moment (us) of the last change
local entry      = KEYS[2]              -- hash   generation, body
local lease      = KEYS[3]              -- string generation and token of who loads this entry
local loaded     = ARGV[1]              -- bytes  generation under which the lease was given
local token      = ARGV[2]              -- bytes  the caller's, as in its look
local body       = ARGV[3]              -- bytes  what was loaded; empty: there is no such thing
local life_ms    = ARGV[4]              -- ms     life of the entry

if redis.call("GET", lease) == loaded .. " " .. token then
  redis.call("DEL", lease)
end
-- Not the lease decides, which a slow load outlives, but that nothing has changed since it was given.
if redis.call("HGET", generation, "now") ~= loaded or redis.call("HGET", entry, "generation") == loaded then
  return {"lost"}
end
redis.call("HSET", entry, "generation", loaded, "body", body)
redis.call("PEXPIRE", entry, life_ms)
return {"kept"}
