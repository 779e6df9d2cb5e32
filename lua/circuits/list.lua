#!lua flags=no-writes
-- circuits/list: what state each circuit is in.
--
-- reply  listed states...              -- of each: 0 closed, 1 open, 2 half-open; failures; since when (ms); ms to wait
-- cost   O(circuits), 1 command + 1 per line
-- slot   {circuits}

local window_ms = tonumber(ARGV[1])     -- ms    within which failures of a closed circuit count
-- KEYS[1..] circuits

local time = redis.call("TIME")
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local states = {"listed"}
for _, circuit in ipairs(KEYS) do
  local kept = redis.call("HMGET", circuit, "until", "lapses", "failures", "since", "failed")
  local wait_ms = math.max(0, (kept[2] or kept[1] or 0) - now_ms)
  local failures = tonumber(kept[5] or 0)
  for moment in string.gmatch(kept[3] or "", "(%d%d%d%d%d%d%d%d%d%d%d%d%d)%d%d%d%d%d%d") do
    failures = failures + (now_ms - moment <= window_ms and 1 or 0)
  end
  states[#states + 1] = (not kept[1] and 0) or (kept[2] or wait_ms == 0) and 2 or 1
  states[#states + 1] = failures
  states[#states + 1] = tonumber(kept[4] or 0)
  states[#states + 1] = wait_ms
end
return states
