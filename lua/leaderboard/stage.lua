#!lua flags=
-- leaderboard/stage: some of what was read is kept until the board opens.
--
-- reply  staged                        -- and the builder has its lease anew
-- reply  lost                          -- the lease is over, or another's: nothing is kept
-- cost   O(lines), 4 commands + 1 per line
-- slot   {rank}

local building = KEYS[1]                -- hash   token: who builds; user id: savings that are newer than what was read
local stage    = KEYS[2]                -- zset   what is read so far
local token    = ARGV[1]                -- bytes  the caller's
local lease_ms = ARGV[2]                -- ms     what a builder has
-- ARGV[3..] user, saved, user, saved …

if redis.call("HGET", building, "token") ~= token then
  return {"lost"}
end
redis.call("ZADD", stage, -1, "0")
for i = 3, #ARGV, 2 do
  redis.call("ZADD", stage, ARGV[i + 1], ARGV[i])
end
redis.call("PEXPIRE", stage, lease_ms)
redis.call("PEXPIRE", building, lease_ms)
return {"staged"}
