#!lua flags=
-- limits/admit: take tokens from every bucket, or from none of them.
--
-- reply  admitted figures...           -- taken; tokens left and ms until full of each bucket
-- reply  refused wait_ms figures...    -- nothing was taken; it fits after so long, if nobody else comes
-- cost   O(buckets), at most 2 commands + 1 per line
-- slot   {limits}

local time_ms = tonumber(ARGV[1])       -- ms    now; 0: as this server's clock has it
-- KEYS[1..] buckets: what is missing from each and the moment (ms) of that, as "missing at"
-- ARGV[2..] tokens wanted, burst, refill and period_ms of each bucket: `refill` tokens come back every `period_ms`

-- A token is `period_ms` parts and `refill` parts come back every ms: whole numbers, so nothing is ever rounded away.
local function divided(parts, by)
  local rest = math.fmod(parts, by)
  return (parts - rest) / by, rest > 0 and 1 or 0
end

local now_ms = time_ms
if now_ms == 0 then
  local time = redis.call("TIME")
  now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local kept = redis.call("MGET", unpack(KEYS))
local missing, spent, figures, wait_ms = {}, {}, {}, 0
for i = 1, #KEYS do
  local at = 4 * i - 2
  local wanted, burst, refill, period_ms =
    tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  local was, since_ms = string.match(kept[i] or "0 0", "(%d+) (%d+)")
  -- A clock that was set back gives nothing and takes nothing.
  missing[i] = math.max(0, tonumber(was) - math.max(0, now_ms - tonumber(since_ms)) * refill)
  spent[i] = missing[i] + wanted * period_ms
  local over = spent[i] - burst * period_ms
  if over > 0 then
    local whole, more = divided(over, refill)
    wait_ms = math.max(wait_ms, whole + more)
  end
end

local fits = wait_ms == 0
for i = 1, #KEYS do
  local burst, refill, period_ms = tonumber(ARGV[4 * i - 1]), tonumber(ARGV[4 * i]), tonumber(ARGV[4 * i + 1])
  local now = fits and spent[i] or missing[i]
  local whole, more = divided(now, refill)
  figures[2 * i - 1] = divided(burst * period_ms - now, period_ms)
  figures[2 * i] = whole + more
  if fits and now > 0 then
    -- A second longer than it matters: the bucket is full when the figures say so, not when the key goes.
    redis.call("SET", KEYS[i], string.format("%.0f %.0f", now, now_ms), "PX", figures[2 * i] + 1000)
  end
end
if fits then
  return {"admitted", unpack(figures)}
end
return {"refused", wait_ms, unpack(figures)}
