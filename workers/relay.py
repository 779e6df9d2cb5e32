"""The relay: finds rows whose ring was lost, whose worker died or whose retry is due, and rings again.

What ringing does not help, because Redis is away or arq believes a dead worker to be at it, is run right here.
"""

import asyncio

import structlog

from app.domain import outbox
from app.errors import RedisDown
from app.shop import Shop
from workers import jobs

log = structlog.get_logger(__name__)

BATCH = 500
GRACE_MS = 500  # a fresh row's own ring is on its way
UNHEARD_MS = 5000  # rung for since then, and still nobody's


async def relay(shop: Shop) -> int:
    """Every overdue row was rung for or tried; returns how many there were."""
    due = await outbox.due(shop.deps.pg, grace_ms=GRACE_MS, size=BATCH)
    room = asyncio.Semaphore(shop.deps.settings.worker_jobs)
    await asyncio.gather(*(_wake(shop, row, room) for row in due))
    if due:
        log.info("relay found overdue jobs", jobs=len(due))
    return len(due)


async def _wake(shop: Shop, row: outbox.Due, room: asyncio.Semaphore) -> None:
    if row.overdue_ms < UNHEARD_MS:
        try:
            await shop.deps.queue.ring(row.id, row.attempts)
            return
        except RedisDown:
            pass
    async with room:
        await jobs.run(shop, row.id)
