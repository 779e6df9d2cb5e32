#!lua flags=
-- stock/reserve: hold a whole cart for one order, all or nothing, once.
--
-- reply  held                          -- the units are held, by this call
-- reply  shared                        -- the units are held since an earlier call with this hold id
-- reply  short left...                 -- nothing was held: product, units left, … of each line that does not fit
-- reply  cold products...              -- nothing was held: these products must be counted first, by this caller
-- cost   O(lines), at most 6 commands + 2 per line
-- slot   {s:<seller>}

local free   = KEYS[1]                  -- hash  units free to sell, by product
local held   = KEYS[2]                  -- hash  carts of the live holds, by hold id
local due    = KEYS[3]                  -- zset  hold ids by the moment (ms) at which they lapse
local doubt  = KEYS[4]                  -- hash  from when (ms) a product that may have more units is counted anew
local hold   = ARGV[1]                  -- bytes hold id
local ttl_ms = tonumber(ARGV[2])        -- ms    how long the checkout may take
-- ARGV[3..] product, units, product, units, …; each product once, units > 0
local RECOUNT_MS = 250

if redis.call("HEXISTS", held, hold) == 1 then
  return {"shared"}
end
local time = redis.call("TIME")
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local cold, short, asked = {"cold"}, {"short"}, {}
for i = 3, #ARGV, 2 do
  local product, left = ARGV[i], redis.call("HGET", free, ARGV[i])
  if not left then
    cold[#cold + 1] = tonumber(product)
  elseif tonumber(left) < tonumber(ARGV[i + 1]) then
    local from_ms = redis.call("HGET", doubt, product)
    if from_ms and tonumber(from_ms) <= now_ms then
      asked[#asked + 1] = product
      asked[#asked + 1] = now_ms + RECOUNT_MS  -- until then the others believe the counter
      cold[#cold + 1] = tonumber(product)
    else
      short[#short + 1] = tonumber(product)
      short[#short + 1] = math.max(0, tonumber(left))
    end
  end
end
if #asked > 0 then
  redis.call("HSET", doubt, unpack(asked))
end
if #cold > 1 then
  return cold
end
if #short > 1 then
  return short
end

for i = 3, #ARGV, 2 do
  redis.call("HINCRBY", free, ARGV[i], -tonumber(ARGV[i + 1]))
end
redis.call("HSET", held, hold, table.concat(ARGV, " ", 3))
redis.call("ZADD", due, now_ms + ttl_ms, hold)
redis.call("PEXPIRE", held, 2 * ttl_ms)
redis.call("PEXPIRE", due, 2 * ttl_ms)
return {"held"}
