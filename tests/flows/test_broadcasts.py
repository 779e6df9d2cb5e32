"""Messages to everybody: who has them, who cannot be told any more, and what goes first."""

import asyncio
import time
from typing import Any
from uuid import UUID

import httpx
import pytest

from app import errors
from app.base import clock
from app.errors import ProviderDown
from app.flows import broadcast
from app.infra.messenger import Sent
from app.infra.secrets import Session
from app.sandbox.telegram_wire import BotFault
from tests.flows.test_money import ordered, told
from tests.web.test_hooks import later
from tests.web.test_shop import problem
from tests.world import Buyer, World, settings_for
from workers import jobs

TEXTS = {"en": "News!", "ru": "Новости!"}
USERS = """
INSERT INTO users (telegram_id, name, language, created_at)
SELECT 100000 + n, 'Ann', CASE n % 3 WHEN 0 THEN 'ru' WHEN 1 THEN 'uk' ELSE 'de' END, now() - interval '1 hour'
  FROM generate_series(1, $1) n ORDER BY n RETURNING id"""


async def admin(world: World) -> Buyer:
    user = await world.buyer(1)
    user_id = await world.scalar("UPDATE users SET role = 'admin' WHERE telegram_id = 1 RETURNING id")
    assert world.shop.deps.tokens
    return Buyer(
        world.http, world.shop.deps.tokens.issue(Session(user_id, "admin", clock.unix_s() + 600)), user.telegram_id
    )


async def crowd(world: World, size: int) -> list[int]:
    """So many users, whose Telegram ids come back."""
    await world.pg.fetch(USERS, (size,))
    return [100_000 + n for n in range(1, size + 1)]


async def cry(by: Buyer, **more: Any) -> httpx.Response:
    return await by.http.post("/api/admin/broadcasts", json={"texts": TEXTS} | more, headers=by.headers)


async def move(by: Buyer, broadcast_id: int, state: str) -> httpx.Response:
    path = f"/api/admin/broadcasts/{broadcast_id}"
    return await by.http.patch(path, json={"state": state}, headers=by.headers)


async def shown(by: Buyer) -> dict[str, Any]:
    """The newest broadcast."""
    found: dict[str, Any] = (await by.get("/api/admin/broadcasts")).json()["broadcasts"][0]
    return found


def texts_of(world: World, chat_id: int) -> list[str]:
    return [str(message["text"]) for message in world.telegram.sent_to(chat_id)]


def arrived(world: World, chats: list[int]) -> int:
    return sum(len(texts_of(world, chat)) for chat in chats)


# ---- everybody


async def test_everybody_has_it_once_in_their_language(world: World) -> None:
    chats, boss = await crowd(world, 250), await admin(world)
    made = await cry(boss, texts=TEXTS | {"uk": "Новини!"})
    assert made.status_code == 201, made.text
    await crowd_joins_later(world)
    await world.drain()
    languages = [TEXTS["ru"], "Новини!", TEXTS["en"]]
    assert [texts_of(world, chat) for chat in chats] == [[languages[(chat - 100_000) % 3]] for chat in chats]
    assert texts_of(world, 999_999) == []
    end = await shown(boss)
    assert (end["state"], end["sent"], end["blocked"], end["failed"]) == ("done", 251, 0, 0)  # the admin is a user too
    assert end["ended_at"]
    assert end["texts"] == TEXTS | {"uk": "Новини!"}


async def crowd_joins_later(world: World) -> None:
    await world.pg.fetch("INSERT INTO users (telegram_id, name) VALUES (999999, 'Late')", ())


async def test_who_reads_ukrainian_has_the_english_text_when_there_is_no_other(world: World) -> None:
    (chat,), boss = await crowd(world, 1), await admin(world)
    await cry(boss)
    await world.drain()
    assert texts_of(world, chat) == ["News!"]


async def test_buyers_are_those_who_have_paid(world: World) -> None:
    buyer, _, invoice, _ = await ordered(world)
    lurker, _, _, _ = await ordered(world)
    await world.crystalpay.pay(invoice)
    await world.drain()
    await cry(await admin(world), audience="buyers")
    await world.drain()
    assert told(world, buyer)[-1] == "News!"
    assert told(world, lurker) == []
    assert (await world.scalar("SELECT sent FROM broadcasts")) == 1


