"""The real worker outlives its servers: it starts jobs without Redis too, and a stop is over in ten seconds."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.base.lease import Lease
from app.domain import outbox
from app.errors import PostgresDown
from app.infra.embedded import Servers
from app.settings import Settings
from app.shop import Shop, opened
from tests.e2e.stage import environment_of
from tests.house.tree import ROOT
from tests.infra.one_redis import Server
from tests.web.test_shop import NO_REDIS, Door
from tests.workers.test_jobs import done, owe, row
from tests.workers.test_worker import is_done, until
from tests.world import settings_for, with_gateway
from workers import main
from workers.kinds import KINDS, Kind

# arq closes redis-py's pool by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")

JOBS = 10
CLAIM = '{"inbox_id": 1, "provider": "crystalpay", "event_key": "k", "invoice_id": "i", "claims": "paid"}'


@pytest.fixture
def redis_server() -> Iterator[Server]:
    server = Server()
    yield server
    server.kill()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of kind `trial` are done at once."""
    monkeypatch.setitem(KINDS, "trial", Kind(done))


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator["asyncio.Task[None]"]:
    """A worker, which is stopped unless the test has stopped it, and a shop beside it that owes jobs."""
    task = asyncio.create_task(main.serve(settings))
    try:
        yield task
    finally:
        if not task.done():
            os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(15):
            await task


async def starts(shop: Shop, *, rung: bool = False) -> list[float]:
    """How long after its commit each of some jobs was done, in the order of length."""

    async def one() -> float:
        outbox_id = await owe(shop)
        if rung:
            await shop.deps.queue.ring(outbox_id)
        return await until(lambda: is_done(shop, outbox_id), within_s=10)

    return sorted(await asyncio.gather(*(one() for _ in range(JOBS))))


async def test_jobs_start_soon_without_a_redis(pg_url: str) -> None:
    settings = settings_for(pg_url, NO_REDIS, relay_ms=1000, redis_timeout_ms=50)
    async with opened(settings) as shop, serving(settings):
        took = await starts(shop)
        assert took[-1] < 5, took


async def test_jobs_start_soon_while_redis_does_not_answer(pg_url: str, redis_server: Server) -> None:
    settings = settings_for(pg_url, redis_server.url, relay_ms=1000, redis_timeout_ms=50)
    async with opened(settings) as shop, serving(settings):
        await starts(shop, rung=True)
        redis_server.freeze()
        took = await starts(shop)
        redis_server.thaw()
        assert took[-1] < 5, took


async def test_the_bell_is_heard_again_after_a_restart_of_redis(pg_url: str, redis_server: Server) -> None:
    settings = settings_for(pg_url, redis_server.url, relay_ms=60_000, worker_poll_ms=10_000)  # the bell or nothing
    async with opened(settings) as shop, serving(settings):
        await starts(shop, rung=True)
        redis_server.kill()
        redis_server.start()
        await starts(shop, rung=True)


async def test_a_worker_outlives_the_loss_of_postgres(pg_url: str, servers: Servers) -> None:
    door = Door(pg_url)
    async with door.opened() as url:
        settings = settings_for(url, servers.redis_url, relay_ms=100, pg_timeout_ms=1000)
        async with opened(settings_for(pg_url, servers.redis_url)) as shop, serving(settings) as worker:
            await starts(shop)
            door.shut()
            lost = [await owe(shop) for _ in range(3)]
            for outbox_id in lost:
                await shop.deps.queue.ring(outbox_id)  # heard, and not claimed
            await asyncio.sleep(0.5)
            assert not worker.done()
            await door.open()
            for outbox_id in lost:
                await until(lambda outbox_id=outbox_id: is_done(shop, outbox_id), within_s=10)  # type: ignore[misc]
            assert [(await row(shop, outbox_id))["attempts"] for outbox_id in lost] == [1] * 3


async def test_a_stop_is_over_in_ten_seconds_whatever_hangs(pg_url: str, redis_server: Server) -> None:
    """Jobs of both ways in, Redis, Postgres and the gateway: nobody is waited for longer than that takes."""
    asked = 0

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readline()
        asked += 1
        await reader.read()
        writer.close()

    door, gateway = Door(pg_url), await asyncio.start_server(silent, "127.0.0.1", 0)
    gateway_url = f"http://127.0.0.1:{gateway.sockets[0].getsockname()[1]}"
    async with gateway, door.opened() as url, opened(settings_for(pg_url, redis_server.url)) as shop:
        settings = settings_for(url, redis_server.url, lease_s=60, gateway_timeout_ms=60_000)
        settings = with_gateway(settings, "crystalpay", url=gateway_url)
        by_bell, _ = await owe(shop, "settle", payload=CLAIM), await owe(shop, "settle", payload=CLAIM, overdue_s=10)
        await shop.deps.queue.ring(by_bell)
        env = {"PATH": os.environ["PATH"], **environment_of(settings)}
        worker = await asyncio.create_subprocess_exec(sys.executable, "-m", "app.cli", "worker", cwd=ROOT, env=env)

        async def both() -> bool:
            return asked == 2

        await until(both, within_s=30)
        door.answers.clear()
        redis_server.freeze()
        began = time.monotonic()
        worker.terminate()
        async with asyncio.timeout(60):
            assert await worker.wait() == 0
        took_s = time.monotonic() - began
        door.answers.set()
    assert took_s < 10.5  # and this machine is busy


async def test_what_a_stopping_worker_cuts_the_next_one_starts_with_all_its_tries(
    pg_url: str, servers: Servers, redis: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "DRAIN_S", 0.2)
    started = asyncio.Event()

    async def hangs(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        started.set()
        await asyncio.Event().wait()

    monkeypatch.setitem(KINDS, "cut", Kind(hangs))
    # The relay of neither looks at it: what is cut must be found by arq itself.
    settings = settings_for(pg_url, servers.redis_url, relay_ms=60_000, lease_s=60)
    async with opened(settings) as shop:
        outbox_id = await owe(shop, "cut")
        for stop in range(7):  # arq gives an id up after five tries
            started.clear()
            async with serving(settings):
                if not stop:
                    await shop.deps.queue.ring(outbox_id)
                async with asyncio.timeout(10):
                    await started.wait()
            after = await row(shop, outbox_id)
            assert (after["state"], after["attempts"], after["lease_until"]) == ("owed", 0, None)
        monkeypatch.setitem(KINDS, "cut", Kind(done))
        async with serving(settings):
            await until(lambda: is_done(shop, outbox_id), within_s=10)
        assert (await row(shop, outbox_id))["attempts"] == 1


async def test_what_a_killed_worker_had_is_done_by_another_soon(pg_url: str) -> None:
    """As after kill -9: the row is leased, by default settings, to nobody who lives."""
    settings = settings_for(pg_url, NO_REDIS, relay_ms=1000, lease_s=Settings(database_url="").lease_s)
    async with opened(settings) as shop, serving(settings):
        outbox_id = await owe(shop)
        dead = Lease(outbox_id, (await shop.deps.pg.fetch("SELECT gen_random_uuid()", ()))[0][0], settings.lease_s)
        began = time.monotonic()
        assert await outbox.claim(shop.deps.pg, dead)
        await until(lambda: is_done(shop, outbox_id), within_s=10)
        assert time.monotonic() - began >= settings.lease_s
        after = await row(shop, outbox_id)
        assert (after["attempts"], await _keeps(shop, dead)) == (2, False)


async def _keeps(shop: Shop, lease: Lease) -> bool:
    try:
        return await outbox.extend(shop.deps.pg, lease)
    except PostgresDown:
        return False
