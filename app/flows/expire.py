"""Expire: orders that nobody paid in time give their units back."""

import structlog

from app.domain import orders
from app.flows import hold
from app.shop import Shop

log = structlog.get_logger(__name__)

BATCH = 200


async def expire(shop: Shop) -> int:
    """Every order past its window is closed, its units are for sale again; returns how many orders."""
    closed = 0
    while True:
        batch = await orders.expire(shop.deps.pg, grace_s=shop.deps.settings.expiry_grace_s, size=BATCH)
        freed: dict[int, set[int]] = {}
        for order in batch:
            log.info("order expired", order_id=str(order.order_id))
            freed.setdefault(order.seller_id, set()).update(order.product_ids)
        for seller_id, product_ids in freed.items():
            await hold.forget(shop, seller_id, sorted(product_ids))
        closed += len(batch)
        if len(batch) < BATCH:
            return closed
