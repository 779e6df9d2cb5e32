"""The relay makes good what the bell loses: rings, dead workers, a Redis that is away or does not answer."""

import asyncio

from app.base import keys
from app.base.lease import Lease
from app.domain import outbox
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.shop import Shop, opened
from tests.web.test_shop import NO_REDIS
from tests.workers.test_jobs import Handle, done, handle, owe, row, shop
from tests.world import settings_for
from workers.relay import Relay

__all__ = ["handle", "shop"]  # fixtures


async def swept(shop: Shop) -> int:
    """One sweep, and all that it started has ended."""
    relay = Relay(8)
    found = await relay.sweep(shop)
    await relay.finish()
    return found


async def rung(redis: Pipe) -> set[bytes]:
    """The job ids that stand in the queue; each is on the bell, too."""
    queued = await redis.command("ZRANGE", keys.ARQ_QUEUE, 0, -1)
    bell = await redis.command("LRANGE", keys.ARQ_BELL, 0, -1)
    assert isinstance(queued, list)
    assert isinstance(bell, list)
    assert sorted(queued) == sorted(bell)
    return set(queued)


async def test_the_relay_rings_for_what_is_overdue(shop: Shop, handle: Handle) -> None:
    handle(done)
    overdue = [await owe(shop, overdue_s=1 + n) for n in range(3)]
    await owe(shop)  # its own ring is on its way
    assert await swept(shop) == 3
    assert await swept(shop) == 3  # again is nothing: the queue holds each of them once
    assert (await row(shop, overdue[0]))["state"] == "owed"
    assert {int(job_id.split(b"}")[1].split(b":")[0]) for job_id in await rung(shop.deps.redis)} == set(overdue)


async def test_every_turn_of_a_row_has_a_ring_of_its_own(shop: Shop) -> None:
    """arq blocks the id of a worker that died for two minutes: what is rung for later must have another."""
    outbox_id = await owe(shop)
    await shop.deps.queue.ring(outbox_id)
    older = "UPDATE outbox SET created_at = run_at - interval '1 h', run_at = now() - interval '1 s' WHERE id = $1"
    seen = await rung(shop.deps.redis)
    assert len(seen) == 1

    async def rung_anew() -> bool:
        before = set(seen)
        assert await swept(shop) == 1
        seen.update(await rung(shop.deps.redis))
        return len(seen) == len(before) + 1

    lease = Lease(outbox_id, (await shop.deps.pg.fetch("SELECT gen_random_uuid() AS id", ()))[0]["id"], 60)
    assert await outbox.claim(shop.deps.pg, lease)
    assert await outbox.give_back(shop.deps.pg, lease)
    assert (await row(shop, outbox_id))["attempts"] == 0
    await shop.deps.pg.fetch(older, (outbox_id,))
    assert await rung_anew()
    assert await outbox.claim(shop.deps.pg, lease)
    await shop.deps.pg.fetch("UPDATE outbox SET lease_until = now() - interval '1 s' WHERE id = $1", (outbox_id,))
    assert await rung_anew()


async def test_what_ringing_does_not_help_the_relay_does_itself(shop: Shop, handle: Handle) -> None:
    handle(done)
    unheard = await owe(shop, overdue_s=10)
    assert await swept(shop) == 1
    assert (await row(shop, unheard))["state"] == "done"


async def test_a_job_that_hangs_holds_up_no_other(shop: Shop, handle: Handle) -> None:
    started = asyncio.Event()

    async def hangs(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        started.set()
        await asyncio.Event().wait()

    handle(hangs)
    relay = Relay(2)
    stuck = await owe(shop, overdue_s=10)
    assert await relay.sweep(shop) == 1
    await started.wait()
    assert set(relay.running) == {stuck}
    handle(done)
    other = await owe(shop, overdue_s=10)
    while (await row(shop, other))["state"] != "done":
        await relay.sweep(shop)
        await asyncio.sleep(0.01)
    assert (await row(shop, stuck))["leased"]
    relay.cut()
    await relay.finish()
    assert ((await row(shop, stuck))["attempts"], relay.running) == (0, {})


async def test_without_redis_the_relay_does_the_jobs_itself(pg_url: str, handle: Handle) -> None:
    handle(done)
    async with opened(settings_for(pg_url, NO_REDIS)) as shop:
        overdue = [await owe(shop, overdue_s=10) for _ in range(3)]
        assert await swept(shop) == 3
        assert [(await row(shop, outbox_id))["state"] for outbox_id in overdue] == ["done"] * 3
        assert await swept(shop) == 0


async def test_a_fresh_job_needs_no_redis_either(pg_url: str, servers: Servers, handle: Handle) -> None:
    """Redis takes connections and answers nothing: what is overdue by less than a ring's patience runs all the same."""
    handle(done)

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # to the end, and says nothing
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, opened(settings_for(pg_url, f"redis://127.0.0.1:{port}", redis_timeout_ms=50)) as shop:
        overdue = [await owe(shop, overdue_s=1) for _ in range(3)]
        assert await swept(shop) == 3
        assert [(await row(shop, outbox_id))["state"] for outbox_id in overdue] == ["done"] * 3
