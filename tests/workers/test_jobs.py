"""A job is done, tried again later, or a dead letter; whatever happens to its worker, it is never lost."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import structlog
from structlog.testing import LogCapture

from app.base.lease import Lease
from app.domain import outbox
from app.errors import PostgresDown, ProviderDown
from app.infra.embedded import Servers
from app.infra.pipe import Pipe
from app.shop import Shop, opened
from tests.web.test_shop import Door
from tests.world import BOT_TOKEN, settings_for
from workers import jobs
from workers.kinds import KINDS, Handler, Kind

Handle = Callable[[Handler], None]


@pytest.fixture
async def shop(pg_url: str, servers: Servers, redis: Pipe) -> AsyncIterator[Shop]:
    async with opened(settings_for(pg_url, servers.redis_url, lease_s=2, job_timeout_s=5)) as shop:
        yield shop


@pytest.fixture
def handle(monkeypatch: pytest.MonkeyPatch) -> Handle:
    """What jobs of kind `trial` do."""
    return lambda handler: monkeypatch.setitem(KINDS, "trial", Kind(handler))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    capture = LogCapture()
    monkeypatch.setattr(jobs, "log", structlog.wrap_logger(None, processors=[capture]))
    return capture


async def owe(shop: Shop, kind: str = "trial", *, payload: str = "{}", overdue_s: float = 0) -> int:
    (row,) = await shop.deps.pg.fetch(
        "INSERT INTO outbox (kind, key, payload, run_at)"
        " VALUES ($1, $2, $3::text::jsonb, now() - $4::float8 * interval '1 second') RETURNING id",
        (kind, str(uuid4()), payload, overdue_s),
    )
    outbox_id: int = row["id"]
    return outbox_id


async def row(shop: Shop, outbox_id: int) -> Any:
    query = (
        "SELECT state, attempts, last_error, lease_until, payload::text AS payload,"
        " extract(epoch FROM run_at - now())::float8 AS wait_s, lease_until > now() AS leased FROM outbox WHERE id = $1"
    )
    return (await shop.deps.pg.fetch(query, (outbox_id,)))[0]


async def now_due(shop: Shop, outbox_id: int) -> None:
    await shop.deps.pg.fetch("UPDATE outbox SET run_at = now() WHERE id = $1", (outbox_id,))


async def done(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    assert await outbox.finish(shop.deps.pg, lease)


async def hangs(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    await asyncio.Event().wait()


async def test_a_job_is_done_once(shop: Shop, handle: Handle) -> None:
    ran = []

    async def handler(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        ran.append((job.kind, job.payload, job.attempts))
        await done(shop, lease, job)

    handle(handler)
    outbox_id = await owe(shop, payload='{"n": 1}')
    for _ in range(3):
        await jobs.run(shop, outbox_id)
    await jobs.run(shop, 10**9)
    assert ran == [("trial", '{"n": 1}', 1)]
    assert (await row(shop, outbox_id))["state"] == "done"


async def test_a_job_of_unknown_kind_is_a_dead_letter(shop: Shop, logged: LogCapture) -> None:
    outbox_id = await owe(shop, "of_tomorrow", payload='{"n": 1}')
    await jobs.run(shop, outbox_id)
    after = await row(shop, outbox_id)
    assert (after["state"], after["payload"], after["last_error"]) == (
        "dead", '{"n": 1}', "no handler for of_tomorrow",
    )  # fmt: skip
    assert [line["log_level"] for line in logged.entries] == ["error"]


UNTOLD = {"refresh"}  # is told nothing
BAD = [*((kind, "[]") for kind in sorted(KINDS.keys() - UNTOLD)), ("settle", "null"), ("tell", '{"bad": 1}')]


@pytest.mark.parametrize(("kind", "payload"), BAD)
async def test_a_payload_that_does_not_decode_is_a_dead_letter_at_once(shop: Shop, kind: str, payload: str) -> None:
    outbox_id = await owe(shop, kind, payload=payload)
    await jobs.run(shop, outbox_id)
    after = await row(shop, outbox_id)
    assert (after["state"], after["attempts"], after["payload"]) == ("dead", 1, payload)
    assert after["last_error"].startswith("BadPayload(")


async def test_an_answer_that_does_not_decode_is_no_bad_payload(shop: Shop, handle: Handle) -> None:
    async def handler(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        msgspec.json.decode(b"<html>", type=list[int])

    handle(handler)
    outbox_id = await owe(shop)
    await jobs.run(shop, outbox_id)
    after = await row(shop, outbox_id)
    assert (after["state"], after["attempts"]) == ("owed", 1)
    assert "DecodeError" in after["last_error"]


async def test_a_job_that_always_fails_is_a_dead_letter_in_the_end(
    shop: Shop, handle: Handle, logged: LogCapture
) -> None:
    async def handler(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        raise ValueError(f"attempt {job.attempts}")

    handle(handler)
    outbox_id = await owe(shop)
    for attempt in range(1, outbox.MAX_ATTEMPTS):
        await jobs.run(shop, outbox_id)
        after = await row(shop, outbox_id)
        assert (after["state"], after["attempts"], after["lease_until"]) == ("owed", attempt, None)
        assert after["last_error"] == f"ValueError('attempt {attempt}')"
        assert -1 < after["wait_s"] <= 900
        await now_due(shop, outbox_id)
    await jobs.run(shop, outbox_id)
    after = await row(shop, outbox_id)
    assert (after["state"], after["last_error"]) == ("dead", f"ValueError('attempt {outbox.MAX_ATTEMPTS}')")
    assert [line["log_level"] for line in logged.entries] == ["warning"] * (outbox.MAX_ATTEMPTS - 1) + ["error"]


async def test_a_providers_own_wait_is_kept(shop: Shop, handle: Handle) -> None:
    async def handler(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        raise ProviderDown("Telegram asks to wait", retry_after_s=600)

    handle(handler)
    outbox_id = await owe(shop)
    await jobs.run(shop, outbox_id)
    assert 599 < (await row(shop, outbox_id))["wait_s"] <= 600


async def test_a_job_that_hangs_is_cut_and_tried_again(pg_url: str, servers: Servers, handle: Handle) -> None:
    handle(hangs)
    async with opened(settings_for(pg_url, servers.redis_url, job_timeout_s=1)) as shop:
        outbox_id = await owe(shop)
        async with asyncio.timeout(10):
            await jobs.run(shop, outbox_id)
        after = await row(shop, outbox_id)
        assert (after["state"], after["last_error"], after["lease_until"]) == ("owed", "TimeoutError()", None)


async def test_a_long_job_keeps_its_lease(shop: Shop, handle: Handle) -> None:
    started = []

    async def handler(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        started.append(lease.attempt_id)
        await asyncio.sleep(3)  # longer than its lease
        await done(shop, lease, job)

    handle(handler)
    outbox_id = await owe(shop)
    running = asyncio.create_task(jobs.run(shop, outbox_id))
    for _ in range(5):
        await asyncio.sleep(0.5)
        assert (await row(shop, outbox_id))["leased"]
        assert await outbox.due(shop.deps.pg, grace_ms=0, size=10) == []
        await jobs.run(shop, outbox_id)
    await running
    after = await row(shop, outbox_id)
    assert (after["state"], after["attempts"], len(started)) == ("done", 1, 1)


async def test_a_job_of_a_stopped_worker_is_free_at_once_and_keeps_its_tries(shop: Shop, handle: Handle) -> None:
    handle(hangs)
    outbox_id = await owe(shop)
    running = asyncio.create_task(jobs.run(shop, outbox_id))
    await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    after = await row(shop, outbox_id)
    assert (after["state"], after["lease_until"], after["attempts"]) == ("owed", None, 0)
    handle(done)
    await jobs.run(shop, outbox_id)
    after = await row(shop, outbox_id)
    assert (after["state"], after["attempts"]) == ("done", 1)


async def test_an_attempt_that_lost_its_lease_changes_nothing(shop: Shop, handle: Handle) -> None:
    taken = []

    async def handler(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        await shop.deps.pg.fetch("UPDATE outbox SET lease_until = now() - interval '1 s' WHERE id = $1", (job.id,))
        other = Lease(job.id, uuid4(), 60)
        assert await outbox.claim(shop.deps.pg, other)
        taken.append(other)
        raise ValueError("the first one wakes up")

    handle(handler)
    outbox_id = await owe(shop)
    await jobs.run(shop, outbox_id)
    after = await row(shop, outbox_id)
    assert (after["state"], after["attempts"], after["leased"], after["last_error"]) == ("owed", 2, True, "")
    assert await outbox.finish(shop.deps.pg, taken[0])


async def test_what_a_job_owes_next_follows_in_the_same_run(shop: Shop, handle: Handle) -> None:
    ran = []

    async def handler(shop: Shop, lease: Lease, job: outbox.Job) -> outbox.Owed | None:
        ran.append(job.payload)
        assert await outbox.finish(shop.deps.pg, lease)
        if len(ran) == 3:
            return None
        next_id = await owe(shop, payload="{}")
        await shop.deps.pg.fetch(
            "UPDATE outbox SET attempts = 1, attempt_id = $2, lease_until = now() + interval '5 s' WHERE id = $1",
            (next_id, lease.attempt_id),
        )
        return outbox.Owed(next_id, "trial", str(len(ran)))

    handle(handler)
    await jobs.run(shop, await owe(shop))
    assert ran == ["{}", "1", "2"]
    assert len(await shop.deps.pg.fetch("SELECT FROM outbox WHERE state = 'done'", ())) == 3


async def test_a_job_survives_the_loss_of_postgres(pg_url: str, servers: Servers, handle: Handle) -> None:
    door = Door(pg_url)
    async with door.opened() as url, opened(settings_for(url, servers.redis_url, lease_s=1)) as shop:

        async def handler(shop: Shop, lease: Lease, job: outbox.Job) -> None:
            door.shut()
            await done(shop, lease, job)

        handle(handler)
        outbox_id = await owe(shop)
        await jobs.run(shop, outbox_id)  # the failure cannot be written either: the lease runs out by itself
        with pytest.raises(PostgresDown):
            await jobs.run(shop, outbox_id)
        await door.open()
        assert (await row(shop, outbox_id))["state"] == "owed"
        handle(done)
        await asyncio.sleep(1.1)
        await jobs.run(shop, outbox_id)
        assert (await row(shop, outbox_id))["state"] == "done"


async def test_a_job_that_kills_its_workers_is_a_dead_letter_in_the_end(shop: Shop, handle: Handle) -> None:
    handle(done)
    outbox_id = await owe(shop)
    for _ in range(outbox.MAX_ATTEMPTS):
        assert await outbox.claim(shop.deps.pg, Lease(outbox_id, uuid4(), 60))
        await shop.deps.pg.fetch("UPDATE outbox SET lease_until = now() - interval '1 s' WHERE id = $1", (outbox_id,))
    await jobs.run(shop, outbox_id)
    after = await row(shop, outbox_id)
    assert (after["state"], after["last_error"]) == ("dead", f"its worker died {outbox.MAX_ATTEMPTS} times in a row")


async def test_a_kind_has_its_own_waits_time_and_end(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        raise ProviderDown("the other side is away")

    ladder = outbox.Ladder((0.0, 100.0))
    monkeypatch.setitem(KINDS, "trial", Kind(down, waits=ladder, max_attempts=3, patient=False))
    outbox_id = await owe(shop)
    for low_s, high_s in ((-1, 1), (99, 111)):
        await jobs.run(shop, outbox_id)
        assert low_s < (await row(shop, outbox_id))["wait_s"] < high_s
        await now_due(shop, outbox_id)
    await jobs.run(shop, outbox_id)
    assert (await row(shop, outbox_id))["state"] == "dead"

    monkeypatch.setitem(KINDS, "trial", Kind(hangs, timeout_s=1))
    outbox_id = await owe(shop)
    async with asyncio.timeout(10):
        await jobs.run(shop, outbox_id)
    assert (await row(shop, outbox_id))["last_error"] == "TimeoutError()"


async def test_an_outage_of_others_buries_no_patient_job(shop: Shop, handle: Handle) -> None:
    async def down(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        raise ProviderDown("the gateway is away")

    handle(down)
    outbox_id = await owe(shop)
    await shop.deps.pg.fetch("UPDATE outbox SET attempts = 100 WHERE id = $1", (outbox_id,))
    await jobs.run(shop, outbox_id)
    assert (await row(shop, outbox_id))["state"] == "owed"


async def test_no_secret_stays_in_an_error(shop: Shop, handle: Handle) -> None:
    async def leaks(shop: Shop, lease: Lease, job: outbox.Job) -> None:
        raise ValueError(f"POST https://api.telegram.org/bot{BOT_TOKEN}/sendMessage")

    handle(leaks)
    outbox_id = await owe(shop)
    await jobs.run(shop, outbox_id)
    error = (await row(shop, outbox_id))["last_error"]
    assert error.startswith("ValueError('POST https://api.telegram.org/bot***/")
    assert BOT_TOKEN not in error


async def test_jobs_of_an_aggregate_follow_one_another_in_one_run(shop: Shop, handle: Handle) -> None:
    """Also past a dead one; what is rung for too early is left alone."""
    ran = []

    async def handler(shop: Shop, lease: Lease, job: outbox.Job) -> outbox.Closed | None:
        ran.append(job.id)
        if job.id == ids[1]:
            job.read(msgspec.json.Decoder(int))
        return await outbox.finish(shop.deps.pg, lease)

    handle(handler)
    ids = [await owe(shop) for _ in range(4)]
    await shop.deps.pg.fetch("UPDATE outbox SET aggregate = 'a:1'", ())
    for early in (ids[3], ids[1]):
        await jobs.run(shop, early)
    assert ran == []
    await jobs.run(shop, ids[0])
    assert ran == ids
    assert [(await row(shop, outbox_id))["state"] for outbox_id in ids] == ["done", "dead", "done", "done"]
