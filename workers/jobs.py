"""The one generic job: claim an outbox row, do what its kind says, close it; what that owes next follows at once.

A row that cannot be done now is retried with its kind's waits; one that never can is a dead letter. Nothing vanishes:
a worker that dies leaves the row to whoever finds its lease over (docs/jobs.md).
"""

import asyncio
import time

import structlog

from app.base import tally
from app.base.ids import new_id
from app.base.lease import Lease
from app.domain import outbox
from app.errors import PostgresDown, Problem, Unavailable
from app.infra import observe
from app.shop import Shop
from workers.kinds import KINDS, After, Kind

log = structlog.get_logger(__name__)


async def run(shop: Shop, outbox_id: int) -> None:
    """The row is done, or due again later, or dead; not ours at all when another worker has it.

    Raises: PostgresDown while no row is ours; otherwise only cancellation.
    """
    lease = Lease(outbox_id, new_id(), shop.deps.settings.lease_s)
    job = await _claimed(shop, lease)
    while job is not None:
        match await _attempt(shop, lease, job):
            case outbox.Owed(owed_id, kind, payload):
                # What a handler's own statement made is leased to this attempt already: no ring, no claim, no wait.
                lease = Lease(owed_id, lease.attempt_id, lease.lease_s)
                job = outbox.Job(owed_id, kind, payload, 1)
            case outbox.Closed(_, int() as next_id):
                lease = Lease(next_id, new_id(), lease.lease_s)
                job = await _claimed(shop, lease)
            case _:
                job = None


async def _claimed(shop: Shop, lease: Lease) -> outbox.Job | None:
    job = await outbox.claim(shop.deps.pg, lease)
    if job is not None:
        tally.JOB_LAG.of(_label(job)).observe(job.late_ms / 1000)
    return job


async def _attempt(shop: Shop, lease: Lease, job: outbox.Job) -> After:
    """One attempt at one row, with its lease kept alive."""
    kind = KINDS.get(job.kind)
    if kind is None:
        return await _bury(shop, lease, job, f"no handler for {job.kind}")
    if job.orphaned >= kind.max_attempts:
        return await _bury(shop, lease, job, f"its worker died {job.orphaned} times in a row")
    alive = asyncio.create_task(_keep(shop, lease))
    started = time.monotonic()
    try:
        async with asyncio.timeout(kind.timeout_s or shop.deps.settings.job_timeout_s):
            after = await kind.run(shop, lease, job)
    except asyncio.CancelledError:
        # The worker is stopping: the row is free at once instead of when its lease ends, and keeps all its tries.
        await asyncio.shield(_give_back(shop, lease, job))
        raise
    except Exception as error:  # whatever it was, the row must not be lost
        return await _failed(shop, lease, job, kind, error)
    finally:
        alive.cancel()
        tally.JOB_SECONDS.of(job.kind).observe(time.monotonic() - started)
    tally.JOBS.add(job.kind, "done")
    log.info("job attempt went well", took_ms=round((time.monotonic() - started) * 1000), **_facts(job))
    return after


async def _failed(shop: Shop, lease: Lease, job: outbox.Job, kind: Kind, error: Exception) -> After:
    told = observe.masker(shop.deps.settings)(repr(error))  # it stays in the row, and a URL may hold a token
    # What others are to blame for (a gateway, Postgres, a gateway that is switched off) is tried until it works.
    tried_enough = job.attempts >= kind.max_attempts and not (kind.patient and isinstance(error, Unavailable))
    if tried_enough or isinstance(error, outbox.BadPayload):
        return await _bury(shop, lease, job, told, error)
    asked_s = error.retry_after_s if isinstance(error, Problem) else None
    delay_s = max(kind.waits.delay_s(job.attempts), asked_s or 0)
    tally.JOBS.add(job.kind, "retried")
    log.warning("job will be tried again", delay_s=round(delay_s, 1), error=told, **_facts(job))
    try:
        await outbox.retry(shop.deps.pg, lease, delay_s, told)
    except PostgresDown as down:
        log.warning("lease runs out by itself", error=str(down), **_facts(job))
    return None


async def _bury(shop: Shop, lease: Lease, job: outbox.Job, error: str, cause: Exception | None = None) -> After:
    """A human must look. With Postgres away the lease runs out, and the next attempt comes to the same end."""
    tally.JOBS.add(_label(job), "dead")
    log.error("job is a dead letter", error=error, exc_info=cause, **_facts(job))
    try:
        return await outbox.bury(shop.deps.pg, lease, error)
    except PostgresDown as down:
        log.warning("lease runs out by itself", error=str(down), **_facts(job))
        return None


async def _give_back(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    try:
        if await outbox.give_back(shop.deps.pg, lease):
            tally.JOBS.add(job.kind, "returned")
            log.info("job given back, the worker stops", **_facts(job))
    except PostgresDown as down:
        log.warning("lease runs out by itself", error=str(down), **_facts(job))


async def _keep(shop: Shop, lease: Lease) -> None:
    """The lease lives as long as this task; a lost one stays lost, and the fence refuses what comes after it."""
    while True:
        await asyncio.sleep(lease.lease_s / 3)
        try:
            if not await outbox.extend(shop.deps.pg, lease):
                return
        except PostgresDown as error:
            log.warning("lease not renewed", outbox_id=lease.outbox_id, error=str(error))


def _facts(job: outbox.Job) -> dict[str, object]:
    return {"outbox_id": job.id, "kind": job.kind, "attempt": job.attempts}


def _label(job: outbox.Job) -> str:
    """The kind, as metrics name it."""
    return job.kind if job.kind in KINDS else tally.UNKNOWN
