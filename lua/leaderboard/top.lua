#!lua flags=no-writes
-- leaderboard/top: the best of a board, and where one user stands.
--
-- reply  board own_saved own_rank lines...  -- 0 and 0: not on it; user, saved, user, saved … the highest first
-- reply  absent                        -- Redis has no such board
-- cost   O(log users + lines), at most 4 commands
-- slot   {rank}

local board = KEYS[1]                   -- zset   user id by minor units saved; 0 by -1: it is there, also when nobody is
local user  = ARGV[1]                   -- id     who asks; 0: nobody
local size  = ARGV[2]                   -- lines  at most

if redis.call("EXISTS", board) == 0 then
  return {"absent"}
end
local lines = redis.call("ZRANGE", board, "+inf", "1", "BYSCORE", "REV", "LIMIT", "0", size, "WITHSCORES")
local saved = user ~= "0" and redis.call("ZSCORE", board, user)
local rank = 0
if saved then
  rank = redis.call("ZCOUNT", board, "(" .. saved, "+inf") + 1
end
return {"board", saved or "0", rank, unpack(lines)}
