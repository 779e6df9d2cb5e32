#!lua flags=
-- stock/commit: a hold has become claimed rows in Postgres; its units are not given back.
--
-- reply  committed                     -- the hold is over
-- reply  gone                          -- there was no such hold (any more)
-- cost   O(log holds), 2 commands
-- slot   {s:<seller>}

local held = KEYS[1]                    -- hash  carts of the live holds, by hold id
local due  = KEYS[2]                    -- zset  hold ids by the moment (ms) at which they lapse
local hold = ARGV[1]                    -- bytes hold id

redis.call("ZREM", due, hold)
if redis.call("HDEL", held, hold) == 1 then
  return {"committed"}
end
return {"gone"}
