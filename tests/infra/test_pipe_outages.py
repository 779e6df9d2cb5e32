"""The shared connection while its server is killed, frozen, dead or slow, and when it is back, on both event loops."""

import asyncio
import itertools
import random
import time
from contextlib import suppress
from typing import Any

import pytest
import uvloop

from app.errors import RedisDown
from app.infra import lua, pipe
from app.infra.link import Link
from app.infra.lua import Script
from app.infra.pipe import Pipe
from tests.infra.one_redis import PATIENCE_S, Dial, Echoed, Server, bytes_of, settled, slow_peer, until

# pytest-asyncio wants a hook instead, which only a conftest may have; there it would double every test of the folder.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture:DeprecationWarning")


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> object:
    return request.param()


@pytest.fixture
def redis(dial: Dial) -> Pipe:
    return dial()


async def test_killed_in_flight_fails_and_the_next_server_is_used(
    server: Server, redis: Pipe, echo: Script[Echoed]
) -> None:
    await lua.load(redis, [echo])
    server.freeze()
    calls = [asyncio.create_task(echo(redis, ["{t}calls"], [n])) for n in range(200)]
    await asyncio.sleep(0.05)
    server.kill()
    outcomes = await settled(*calls)
    assert {type(outcome) for outcome in outcomes} == {RedisDown}
    assert len({id(outcome) for outcome in outcomes}) == 200
    server.start()
    await until(lambda: redis.command("PING"))
    assert await echo(redis, ["{t}calls"], ["after"]) == Echoed(word=b"after")
    assert await redis.command("GET", "{t}calls") == b"1"  # nothing was repeated


async def test_a_killed_connection_is_replaced_at_once(redis: Pipe, dial: Dial) -> None:
    mine = await redis.command("CLIENT", "ID")
    assert await dial().command("CLIENT", "KILL", "ID", int(str(mine))) == 1
    await asyncio.sleep(0.02)
    assert await redis.command("ECHO", "again") == b"again"
    assert await redis.command("CLIENT", "ID") != mine


async def test_random_kills_never_mix_replies(redis: Pipe, dial: Dial, echo: Script[Echoed]) -> None:
    chance, other, answered = random.Random(3), dial(), 0

    async def killer() -> None:
        for _ in range(30):
            before = answered
            await other.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            while answered == before:  # noqa: ASYNC110  (50 callers, none of whom knows of us)
                await asyncio.sleep(0.001)
            await asyncio.sleep(chance.random() / 50)

    async def caller(name: int) -> None:
        nonlocal answered
        for number in itertools.count():
            if killing.done():
                return
            word = f"{name}-{number}".encode()
            with suppress(RedisDown):
                assert await echo(redis, ["{t}calls"], [word]) == Echoed(word=word)
                answered += 1

    killing = asyncio.create_task(killer())
    await asyncio.gather(killing, *(caller(name) for name in range(50)))
    await until(lambda: redis.command("PING"))
    assert answered <= int(bytes_of(await redis.command("GET", "{t}calls")))


async def test_a_frozen_server_is_down_in_time(server: Server, dial: Dial, echo: Script[Echoed]) -> None:
    redis = dial(timeout_ms=200)
    await redis.command("PING")
    server.freeze()
    start = time.monotonic()
    early = [asyncio.create_task(echo(redis, ["{t}calls"], [n])) for n in range(100)]
    await asyncio.sleep(0.1)
    late = asyncio.create_task(echo(redis, ["{t}calls"], ["late"]))
    outcomes = await settled(*early)
    assert {type(outcome) for outcome in outcomes} == {RedisDown}
    assert 0.19 < time.monotonic() - start < 5
    assert isinstance((await settled(late))[0], RedisDown)  # it was on the same connection
    # The breaker is open: nobody waits a second time, though the kernel still accepts for a frozen server.
    start = time.monotonic()
    for _ in range(100):
        with pytest.raises(RedisDown, match="Redis is out"):
            await redis.command("PING")
    assert time.monotonic() - start < 10  # 20 s if each waited
    server.thaw()
    await until(lambda: redis.command("PING"))
    words = [f"after-{n}" for n in range(100)]
    outcomes = await asyncio.gather(*(echo(redis, ["{t}calls"], [word]) for word in words))
    assert outcomes == [Echoed(word=word.encode()) for word in words]


async def test_a_thaw_is_heard_on_the_same_connection(server: Server, dial: Dial, echo: Script[Echoed]) -> None:
    redis = dial(timeout_ms=100)
    mine = await redis.command("CLIENT", "ID")
    took_s = []
    for number in range(5):  # the next freeze is found out as soon as the first
        server.freeze()
        start = time.monotonic()
        outcomes = await settled(*(echo(redis, ["{t}calls"], [f"{number}-{n}"]) for n in range(50)))
        assert {type(outcome) for outcome in outcomes} == {RedisDown}
        took_s.append(time.monotonic() - start)
        server.thaw()
        await until(lambda: redis.command("PING"))
        word = f"after-{number}".encode()
        assert await echo(redis, ["{t}calls"], [word]) == Echoed(word=word)  # late replies went to nobody
    assert await redis.command("CLIENT", "ID") == mine
    assert min(took_s[1:]) < 0.1 + pipe.LATE_S + 0.3  # else SLOW_S


