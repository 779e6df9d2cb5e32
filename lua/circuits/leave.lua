#!lua flags=
-- circuits/leave: the probe ended without telling anything; the next call is the probe.
--
-- reply  left
-- reply  stale                         -- this call is not the probe (any more): nothing changed
-- cost   O(1), at most 2 commands
-- slot   {circuits}

local circuit = KEYS[1]                 -- hash  the peer's circuit
local name    = ARGV[1]                 -- bytes name of the call

if redis.call("HGET", circuit, "probe") ~= name then
  return {"stale"}
end
redis.call("HDEL", circuit, "probe", "lapses")
return {"left"}
