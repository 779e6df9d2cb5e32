#!lua flags=
-- events/redeem: a ticket is used up, and the caller is whom it was given to.
--
-- reply  redeemed bearer               -- the session for which it was asked
-- reply  void                          -- unknown, too old, or used before
-- cost   O(1), 1 command
-- slot   {ticket:<digest>}

local ticket = KEYS[1]                  -- string what the ticket proves

local bearer = redis.call("GETDEL", ticket)
if not bearer then
  return {"void"}
end
return {"redeemed", bearer}
