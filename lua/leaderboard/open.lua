#!lua flags=
-- leaderboard/open: what was staged, and what came meanwhile, is the board.
--
-- reply  opened                        -- everybody sees it
-- reply  lost                          -- the lease is over, or another's, or a part of the stage is gone
-- cost   O(lines), 6 commands + 1 per line
-- slot   {rank}

local board    = KEYS[1]                -- zset   user id by minor units saved
local building = KEYS[2]                -- hash   token: who builds; user id: savings that are newer than what was read
local stage    = KEYS[3]                -- zset   what is read so far
local token    = ARGV[1]                -- bytes  the caller's
local users    = tonumber(ARGV[2])      -- users  that were staged
local life_ms  = ARGV[3]                -- ms     life of the board: what is wrong with it ends with it

if redis.call("HGET", building, "token") ~= token or redis.call("ZCARD", stage) ~= users + 1 then
  return {"lost"}
end
local newer = redis.call("HGETALL", building)
for i = 1, #newer, 2 do
  if newer[i + 1] == "0" then
    redis.call("ZREM", stage, newer[i])
  elseif newer[i] ~= "token" then
    redis.call("ZADD", stage, newer[i + 1], newer[i])
  end
end
redis.call("RENAME", stage, board)
redis.call("PEXPIRE", board, life_ms)
redis.call("DEL", building)
return {"opened"}
