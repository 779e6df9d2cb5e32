"""The event scripts: a chain of entries that is never doubled, and a past that is known or said to be lost."""

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

import msgspec
import pytest

from app.base import clock, keys
from app.domain import events
from app.domain.events import Event, Published, Repeated, Reset, Rest
from app.infra.embedded import Servers
from app.infra.listener import Listener
from app.infra.lua import Redis, ScriptFailed
from app.infra.pipe import Pipe
from app.infra.secrets import Session
from tests.lua.measure import check_life, commands_run, everything, stated

USER, OTHER = 7, 8
AT = datetime(2026, 11, 22, 10, 30, tzinfo=UTC)
STREAM = keys.events(USER)


def event(n: int = 1, **data: object) -> Event:
    return Event(id=f"order:{n}", type="order.status", at=AT, data={"order_id": "abc", **data})


def session(user_id: int = USER, life_s: int = 3600) -> Session:
    return Session(user_id, "buyer", clock.unix_s() + life_s)


async def publish(store: Redis, n: int = 1, user_id: int = USER) -> bytes:
    """The name of the new entry."""
    (published,) = await events.publish(store, [user_id], event(n))
    assert isinstance(published, Published)
    return published.name


async def rest(store: Redis, name: bytes, most: int = 1000) -> list[str]:
    """The ids of what came after the entry of this name."""
    found = await events.since(store, USER, name, most=most)
    assert isinstance(found, Rest)
    return [msgspec.json.decode(one, type=Event).id for one in found.entries[1::2]]


async def test_what_is_published_is_found_in_its_order(store: Redis) -> None:
    start = await events.newest(store, USER)
    names = [await publish(store, n) for n in (1, 2, 3)]
    found = await events.since(store, USER, start, most=10)
    assert isinstance(found, Rest)
    assert list(found.entries[::2]) == names
    assert msgspec.json.decode(found.entries[1], type=Event) == event(1)
    assert [name.partition(b"-")[0] for name in (start, *names)] == [b"1", b"2", b"3", b"4"]
    assert await rest(store, names[1]) == ["order:3"]
    assert await rest(store, names[2]) == []
    assert await events.newest(store, USER) == names[2]


async def test_a_second_one_of_the_same_id_is_none(store: Redis) -> None:
    start = await events.newest(store, USER)
    await publish(store)
    assert await events.publish(store, [USER], event(1, changed=True)) == [Repeated()]
    assert await rest(store, start) == ["order:1"]


async def test_every_user_has_a_stream_of_their_own(store: Redis) -> None:
    start = await events.newest(store, USER)
    both = await events.publish(store, [USER, OTHER, USER], event())
    assert [type(one) for one in both] == [Published, Published]
    assert await events.publish(store, [OTHER], event()) == [Repeated()]
    await publish(store, 2, OTHER)
    assert await rest(store, start) == ["order:1"]


async def test_a_page_is_as_long_as_asked_for(store: Redis) -> None:
    start = await events.newest(store, USER)
    for n in range(5):
        await publish(store, n)
    assert await rest(store, start, most=2) == ["order:0", "order:1"]
    assert await rest(store, start, most=5) == await rest(store, start, most=6)


async def test_an_entry_that_was_trimmed_is_not_known_any_more(store: Redis) -> None:
    names = []
    for n in range(5):
        args: list[bytes | str | int] = [b"{}", f"{n:08x}", 3, 60_000, 60_000]  # it keeps three
        one = await events.PUBLISH(store, keys=[STREAM, keys.event_mark(USER, str(n))], args=args)
        assert isinstance(one, Published)
        names.append(one.name)
    found = [await events.since(store, USER, name, most=10) for name in names]
    assert [isinstance(one, Reset) for one in found] == [True, True, False, False, False]
    assert isinstance(found[2], Rest)
    assert list(found[2].entries[::2]) == names[3:]


@pytest.mark.parametrize(
    "name",
    [b"", b"0", b"0-00000000", b"2-00000000", b"1-0000000", b"-", b"1", b"1-xyz", b"x" * 10_000, b"\xff\x00", b"1e9-1",
     b"999999999999999-abcdef01", b"9999999999999999-abcdef01", b"1-ABCDEF01", b" 1-00000000", b"1-00000000\n"],
)  # fmt: skip
async def test_a_name_that_is_none_is_a_reset(store: Redis, name: bytes) -> None:
    await publish(store)
    assert await events.since(store, USER, name, most=10) == Reset()


async def test_anothers_name_is_a_reset(store: Redis) -> None:
    await events.publish(store, [USER, OTHER], event())
    assert await events.since(store, USER, await events.newest(store, OTHER), most=10) == Reset()


async def test_after_a_flush_nothing_of_before_is_known(store: Redis) -> None:
    name = await publish(store)
    await store.command("FLUSHALL")
    assert await events.since(store, USER, name, most=10) == Reset()
    assert await publish(store, 2) != name  # the same number, and not the same entry
    assert await events.since(store, USER, name, most=10) == Reset()


