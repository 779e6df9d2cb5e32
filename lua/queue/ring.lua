#!lua flags=
-- queue/ring: a job stands in arq's queue, and a waiting worker is woken for it at once.
--
-- reply  rung                       -- it stands there, now or since an earlier ring of this try
-- cost   O(log jobs), at most 6 commands
-- slot   {arq}

local queue   = KEYS[1]              -- zset    job ids by the moment (ms) from which polling may start them
local bell    = KEYS[2]              -- list    job ids for workers that wait
local job     = KEYS[3]              -- string  arq's own record of the job
local id      = ARGV[1]              -- bytes   job id
local record  = ARGV[2]              -- bytes   what arq reads from `job`
local ttl_ms  = ARGV[3]              -- ms      life of the record
local head_ms = tonumber(ARGV[4])    -- ms      what the bell has before polling may start the job too
local bell_ms = ARGV[5]              -- ms      life of an unheard bell

local time = redis.call("TIME")
local now_ms = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

if redis.call("ZADD", queue, "NX", now_ms + head_ms, id) == 0 then
  return {"rung"}
end
redis.call("SET", job, record, "PX", ttl_ms)
redis.call("RPUSH", bell, id)
redis.call("LTRIM", bell, -10000, -1)
redis.call("PEXPIRE", bell, bell_ms)
return {"rung"}
