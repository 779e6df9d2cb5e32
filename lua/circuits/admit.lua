#!lua flags=
-- circuits/admit: whether a peer may be called; after its cool-down one call tries it for everybody.
--
-- reply  closed generation             -- it may; tell when it fails
-- reply  probe generation              -- it may, by this call alone, which tells how it went
-- reply  open generation wait_ms       -- it may not, for so long
-- cost   O(1), at most 3 commands
-- slot   {circuits}

local circuit  = KEYS[1]                -- hash  the peer's circuit
local name     = ARGV[1]                -- bytes name of this call, should it be the probe
local lease_ms = tonumber(ARGV[2])      -- ms    a probe that is not heard of for so long is given up
local most_ms  = tonumber(ARGV[3])      -- ms    the longest cool-down
local time_ms  = tonumber(ARGV[4])      -- ms    now; 0: as this server's clock has it

local now_ms = time_ms
if now_ms == 0 then
  local time = redis.call("TIME")
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end

local kept = redis.call("HMGET", circuit, "generation", "until", "lapses")
local generation = tonumber(kept[1] or 0)
if not kept[2] then
  return {"closed", generation}
end
local wait_ms = tonumber(kept[3] or kept[2]) - now_ms
-- More than the longest wait is a clock that was set back.
if wait_ms > 0 and wait_ms <= math.max(most_ms, lease_ms) then
  return {"open", generation, kept[3] and math.min(wait_ms, 1000) or wait_ms}  -- a probe takes a moment
end
redis.call("HSET", circuit, "probe", name, "lapses", string.format("%.0f", now_ms + lease_ms))
return {"probe", generation}