async def test_entries_that_redis_lost_and_counted_again_do_not_pass_for_those_that_were_seen(store: Redis) -> None:
    """A failover, or a restart from an older file: the stream is there, without its last moments."""
    kept = await publish(store, 1)
    seen = await publish(store, 2)
    await store.command("XDEL", STREAM, "2-0")
    assert await events.since(store, USER, seen, most=10) == Reset()
    assert await rest(store, kept) == []
    await store.command("DEL", STREAM)
    await store.command("XADD", STREAM, "1-0", "token", kept.partition(b"-")[2], "event", b"{}")
    await store.command("XADD", STREAM, "2-0", "token", "ffffffff", "event", msgspec.json.encode(event(3)))
    await store.command("PEXPIRE", STREAM, 60_000)
    assert await events.since(store, USER, seen, most=10) == Reset()
    assert await rest(store, kept) == ["order:3"]
    assert await rest(store, b"2-ffffffff") == []


async def test_an_empty_stream_has_a_beginning_that_is_remembered(store: Redis) -> None:
    start = await events.newest(store, USER)
    assert await events.newest(store, USER) == start
    assert await rest(store, start) == []
    await publish(store)
    assert await rest(store, start) == ["order:1"]


async def test_a_ticket_is_for_one_use(store: Redis) -> None:
    for_seven, for_eight = await events.grant(store, session()), await events.grant(store, session(OTHER))
    redeemed = await asyncio.gather(*(events.redeem(store, for_seven) for _ in range(5)))
    assert [one.user_id for one in redeemed if one] == [USER]
    found = await events.redeem(store, for_eight)
    assert found
    assert (found.user_id, found.role) == (OTHER, "buyer")
    for none in ("", for_eight, "0" * 32, "\x00ü"):
        assert await events.redeem(store, none) is None


async def test_a_ticket_ends_with_its_session(store: Redis) -> None:
    assert await events.redeem(store, await events.grant(store, session(life_s=-1))) is None


async def test_redis_does_not_see_the_ticket(redis: Pipe) -> None:
    ticket = await events.grant(redis, session())
    kept = await everything(redis)
    assert len(kept) == 1
    assert all(ticket not in name and ticket.encode() not in value for name, value in kept.items())


async def test_everything_lives_as_long_as_the_map_says(redis: Pipe) -> None:
    await events.newest(redis, USER)
    await check_life(redis, STREAM, "{u:<user>}events")
    await redis.command("PEXPIRE", STREAM, 1000)
    await publish(redis)
    await check_life(redis, STREAM, "{u:<user>}events")
    await check_life(redis, keys.event_mark(USER, "order:1"), "{u:<user>}event:<event>")
    await events.grant(redis, session())
    (ticket,) = [name for name in await everything(redis) if name.startswith("{ticket")]
    await check_life(redis, ticket, "{ticket:<digest>}")


async def test_a_stream_keeps_so_many_and_no_more(redis: Pipe) -> None:
    await events.newest(redis, USER)
    for start in range(0, events.KEEP + 5, 100):
        await asyncio.gather(*(publish(redis, n) for n in range(start, start + 100)))
    assert await redis.command("XLEN", STREAM) == events.KEEP


async def test_whoever_listens_hears_an_event_once_with_its_name_and_the_one_before(
    redis: Pipe, servers: Servers
) -> None:
    said = asyncio.Queue[tuple[bytes, bytes]]()
    listener = Listener(servers.redis_url, on_message=lambda *told: said.put_nowait(told), on_back=lambda: None)
    async with aclosing(listener):
        await listener.listen(STREAM)
        first = await publish(redis, 1)
        await events.publish(redis, [USER, OTHER], event(1))
        second = await publish(redis, 2)
        heard = [await said.get() for _ in range(2)]
    assert said.empty()
    bodies = [msgspec.json.encode(event(n)) for n in (1, 2)]
    assert heard == [
        (STREAM.encode(), b"%b 0 %b" % (first, bodies[0])),
        (STREAM.encode(), b"%b %b %b" % (second, first, bodies[1])),
    ]


async def test_asking_cannot_write_and_a_repeat_changes_nothing(redis: Pipe) -> None:
    assert events.SINCE.read_only
    name = await publish(redis)
    before = await everything(redis)
    await events.since(redis, USER, name, most=10)
    await events.since(redis, OTHER, name, most=10)
    await events.publish(redis, [USER], event())
    await events.newest(redis, USER)
    assert await everything(redis) == before


async def test_an_event_that_is_too_long_is_refused_here(redis: Pipe) -> None:
    with pytest.raises(ValueError, match="order:1: "):
        await events.publish(redis, [USER], event(1, text="x" * events.MOST_BYTES))
    assert await everything(redis) == {}


async def test_a_stream_without_a_life_is_refused(redis: Pipe) -> None:
    with pytest.raises(ScriptFailed, match=r"events/grant: .*expire"):
        await events.GRANT(redis, keys=[keys.event_ticket("x")], args=[b"", 0])


async def test_each_costs_what_it_states(redis: Pipe) -> None:
    assert await commands_run(redis, events.newest(redis, USER)) == stated(events.OPEN).most()
    assert await commands_run(redis, events.newest(redis, USER)) <= stated(events.OPEN).most()
    assert await commands_run(redis, publish(redis)) == stated(events.PUBLISH).most()
    assert await commands_run(redis, events.publish(redis, [USER], event())) <= stated(events.PUBLISH).most()
    name = await events.newest(redis, USER)
    assert await commands_run(redis, events.since(redis, USER, name, most=9)) == stated(events.SINCE).most()
    ticket: list[str] = []

    async def grant() -> None:
        ticket.append(await events.grant(redis, session()))

    assert await commands_run(redis, grant()) == stated(events.GRANT).most()
    assert await commands_run(redis, events.redeem(redis, ticket[0])) == stated(events.REDEEM).most()
