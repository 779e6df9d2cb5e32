"""Hear: what a channel brings waits in its conversation's buffer, and a worker is told when that is due at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import structlog

from app.base import tally
from app.domain import buffers, conversations
from app.domain.buffers import Heard
from app.domain.conversations import Channel
from app.errors import PostgresDown
from app.settings import Settings
from app.shop import Shop

log = structlog.get_logger(__name__)

REFRESH_S = 5.0  # how long another process's change of a channel may go unnoticed

Door = Literal["telegram", "whatsapp"]
Message = tuple[Channel, str, Heard]  # with its peer


class Channels:
    """The channels as one process knows them; while Postgres is away, as it knew them last."""

    def __init__(self, known: Sequence[Channel] = ()) -> None:
        self.know(known)

    def know(self, known: Sequence[Channel]) -> None:
        self._by_name = {(channel.kind, channel.external_id): channel for channel in known}
        self._by_id = {channel.id: channel for channel in known}

    def named(self, kind: Door, external_id: str) -> Channel | None:
        """The channel, unless it is unknown here or switched off, which is logged."""
        channel = self._by_name.get((kind, external_id))
        if channel is None or not channel.active:
            why = "switched off" if channel else "unknown"
            log.warning("a channel is not heard", channel=kind, external_id=external_id, why=why)
            return None
        return channel

    def get(self, channel_id: int) -> Channel | None:
        return self._by_id.get(channel_id)


@asynccontextmanager
async def channels(shop: Shop) -> AsyncIterator[Channels]:
    """The channels, kept current inside the block, with those that these settings name. Raises: PostgresDown."""
    known, ours = Channels(), doors(shop.deps.settings)
    if not ours:
        yield known
        return
    for kind, external_id in ours.items():
        await conversations.register(shop.deps.pg, kind, external_id)
    known.know(await conversations.channels(shop.deps.pg))
    refreshing = asyncio.create_task(_refresh(shop, known), name="channels")
    try:
        yield known
    finally:
        refreshing.cancel()
        await asyncio.wait([refreshing])


def doors(settings: Settings) -> dict[Door, str]:
    """Who may come in by these settings: the channel's own id, by kind."""
    found: dict[Door, str] = {}
    if settings.telegram_webhook_secret and settings.telegram_bot_token:
        found["telegram"] = settings.telegram_bot_token.partition(":")[0]
    if settings.whatsapp_phone_id and settings.whatsapp_app_secret:
        found["whatsapp"] = settings.whatsapp_phone_id
    return found


async def hear(shop: Shop, messages: Sequence[Message]) -> list[bool]:
    """Each message waits in its conversation's buffer, in this order; whether it was heard for the first time.

    Words wait for more of them; all else is looked at at once, with what waits before it. Raises: RedisDown.
    """
    waits_ms = await asyncio.gather(*(
        buffers.push(
            shop.deps.redis, channel.id, peer, heard,
            quiet_ms=channel.quiet_ms if heard.text else 0, most=channel.most,
        )
        for channel, peer, heard in messages
    ))  # fmt: skip
    for (channel, _, _), wait_ms in zip(messages, waits_ms, strict=True):
        tally.HEARD.add(channel.kind, "repeated" if wait_ms is None else "heard")
    if 0 in waits_ms:
        shop.errands.send(shop.deps.queue.wake())
    return [wait_ms is not None for wait_ms in waits_ms]


async def _refresh(shop: Shop, known: Channels) -> None:
    while True:
        await asyncio.sleep(REFRESH_S)
        try:
            known.know(await conversations.channels(shop.deps.pg))
        except PostgresDown as error:
            log.warning("channels are as they were", error=str(error))
        except Exception as error:  # a defect; what is known goes on being known
            log.error("channels are as they were", exc_info=error)
