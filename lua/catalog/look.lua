#!lua flags=
-- catalog/look: what is kept under this entry, or the right to load it.
--
-- reply  hit body                      -- it is of the present generation
-- reply  load generation               -- the caller has the lease: it reads Postgres now, then keeps or drops
-- reply  stale body                    -- another loads; the last value, current until at most stale_us ago
-- reply  wait                          -- another loads, and there is nothing to show meanwhile
-- cost   O(1), at most 7 commands
-- slot   {catalog}

local generation = KEYS[1]              -- hash   now: the moment (us) of the last change; before: of the one before it
local entry      = KEYS[2]              -- hash   generation, body
local lease      = KEYS[3]              -- string generation and token of who loads this entry
local token      = ARGV[1]              -- bytes  the caller's, of this look alone
local lease_ms   = ARGV[2]              -- ms     what a loader has; a dead one blocks no longer
local stale_us   = tonumber(ARGV[3])    -- us     how long a replaced value may still be shown
local life_ms    = ARGV[4]              -- ms     life of a generation without changes

local now, before = unpack(redis.call("HMGET", generation, "now", "before"))
local kept, body = unpack(redis.call("HMGET", entry, "generation", "body"))
if now and kept == now then
  return {"hit", body}
end

local time = redis.call("TIME")
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
if not now then
  -- Redis forgot: a generation that never was, so that no lease and no entry of before can match it.
  now = string.format("%.0f", now_us)
  redis.call("HSET", generation, "now", now)
  redis.call("PEXPIRE", generation, life_ms)
end

-- A lease of an earlier generation is worth nothing: what its owner reads may be from before the change.
local holder = redis.call("GET", lease)
if not holder or string.match(holder, "^%d+") ~= now then
  redis.call("SET", lease, now .. " " .. token, "PX", lease_ms)
  return {"load", now}
end

-- Only the value right before the last change is known to have been current until that moment.
local age_us = now_us - tonumber(now)
if kept and kept == before and age_us >= 0 and age_us <= stale_us then
  return {"stale", body}
end
return {"wait"}
