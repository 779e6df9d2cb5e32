#!lua flags=
-- stock/reserve: hold a whole cart for one order, all or nothing, once.
--
-- reply  held                          -- the units are held, now or by an earlier call with this hold id
-- reply  short left...                 -- nothing was held: product, units left, … of each line that does not fit
-- reply  cold products...              -- nothing was held: these products are not counted here, fill them first
-- cost   O(lines), at most 7 commands + 1 per line
-- slot   {s:<seller>}

local free   = KEYS[1]                  -- hash  units free to sell, by product
local held   = KEYS[2]                  -- hash  carts of the live holds, by hold id
local due    = KEYS[3]                  -- zset  hold ids by the moment (ms) at which they lapse
local hold   = ARGV[1]                  -- bytes hold id
local ttl_ms = tonumber(ARGV[2])        -- ms    how long the checkout may take
-- ARGV[3..] product, units, product, units, …; each product once, units > 0

if redis.call("HEXISTS", held, hold) == 1 then
  return {"held"}
end

local products = {}
for i = 3, #ARGV, 2 do
  products[#products + 1] = ARGV[i]
end
local left = redis.call("HMGET", free, unpack(products))

local cold, short = {"cold"}, {"short"}
for i, product in ipairs(products) do
  if not left[i] then
    cold[#cold + 1] = tonumber(product)
  elseif tonumber(left[i]) < tonumber(ARGV[2 + 2 * i]) then
    short[#short + 1] = tonumber(product)
    short[#short + 1] = math.max(0, tonumber(left[i]))
  end
end
if #cold > 1 then
  return cold
end
if #short > 1 then
  return short
end

for i, product in ipairs(products) do
  redis.call("HINCRBY", free, product, -tonumber(ARGV[2 + 2 * i]))
end
local time = redis.call("TIME")
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
redis.call("HSET", held, hold, table.concat(ARGV, " ", 3))
redis.call("ZADD", due, now_ms + ttl_ms, hold)
redis.call("PEXPIRE", held, 2 * ttl_ms)
redis.call("PEXPIRE", due, 2 * ttl_ms)
return {"held"}
