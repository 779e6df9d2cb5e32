"""The talk loop: conversations side by side, each in its order; what fails comes back, until it lets the next by."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from app.base import keys, tally
from app.base.ids import derived_id
from app.domain import buffers, conversations
from app.domain.buffers import Batch, Heard
from app.errors import PostgresDown, Problem, ProviderDown
from app.flows import converse, press
from app.infra.pipe import Pipe
from app.shop import Shop, opened
from tests.channels.test_updates import message
from tests.infra.one_redis import Server
from tests.workers.test_worker import working as working_process
from tests.world import World, settings_for
from workers import main
from workers import talk as talks
from workers.talk import Talk, runs

ON: dict[str, Any] = {"telegram_webhook_secret": "webhook-secret_of-the-tests-0123456789"}
PATIENCE_S = 15.0

Deed = Callable[[Batch], Awaitable[None]]


class Scripted:
    """Stands in for who answers: notes what it is given, and does what the test says."""

    def __init__(self, deed: Deed | None = None) -> None:
        self.given: list[Batch] = []
        self.deed = deed
        self.came = asyncio.Event()

    async def __call__(self, shop: Shop, batch: Batch) -> None:
        self.given.append(batch)
        self.came.set()
        if self.deed:
            await self.deed(batch)

    async def feed(self, shop: Shop, batch: Batch) -> None:
        await self(shop, batch)

    def said(self, peer: str = "1001") -> list[list[str]]:
        return [[heard.external_id for heard in run.heard] for run in self.given if run.peer == peer]


@pytest.fixture
async def shop(pg_url: str, servers: Any, redis: Pipe) -> AsyncIterator[Shop]:
    async with opened(settings_for(pg_url, servers.redis_url, lease_s=1, **ON)) as shop:
        yield shop


@pytest.fixture
async def channel(shop: Shop) -> int:
    return (await conversations.register(shop.deps.pg, "telegram", "1234567890")).id


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    scripted = Scripted()
    monkeypatch.setattr(converse, "converse", scripted)
    return scripted


@asynccontextmanager
async def working(shop: Shop, bot: Scripted | None = None, **changes: Any) -> AsyncIterator[Talk]:
    settings = msgspec.structs.replace(shop.deps.settings, **changes)
    talk, told = Talk(settings, lambda: bot or Scripted()), asyncio.Event()
    task = asyncio.create_task(talk.work(shop, told))
    try:
        yield talk
    finally:
        told.set()
        talk.wake()
        talk.cut()
        async with asyncio.timeout(PATIENCE_S):
            await task


async def say(shop: Shop, channel: int, n: int | str, *, peer: str = "1001", raw: str = "", quiet_ms: int = 0) -> None:
    heard = Heard(f"u{n}", 1, raw=raw) if raw else Heard(f"u{n}", 1, text=f"word {n}")
    await buffers.push(shop.deps.redis, channel, peer, heard, quiet_ms=quiet_ms, most=5)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110  (several things of a loop, none of them ours)
            await asyncio.sleep(0.005)


async def empty(shop: Shop) -> None:
    """Nothing waits and nothing is under way."""
    names = [key(shard) for shard in range(buffers.SHARDS) for key in (keys.buffer_talks, keys.buffer_due)]
    async with asyncio.timeout(PATIENCE_S):
        while await shop.deps.redis.command("EXISTS", *names):  # noqa: ASYNC110  (what is waited for is in Redis)
            await asyncio.sleep(0.01)


# ---- runs


def batch_of(*kinds: str) -> Batch:
    heard = [Heard(f"u{n}", 1, **{kind: "x"}) for n, kind in enumerate(kinds)]
    return Batch(id=derived_id(b"x"), channel_id=1, peer="1", tries=1, heard=heard)


def test_words_that_follow_each_other_are_one_run_and_all_else_one_by_one() -> None:
    batch = batch_of("text", "text", "raw", "raw", "text")
    cut = list(runs(batch))
    assert [[heard.external_id for heard in run.heard] for run in cut] == [["u0", "u1"], ["u2"], ["u3"], ["u4"]]
    assert len({run.id for run in cut} | {batch.id}) == 5
    assert list(runs(batch)) == cut  # the same ids every time
    assert list(runs(batch_of())) == []


# ---- to whom, and in which order


async def test_words_are_answered_and_buttons_are_done_in_their_order(
    shop: Shop, channel: int, answers: Scripted
) -> None:
    order: list[str] = []

    async def note(batch: Batch) -> None:
        order.append(batch.heard[0].external_id)

    bot = Scripted(note)
    answers.deed = note
    await say(shop, channel, 1, quiet_ms=5000)
    await say(shop, channel, 2, quiet_ms=5000)
    await say(shop, channel, 3, raw="{}")
    await say(shop, channel, 4)
    async with working(shop, bot):
        await empty(shop)
    assert (answers.said(), bot.said()) == ([["u1", "u2"], ["u4"]], [["u3"]])
    assert order == ["u1", "u3", "u4"]


async def test_a_whatsapp_button_is_for_its_own_routines(
    shop: Shop, answers: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    presses = Scripted()
    monkeypatch.setattr(press, "press", presses)
    phone = await conversations.register(shop.deps.pg, "whatsapp", "10042")
    async with working(shop):
        await say(shop, phone.id, 1, raw="{}")
        await say(shop, 999_999, 2, raw="{}")  # of a channel that is gone
        await empty(shop)
    assert presses.said() == [["u1"]]
    assert answers.given == []


async def test_what_waits_is_taken_when_it_is_due_and_at_once_when_somebody_rings(
    shop: Shop, channel: int, answers: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(talks, "LOOK_EVERY_S", 60.0)
    async with working(shop) as talk:
        await asyncio.sleep(0.05)
        started_s = loop.time()
        await say(shop, channel, 1)
        talk.wake()
        await until(lambda: len(answers.given) == 1)
        await say(shop, channel, 2, quiet_ms=300)
        talk.wake()  # and it sees when to come again
        await until(lambda: len(answers.given) == 2)
        assert 0.3 <= loop.time() - started_s < 50


async def test_what_came_during_a_batch_follows_it_at_once(
    shop: Shop, channel: int, answers: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talks, "LOOK_EVERY_S", 60.0)
    first = asyncio.Event()

    async def hold(batch: Batch) -> None:
        if len(answers.given) == 1:
            await first.wait()

    answers.deed = hold
    await say(shop, channel, 1)
    async with working(shop):
        await answers.came.wait()
        for n in range(2, 14):
            await say(shop, channel, n)
        first.set()
        await until(lambda: len(answers.given) == 3)
    assert answers.said() == [["u1"], [f"u{n}" for n in range(2, 12)], ["u12", "u13"]]


async def test_conversations_are_side_by_side_up_to_the_workers_room_and_one_batch_each(
    shop: Shop, channel: int, answers: Scripted
) -> None:
    live, most, peers = set[str](), 0, [str(n) for n in range(1, 101)]

    async def busy(batch: Batch) -> None:
        nonlocal most
        assert batch.peer not in live, "two batches of one conversation"
        live.add(batch.peer)
        most = max(most, len(live))
        await asyncio.sleep(0.005)
        live.discard(batch.peer)

    answers.deed = busy
    await asyncio.gather(*(say(shop, channel, f"{peer}-{n}", peer=peer) for n in range(12) for peer in peers))
    async with working(shop, worker_jobs=5), working(shop, worker_jobs=7):
        await empty(shop)
    assert 5 < most <= 12
    for peer in peers:
        told = [external_id for run in answers.said(peer) for external_id in run]
        assert told == [f"u{peer}-{n}" for n in range(12)]


# ---- what goes wrong


async def test_a_failed_batch_comes_back_the_same_and_what_was_done_of_it_too(
    shop: Shop, channel: int, answers: Scripted
) -> None:
    async def fail(batch: Batch) -> None:
        if batch.tries < 2:
            raise ValueError("not this time")

    bot = Scripted(fail)
    await say(shop, channel, 1)
    await say(shop, channel, 2, raw="{}")
    async with working(shop, bot):
        await empty(shop)
    assert (answers.said(), bot.said()) == ([["u1"], ["u1"]], [["u2"], ["u2"]])
    assert len({run.id for run in answers.given}) == len({run.id for run in bot.given}) == 1
    assert [run.tries for run in bot.given] == [1, 2]


async def test_a_run_that_always_fails_is_given_up_and_the_next_is_answered(
    shop: Shop, channel: int, answers: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talks, "TRIES", 2)
    lost = tally.RUNS_LOST.values[()]

    async def fail(batch: Batch) -> None:
        raise ProviderDown("Telegram does not answer", unsure=True)

    await say(shop, channel, 1, raw="{}")
    await say(shop, channel, 2)
    bot = Scripted(fail)
    async with working(shop, bot):
        await empty(shop)
    assert (bot.said(), answers.said()) == ([["u1"], ["u1"]], [["u2"]])
    assert tally.RUNS_LOST.values[()] == lost + 1


@pytest.mark.parametrize(
    "error",
    [PostgresDown("away"), ProviderDown("the bot has said enough", retry_after_s=1), ProviderDown("refused")],
    ids=["postgres", "paced", "refused"],
)
async def test_what_is_away_or_asks_to_wait_is_no_try(
    shop: Shop, channel: int, answers: Scripted, monkeypatch: pytest.MonkeyPatch, error: Problem
) -> None:
    monkeypatch.setattr(talks, "TRIES", 1)
    away = 3

    async def fail(batch: Batch) -> None:
        nonlocal away
        away -= 1
        if away >= 0:
            raise error

    answers.deed = fail
    await say(shop, channel, 1)
    async with working(shop):
        await empty(shop)
    assert [(run.tries, run.died) for run in answers.given] == [(1, 0)] * 4


async def test_a_batch_that_no_worker_survives_is_given_up(shop: Shop, channel: int, answers: Scripted) -> None:
    await say(shop, channel, 1)
    shard = buffers.shard_of(f"{channel}:1001")
    for _ in range(talks.DEATHS):
        assert len((await buffers.take(shop.deps.redis, shard, size=1, lease_ms=0)).batches) == 1
        await asyncio.sleep(0.002)
    lost = tally.RUNS_LOST.values[()]
    await say(shop, channel, 2)
    async with working(shop):
        await empty(shop)
    assert answers.said() == [["u2"]]
    assert tally.RUNS_LOST.values[()] == lost + 1


async def test_a_long_answer_keeps_its_lease(shop: Shop, channel: int, answers: Scripted) -> None:
    async def long(batch: Batch) -> None:
        await asyncio.sleep(2.5)

    answers.deed = long
    await say(shop, channel, 1)
    async with working(shop), working(shop):
        await empty(shop)
    assert len(answers.given) == 1


async def test_who_has_lost_the_lease_does_not_begin_the_next_run(
    shop: Shop, channel: int, answers: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = asyncio.Event()

    async def hold(batch: Batch) -> None:
        await held.wait()

    bot = Scripted()
    answers.deed = hold
    await say(shop, channel, 1)
    await say(shop, channel, 2, raw="{}")
    async with working(shop, bot) as talk:
        await answers.came.wait()
        for shard in range(buffers.SHARDS):  # it was frozen, and another has it by now
            far_ms = 2_000_000_000_000
            await buffers.take(shop.deps.redis, shard, size=9, lease_ms=60_000, now_ms=far_ms)
        (alive,) = [task for task in asyncio.all_tasks() if "Talk._keep" in repr(task)]
        await asyncio.wait([alive])
        held.set()
        await until(lambda: not talk.running)
    assert bot.given == []


async def test_redis_away_is_waited_for(pg_url: str, answers: Scripted) -> None:
    server = Server()
    try:
        async with opened(settings_for(pg_url, server.url, lease_s=1, redis_timeout_ms=200, **ON)) as shop:
            channel = (await conversations.register(shop.deps.pg, "telegram", "1")).id
            async with working(shop):
                server.kill()
                await asyncio.sleep(0.6)
                server.start()
                async with asyncio.timeout(PATIENCE_S):
                    while True:
                        try:
                            await say(shop, channel, 1)
                            break
                        except Exception:
                            await asyncio.sleep(0.02)
                await until(lambda: len(answers.given) == 1)
    finally:
        server.kill()


# ---- as the worker process has it


# arq closes redis-py's pool by its old name.
@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")
async def test_a_stopped_worker_ends_what_it_can_and_gives_the_rest_back_at_once(
    pg_url: str, servers: Any, redis: Pipe, answers: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "DRAIN_S", 0.5)
    short, stopping = asyncio.Event(), asyncio.Event()

    async def deed(batch: Batch) -> None:
        await (short if batch.peer == "1" else asyncio.Event()).wait()

    answers.deed = deed
    async with World.opened(pg_url, servers.redis_url, lease_s=60, **ON) as world:
        serving = asyncio.create_task(main.serve(world.shop.deps.settings))
        channel = world.app.state.channels.named("telegram", "1234567890").id
        for peer in ("1", "2"):
            await say(world.shop, channel, peer, peer=peer)
        await until(lambda: len(answers.given) == 2)
        os.kill(os.getpid(), signal.SIGTERM)
        stopping.set()
        asyncio.get_running_loop().call_later(0.1, short.set)
        await serving
        found = [
            batch
            for shard in range(buffers.SHARDS)
            for batch in (await buffers.take(redis, shard, size=9, lease_ms=1000)).batches
        ]
        assert [(batch.peer, batch.tries, batch.died) for batch in found] == [("2", 1, 0)]
        await buffers.done(redis, found[0])


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")
async def test_what_is_due_at_once_at_the_door_rings_a_worker(
    pg_url: str, servers: Any, redis: Pipe, answers: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(talks, "LOOK_EVERY_S", 60.0)
    async with World.opened(pg_url, servers.redis_url, **ON) as world, working_process(world):
        for n in range(5):
            headers = {"X-Telegram-Bot-Api-Secret-Token": ON["telegram_webhook_secret"]}
            told = message(text=f"word {n}") | {"update_id": n}
            assert (await world.http.post("/api/webhook", json=told, headers=headers)).status_code == 200
        await until(lambda: bool(answers.given))
        assert answers.said() == [[f"u{n}" for n in range(5)]]
