#!lua flags=
-- stock/tally: lapsed holds are over, and what is sold from now on is known to the `fill` that ends this count.
--
-- reply  tallied epoch sold...         -- units sold since epoch, of each product in turn
-- cost   O(products + lapsed holds), 5 commands + 5 per lapsed hold
-- slot   {s:<seller>}

local held   = KEYS[1]                  -- hash  carts of the live holds, by hold id
local due    = KEYS[2]                  -- zset  hold ids by the moment (ms) at which they lapse
local doubt  = KEYS[3]                  -- hash  from when (ms) a product that may have more units is counted anew
local sold   = KEYS[4]                  -- hash  units sold since `epoch`, by product
local ttl_ms = tonumber(ARGV[1])        -- ms    life of the counters
-- ARGV[2..] products, at least one

local time = redis.call("TIME")
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- A hold that lapsed belongs to a checkout that died: the counters of its cart may leave out units that are free.
for _, hold in ipairs(redis.call("ZRANGEBYSCORE", due, "-inf", now_ms)) do
  local lines = {}
  for product in string.gmatch(redis.call("HGET", held, hold) or "", "(%d+) %d+") do
    lines[#lines + 1] = product
    lines[#lines + 1] = 0
  end
  if #lines > 0 then
    redis.call("HSET", doubt, unpack(lines))
    redis.call("PEXPIRE", doubt, 2 * ttl_ms)
  end
  redis.call("HDEL", held, hold)
  redis.call("ZREM", due, hold)
end

redis.call("HSETNX", sold, "epoch", time[1] .. "." .. time[2])
redis.call("PEXPIRE", sold, 2 * ttl_ms)
local tallied = redis.call("HMGET", sold, "epoch", unpack(ARGV, 2))
for i = 2, #tallied do
  tallied[i] = tonumber(tallied[i] or 0)
end
return {"tallied", unpack(tallied)}
