"""The whole way: Telegram calls our webhook, the message waits in its buffer, a worker answers, an offer is bought."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.infra.embedded import Servers
from app.infra.sql import Postgres
from app.sandbox.telegram_wire import BotFault, Say
from tests.bot.chat import Chat
from tests.web.listening import until
from tests.world import World
from workers.talk import Talk

SECRET = "webhook-secret_of-the-tests-0123456789"


@pytest.fixture
async def world(pg: Postgres, pg_url: str, servers: Servers, redis: Any) -> AsyncIterator[World]:
    await pg.fetch("INSERT INTO channels (kind, external_id, quiet_ms) VALUES ('telegram', '1234567890', 50)", ())
    async with World.opened(pg_url, servers.redis_url, telegram_webhook_secret=SECRET) as opened:
        assert opened.telegram.set_webhook(
            {"url": f"{opened.shop.deps.settings.public_url}/api/webhook", "secret_token": SECRET}
        )
        yield opened


@asynccontextmanager
async def working(world: World) -> AsyncIterator[None]:
    """A worker's conversations."""
    talk, told = Talk(world.shop.deps.settings), asyncio.Event()
    task = asyncio.create_task(talk.work(world.shop, told))
    try:
        yield
    finally:
        told.set()
        talk.wake()
        await task


async def said(world: World, count: int) -> dict[str, Any]:
    """The newest of so many messages to Ann."""
    await until(lambda: len(world.telegram.sent_to(1001)) >= count)
    return world.telegram.sent_to(1001)[-1]


async def test_a_question_is_answered_with_an_offer_that_is_bought(world: World, ann: Chat) -> None:
    await world.product("KEY-1", title="Chess for two")
    async with working(world):
        await world.telegram.say(Say(chat_id=1001, text="/start"))
        assert (await said(world, 1))["text"].startswith("Hello, Ann!")
        await world.telegram.say(Say(chat_id=1001, text="do you have chess?"))
        assert "Chess for two" in (await said(world, 2))["text"]
        assert world.telegram.entries(name="sendChatAction")[0].given["action"] == "typing"  # in the webhook's answer
        (offer,) = ann.data()
        await world.telegram.say(Say(chat_id=1001, data=offer))
        await said(world, 3)
        assert world.telegram.entries(name="answerCallbackQuery")
        invoice = ann.buttons()[0]["url"].rpartition("i=")[2]
        await world.crystalpay.pay(invoice)
        await world.drain()
        assert "KEY-1" in (await said(world, 4))["text"]


async def test_an_update_that_comes_twice_is_answered_once(world: World) -> None:
    async with working(world):
        update = {"message": world.telegram.written(Say(chat_id=1001, text="/help")), "update_id": 77}
        for _ in range(3):
            assert (await world.telegram.push_update(update)).status == 200
        await said(world, 1)
        await world.telegram.say(Say(chat_id=1001, text="/nothing"))
        assert (await said(world, 2))["text"].startswith("I do not know")
    assert len(world.telegram.sent_to(1001)) == 2


async def test_where_drafts_are_refused_the_answer_is_one_message(world: World) -> None:
    await world.product("KEY-1", title="Chess for two")
    world.telegram.faults.append(BotFault(on="sendMessageDraft", status=404, times=None))
    async with working(world):
        await world.telegram.say(Say(chat_id=1001, text="chess"))
        await until(lambda: "Chess for two" in str(world.telegram.sent_to(1001)))
        await until(lambda: bool(world.telegram.sent_to(1001)[-1].get("reply_markup")))
    assert len(world.telegram.sent_to(1001)) == 1
