"""The relay: finds rows whose ring was lost, whose worker died or whose retry is due, and rings again.

What ringing does not help, because Redis is away or arq believes a dead worker to be at it, is run right here, beside
the sweeps: a job that hangs holds up no other.
"""

import asyncio

import structlog

from app.base import tally
from app.domain import outbox
from app.errors import PostgresDown, RedisDown
from app.shop import Shop
from workers import jobs

log = structlog.get_logger(__name__)

BATCH = 500
GRACE_MS = 500  # a fresh row's own ring is on its way
UNHEARD_MS = 5000  # rung for since then, and still nobody's


class Relay:
    """The sweeps of one worker, and the jobs that it runs itself, at most as many at a time as the worker may."""

    def __init__(self, most: int) -> None:
        self.running: dict[int, asyncio.Task[None]] = {}  # by row; some still wait for room
        self._room = asyncio.Semaphore(most)

    async def sweep(self, shop: Shop) -> int:
        """Every overdue row was rung for, or is being tried; returns how many there were."""
        due = await outbox.due(shop.deps.pg, grace_ms=GRACE_MS, size=BATCH)
        await asyncio.gather(*(self._wake(shop, row) for row in due if row.id not in self.running))
        tally.RELAY_FOUND.add(by=len(due))
        if due:
            log.info("relay found overdue jobs", jobs=len(due))
        return len(due)

    async def finish(self) -> None:
        """What runs has ended. Whoever stops waiting leaves it running."""
        while self.running:
            await asyncio.wait(self.running.values())

    def cut(self) -> None:
        """What still runs ends now, and gives its row back."""
        for task in self.running.values():
            task.cancel()

    async def _wake(self, shop: Shop, row: outbox.Due) -> None:
        if row.overdue_ms < UNHEARD_MS:
            try:
                await shop.deps.queue.ring(row.id, row.turn)
                return
            except RedisDown:
                pass
        task = asyncio.create_task(self._run(shop, row.id))
        self.running[row.id] = task
        task.add_done_callback(lambda _: self.running.pop(row.id, None))

    async def _run(self, shop: Shop, outbox_id: int) -> None:
        async with self._room:
            try:
                await jobs.run(shop, outbox_id)
            except PostgresDown as error:
                log.warning("job not claimed, the next sweep finds it", outbox_id=outbox_id, error=str(error))
            except Exception as error:  # a defect; the row is found again when its lease is over
                log.error("job broke off", outbox_id=outbox_id, exc_info=error)
