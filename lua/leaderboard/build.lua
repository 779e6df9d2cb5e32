#!lua flags=
-- leaderboard/build: the right to build a board that is not there.
--
-- reply  ours                          -- the caller reads Postgres now, then stages and opens
-- reply  theirs                        -- another builds
-- reply  there                         -- it is built already
-- cost   O(1), at most 5 commands
-- slot   {rank}

local board    = KEYS[1]                -- zset   user id by minor units saved
local building = KEYS[2]                -- hash   token: who builds; user id: savings that are newer than what was read
local stage    = KEYS[3]                -- zset   what is read so far
local token    = ARGV[1]                -- bytes  the caller's
local lease_ms = ARGV[2]                -- ms     what a builder has; a dead one blocks no longer

if redis.call("EXISTS", board) == 1 then
  return {"there"}
end
if redis.call("EXISTS", building) == 1 then
  return {"theirs"}
end
redis.call("DEL", stage)
redis.call("HSET", building, "token", token)
redis.call("PEXPIRE", building, lease_ms)
return {"ours"}