async def test_many_turns_are_one_broadcast(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broadcast, "TURN_S", 0.0)
    chats, boss = await crowd(world, 7), await admin(world)
    await cry(boss)
    assert await world.drain() == 1 + 7 + 1  # one user each, the admin among them; the last finds nobody
    assert [len(texts_of(world, chat)) for chat in chats] == [1] * 7
    assert await world.scalar("SELECT attempts FROM outbox WHERE kind = 'broadcast'") <= 1


# ---- whom nothing reaches


async def test_who_stopped_the_bot_is_counted_once_and_left_alone_until_the_next_sign_in(world: World) -> None:
    chats, boss = await crowd(world, 5), await admin(world)
    world.telegram.blocked.add(chats[1])
    world.telegram.missing.add(chats[2])
    await cry(boss)
    await world.drain()
    end = await shown(boss)
    assert (end["sent"], end["blocked"]) == (4, 2)
    world.telegram.log.clear()
    await cry(boss, texts=TEXTS | {"en": "More!"})
    await world.drain()
    asked = [int(entry.given["chat_id"]) for entry in world.telegram.entries("request", "sendMessage")]
    assert sorted(asked) == sorted([1, chats[0], chats[3], chats[4]])
    world.telegram.blocked.clear()
    await world.buyer(chats[1])
    await cry(boss, texts=TEXTS | {"en": "Even more!"})
    await world.drain()
    assert texts_of(world, chats[1]) == ["Even more!"]


async def test_a_buyer_who_stopped_the_bot_has_the_goods_in_the_shop(world: World) -> None:
    buyer, order, invoice, _ = await ordered(world)
    world.telegram.blocked.add(buyer.telegram_id)
    await world.crystalpay.pay(invoice)
    await world.drain()
    assert await world.scalar("SELECT blocked_at IS NOT NULL FROM users WHERE telegram_id = $1", buyer.telegram_id)
    again, second, invoice, _ = await ordered(world)
    await world.pg.fetch("UPDATE orders SET user_id = (SELECT user_id FROM orders WHERE id = $1) WHERE id = $2",
                         (UUID(order), UUID(second)))  # fmt: skip
    world.telegram.log.clear()
    await world.crystalpay.pay(invoice)
    await world.drain()
    assert world.telegram.entries("request", "sendMessage") == []
    assert await world.scalar("SELECT count(*) FROM outbox WHERE kind = 'tell' AND state <> 'done'") == 0
    assert len(await buyer.goods(order)) == len(await buyer.goods(second)) == 1
    assert again.telegram_id != buyer.telegram_id


async def test_what_telegram_will_not_take_does_not_hold_up_the_others(world: World) -> None:
    chats, boss = await crowd(world, 4), await admin(world)
    world.telegram.faults.append(
        BotFault(on="sendMessage", chat_id=chats[0], status=400, description="Bad Request: no")
    )
    world.telegram.faults.append(BotFault(on="sendMessage", chat_id=chats[2], retry_after_s=3600))
    await cry(boss)
    await world.drain()
    assert [len(texts_of(world, chat)) for chat in chats] == [0, 1, 0, 1]
    end = await shown(boss)
    assert (end["state"], end["sent"], end["failed"]) == ("done", 3, 2)


async def test_when_telegram_fails_it_goes_on_at_the_same_user(world: World) -> None:
    chats, boss = await crowd(world, 4), await admin(world)
    world.telegram.faults += [
        BotFault(on="sendMessage", chat_id=chats[1], status=502),
        BotFault(on="sendMessage", chat_id=chats[3], retry_after_s=1),
    ]
    await cry(boss)
    await world.drain()
    assert [len(texts_of(world, chat)) for chat in chats] == [1, 0, 0, 0]
    async with asyncio.timeout(20):
        while (await shown(boss))["state"] != "done":
            await later(world)
    assert [len(texts_of(world, chat)) for chat in chats] == [1] * 4


# ---- what admins do


