"""Events over real HTTP: to whom, from where on, and how a stream ends."""

import asyncio

import pytest

from app import errors
from app.base import clock
from app.domain import events
from app.domain.events import Event
from app.flows import follow
from app.infra.pipe import Pipe
from app.infra.secrets import Session
from app.web import stream
from tests.tabs import PATIENCE_S
from tests.web.listening import Ann, refused, signed_in, streams, until
from tests.web.test_shop import problem
from tests.world import World

# ---- what is told


async def test_an_event_is_told_as_it_happens(ann: Ann) -> None:
    tab = await ann.tab()
    assert (tab.status, tab.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert (tab.headers["cache-control"], tab.headers["x-accel-buffering"]) == ("no-store", "no")
    (ready,) = await tab.events(1)
    assert ready.kind == "ready"
    assert 2000 <= tab.retry_ms < 3000
    (event_id,) = await ann.publish(order_id="abc", status="paid")
    _, told = await tab.events(2)
    assert (told.kind, told.event_id()) == ("message", event_id)
    assert b'"data":{"order_id":"abc","status":"paid"}' in told.data
    assert b'"at":"20' in told.data


async def test_every_tab_of_a_user_is_told_the_same_and_nobody_elses(ann: Ann, world: World) -> None:
    tabs = [await ann.tab() for _ in range(3)]
    async with signed_in(world, 1002) as bob:
        his = await bob.tab()
        of_ann, of_bob = await ann.publish(5), await bob.publish(2)
        assert [await tab.ids(5) for tab in tabs] == [of_ann] * 3
        assert await his.ids(2) == of_bob
        assert len({tuple(tab.said[1:]) for tab in tabs}) == 1  # the same bytes, under the same names
        assert len(his.said) == 3


async def test_what_was_missed_comes_first_and_once(ann: Ann) -> None:
    tab = await ann.tab()
    await tab.events(1)
    for how in ("last_id", "header"):
        tab.reset()
        ids = await ann.publish(250)
        tab = await ann.tab(**{how: tab.last_id()})
        ids += await ann.publish(3)
        assert [one.event_id() for one in await tab.events(253)] == ids
        assert len(tab.said) == 253


async def test_the_header_is_newer_than_the_url(ann: Ann) -> None:
    first = await ann.tab()
    ids = await ann.publish(2)
    names = [one.id for one in await first.events(3)]
    again = await ann.tab(last_id=names[0], header=names[1])
    assert [one.event_id() for one in await again.events(1)] == ids[1:]


@pytest.mark.parametrize("how", ["last_id", "header"])
async def test_an_id_that_says_nothing_is_a_reset(ann: Ann, how: str) -> None:
    await ann.publish(2)
    for last_id in ("nonsense", "0", "99-00000000", "%00%FF", "x" * 2000, "1-00000000", "-", "1-%C3%BC"):
        tab = await ann.tab(**{how: last_id})
        (told,) = await tab.events(1)
        assert told.kind == "reset"
        assert told.id.encode() == await events.newest(ann.world.shop.deps.redis, ann.user_id)
        ids = await ann.publish()
        assert await tab.ids(1) == ids
        tab.reset()
        await until(lambda: streams(ann.world).open == 0)


async def test_an_id_older_than_the_log_is_a_reset(ann: Ann, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "KEEP", 10)
    tab = await ann.tab()
    (ready,) = await tab.events(1)
    await ann.publish(30)
    names = [one.id for one in await tab.events(31)]
    for name, kind in ((ready.id, "reset"), (names[20], "reset"), (names[21], "message")):
        again = await ann.tab(last_id=name)
        assert (await again.events(1))[0].kind == kind


async def test_after_a_flush_every_stream_is_reset_and_goes_on(ann: Ann) -> None:
    tab = await ann.tab()
    await ann.publish(2)
    before = (await tab.events(3))[-1].id
    await ann.world.shop.deps.redis.command("FLUSHALL")
    await ann.publish()
    assert (await tab.events(4))[-1].kind == "reset"
    ids = await ann.publish(2)
    assert [one.event_id() for one in (await tab.events(6))[4:]] == ids
    assert (await (await ann.tab(last_id=before)).events(1))[0].kind == "reset"


async def test_a_quiet_stream_shows_that_it_lives(ann: Ann, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "HEARTBEAT_S", 0.02)
    tab = await ann.tab()
    await until(lambda: tab.comments >= 3)
    ids = await ann.publish()
    assert await tab.ids(1) == ids


async def test_a_burst_is_told_whole(ann: Ann) -> None:
    tabs = [await ann.tab() for _ in range(2)]
    redis, count = ann.world.shop.deps.redis, 3 * follow.MOST_WAITING
    burst = [Event(id=f"burst:{n}", type="t", at=clock.now(), data={"text": "x" * 200}) for n in range(count)]
    await asyncio.gather(*(events.publish(redis, [ann.user_id], event) for event in burst))
    assert [await tab.ids(count) for tab in tabs] == [[event.id for event in burst]] * 2


# ---- to whom


async def test_nobody_listens_without_a_session(ann: Ann) -> None:
    forged = f"{ann.token[:-4]}AAAA"
    for how in ({"token": ""}, {"token": forged}, {"ticket": "0" * 32}, {"ticket": "%00%FF"}, {"ticket": ann.token}):
        await refused(await ann.tab(**how), errors.BadToken)
    problem(await ann.world.http.post("/api/events/ticket"), errors.BadToken)
    assert streams(ann.world).open == 0


async def test_a_ticket_opens_one_stream_of_its_own_user(ann: Ann, world: World) -> None:
    ticket = await ann.ticket()
    both = await asyncio.gather(ann.tab(ticket=ticket), ann.tab(ticket=ticket))
    assert sorted(tab.status for tab in both) == [200, 401]
    ids = await ann.publish()
    (open_one,) = [tab for tab in both if tab.status == 200]
    assert await open_one.ids(1) == ids


async def test_a_ticket_is_short_lived(ann: Ann) -> None:
    ticket = await ann.ticket()
    redis = ann.world.shop.deps.redis
    (kept,) = [name for name in await names(redis) if name.startswith("{ticket:")]
    left_ms = await redis.command("PTTL", kept)
    assert isinstance(left_ms, int)
    assert 20_000 < left_ms <= 30_000
    await redis.command("PEXPIRE", kept, 1)
    await asyncio.sleep(0.01)
    await refused(await ann.tab(ticket=ticket), errors.BadToken)


async def names(redis: Pipe) -> list[str]:
    found = await redis.command("KEYS", "*")
    assert isinstance(found, list)
    return [name.decode() for name in found]


async def test_the_end_of_the_session_is_the_end_of_the_stream(ann: Ann) -> None:
    tokens = ann.world.shop.deps.tokens
    assert tokens
    tab = await ann.tab(token=tokens.issue(Session(ann.user_id, "buyer", clock.unix_s() + 2)))
    ids = await ann.publish()
    assert await tab.ids(1) == ids
    assert await tab.gone()  # to its proper end


# ---- how many, and what is left of them


async def test_a_user_has_so_many_streams(ann: Ann, world: World) -> None:
    tabs = [await ann.tab() for _ in range(follow.MOST_OF_USER)]
    seventh = await ann.tab()
    await refused(seventh, errors.Busy)
    assert int(seventh.headers["retry-after"]) > 0
    async with signed_in(world, 1002) as bob:
        assert (await bob.tab()).status == 200
        assert streams(world).open == follow.MOST_OF_USER + 1
        bob.tabs[0].reset()
        tabs[0].reset()
        await until(lambda: streams(world).open == follow.MOST_OF_USER - 1)
    again = await ann.tab()
    ids = await ann.publish()
    assert await again.ids(1) == ids


async def test_a_process_has_so_many_streams(ann: Ann) -> None:
    streams(ann.world)._most = 2
    assert [(await ann.tab()).status for _ in range(3)] == [200, 200, 503]


async def test_whoever_vanishes_leaves_nothing(ann: Ann) -> None:
    await (await ann.tab()).events(1)
    ann.tabs.pop().reset()
    await until(lambda: streams(ann.world).open == 0)
    before = len(asyncio.all_tasks())
    tabs = [await ann.tab() for _ in range(follow.MOST_OF_USER)]
    assert len(asyncio.all_tasks()) > before
    for tab in tabs[::2]:
        tab.reset()
    for tab in tabs[1::2]:
        tab.transport.close()
    await until(lambda: streams(ann.world).open == 0)
    await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_a_slow_reader_is_dropped_and_the_others_do_not_feel_it(
    ann: Ann, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(stream, "STALL_S", 0.3)
    quick, slow = await ann.tab(), await ann.tab(receive_bytes=4096)
    await slow.events(1)
    slow.transport.pause_reading()
    ids: list[str] = []
    async with asyncio.timeout(PATIENCE_S):
        while streams(ann.world).open == 2:
            ids += await ann.publish(10, text="x" * 15_000)
            assert (await quick.ids(len(ids)))[-1] == ids[-1]
    slow.transport.resume_reading()
    assert not await slow.gone()  # what it had not taken is thrown away
    took = [one.event_id() for one in slow.said[1:]]
    assert took == ids[: len(took)]
    assert len(took) < len(ids)
    again = await ann.tab(header=slow.last_id())
    left = ids[len(took) :]
    assert [one.event_id() for one in await again.events(len(left))] == left
    assert [record for record in caplog.records if record.name == "uvicorn.error" and record.levelname == "ERROR"] == []


async def test_a_server_that_leaves_ends_its_streams_and_opens_none(ann: Ann) -> None:
    tabs = [await ann.tab() for _ in range(3)]
    streams(ann.world).close()
    assert [await tab.gone() for tab in tabs] == [True] * 3
    await refused(await ann.tab(), errors.Busy)
