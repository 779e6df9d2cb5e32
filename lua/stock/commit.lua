#!lua flags=
-- stock/commit: an order has claimed its cart in Postgres; its units are sold here too, hold or no hold.
--
-- reply  committed                     -- the hold is over
-- reply  gone                          -- there was no such hold (any more): a first call took the units off now,
--                                         unless a repeat had ended the hold for it
-- cost   O(lines + log holds), at most 7 commands + 4 per line
-- slot   {s:<seller>}

local free   = KEYS[1]                  -- hash  units free to sell, by product
local held   = KEYS[2]                  -- hash  carts of the live holds, by hold id
local due    = KEYS[3]                  -- zset  hold ids by the moment (ms) at which they lapse
local doubt  = KEYS[4]                  -- hash  from when (ms) a product that may have more units is counted anew
local sold   = KEYS[5]                  -- hash  units sold since `epoch`, by product
local hold   = ARGV[1]                  -- bytes hold id
local ttl_ms = tonumber(ARGV[2])        -- ms    life of the counters
local again  = ARGV[3]                  -- flag  1: by a repeat of the request that claimed, which may have called
-- ARGV[4..] product, units, product, units, …; each product once, units > 0

local cart = redis.call("HGET", held, hold)
local found = cart and cart ~= ""       -- an empty cart: a repeat was here first
if found and again == "1" then
  redis.call("HSET", held, hold, "")    -- the first call may still come, and must not take the units off once more
elseif again == "0" then
  redis.call("HDEL", held, hold)
  redis.call("ZREM", due, hold)
end
if not found and (cart or again == "1") then
  return {"gone"}
end
local time = redis.call("TIME")
redis.call("HSETNX", sold, "epoch", time[1] .. "." .. time[2])
for i = 4, #ARGV, 2 do
  redis.call("HINCRBY", sold, ARGV[i], ARGV[i + 1])
  if not found and redis.call("HEXISTS", free, ARGV[i]) == 1 then
    redis.call("HINCRBY", free, ARGV[i], -tonumber(ARGV[i + 1]))
    redis.call("HSETNX", doubt, ARGV[i], 0)  -- a count since the claim has left them out already
  end
end
redis.call("PEXPIRE", sold, 2 * ttl_ms)
if not found then
  redis.call("PEXPIRE", doubt, 2 * ttl_ms)
  return {"gone"}
end
return {"committed"}
