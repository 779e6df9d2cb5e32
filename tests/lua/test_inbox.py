"""The inbox scripts: what Redis knows of an event, for how long, and at which cost."""

import asyncio

import pytest

from app.base import keys
from app.domain import inbox
from app.domain.inbox import Event, Fresh, Known
from app.infra import lua
from app.infra.lua import Redis, ScriptFailed
from app.infra.pipe import Pipe
from tests.lua.measure import check_life, commands_run, everything, stated

EVENT = Event(provider="crystalpay", key="inv-1:paid", invoice_id="inv-1", claims="paid")
OTHER = Event(provider="crystalpay", key="inv-2:paid", invoice_id="inv-2", claims="paid")
ELSEWHERE = Event(provider="yookassa", key="inv-1:paid", invoice_id="inv-1", claims="paid")
KEY = keys.event(EVENT.provider, EVENT.key)


async def mark(store: Redis) -> None:
    await inbox.mark(store, EVENT.provider, EVENT.key)


async def test_an_event_is_fresh_until_it_is_marked(store: Redis) -> None:
    assert await inbox.seen(store, EVENT) == Fresh()
    assert await inbox.seen(store, EVENT) == Fresh()  # looking marks nothing
    await inbox.mark(store, EVENT.provider, EVENT.key)
    assert await inbox.seen(store, EVENT) == Known()


async def test_events_are_told_apart_by_key_and_by_provider(store: Redis) -> None:
    await inbox.mark(store, EVENT.provider, EVENT.key)
    assert await inbox.seen(store, OTHER) == Fresh()
    assert await inbox.seen(store, ELSEWHERE) == Fresh()


async def test_marking_twice_is_marking_once(store: Redis) -> None:
    await inbox.mark(store, EVENT.provider, EVENT.key)
    await inbox.mark(store, EVENT.provider, EVENT.key)
    assert await inbox.seen(store, EVENT) == Known()


async def test_a_vanished_mark_is_fresh_again(store: Redis) -> None:
    await inbox.mark(store, EVENT.provider, EVENT.key)
    await store.command("FLUSHALL")
    assert await inbox.seen(store, EVENT) == Fresh()


async def test_a_mark_lives_as_long_as_its_row_says(redis: Pipe) -> None:
    await inbox.mark(redis, EVENT.provider, EVENT.key)
    await check_life(redis, KEY, "{e:<provider>:<event>}")
    await redis.command("PEXPIRE", KEY, 1000)
    await inbox.mark(redis, EVENT.provider, EVENT.key)  # marked anew, known anew
    await check_life(redis, KEY, "{e:<provider>:<event>}")


async def test_a_mark_ends(store: Redis) -> None:
    await inbox.MARK(store, keys=[KEY], args=[20])
    await asyncio.sleep(0.05)
    assert await inbox.seen(store, EVENT) == Fresh()


async def test_looking_cannot_write(redis: Pipe) -> None:
    assert inbox.SEEN.read_only
    await inbox.mark(redis, EVENT.provider, EVENT.key)
    before = await everything(redis)
    await inbox.seen(redis, EVENT)
    await inbox.seen(redis, OTHER)
    assert await everything(redis) == before


async def test_a_mark_without_a_life_is_refused(redis: Pipe) -> None:
    with pytest.raises(ScriptFailed, match=r"inbox/mark: .*expire"):
        await inbox.MARK(redis, keys=[KEY], args=[0])


async def test_a_crowd_of_repeats_learns_of_the_mark_at_once(redis: Pipe) -> None:
    await lua.load(redis, inbox.SCRIPTS)  # or the first call of each would go twice, and out of turn
    before = [inbox.seen(redis, EVENT) for _ in range(100)]
    after = [inbox.seen(redis, EVENT) for _ in range(100)]
    answers = await asyncio.gather(
        *before, inbox.mark(redis, EVENT.provider, EVENT.key), *after
    )  # one connection: in this order
    assert answers == [Fresh()] * 100 + [None] + [Known()] * 100


async def test_they_cost_what_they_state(redis: Pipe) -> None:
    assert stated(inbox.SEEN).exact
    assert stated(inbox.MARK).exact
    assert await commands_run(redis, inbox.seen(redis, EVENT)) == stated(inbox.SEEN).most()
    assert await commands_run(redis, inbox.mark(redis, EVENT.provider, EVENT.key)) == stated(inbox.MARK).most()
    assert await commands_run(redis, inbox.seen(redis, EVENT)) == stated(inbox.SEEN).most()
