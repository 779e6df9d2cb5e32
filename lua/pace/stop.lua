#!lua flags=
-- pace/stop: Telegram asked to wait: nothing leaves for this chat, and for nobody when it is the second chat to wait.
--
-- reply  chat                          -- this chat waits
-- reply  bot                           -- all of them wait
-- cost   O(1), at most 6 commands
-- slot   {telegram}

local chat     = KEYS[1]                -- string the moment (us) up to which the chat's places are taken
local bot      = KEYS[2]                -- string the same for the whole bot
local flood    = KEYS[3]                -- string until when (us) and which chat was asked to wait
local id       = ARGV[1]                -- bytes chat id
local wait_us  = tonumber(ARGV[2])      -- us    that Telegram asked for
local slack_us = tonumber(ARGV[3])      -- us    of the chat's burst
local time_us  = tonumber(ARGV[4])      -- us    now; 0: as this server's clock has it

local now_us = time_us
if now_us == 0 then
  local time = redis.call("TIME")
  now_us = time[1] * 1000000 + time[2]
end

local function hold(key, taken_us)
  taken_us = math.max(taken_us, tonumber(redis.call("GET", key) or 0))
  redis.call("SET", key, string.format("%.0f", taken_us), "PX", math.ceil((taken_us - now_us) / 1000) + 1000)
end

hold(chat, now_us + wait_us + slack_us)
local until_us, other = string.match(redis.call("GET", flood) or "", "^(%d+) (.+)$")
if other and other ~= id and tonumber(until_us) > now_us then
  hold(bot, now_us + wait_us)
  return {"bot"}
end
redis.call("SET", flood, string.format("%.0f %s", now_us + wait_us, id), "PX", math.ceil(wait_us / 1000) + 1000)
return {"chat"}
