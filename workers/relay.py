"""The relay: finds rows whose ring was lost, whose worker died or whose retry is due, and rings again."""

import structlog

from app.domain import outbox
from app.errors import RedisDown
from app.shop import Shop
from workers import jobs

log = structlog.get_logger(__name__)

BATCH = 500
GRACE_MS = 500  # a fresh row's own ring is on its way


async def relay(shop: Shop) -> int:
    """Every overdue row is rung for, or run right here while Redis is away; returns how many."""
    due = await outbox.due(shop.deps.pg, grace_ms=GRACE_MS, size=BATCH)
    for outbox_id in due:
        try:
            await shop.deps.queue.ring(outbox_id)
        except RedisDown:
            await jobs.run(shop, outbox_id)
    if due:
        log.info("relay found overdue jobs", jobs=len(due))
    return len(due)
