"""Pace: when the bot's next message may leave, for all processes together (Bot API: 1 a second to a chat, 30 in all).

Every message has a place in the order of its chat and of the bot (`lua/pace/admit.lua`). News waits up to a second
with its place taken; a broadcast takes none before it may leave, so that all news goes first. A draft (what is shown
while a reply is written) leaves at once or not at all, and takes no place in its chat. What Telegram asks to
wait (429) moves the places of that chat, and of the bot when a second chat is asked meanwhile: Telegram does not say
which of its limits was hit. While Redis is away each process has a pace of its own.
"""

import asyncio
import math
import re
from collections.abc import Mapping
from time import time_ns
from typing import Literal

import msgspec
import structlog

from app.base import keys
from app.errors import ProviderDown, RedisDown
from app.infra.lua import Redis, Script
from app.settings import BadSettings

log = structlog.get_logger(__name__)

Lane = Literal["news", "held", "broadcast", "draft"]

PATIENCE_US = {"news": 1_000_000, "broadcast": 5_000_000, "draft": 0}  # the longest wait in place
LONGEST_S = 86_000  # that a chat waits at Telegram's word: the life that the key map gives it
KEPT = 10_000  # chats of one process; beyond that the oldest are forgotten, which is generous and bounded

_CHANGE = re.compile(r"(\*|[a-z]+)=([1-9][0-9]{0,6})/([1-9][0-9]{0,3})", re.ASCII)


