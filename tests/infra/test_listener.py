"""The one connection that listens: what it hears, what it says of itself, and how it comes back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from app.errors import RedisDown
from app.infra import listener as module
from app.infra.listener import Listener
from app.infra.pipe import Pipe
from tests.infra.one_redis import PATIENCE_S, Dial, Server, until

MANY = 500


class Heard:
    """What a listener told."""

    def __init__(self) -> None:
        self.messages = asyncio.Queue[tuple[bytes, bytes]]()
        self.back = asyncio.Event()

    async def one(self) -> tuple[bytes, bytes]:
        async with asyncio.timeout(PATIENCE_S):
            return await self.messages.get()

    async def is_back(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.back.wait()
        self.back.clear()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def listener(server: Server, heard: Heard) -> AsyncIterator[Listener]:
    tell = heard.messages.put_nowait
    async with aclosing(Listener(server.url, on_message=lambda *told: tell(told), on_back=heard.back.set)) as one:
        yield one


@pytest.fixture
def pipe(dial: Dial) -> Pipe:
    return dial()


async def say(pipe: Pipe, channel: str, text: str = "hello") -> int:
    """How many heard it."""
    count = await pipe.command("PUBLISH", channel, text)
    assert isinstance(count, int)
    return count


async def kill_listeners(pipe: Pipe) -> None:
    await pipe.command("CLIENT", "KILL", "TYPE", "pubsub")


async def test_what_is_said_after_joining_is_heard_and_nothing_after_leaving(
    listener: Listener, heard: Heard, pipe: Pipe
) -> None:
    await asyncio.gather(*(listener.listen(f"c{n}") for n in range(MANY)))
    assert [await say(pipe, f"c{n}") for n in range(MANY)] == [1] * MANY
    assert [await heard.one() for _ in range(MANY)] == [(b"c%d" % n, b"hello") for n in range(MANY)]
    for n in range(1, MANY):
        listener.leave(f"c{n}")
    await listener.listen("last")  # its acknowledgement comes after theirs
    assert await pipe.command("PUBSUB", "CHANNELS") in ([b"c0", b"last"], [b"last", b"c0"])
    assert await say(pipe, "c1") == 0


async def test_whoever_leaves_and_joins_at_once_is_heard_from_the_second_time_on(
    listener: Listener, heard: Heard, pipe: Pipe
) -> None:
    await listener.listen("c")
    for _ in range(50):
        first = asyncio.create_task(listener.listen("d"))
        await asyncio.sleep(0)  # it is asked for, and not acknowledged
        listener.leave("d")
        await listener.listen("d")
        await first
        assert await say(pipe, "d") == 1
        assert (await heard.one())[0] == b"d"
        listener.leave("d")


async def test_several_may_wait_for_one_channel(listener: Listener, pipe: Pipe) -> None:
    await asyncio.gather(*(listener.listen("c") for _ in range(5)))
    assert await say(pipe, "c") == 1


async def test_a_lost_connection_is_told_and_replaced(listener: Listener, heard: Heard, pipe: Pipe) -> None:
    await asyncio.gather(*(listener.listen(f"c{n}") for n in range(MANY)))
    await heard.is_back()
    for _ in range(3):
        await kill_listeners(pipe)
        await heard.is_back()
        assert [await say(pipe, f"c{n}") for n in range(MANY)] == [1] * MANY


async def test_a_restart_of_redis_is_told_and_outlived(
    server: Server, listener: Listener, heard: Heard, pipe: Pipe
) -> None:
    await listener.listen("c")
    await heard.is_back()
    server.kill()
    await until_out(listener)
    server.start()
    await heard.is_back()
    await until(lambda: pipe.command("PING"))
    assert await say(pipe, "c") == 1


async def until_out(listener: Listener) -> None:
    """Whoever joins is refused at once."""
    async with asyncio.timeout(PATIENCE_S):
        while not listener._out:  # noqa: ASYNC110  (what is waited for is Redis)
            await asyncio.sleep(0.005)
    with pytest.raises(RedisDown):
        await listener.listen("another")


async def test_a_frozen_redis_is_given_up(
    server: Server, listener: Listener, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PING_S", 0.05)
    monkeypatch.setattr(module, "SETUP_S", 0.1)
    await listener.listen("c")
    await heard.is_back()
    server.freeze()
    await until_out(listener)
    server.thaw()
    await heard.is_back()


async def test_joining_a_frozen_redis_does_not_wait_for_ever(
    server: Server, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.05)
    await listener.listen("c")
    server.freeze()
    with pytest.raises(RedisDown):
        await listener.listen("d")


async def test_who_may_not_listen_is_told_so(server: Server, heard: Heard, dial: Dial) -> None:
    await dial().command("ACL", "SETUSER", "deaf", "on", "nopass", "+@all", "~*", "resetchannels")
    url = server.url.replace("unix://", "unix://deaf:x@")
    async with aclosing(Listener(url, on_message=lambda *_: None, on_back=heard.back.set)) as deaf:
        with pytest.raises(RedisDown):
            await deaf.listen("c")


async def test_nothing_is_left_when_it_is_closed(server: Server, pipe: Pipe) -> None:
    before = asyncio.all_tasks()
    one = Listener(server.url, on_message=lambda *_: None, on_back=lambda: None)
    await one.listen("c")
    await one.aclose()
    assert asyncio.all_tasks() == before
    with pytest.raises(RedisDown):
        await one.listen("c")
    async with asyncio.timeout(PATIENCE_S):
        while await pipe.command("PUBSUB", "CHANNELS") != []:  # noqa: ASYNC110  (what is waited for is Redis)
            await asyncio.sleep(0.005)


async def test_closing_while_redis_is_out_leaves_nothing(server: Server) -> None:
    server.kill()
    before = asyncio.all_tasks()
    one = Listener(server.url, on_message=lambda *_: None, on_back=lambda: None)
    with pytest.raises(RedisDown):
        await one.listen("c")
    await one.aclose()
    assert asyncio.all_tasks() == before
    server.start()
