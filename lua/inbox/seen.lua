#!lua flags=no-writes
-- inbox/seen: whether Postgres is known to hold this event, so that a crowd of repeats need not ask it.
--
-- reply  known                         -- it is there
-- reply  fresh                         -- nothing is known here
-- cost   O(1), 1 command
-- slot   {e:<provider>:<event>}

local mark = KEYS[1]                    -- string  set once the event is in Postgres

if redis.call("EXISTS", mark) == 1 then
  return {"known"}
end
return {"fresh"}
