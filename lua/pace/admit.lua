#!lua flags=
-- pace/admit: a message has its place among all that the bot sends, or must come again.
--
-- reply  go wait_us                    -- it leaves after this wait: its place is taken
-- reply  hold wait_us                  -- its place in its chat is taken: ask for the bot's after this wait
-- reply  later_chat wait_us            -- nothing is taken: its chat has to wait
-- reply  later_bot wait_us             -- nothing is taken: the bot has to wait, or others go first
-- cost   O(1), at most 5 commands
-- slot   {telegram}

local chat     = KEYS[1]                -- string the moment (us) up to which the chat's places are taken
local bot      = KEYS[2]                -- string the same for the whole bot
local crowd    = KEYS[3]                -- string the same for broadcasts
local lane     = ARGV[1]                -- word  news; held: its chat's place is taken; draft: now or never; broadcast: last
local chat_us  = tonumber(ARGV[2])      -- us    from one message of the chat to the next
local slack_us = tonumber(ARGV[3])      -- us    that its places may be taken ahead: a burst
local bot_us   = tonumber(ARGV[4])      -- us    from one message of the bot to the next
local crowd_us = tonumber(ARGV[5])      -- us    from one message of broadcasts to the next
local most_us  = tonumber(ARGV[6])      -- us    that anybody waits with a place taken
local time_us  = tonumber(ARGV[7])      -- us    now; 0: as this server's clock has it

local now_us = time_us
if now_us == 0 then
  local time = redis.call("TIME")
  now_us = time[1] * 1000000 + time[2]
end

local function take(key, taken_us)
  local ttl_ms = math.ceil((taken_us - now_us) / 1000) + 1000
  redis.call("SET", key, string.format("%.0f", taken_us), "PX", ttl_ms)
end

local kept = redis.call("MGET", chat, bot, crowd)
local chat_wait_us = lane == "held" and 0 or math.max(0, (kept[1] or 0) - slack_us - now_us)
local bot_wait_us = math.max(0, (kept[2] or 0) - now_us)
if lane == "broadcast" then
  -- It waits with no place taken: whatever else there is goes first.
  bot_wait_us, most_us = math.max(bot_wait_us, (kept[3] or 0) - now_us), 0
elseif lane == "draft" then
  most_us = 0
end
if chat_wait_us > most_us then
  return {"later_chat", chat_wait_us}
elseif chat_wait_us == 0 and bot_wait_us > most_us then
  return {"later_bot", bot_wait_us}
end
if lane ~= "held" and lane ~= "draft" then  -- the chat's places are for messages
  take(chat, math.max(now_us, tonumber(kept[1] or 0)) + chat_us)
end
if chat_wait_us > 0 then
  return {"hold", chat_wait_us}
end
take(bot, now_us + bot_wait_us + bot_us)
if lane == "broadcast" then
  take(crowd, now_us + crowd_us)
end
return {"go", bot_wait_us}
