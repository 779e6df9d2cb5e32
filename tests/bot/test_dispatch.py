"""A command is answered at most once, whoever dies in between; what surely was not sent comes again."""

import asyncio
from typing import Any

import msgspec
import pytest

from app.base import ending
from app.base.ids import new_id
from app.bot import dispatch
from app.domain.buffers import Batch, Heard
from app.errors import ProviderDown
from app.sandbox.telegram_wire import BotFault
from tests.bot.chat import Chat
from tests.flows.talking import Gate
from tests.world import World

TURN = "SELECT state, sending_at IS NOT NULL AS claimed, sent_at IS NOT NULL AS sent FROM turns"


async def asking(ann: Chat, text: str = "/help") -> Batch:
    return await ann.batched(text)


async def turns(world: World) -> list[tuple[str, bool, bool]]:
    return [tuple(row) for row in await world.pg.fetch(TURN, ())]


async def test_a_batch_that_comes_again_is_not_answered_again(world: World, ann: Chat) -> None:
    batch = await asking(ann)
    await asyncio.gather(*(ann.feed(batch) for _ in range(4)))
    await ann.feed(batch)
    assert len(ann.texts()) == 1
    assert await turns(world) == [("noted", True, True)]


async def test_what_may_have_arrived_is_not_sent_again(world: World, ann: Chat) -> None:
    batch = await asking(ann)
    world.telegram.faults.append(BotFault(on="sendMessage", status=502, after=True))
    await ann.feed(batch)
    await ann.feed(batch)
    assert len(ann.texts()) == 1
    assert await turns(world) == [("noted", True, False)]


async def test_what_surely_did_not_arrive_comes_again(world: World, ann: Chat) -> None:
    batch = await asking(ann)
    world.telegram.faults.append(BotFault(on="sendMessage", retry_after_s=30))
    for _ in range(2):  # the second time the pace itself says no
        with pytest.raises(ProviderDown):
            await ann.feed(batch)
        assert await turns(world) == [("noted", False, False)]
    await world.shop.deps.redis.command("FLUSHALL")  # and with it the pause
    await ann.feed(batch)
    await ann.feed(batch)
    assert len(ann.texts()) == 1


async def test_a_short_wait_is_waited_for(world: World, ann: Chat) -> None:
    world.telegram.faults.append(BotFault(on="sendMessage", retry_after_s=1))
    await ann.writes("/help")
    assert len(ann.texts()) == 1
    assert await turns(world) == [("noted", True, True)]


async def test_a_handed_over_conversation_that_was_not_told_is_told_later(world: World, ann: Chat) -> None:
    batch = await asking(ann, "/support")
    world.telegram.faults.append(BotFault(on="sendMessage", retry_after_s=30))
    with pytest.raises(ProviderDown):
        await ann.feed(batch)
    world.telegram.faults.clear()
    await world.shop.deps.redis.command("FLUSHALL")  # and with it the pause
    await ann.feed(batch)
    await ann.feed(batch)
    assert ann.texts() == ["A human answers here as soon as possible."]
    assert await world.scalar("SELECT count(*) FROM outbox WHERE kind = 'escalate'") == 1


async def test_who_has_stopped_the_bot_is_retired_and_costs_no_retry(world: World, ann: Chat) -> None:
    world.telegram.blocked.add(ann.chat_id)
    await ann.writes("/help")
    assert await world.scalar("SELECT blocked_at IS NOT NULL FROM users WHERE telegram_id = $1", ann.chat_id)
    world.telegram.blocked.clear()
    await ann.writes("/help")
    assert await world.scalar("SELECT blocked_at IS NULL FROM users WHERE telegram_id = $1", ann.chat_id)


async def test_an_update_of_no_known_shape_is_nothing(world: World, ann: Chat) -> None:
    channel_id = await ann.channel()
    for raw in ("", "null", "[]", "{}", '{"update_id":1}', '{"update_id":1,"message":{"text":"/help"}}'):
        heard = [Heard("u1", 1, raw=raw)]
        await ann.feed(Batch(id=new_id(), channel_id=channel_id, peer="1001", tries=1, heard=heard))
    assert ann.texts() == []
    assert await turns(world) == []


async def test_a_channel_that_is_off_or_unknown_is_silent(world: World, ann: Chat) -> None:
    batch = await asking(ann)
    await ann.feed(msgspec.structs.replace(batch, channel_id=4711))
    await world.pg.fetch("UPDATE channels SET active = false", ())
    await ann.feed(batch)
    assert ann.texts() == []


async def test_several_of_one_batch_are_each_answered(world: World, ann: Chat) -> None:
    one, two = await asking(ann), await asking(ann, "/nothing")
    both = msgspec.structs.replace(one, heard=[*one.heard, *two.heard])
    await ann.feed(both)
    await ann.feed(both)
    assert len(ann.texts()) == 2


async def test_a_reply_waits_for_its_chats_pace(world: World, ann: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def told(chat_id: int) -> None:
        if len(waited) < 2:
            waited.append(0)
            raise ProviderDown("the chat has said enough for now", retry_after_s=1, whose="chat")

    messenger: Any = world.shop.deps.messenger
    monkeypatch.setattr(messenger, "turn", told)
    monkeypatch.setattr(dispatch, "PATIENCE_S", 10)
    await ann.writes("/help")
    assert len(ann.texts()) == 1


async def test_a_worker_that_stops_lets_a_reply_leave(world: World, ann: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    messenger: Any = world.shop.deps.messenger
    gate = Gate(messenger.turn)
    monkeypatch.setattr(messenger, "turn", gate)
    await gate.cut(ann.feed(await asking(ann)))
    assert len(ann.texts()) == 1


async def test_a_worker_that_stops_gives_up_a_reply_that_waits_for_its_place(
    world: World, ann: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def told(chat_id: int) -> None:
        asked.set()
        raise ProviderDown("the chat has said enough for now", retry_after_s=4, whose="chat")

    batch = await asking(ann)
    with monkeypatch.context() as patch:
        messenger: Any = world.shop.deps.messenger
        patch.setattr(messenger, "turn", told)
        patch.setattr(ending, "GOODBYE_S", 0.05)
        patch.setattr(ending, "LAST_S", 10)
        answering = asyncio.create_task(ann.feed(batch))
        await asked.wait()
        answering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answering
    await ann.feed(batch)
    assert len(ann.texts()) == 1
