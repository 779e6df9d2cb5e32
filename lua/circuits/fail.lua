#!lua flags=
-- circuits/fail: a call has failed; enough of them open the circuit, and so does the probe.
--
-- reply  counted failures              -- it stays closed
-- reply  opened generation wait_ms     -- nobody calls for so long
-- reply  stale                         -- what the call began in is over: nothing changed
-- cost   O(failures), at most 5 commands
-- slot   {circuits}

local circuit    = KEYS[1]              -- hash  the peer's circuit
local generation = tonumber(ARGV[1])    -- ms    as `circuits/admit` told it
local name       = ARGV[2]              -- bytes name of the call, if it was the probe
local good       = tonumber(ARGV[3])    -- calls of this process that went well since it last told of a failure
local most       = tonumber(ARGV[4])    -- calls that open the circuit, if hardly more went well meanwhile
local window_ms  = tonumber(ARGV[5])    -- ms    within which they fail
local first_ms   = tonumber(ARGV[6])    -- ms    the shortest cool-down
local most_ms    = tonumber(ARGV[7])    -- ms    the longest
local draw       = tonumber(ARGV[8])    -- 1/1000 of the way from the shortest to this turn's longest
local life_ms    = ARGV[9]              -- ms    after which all is forgotten
local time_ms    = tonumber(ARGV[10])   -- ms    now; 0: as this server's clock has it

local now_ms = time_ms
if now_ms == 0 then
  local time = redis.call("TIME")
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end

local kept = redis.call("HMGET", circuit, "generation", "until", "probe", "failures", "trips", "since", "failed")
if tonumber(kept[1] or 0) ~= generation or (kept[2] and kept[3] ~= name) then
  return {"stale"}
end
local failed = (kept[7] or most - 1) + 1
if not kept[2] then
  -- Of each failure: its moment (13 digits), and what went well before it (6).
  local told = (kept[4] or "") .. string.format("%013.0f%06.0f", now_ms, math.min(good, 999999))
  told = string.sub(told, -19 * most)
  local count, between = 0, 0
  for at = 1, #told, 19 do
    if now_ms - string.sub(told, at, at + 12) <= window_ms then
      between = count > 0 and between + string.sub(told, at + 13, at + 18) or 0
      count = count + 1
    end
  end
  if count < most or between > most then
    redis.call("HSET", circuit, "generation", string.format("%.0f", generation), "failures", told)
    redis.call("PEXPIRE", circuit, life_ms)
    return {"counted", count}
  end
end
local trips = (kept[5] or 0) + 1
local now = string.format("%.0f", math.max(now_ms, generation + 1))  -- never a generation twice
local wait_ms = first_ms + math.floor((math.min(most_ms, first_ms * 2 ^ trips) - first_ms) * draw / 1000)
redis.call("DEL", circuit)
redis.call("HSET", circuit, "generation", now, "until", string.format("%.0f", now_ms + wait_ms), "trips", trips,
  "since", kept[6] or now, "failed", failed)
redis.call("PEXPIRE", circuit, life_ms)
return {"opened", tonumber(now), wait_ms}
