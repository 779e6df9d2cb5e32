#!lua flags=
-- stock/release: give a hold's units back, once.
--
-- reply  released units                -- so many units are free again
-- reply  gone                          -- there was no such hold (any more): nothing changed
-- cost   O(lines + log holds), at most 3 commands + 2 per line
-- slot   {s:<seller>}

local free = KEYS[1]                    -- hash  units free to sell, by product
local held = KEYS[2]                    -- hash  carts of the live holds, by hold id
local due  = KEYS[3]                    -- zset  hold ids by the moment (ms) at which they lapse
local hold = ARGV[1]                    -- bytes hold id

local cart = redis.call("HGET", held, hold)
if not cart or cart == "" then          -- empty: sold, says a repeat of its request
  return {"gone"}
end
redis.call("HDEL", held, hold)
redis.call("ZREM", due, hold)

local released = 0
for product, units in string.gmatch(cart, "(%d+) (%d+)") do
  -- A product that is no longer counted is counted anew from Postgres, where these units never left.
  if redis.call("HEXISTS", free, product) == 1 then
    redis.call("HINCRBY", free, product, tonumber(units))
  end
  released = released + tonumber(units)
end
return {"released", released}
