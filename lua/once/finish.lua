#!lua flags=
-- once/finish: the reply is kept for every repeat, if the caller still holds the key.
--
-- reply  finished                      -- it is kept, now or by an earlier call of this owner
-- reply  lost                          -- the lease ended before, and nothing was kept
-- cost   O(1), at most 3 commands
-- slot   {u:<user>}

local entry   = KEYS[1]                 -- hash  print, owner and reply of one key
local owner   = ARGV[1]                 -- bytes token of the caller
local reply   = ARGV[2]                 -- bytes what repeats are answered
local keep_ms = ARGV[3]                 -- ms    how long they are

if redis.call("HGET", entry, "owner") ~= owner then
  return {"lost"}
end
if redis.call("HSETNX", entry, "reply", reply) == 1 then
  redis.call("PEXPIRE", entry, keep_ms)
end
return {"finished"}
