#!lua flags=no-writes
-- stock/counted: which of this seller's products are counted here.
--
-- reply  counted products...
-- cost   O(products), 1 command
-- slot   {s:<seller>}

local free = KEYS[1]                    -- hash  units free to sell, by product

local counted = {"counted"}
for _, product in ipairs(redis.call("HKEYS", free)) do
  counted[#counted + 1] = tonumber(product)
end
return counted
