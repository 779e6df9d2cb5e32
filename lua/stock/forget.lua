#!lua flags=
-- stock/forget: Postgres changed by other ways than orders; these products are counted anew by the next buyer.
--
-- reply  forgotten products            -- how many had been counted
-- cost   O(products), 2 commands
-- slot   {s:<seller>}

local free = KEYS[1]                    -- hash  units free to sell, by product
local sold = KEYS[2]                    -- hash  units sold since `epoch`, by product
-- ARGV[1..] products

redis.call("DEL", sold)  -- whoever counts just now may have asked Postgres before the change: it starts over
return {"forgotten", redis.call("HDEL", free, unpack(ARGV))}
