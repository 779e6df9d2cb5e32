"""The real worker in this process: the bell starts jobs at once, the relay finds lost rings, a stop loses nothing."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from app.base.lease import Lease
from app.domain import outbox
from app.infra import queue
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.shop import Shop
from tests.workers.test_jobs import done, hangs, owe, row
from tests.world import World, invoice_of
from workers import main
from workers.kinds import KINDS, Kind

# arq closes redis-py's pool by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")


@asynccontextmanager
async def working(world: World, **changes: Any) -> AsyncIterator["asyncio.Task[None]"]:
    """A worker beside the world's web process; it is stopped, unless the test has stopped it."""
    settings = msgspec.structs.replace(world.shop.deps.settings, **changes)
    serving = asyncio.create_task(main.serve(settings))
    try:
        await until(lambda: listening(world), within_s=30)
        yield serving
    finally:
        if not serving.done():
            os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(30):
            await serving


async def listening(world: World) -> bool:
    clients = await world.shop.deps.redis.command("CLIENT", "LIST")
    return isinstance(clients, bytes) and b"cmd=blmpop" in clients


async def until(true: Callable[[], Awaitable[bool]], *, within_s: float) -> float:
    """How long it took to become true."""
    started = time.monotonic()
    async with asyncio.timeout(within_s):
        while not await true():  # noqa: ASYNC110  (what is waited for is in Redis or Postgres)
            await asyncio.sleep(0.01)
    return time.monotonic() - started


async def is_done(shop: Shop, outbox_id: int) -> bool:
    return bool((await row(shop, outbox_id))["state"] == "done")


async def test_a_rung_job_starts_at_once_and_a_stop_waits_for_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    started = asyncio.Event()

    async def slow(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        started.set()
        await asyncio.sleep(0.5)
        await done(shop, lease, job)

    monkeypatch.setitem(KINDS, "slow", Kind(slow))
    product = await world.product(*(f"KEY-{n}" for n in range(4)))
    ann = await world.buyer()
    # The poll lets a rung job alone for a day, and the relay sleeps: what starts was started by the bell.
    monkeypatch.setattr(queue, "HEAD_START_MS", 86_400_000)
    async with working(world, relay_ms=60_000) as serving:
        for n in range(4):
            if n == 2:
                await world.shop.deps.redis.command("FLUSHALL")
            placed = (await ann.order((product, 1))).json()
            await world.crystalpay.pay(invoice_of(placed))

            async def delivered(order: str = placed["order"]["id"]) -> bool:
                return await ann.status(order) == "delivered"

            await until(delivered, within_s=30)
        await until(lambda: told(world, ann.telegram_id, 4), within_s=30)

        last = await owe(world.shop, "slow")
        await world.shop.deps.queue.ring(last)
        await asyncio.wait_for(started.wait(), 30)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.05)
        late = await owe(world.shop, "slow")
        await world.shop.deps.queue.ring(late)
        async with asyncio.timeout(30):
            await serving
    assert await is_done(world.shop, last)
    after = await row(world.shop, late)  # the bell is let go of within a second, and what came meanwhile is done too
    assert (after["state"], after["attempts"]) == ("done", 1) or (after["lease_until"], after["attempts"]) == (None, 0)


async def told(world: World, chat_id: int, messages: int) -> bool:
    return len(world.telegram.sent_to(chat_id)) == messages


async def test_a_lost_ring_is_made_good_and_a_hanging_job_is_given_back(
    pg_url: str, servers: Servers, redis: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "DRAIN_S", 0.5)
    monkeypatch.setitem(KINDS, "quick", Kind(done))
    monkeypatch.setitem(KINDS, "hangs", Kind(hangs))
    async with World.opened(pg_url, servers.redis_url) as world:
        async with working(world, relay_ms=100, lease_s=60) as serving:
            never_rung = [await owe(world.shop, "quick") for _ in range(5)]
            hanging = await owe(world.shop, "hangs")
            await world.shop.deps.queue.ring(hanging)
            for outbox_id in never_rung:
                await until(lambda outbox_id=outbox_id: is_done(world.shop, outbox_id), within_s=30)  # type: ignore[misc]
            assert [(await row(world.shop, outbox_id))["attempts"] for outbox_id in never_rung] == [1] * 5
            assert (await row(world.shop, hanging))["leased"]
            os.kill(os.getpid(), signal.SIGTERM)
            async with asyncio.timeout(30):
                await serving
        after = await row(world.shop, hanging)
        assert (after["state"], after["lease_until"], after["attempts"]) == ("owed", None, 0)
