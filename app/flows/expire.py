"""Expire: orders that nobody paid in time give their units back."""

import structlog

from app.domain import orders, stock
from app.errors import RedisDown
from app.shop import Shop

log = structlog.get_logger(__name__)

BATCH = 200


async def expire(shop: Shop) -> int:
    """Every order past its window is closed, its units are for sale again; returns how many orders."""
    closed = 0
    while True:
        batch = await orders.expire(shop.deps.pg, grace_s=shop.deps.settings.expiry_grace_s, size=BATCH)
        for order in batch:
            log.info("order expired", order_id=str(order.order_id))
            try:
                await stock.forget(shop.deps.redis, order.seller_id, order.product_ids)
            except RedisDown as error:
                # The counters forget themselves soon; until then they refuse a little too much.
                log.warning("counters not corrected", seller_id=order.seller_id, error=str(error))
        closed += len(batch)
        if len(batch) < BATCH:
            return closed
