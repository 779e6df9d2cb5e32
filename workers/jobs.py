"""The one generic job: claim an outbox row, do what its kind says, close it; what that owes next follows at once.

A row that cannot be done now is retried with growing waits; one that never can is a dead letter. Nothing vanishes:
a worker that dies leaves the row to whoever finds its lease over.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from app.base.ids import new_id
from app.base.lease import Lease
from app.domain import outbox
from app.errors import PostgresDown, Problem, Unavailable
from app.flows import deliver, notify, rank, refresh, refund, reward, settle
from app.shop import Shop

log = structlog.get_logger(__name__)

Handler = Callable[[Shop, Lease, outbox.Job], Awaitable[outbox.Owed | None]]

KINDS: dict[str, Handler] = {
    "settle": settle.settle,
    "deliver": deliver.deliver,
    "tell": notify.tell,
    "alert": notify.alert,
    "supply": notify.supply,
    "refund": refund.call,
    "follow": refund.follow,
    "refresh": refresh.refresh,
    "reward": reward.reward,
    "clawback": reward.claw_back,
    "cashback": reward.cash_back,
    "rank": rank.rank,
}


async def run(shop: Shop, outbox_id: int) -> None:
    """The row is done, or due again later, or dead; not ours at all when another worker has it.

    Raises: PostgresDown before the row is ours; afterwards only cancellation.
    """
    lease = Lease(outbox_id, new_id(), shop.deps.settings.lease_s)
    job = await outbox.claim(shop.deps.pg, lease)
    while job is not None:
        owed = await _attempt(shop, lease, job)
        # What a handler's own statement made is leased to this attempt already: no ring, no claim, no wait.
        job = outbox.Job(owed.id, owed.kind, owed.payload, 1) if owed else None
        if owed:
            lease = Lease(owed.id, lease.attempt_id, lease.lease_s)


async def _attempt(shop: Shop, lease: Lease, job: outbox.Job) -> outbox.Owed | None:
    """One attempt at one row, with its lease kept alive."""
    handler = KINDS.get(job.kind)
    facts = {"outbox_id": job.id, "kind": job.kind, "attempt": job.attempts}
    if handler is None:
        log.error("job of unknown kind is a dead letter", **facts)
        await outbox.bury(shop.deps.pg, lease, f"no handler for {job.kind}")
        return None
    alive = asyncio.create_task(_keep(shop, lease))
    try:
        async with asyncio.timeout(shop.deps.settings.job_timeout_s):
            return await handler(shop, lease, job)
    except asyncio.CancelledError:
        # The worker is stopping: the row is free at once instead of when its lease ends.
        await asyncio.shield(_give_back(shop, lease, 0.0, "worker stopped"))
        raise
    except Exception as error:  # whatever it was, the row must not be lost
        await _failed(shop, lease, job, error)
        return None
    finally:
        alive.cancel()


async def _failed(shop: Shop, lease: Lease, job: outbox.Job, error: Exception) -> None:
    facts = {"outbox_id": job.id, "kind": job.kind, "attempt": job.attempts, "error": repr(error)}
    # What others are to blame for (a gateway, Postgres, a gateway that is switched off) is tried until it works.
    if job.attempts >= outbox.MAX_ATTEMPTS and not isinstance(error, Unavailable):
        log.error("job is a dead letter", exc_info=error, **facts)
        await outbox.bury(shop.deps.pg, lease, repr(error))
        return
    asked_s = error.retry_after_s if isinstance(error, Problem) else None
    delay_s = max(outbox.delay_s(job.attempts), asked_s or 0)
    log.warning("job will be tried again", delay_s=round(delay_s, 1), **facts)
    await _give_back(shop, lease, delay_s, repr(error))


async def _give_back(shop: Shop, lease: Lease, delay_s: float, error: str) -> None:
    try:
        await outbox.retry(shop.deps.pg, lease, delay_s, error)
    except PostgresDown as down:
        log.warning("lease runs out by itself", outbox_id=lease.outbox_id, error=str(down))


async def _keep(shop: Shop, lease: Lease) -> None:
    """The lease lives as long as this task; a lost one stays lost, and the fence refuses what comes after it."""
    while True:
        await asyncio.sleep(lease.lease_s / 3)
        try:
            if not await outbox.extend(shop.deps.pg, lease):
                return
        except PostgresDown as error:
            log.warning("lease not renewed", outbox_id=lease.outbox_id, error=str(error))
