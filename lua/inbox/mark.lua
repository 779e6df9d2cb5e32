#!lua flags=
-- inbox/mark: Postgres holds this event.
--
-- reply  marked                        -- always
-- cost   O(1), 1 command
-- slot   {e:<provider>:<event>}

local mark   = KEYS[1]                  -- string  set once the event is in Postgres
local ttl_ms = ARGV[1]                  -- ms      how long a repeat is answered without asking Postgres

redis.call("SET", mark, "1", "PX", ttl_ms)
return {"marked"}
