"""Events while Redis is away, forgets, or loses a word: nothing is missed, and nothing told twice."""

from contextlib import aclosing
from typing import Any

import pytest

from app import errors
from app.base import clock, keys
from app.domain import events
from app.flows import follow
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.infra.secrets import Session
from tests.infra.one_redis import Server
from tests.web.listening import Ann, refused, streams, until, until_served
from tests.web.test_shop import problem


async def test_without_redis_nobody_listens_and_everybody_is_told(outage: tuple[Server, Ann]) -> None:
    server, ann = outage
    server.kill()
    await refused(await ann.tab(), errors.RedisDown)
    await refused(await ann.tab(ticket="0" * 32), errors.RedisDown)
    problem(await ann.world.http.post("/api/events/ticket", headers=ann.buyer.headers), errors.RedisDown)
    assert streams(ann.world).open == 0
    server.start()
    await until_served(ann)


async def test_a_stream_outlives_redis_and_misses_nothing(
    outage: tuple[Server, Ann], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "RETRY_S", 0.05)
    server, ann = outage
    tab = await ann.tab()
    ids = await ann.publish(3)
    assert await tab.ids(3) == ids
    server.kill()
    server.start()  # empty: what it knew is lost, and nobody pretends
    await until_served(ann)
    assert (await tab.events(5))[-1].kind == "reset"
    ids = await ann.publish(3)
    assert [one.event_id() for one in (await tab.events(8))[5:]] == ids


async def test_a_lost_connection_loses_nothing(ann: Ann) -> None:
    tab, redis, ids = await ann.tab(), ann.world.shop.deps.redis, []
    for _ in range(20):
        ids += await ann.publish()
        await redis.command("CLIENT", "KILL", "TYPE", "pubsub")
        ids += await ann.publish(3)
    assert await tab.ids(80) == ids
    assert len(tab.said) == 81


async def test_a_word_that_was_lost_is_looked_up(ann: Ann) -> None:
    """Published without anybody hearing of it, as when the bell of another script fails."""
    tab = await ann.tab()
    await tab.events(1)
    heard = streams(ann.world)._heard
    streams(ann.world)._listener.on_message = lambda *_: None
    lost = await ann.publish(2)
    streams(ann.world)._listener.on_message = heard
    last = await ann.publish()
    assert await tab.ids(3) == lost + last


@pytest.mark.parametrize("call", ["newest", "since"])
async def test_what_happens_while_a_stream_begins_is_told(ann: Ann, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """It is heard before Redis' answer to an earlier question, which does not know of it."""
    asked, ids = getattr(events, call), await ann.publish()
    name = await events.newest(ann.world.shop.deps.redis, ann.user_id)

    async def answered_late(*args: Any, **more: Any) -> Any:
        answer = await asked(*args, **more)
        monkeypatch.setattr(events, call, asked)
        ids[:] = await ann.publish()
        (reader,) = streams(ann.world)._readers[keys.events(ann.user_id).encode()]
        await until(lambda: reader._missed)
        return answer

    monkeypatch.setattr(events, call, answered_late)
    tab = await ann.tab(last_id=name.decode() if call == "since" else "")
    told = await tab.events(1 if call == "since" else 2)
    assert told[-1].event_id() == ids[0]


async def test_a_reader_takes_nothing_twice(ann: Ann) -> None:
    tab = await ann.tab()
    ids = await ann.publish(2)
    names = [one.id.encode() for one in await tab.events(3)]
    channel = keys.events(ann.user_id).encode()
    for name, before in ((names[2], names[1]), (names[1], names[0]), (b"9-00000000", b"8-00000000")):
        streams(ann.world)._heard(channel, b"%b %b {}" % (name, before))
    ids += await ann.publish()
    assert await tab.ids(3) == ids
    assert len(tab.said) == 4


async def test_streams_that_are_closed_leave_no_connection(servers: Servers, redis: Pipe) -> None:
    session = Session(7, "buyer", clock.unix_s() + 60)
    async with aclosing(follow.Streams(redis, servers.redis_url)) as several:
        async with several.joined(session) as reader:
            assert await reader.begin(b"")
            assert await redis.command("PUBSUB", "CHANNELS") == [keys.events(7).encode()]
        several.close()
        with pytest.raises(errors.Busy):
            async with several.joined(session):
                pass
