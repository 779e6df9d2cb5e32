#!lua flags=
-- circuits/heal: the probe was answered, and everybody may call again.
--
-- reply  closed generation             -- the circuit is closed
-- reply  stale                         -- this call is not the probe (any more): nothing changed
-- cost   O(1), at most 5 commands
-- slot   {circuits}

local circuit    = KEYS[1]              -- hash  the peer's circuit
local generation = tonumber(ARGV[1])    -- ms    as `circuits/admit` told it
local name       = ARGV[2]              -- bytes name of the call
local life_ms    = ARGV[3]              -- ms    after which all is forgotten
local time_ms    = tonumber(ARGV[4])    -- ms    now; 0: as this server's clock has it

local now_ms = time_ms
if now_ms == 0 then
  local time = redis.call("TIME")
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end

local kept = redis.call("HMGET", circuit, "generation", "probe")
if tonumber(kept[1] or 0) ~= generation or kept[2] ~= name then
  return {"stale"}
end
now_ms = math.max(now_ms, generation + 1)  -- never a generation twice
redis.call("DEL", circuit)
redis.call("HSET", circuit, "generation", string.format("%.0f", now_ms))
redis.call("PEXPIRE", circuit, life_ms)
return {"closed", now_ms}
