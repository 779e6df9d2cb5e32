#!lua flags=
-- once/claim: one request works under this Idempotency-Key; every other learns what became of it.
--
-- reply  claimed                       -- the caller works, until its lease ends
-- reply  running left_ms               -- another request works, for at most so long
-- reply  replay reply                  -- it is done, and this is what was answered
-- reply  mismatch                      -- the key belongs to another request
-- cost   O(1), at most 3 commands
-- slot   {u:<user>}

local entry    = KEYS[1]                -- hash  print, owner and reply of one key; expires with the lease or the reply
local print    = ARGV[1]                -- bytes fingerprint of the request
local owner    = ARGV[2]                -- bytes token of the caller
local lease_ms = ARGV[3]                -- ms    how long a caller that dies keeps the others out

local kept = redis.call("HMGET", entry, "print", "reply")
if not kept[1] then
  redis.call("HSET", entry, "print", print, "owner", owner)
  redis.call("PEXPIRE", entry, lease_ms)
  return {"claimed"}
end
if kept[1] ~= print then
  return {"mismatch"}
end
if kept[2] then
  return {"replay", kept[2]}
end
return {"running", math.max(1, redis.call("PTTL", entry))}
