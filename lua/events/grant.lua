#!lua flags=
-- events/grant: whoever shows this ticket is this caller, once and soon.
--
-- reply  granted                       -- always
-- cost   O(1), 1 command
-- slot   {ticket:<digest>}

local ticket  = KEYS[1]                 -- string what the ticket proves
local bearer  = ARGV[1]                 -- bytes  the session for which it was asked
local life_ms = ARGV[2]                 -- ms     for which it can be shown

redis.call("SET", ticket, bearer, "PX", life_ms)
return {"granted"}
