"""Hears all that anybody is told: realtime events, over the channels and in the streams, and messages of the bot."""

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.base import keys
from app.sandbox.telegram import Telegram

CHANNELS = keys.events(0).replace("0", "*")
PAUSE_S = 0.01
PATIENCE_S = 1.0


def messages(telegram: Telegram) -> Counter[tuple[int, str]]:
    """Counts from here on what the Bot API takes, by chat and text: a chat itself keeps its newest messages only."""
    send, sent = telegram.methods["sendmessage"], Counter[tuple[int, str]]()

    def counted(params: Any) -> Any:
        message = send(params)
        sent[message["chat"]["id"], message["text"]] += 1
        return message

    telegram.methods["sendmessage"] = counted
    return sent


class Ear:
    """Every entry of every stream: user, event and the entry's name, and when it was first known of."""

    def __init__(self, redis_url: str) -> None:
        self.redis = Redis.from_url(redis_url, socket_timeout=PATIENCE_S)
        self.heard: dict[tuple[int, str], dict[bytes, float]] = {}

    async def listen(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with self.redis.pubsub() as subscription:
                    await subscription.psubscribe(CHANNELS)
                    await self.look()
                    while True:
                        said = await subscription.get_message(ignore_subscribe_messages=True, timeout=PATIENCE_S)
                        if said:
                            name, _, event = said["data"].split(b" ", 2)
                            self._take(said["channel"], name, event)
            except (RedisError, OSError):
                await asyncio.sleep(PAUSE_S)

    async def look(self) -> None:
        """What the streams hold is known. Raises: RedisError, OSError."""
        for stream in await self.redis.keys(CHANNELS):
            for number, fields in await self.redis.xrange(stream):
                if fields[b"event"]:
                    self._take(stream, number.partition(b"-")[0] + b"-" + fields[b"token"], fields[b"event"])

    async def flush(self) -> None:
        """A disaster: Redis forgets everything; what it knew until then has been heard. Raises: RedisError, OSError."""
        await self.look()
        await self.redis.flushall()

    def missing(self, expected: Collection[tuple[int, str]]) -> list[tuple[int, str]]:
        return [one for one in expected if one not in self.heard]

    def repeats(self, losses_s: Sequence[float]) -> tuple[int, int]:
        """Entries that tell what another has told; and those between which Redis had lost its memory."""
        plain = excused = 0
        for entries in self.heard.values():
            first_s, *later = sorted(entries.values())
            for at_s in later:
                lost = any(first_s <= loss_s <= at_s for loss_s in losses_s)
                excused += lost
                plain += not lost
        return plain, excused

    async def aclose(self) -> None:
        await self.redis.aclose()

    def _take(self, channel: bytes, name: bytes, event: bytes) -> None:
        user_id = int(channel.partition(b":")[2].partition(b"}")[0])
        event_id = msgspec.json.decode(event)["id"]
        self.heard.setdefault((user_id, event_id), {}).setdefault(name, time.time())