async def test_it_pauses_goes_on_and_ends_as_told(world: World) -> None:
    chats, boss = await crowd(world, 30), await admin(world)
    made = (await cry(boss)).json()
    world.telegram.faults.append(BotFault(on="sendMessage", chat_id=chats[9], hold_ms=60_000, after=True))
    running = asyncio.create_task(world.drain())
    await reached(world, chats, 10)
    assert (await move(boss, made["id"], "paused")).json()["state"] == "paused"
    world.telegram.faults.clear()
    running.cancel()  # a worker that stops: the message on its way counts only if its answer comes
    await asyncio.gather(running, return_exceptions=True)
    await world.drain()
    assert arrived(world, chats) == 10
    assert (await move(boss, made["id"], "paused")).json()["state"] == "paused"
    assert (await move(boss, made["id"], "running")).json()["state"] == "running"
    await world.drain()
    assert [len(texts_of(world, chat)) for chat in chats] == [1] * 9 + [2] + [1] * 20  # its answer never came
    assert problem(await move(boss, made["id"], "paused"), errors.Conflict)["state"] == "done"


async def test_a_pause_is_heard_between_two_messages(world: World) -> None:
    chats, boss = await crowd(world, 40), await admin(world)
    made = (await cry(boss)).json()
    for turn in (6, 15, 24):
        world.telegram.faults.append(BotFault(on="sendMessage", chat_id=chats[turn - 1], hold_ms=150, after=True))
        running = asyncio.create_task(world.drain())
        await reached(world, chats, turn)
        await move(boss, made["id"], "paused")
        await running
        assert (await shown(boss))["sent"] == arrived(world, chats) == turn
        assert await world.scalar("SELECT state FROM outbox WHERE kind = 'broadcast'") == "done"
        await move(boss, made["id"], "running")
    await world.drain()
    assert [len(texts_of(world, chat)) for chat in chats] == [1] * 40


async def test_however_often_it_pauses_and_goes_on_everybody_has_it_once(world: World) -> None:
    chats, boss = await crowd(world, 150), await admin(world)
    made = (await cry(boss)).json()

    async def waver() -> None:
        for _ in range(12):
            await move(boss, made["id"], "paused")
            await move(boss, made["id"], "running")

    wavering = asyncio.create_task(waver())
    while not wavering.done():
        await world.drain()
        await asyncio.sleep(0)
    await wavering
    await world.drain()  # the last word was to go on, or it was over before
    assert [len(texts_of(world, chat)) for chat in chats] == [1] * 150
    assert (await shown(boss))["state"] == "done"


async def reached(world: World, chats: list[int], count: int) -> None:
    async with asyncio.timeout(20):
        while arrived(world, chats) < count:  # noqa: ASYNC110  (what is waited for is in the simulator)
            await asyncio.sleep(0.005)


async def test_a_cancelled_one_never_goes_on(world: World) -> None:
    chats, boss = await crowd(world, 3), await admin(world)
    made = (await cry(boss)).json()
    assert (await move(boss, made["id"], "cancelled")).json()["state"] == "cancelled"
    await world.drain()
    assert arrived(world, chats) == 0
    problem(await move(boss, made["id"], "running"), errors.Conflict)
    assert await world.scalar("SELECT count(*) FROM outbox WHERE kind = 'broadcast' AND state <> 'done'") == 0


async def test_the_trail_has_it_and_the_same_twice_is_refused(world: World) -> None:
    await crowd(world, 1)
    boss = await admin(world)
    made = (await cry(boss)).json()
    problem(await cry(boss), errors.Conflict)
    assert (await cry(boss, audience="buyers")).status_code == 201
    await move(boss, made["id"], "cancelled")
    assert (await cry(boss)).status_code == 201  # that one is over
    trail = [change["what"] for change in (await boss.get("/api/admin/changes")).json()["changes"]]
    assert [change["state"] for change in reversed(trail)] == [
        {"old": None, "new": "running"}, {"old": None, "new": "running"}, {"old": "running", "new": "cancelled"},
        {"old": None, "new": "running"},
    ]  # fmt: skip
    assert trail[-1]["texts"]["new"] == TEXTS


@pytest.mark.parametrize("body", [
    {"texts": {"en": "x"}}, {"texts": TEXTS | {"de": "x"}}, {"texts": TEXTS | {"en": " \n"}},
    {"texts": TEXTS | {"en": "x" * 4097}}, {"texts": TEXTS | {"ru": "\U0001f600" * 2049}},
    {"texts": TEXTS | {"en": "a\0b"}},
    {"texts": TEXTS, "audience": "nobody"}, {},
])  # fmt: skip
async def test_a_text_that_cannot_be_sent_is_refused(world: World, body: dict[str, Any]) -> None:
    boss = await admin(world)
    problem(await boss.http.post("/api/admin/broadcasts", json=body, headers=boss.headers), errors.Malformed)
    assert await world.scalar("SELECT count(*) FROM broadcasts") == 0


