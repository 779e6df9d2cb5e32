#!lua flags=
-- leaderboard/score: a user's savings on a board are these, also on one that is being built at this moment.
--
-- reply  scored                        -- the board has it
-- reply  noted                         -- there is no board; whoever builds one now will have it
-- reply  absent                        -- there is no board, and nobody builds one
-- cost   O(log users), at most 4 commands
-- slot   {rank}

local board    = KEYS[1]                -- zset   user id by minor units saved
local building = KEYS[2]                -- hash   token: who builds; user id: savings that are newer than what was read
local user     = ARGV[1]                -- id     whose
local saved    = ARGV[2]                -- minor  units saved; 0: none

local being_built = redis.call("EXISTS", building) == 1
if being_built then
  redis.call("HSET", building, user, saved)
end
if redis.call("EXISTS", board) == 0 then
  if being_built then
    return {"noted"}
  end
  return {"absent"}
end
if saved == "0" then
  redis.call("ZREM", board, user)
else
  redis.call("ZADD", board, saved, user)
end
return {"scored"}