class Rate(msgspec.Struct, frozen=True):
    """So many messages in so many seconds, evenly; `burst` of them at once."""

    messages: int
    seconds: int
    burst: int = 1

    @property
    def every_us(self) -> int:
        return -(-self.seconds * 1_000_000 // self.messages)

    @property
    def slack_us(self) -> int:
        return (self.burst - 1) * self.every_us


# THE table; TORG_TELEGRAM_PACE changes its figures.
TABLE = {
    "chat": Rate(1, 1, burst=3),
    "group": Rate(20, 60),  # chats with negative ids
    "bot": Rate(30, 1),
    "broadcast": Rate(20, 1),  # of the bot's, at most
}


class Go(msgspec.Struct, frozen=True):
    """It leaves after `wait_us`: its place is taken."""

    wait_us: int


class Hold(msgspec.Struct, frozen=True):
    """Its place in its chat is taken; the bot's is asked for after `wait_us`."""

    wait_us: int


class LaterChat(msgspec.Struct, frozen=True):
    """Nothing is taken: the chat has to wait."""

    wait_us: int


class LaterBot(msgspec.Struct, frozen=True):
    """Nothing is taken: the bot has to wait, or others go first."""

    wait_us: int


class Chat(msgspec.Struct, frozen=True):
    """The chat waits."""


class Bot(msgspec.Struct, frozen=True):
    """All chats wait."""


Place = Go | Hold | LaterChat | LaterBot

ADMIT: Script[Place] = Script("pace/admit", Go, Hold, LaterChat, LaterBot)
STOP: Script[Chat | Bot] = Script("pace/stop", Chat, Bot)

SCRIPTS = (ADMIT, STOP)


def rates(changes: str) -> Mapping[str, Rate]:
    """The table with the figures of `changes`: `chat=1/1 bot=30/1`; `*` changes all. Raises: BadSettings."""
    found = dict(TABLE)
    for entry in changes.replace(",", " ").split():
        parts = _CHANGE.fullmatch(entry)
        if parts is None or parts[1] not in ("*", *found):
            raise BadSettings(f"TORG_TELEGRAM_PACE: {entry!r} is not name=messages/seconds of {', '.join(TABLE)}")
        for name in TABLE if parts[1] == "*" else [parts[1]]:
            found[name] = Rate(int(parts[2]), int(parts[3]), found[name].burst)
    return found


def of_chat(by: Mapping[str, Rate], chat_id: int) -> Rate:
    return by["chat" if chat_id > 0 else "group"]


async def admit(redis: Redis, chat_id: int, lane: Lane, by: Mapping[str, Rate], now_us: int = 0) -> Place:
    """A place for a message, or the wait for one. `now_us` is for tests; 0 is the server's clock. Raises: RedisDown."""
    chat = of_chat(by, chat_id)
    rest = (by["bot"].every_us, by["broadcast"].every_us, PATIENCE_US["news"], now_us)
    return await ADMIT(redis, keys=_keys(chat_id), args=[lane, chat.every_us, chat.slack_us, *rest])


async def stop(redis: Redis, chat_id: int, wait_s: int, by: Mapping[str, Rate], now_us: int = 0) -> Chat | Bot:
    """Telegram asked to wait, and everybody obeys. Raises: RedisDown."""
    chat, bot, _ = _keys(chat_id)
    args = [chat_id, min(wait_s, LONGEST_S) * 1_000_000, of_chat(by, chat_id).slack_us, now_us]
    return await STOP(redis, keys=[chat, bot, keys.TELEGRAM_FLOOD], args=args)


def _keys(chat_id: int) -> tuple[str, str, str]:
    return keys.telegram_chat(chat_id), keys.TELEGRAM_BOT, keys.TELEGRAM_BROADCAST


class Own:
    """One process's own pace: as the scripts decide, here alone."""

    def __init__(self, by: Mapping[str, Rate]) -> None:
        self.rates = by
        self.chats: dict[int, int] = {}  # the moment (us) up to which places are taken
        self.bot_us = self.broadcast_us = 0
        self.flood, self.flood_us = 0, 0

    def admit(self, chat_id: int, lane: Lane, now_us: int) -> Place:
        chat, taken_us = of_chat(self.rates, chat_id), self.chats.get(chat_id, 0)
        chat_wait_us = 0 if lane == "held" else max(0, taken_us - chat.slack_us - now_us)
        bot_wait_us, most_us = max(0, self.bot_us - now_us), PATIENCE_US["news"]
        if lane == "broadcast":
            bot_wait_us, most_us = max(bot_wait_us, self.broadcast_us - now_us), 0
        elif lane == "draft":
            most_us = 0
        if chat_wait_us > most_us:
            return LaterChat(chat_wait_us)
        if not chat_wait_us and bot_wait_us > most_us:
            return LaterBot(bot_wait_us)
        if lane not in ("held", "draft"):
            self._keep(chat_id, max(now_us, taken_us) + chat.every_us)
        if chat_wait_us:
            return Hold(chat_wait_us)
        self.bot_us = now_us + bot_wait_us + self.rates["bot"].every_us
        if lane == "broadcast":
            self.broadcast_us = now_us + self.rates["broadcast"].every_us
        return Go(bot_wait_us)

    def stop(self, chat_id: int, wait_s: int, now_us: int) -> Chat | Bot:
        until_us = now_us + min(wait_s, LONGEST_S) * 1_000_000
        self._keep(chat_id, max(self.chats.get(chat_id, 0), until_us + of_chat(self.rates, chat_id).slack_us))
        if self.flood_us > now_us and self.flood != chat_id:
            self.bot_us = max(self.bot_us, until_us)
            return Bot()
        self.flood, self.flood_us = chat_id, until_us
        return Chat()

    def _keep(self, chat_id: int, taken_us: int) -> None:
        self.chats.pop(chat_id, None)  # the order of the dict is the order of use
        if len(self.chats) >= KEPT:
            del self.chats[next(iter(self.chats))]
        self.chats[chat_id] = taken_us


class Pace:
    """The pace of one bot, as one process keeps it with all the others."""

    def __init__(self, redis: Redis, by: Mapping[str, Rate]) -> None:
        self.redis, self.rates, self.own = redis, by, Own(by)

    async def turn(self, chat_id: int, lane: Lane) -> None:
        """The message may leave now. Raises: ProviderDown when that takes too long; its fact `whose` is chat or bot."""
        left_us = PATIENCE_US[lane]
        while True:
            try:
                place = await admit(self.redis, chat_id, lane, self.rates)
            except RedisDown:
                place = self.own.admit(chat_id, lane, _now_us())
            match place:
                case Go(wait_us):
                    return await asyncio.sleep(wait_us / 1_000_000)
                case Hold(wait_us):
                    lane = "held"
                case LaterChat(wait_us) | LaterBot(wait_us):
                    left_us -= wait_us
                    if lane != "broadcast" or left_us < 0:
                        raise _later(place)
            await asyncio.sleep(wait_us / 1_000_000)

    async def stop(self, chat_id: int, wait_s: int) -> ProviderDown:
        """Telegram asked to wait: nobody sends there before. What the sender raises comes back."""
        try:
            stopped = await stop(self.redis, chat_id, wait_s, self.rates)
        except RedisDown:
            stopped = self.own.stop(chat_id, wait_s, _now_us())
        whose = "bot" if isinstance(stopped, Bot) else "chat"
        log.warning("Telegram asks to wait", chat_id=chat_id, wait_s=wait_s, whose=whose)
        return ProviderDown("Telegram asks to wait", retry_after_s=wait_s, whose=whose)


def _later(place: LaterChat | LaterBot) -> ProviderDown:
    whose = "chat" if isinstance(place, LaterChat) else "bot"
    wait_s = math.ceil(place.wait_us / 1_000_000)
    return ProviderDown(f"the {whose} has said enough for now", retry_after_s=wait_s, whose=whose)


def _now_us() -> int:
    return time_ns() // 1000
