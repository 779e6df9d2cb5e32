"""A shop with a WhatsApp number, users who write there, and a worker that answers when it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from app.base import clock
from app.channels.line import Offer
from app.channels.whatsapp import texts
from app.domain import buffers, conversations
from app.domain.buffers import SHARDS, Batch
from app.flows.offer import offer
from app.infra.embedded import Servers
from app.sandbox.serve import running
from app.sandbox.whatsapp import WhatsApp
from app.sandbox.whatsapp_wire import Said
from tests.web.test_shop import own_world
from tests.world import World
from workers.talk import Talk

TOKEN, SECRET, PHONE_ID = "EAAB-access-token-of-the-tests", "app-secret-of-the-tests", "106540352242922"
ONLY_WORDS = texts.said("only_words", "en")


class Town:
    """The shop, its WhatsApp number, and a worker that answers when it is told to."""

    def __init__(self, world: World, phone: WhatsApp) -> None:
        self.world, self.phone, self.talk = world, phone, Talk(world.shop.deps.settings)

    @property
    def shop(self) -> Any:
        return self.world.shop

    async def forget(self) -> None:
        """What a test before this one has left waiting, or asked the outside to do, is nobody's."""
        while self.shop.errands.running:
            await asyncio.wait(self.shop.errands.running)
        await self.world.forget()
        self.phone.faults.clear()

    async def take(self) -> list[Batch]:
        """What is due now."""
        found = [await buffers.take(self.shop.deps.redis, n, size=1000, lease_ms=60_000) for n in range(SHARDS)]
        return [batch for taken in found for batch in taken.batches]

    async def answer(self) -> None:
        """Everything that was heard has been worked on, once, and what that owes."""
        for batch in await self.take():
            await self.talk._work_on(self.shop, batch)
        await self.settle()

    async def settle(self) -> None:
        while self.shop.errands.running:
            await asyncio.wait(self.shop.errands.running)
        await self.world.drain()
        await self.phone.idle()

    async def say(self, *said: Said) -> None:
        """Heard, and answered."""
        assert (await self.phone.say(*said)).status == 200
        await self.answer()

    async def user(self, peer: str) -> int:
        return int(await self.world.scalar("SELECT id FROM users WHERE whatsapp = $1", peer))

    async def known(self) -> str:
        """A user who has written before."""
        peer = someone()
        await self.say(picture(peer))
        assert self.phone.texts_to(peer) == [ONLY_WORDS]
        self.phone.messages[peer].clear()
        return peer

    async def offered(self, peer: str, product: int) -> Offer:
        made = await offer(self.shop, await self.user(peer), product, 1)
        assert isinstance(made, Offer)
        return made

    async def orders(self, peer: str) -> list[tuple[Any, str]]:
        found = await self.world.pg.fetch(
            "SELECT o.id, o.status FROM orders o JOIN users u ON u.id = o.user_id WHERE u.whatsapp = $1", (peer,)
        )
        return [(row[0], row[1]) for row in found]

    async def silent(self, peer: str, hours: float) -> None:
        """The user has not written for so long, and whoever sends has just started."""
        await self.world.pg.fetch(
            "UPDATE conversations SET heard_at = now() - $2::float8 * interval '1 hour' WHERE peer = $1", (peer, hours)
        )
        self.phone.heard_s[peer] = clock.unix_s() - int(hours * 3600)
        self.shop.lines["whatsapp"]._until.clear()


def someone() -> str:
    return str(380_000_000_000 + (uuid4().int >> 96))


def picture(peer: str, **more: Any) -> Said:
    return Said(sender=peer, type="image", **more)


def pressed(peer: str, token: str, **more: Any) -> Said:
    return Said(sender=peer, button=f"pay:{token}", **more)


def invoice_in(text: str) -> str:
    return text.rpartition("i=")[2].split()[0]


@asynccontextmanager
async def built(servers: Servers, template: str, name: str, redis_db: int) -> AsyncIterator[Town]:
    phone = WhatsApp(TOKEN, PHONE_ID, app_secret=SECRET)
    async with running(phone.app()) as url:
        told = {"whatsapp_phone_id": PHONE_ID, "whatsapp_access_token": TOKEN, "whatsapp_app_secret": SECRET}
        told |= {"whatsapp_api_url": f"{url}/v23.0"}
        async with own_world(servers, template, name, redis_db, gateway_timeout_ms=2000, **told) as world:
            phone.callback_url = f"{world.shop.deps.settings.public_url}/api/webhook/whatsapp"
            await world.pg.fetch("UPDATE channels SET quiet_ms = 0", ())
            world.app.state.channels.know(await conversations.channels(world.pg))
            yield Town(world, phone)
