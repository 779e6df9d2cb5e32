#!lua flags=
-- limits/admit: take tokens from every bucket, or from none of them.
--
-- reply  taken missing...              -- they are taken; what is missing now from each bucket
-- reply  short missing...              -- nothing was taken; what is missing from each bucket
-- cost   O(buckets), at most 2 commands + 1 per line
-- slot   {limits}

local time_ms = tonumber(ARGV[1])       -- ms    now; 0: as this server's clock has it
-- KEYS[1..] buckets: the moment (ms, 13 digits) and what was missing then
-- ARGV[2..] parts wanted, parts of a full bucket and parts that come back every ms, for each bucket

-- A token is as many parts as its period has ms: whole numbers, so that no part of one is ever rounded away.
local now_ms = time_ms
if now_ms == 0 then
  local time = redis.call("TIME")
  now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
end

local kept = redis.call("MGET", unpack(KEYS))
local before, after, fits, back = {}, {}, true, false
for i, bucket in ipairs(kept) do
  local missing = 0
  if bucket then
    local passed_ms = now_ms - string.sub(bucket, 1, 13)
    if passed_ms < 0 then
      passed_ms, back = 0, true
    end
    missing = math.max(0, string.sub(bucket, 14) - passed_ms * ARGV[3 * i + 1])
  end
  before[i] = missing
  after[i] = missing + ARGV[3 * i - 1]
  fits = fits and after[i] <= tonumber(ARGV[3 * i])
end
-- A refusal writes nothing, unless the clock was set back: then time begins anew, or the bucket would wait for the old.
for i, missing in ipairs((fits and after) or (back and before) or {}) do
  -- A second longer than it matters: the bucket is full when the figures say so, not when the key goes.
  local ttl_ms = math.ceil(missing / ARGV[3 * i + 1]) + 1000
  redis.call("SET", KEYS[i], string.format("%013.0f%.0f", now_ms, missing), "PX", ttl_ms)
end
if fits then
  return {"taken", unpack(after)}
end
return {"short", unpack(before)}