async def test_a_server_that_dies_frozen_is_replaced(server: Server, dial: Dial) -> None:
    redis = dial(timeout_ms=100)
    await redis.command("PING")
    server.freeze()
    assert isinstance((await settled(redis.command("PING")))[0], RedisDown)
    server.kill()
    server.start()
    await until(lambda: redis.command("PING"))


async def test_a_server_frozen_for_long_is_left_for_a_new_connection(server: Server, dial: Dial) -> None:
    redis = dial(timeout_ms=100)
    mine = await redis.command("CLIENT", "ID")
    server.freeze()
    assert isinstance((await settled(redis.command("PING")))[0], RedisDown)
    async with asyncio.timeout(PATIENCE_S):
        while redis._link:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    server.thaw()
    await until(lambda: redis.command("PING"))
    assert await redis.command("CLIENT", "ID") != mine


async def test_a_slow_server_is_not_a_silent_one(dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "SLOW_S", 30.0)
    async with slow_peer(0.1) as url:
        redis = dial(url, timeout_ms=1000)
        await redis.command("PING")
        assert await asyncio.gather(*(redis.command("PING") for _ in range(16))) == [b"OK"] * 16  # 1.6 s
        await redis.aclose()


async def test_nobody_waits_for_ever_for_a_slow_server(dial: Dial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "SLOW_S", 0.3)
    async with slow_peer(0.03) as url:
        redis = dial(url, timeout_ms=500)
        await redis.command("PING")
        outcomes = await settled(*(redis.command("PING") for _ in range(60)))
        assert outcomes[0] == b"OK"
        assert isinstance(outcomes[-1], RedisDown)
        await redis.aclose()


async def test_a_server_that_is_frozen_from_the_start_is_waited_for_once(server: Server, dial: Dial) -> None:
    server.freeze()
    redis = dial(timeout_ms=100)
    start = time.monotonic()
    assert isinstance((await settled(redis.command("PING")))[0], RedisDown)
    for _ in range(100):
        with pytest.raises(RedisDown, match="Redis is out"):
            await redis.command("PING")
    assert time.monotonic() - start < 5  # 10 s if each waited
    server.thaw()
    await until(lambda: redis.command("PING"))


@pytest.mark.parametrize("turns", [1, 2], ids=["queued", "written"])
async def test_a_stalled_loop_is_not_a_silent_server(dial: Dial, turns: int) -> None:
    redis = dial(timeout_ms=100)
    await redis.command("PING")
    call = asyncio.create_task(redis.command("ECHO", "in time"))
    for _ in range(turns):
        await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 # somebody's slow code: nothing is written or read meanwhile
    assert await call == b"in time"


async def test_a_dead_server_is_refused_quickly(server: Server, redis: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    server.kill()
    attempts = 0
    open_link = Link.open

    async def counted(*args: Any) -> Link:
        nonlocal attempts
        attempts += 1
        return await open_link(*args)

    monkeypatch.setattr(Link, "open", counted)
    start = time.monotonic()
    for _ in range(30):
        outcomes = await settled(*(redis.command("PING") for _ in range(50)))
        assert {type(outcome) for outcome in outcomes} == {RedisDown}
        await asyncio.sleep(0.01)
    assert 2 <= attempts <= 7 + (time.monotonic() - start) / pipe.LAST_BACKOFF_S
    server.start()
    await until(lambda: redis.command("PING"))


async def test_too_many_waiting_calls_are_refused_at_once(
    server: Server, redis: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipe, "MOST_CALLS", 100)
    await redis.command("PING")
    server.freeze()
    waiting = [asyncio.create_task(redis.command("ECHO", str(n))) for n in range(100)]
    await asyncio.sleep(0)
    with pytest.raises(RedisDown, match="100 calls wait"):
        await redis.command("PING")
    server.thaw()
    assert await asyncio.gather(*waiting) == [str(n).encode() for n in range(100)]
    assert await redis.command("PING") == b"PONG"


async def test_what_does_not_fit_the_socket_waits_and_arrives(server: Server, redis: Pipe, writes: list[int]) -> None:
    await redis.command("PING")
    server.freeze()
    big = b"x" * 1_000_000
    first = [asyncio.create_task(redis.command("ECHO", big)) for _ in range(5)]
    await asyncio.sleep(0.05)
    writes.clear()
    later = [asyncio.create_task(redis.command("ECHO", str(n))) for n in range(50)]
    await asyncio.sleep(0.05)
    assert writes == []
    server.thaw()
    assert await asyncio.gather(*first) == [big] * 5
    assert await asyncio.gather(*later) == [str(n).encode() for n in range(50)]


async def test_calls_not_yet_written_go_out_on_the_next_connection(server: Server, redis: Pipe) -> None:
    await redis.command("PING")
    server.freeze()
    first = asyncio.create_task(redis.command("SET", "{t}big", b"x" * 5_000_000))
    await asyncio.sleep(0.05)
    later = [asyncio.create_task(redis.command("INCR", "{t}later")) for _ in range(50)]
    await asyncio.sleep(0.05)
    server.kill()
    server.start()
    assert isinstance((await settled(first))[0], RedisDown)
    assert sorted(int(str(n)) for n in await asyncio.gather(*later)) == list(range(1, 51))
