#!lua flags=
-- stock/fill: count products that are not counted here, from what Postgres says, less the live holds.
--
-- reply  filled products               -- how many of the given products were not counted before
-- cost   O(lines + live holds), at most 4 commands + 1 per line and 2 per lapsed hold
-- slot   {s:<seller>}

local free   = KEYS[1]                  -- hash  units free to sell, by product
local held   = KEYS[2]                  -- hash  carts of the live holds, by hold id
local due    = KEYS[3]                  -- zset  hold ids by the moment (ms) at which they lapse
local ttl_ms = ARGV[1]                  -- ms    life of the counters: drift ends with it
-- ARGV[2..] product, units in Postgres, product, units in Postgres, …

local time = redis.call("TIME")
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- A hold that lapsed belongs to a checkout that died: its units were never claimed.
for _, hold in ipairs(redis.call("ZRANGEBYSCORE", due, "-inf", now_ms)) do
  redis.call("HDEL", held, hold)
  redis.call("ZREM", due, hold)
end

local taken = {}
for _, cart in ipairs(redis.call("HVALS", held)) do
  for product, units in string.gmatch(cart, "(%d+) (%d+)") do
    taken[product] = (taken[product] or 0) + tonumber(units)
  end
end

local filled = 0
for i = 2, #ARGV, 2 do
  local units = math.max(0, tonumber(ARGV[i + 1]) - (taken[ARGV[i]] or 0))
  filled = filled + redis.call("HSETNX", free, ARGV[i], units)
end
-- NX: the first fill starts the clock for all of this seller's counters, later ones do not extend it.
redis.call("PEXPIRE", free, ttl_ms, "NX")
return {"filled", filled}
