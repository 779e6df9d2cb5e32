#!lua flags=
-- stock/forget: these products are counted anew from Postgres by the next buyer.
--
-- reply  forgotten products            -- how many had been counted
-- cost   O(products), 1 command
-- slot   {s:<seller>}

local free = KEYS[1]                    -- hash  units free to sell, by product
-- ARGV[1..] products

return {"forgotten", redis.call("HDEL", free, unpack(ARGV))}