async def test_only_admins_write_to_everybody(world: World) -> None:
    buyer = await world.buyer(7)
    user_id = await world.scalar("SELECT id FROM users WHERE telegram_id = 7")
    assert world.shop.deps.tokens
    stale = Buyer(world.http, world.shop.deps.tokens.issue(Session(user_id, "admin", clock.unix_s() + 60)), 7)
    for user in (buyer, stale):  # a token from before a demotion grants nothing
        problem(await cry(user), errors.Forbidden)
        problem(await move(user, 1, "paused"), errors.Forbidden)
    assert (await stale.get("/api/admin/broadcasts")).json()["broadcasts"] == []
    for path in ("broadcasts", "circuits"):
        problem(await buyer.get(f"/api/admin/{path}"), errors.Forbidden)
    problem(await move(await admin(world), 77, "paused"), errors.NotFound)


# ---- news first


async def test_news_overtakes_a_broadcast(pg_url: str, servers: Any, redis: Any) -> None:
    """At the pace that Telegram asks for: what is told about an order waits for one message, not for all of them."""
    async with World.opened(pg_url, servers.redis_url, telegram_pace="", job_timeout_s=30) as world:
        chats, boss = await crowd(world, 60), await admin(world)
        await cry(boss)
        began_ms = time.time() * 1000
        outbox_id = await world.scalar("SELECT id FROM outbox WHERE kind = 'broadcast'")
        running = asyncio.create_task(jobs.run(world.shop, outbox_id))
        await reached(world, chats, 5)
        before = arrived(world, chats)
        assert world.shop.deps.messenger
        sent = await asyncio.gather(*(world.shop.deps.messenger.send(5000 + n, "at once") for n in range(10)))
        assert sent == [Sent.DELIVERED] * 10
        assert arrived(world, chats) - before <= 2
        assert not running.done()
        await running
        assert arrived(world, chats) == 60
        moments = [entry.at_ms for entry in world.telegram.entries("request", "sendMessage")
                   if int(entry.given["chat_id"]) in chats]  # fmt: skip
        assert moments[-1] - began_ms >= 59 * 50 * 0.9  # 20 a second


async def test_two_processes_keep_one_pace_and_obey_what_one_of_them_was_told(
    pg_url: str, servers: Any, redis: Any
) -> None:
    from app.infra.telegram import bot
    from app.shop import opened

    async with World.opened(pg_url, servers.redis_url, telegram_pace="") as world:
        settings = settings_for(
            pg_url, servers.redis_url, telegram_pace="", telegram_api_url=world.shop.deps.settings.telegram_api_url
        )
        async with opened(settings, bot(settings)) as other:
            one, two = world.shop.deps.messenger, other.deps.messenger
            assert one
            assert two
            began_ms = time.time() * 1000
            await asyncio.gather(*(by.send(9000 + n, "x") for n in range(14) for by in (one, two)))
            moments = [entry.at_ms for entry in world.telegram.entries("request", "sendMessage")]
            assert len(moments) == 28
            assert moments[-1] - began_ms >= 27 * 33 * 0.9  # 30 a second in all

            world.telegram.faults.append(BotFault(on="sendMessage", chat_id=7, retry_after_s=30))
            for by, whose in ((one, "chat"), (two, "chat")):
                with pytest.raises(ProviderDown) as caught:
                    await by.send(7, "x")
                assert caught.value.facts["whose"] == whose
                assert (caught.value.retry_after_s or 0) in (29, 30)
            assert [e.status for e in world.telegram.entries("request", "sendMessage")][28:] == [429]  # asked once
            assert await two.send(8, "x") is Sent.DELIVERED

            world.telegram.faults.append(BotFault(on="sendMessage", chat_id=8, retry_after_s=30))
            with pytest.raises(ProviderDown, match="asks to wait"):
                await two.send(8, "x")
            with pytest.raises(ProviderDown) as caught:
                await one.send(10, "x")  # the second chat that was told to wait: it is the bot
            assert caught.value.facts["whose"] == "bot"
            assert len(world.telegram.entries("request", "sendMessage")) == 31
