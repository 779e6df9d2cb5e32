#!lua flags=
-- stock/fill: these products are counted as Postgres counts them, less the live holds and what was sold since the tally.
--
-- reply  filled products over under doubted  -- newly counted; units that others had too many, too few; in doubt now
-- reply  moved                         -- not all that was sold since the tally is known: count again
-- cost   O(lines + live holds), 5 commands + 2 per line
-- slot   {s:<seller>}

local free   = KEYS[1]                  -- hash  units free to sell, by product
local held   = KEYS[2]                  -- hash  carts of the live holds, by hold id
local doubt  = KEYS[3]                  -- hash  from when (ms) a product that may have more units is counted anew
local sold   = KEYS[4]                  -- hash  units sold since `epoch`, by product
local ttl_ms = tonumber(ARGV[1])        -- ms    life of the counters
local renew  = ARGV[2]                  -- flag  1: every counter was filled just now, so their life starts anew
local epoch  = ARGV[3]                  -- bytes of the tally
-- ARGV[4..] product, units in Postgres, units sold at the tally, product, …; at least one

local products, less = {}, {}
for i = 4, #ARGV, 3 do
  products[#products + 1] = ARGV[i]
end
local sold_now = redis.call("HMGET", sold, "epoch", unpack(products))
for i, product in ipairs(products) do
  less[product] = tonumber(sold_now[i + 1] or 0) - tonumber(ARGV[3 + 3 * i])
  if sold_now[1] ~= epoch or less[product] < 0 then
    return {"moved"}
  end
end
for _, cart in ipairs(redis.call("HVALS", held)) do
  for product, units in string.gmatch(cart, "(%d+) (%d+)") do
    less[product] = (less[product] or 0) + tonumber(units)
  end
end

local filled, over, under, doubted = 0, 0, 0, 0
local before = redis.call("HMGET", free, unpack(products))
for i, product in ipairs(products) do
  local units = tonumber(ARGV[2 + 3 * i]) - less[product]  -- below 0 when more is held than there is
  local change = before[i] and units - tonumber(before[i]) or 0
  redis.call("HSET", free, product, units)
  filled = filled + (before[i] and 0 or 1)
  if less[product] == 0 then
    over = over + math.max(0, -change)
    under = under + (redis.call("HDEL", doubt, product) == 1 and 0 or math.max(0, change))
  else
    redis.call("HSETNX", doubt, product, 0)  -- Postgres may have left out the same units already
    doubted = doubted + 1
  end
end
redis.call("PEXPIRE", doubt, 2 * ttl_ms)
if renew == "1" then
  redis.call("PEXPIRE", free, ttl_ms)
else
  redis.call("PEXPIRE", free, ttl_ms, "NX")  -- a single fill does not extend the life of the other counters
end
return {"filled", filled, over, under, doubted}
