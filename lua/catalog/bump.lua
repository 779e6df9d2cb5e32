#!lua flags=
-- catalog/bump: the catalog has changed: every entry and every lease of before is worth nothing.
--
-- reply  bumped generation             -- the new one
-- cost   O(1), 4 commands
-- slot   {catalog}

local generation = KEYS[1]              -- hash   now: the moment (us) of the last change; before: of the one before it
local life_ms    = ARGV[1]              -- ms     life of a generation without changes

local time = redis.call("TIME")
local now_us = tonumber(time[1]) * 1000000 + tonumber(time[2])
local before = redis.call("HGET", generation, "now") or "0"
-- Upwards even when the clock goes back: a number that returns would bring its entries back.
local now = string.format("%.0f", math.max(now_us, tonumber(before) + 1))
redis.call("HSET", generation, "now", now, "before", before)
redis.call("PEXPIRE", generation, life_ms)
return {"bumped", now}
