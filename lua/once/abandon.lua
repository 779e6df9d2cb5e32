#!lua flags=
-- once/abandon: the work came to nothing, and the key is free for the next try.
--
-- reply  abandoned                     -- the key is free
-- reply  lost                          -- it is not (no longer) the caller's to free: nothing changed
-- cost   O(1), at most 2 commands
-- slot   {u:<user>}

local entry = KEYS[1]                   -- hash  print, owner and reply of one key
local owner = ARGV[1]                   -- bytes token of the caller

local kept = redis.call("HMGET", entry, "owner", "reply")
if kept[1] ~= owner or kept[2] then
  return {"lost"}
end
redis.call("DEL", entry)
return {"abandoned"}
