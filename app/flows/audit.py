"""Audit: what Redis counts is counted anew from Postgres, seller by seller, while sales go on.

It ends lapsed holds, mends whatever drift there is, and keeps the counters alive: without a worker they forget
themselves, and the next buyer of each product counts it.
"""

import asyncio

import structlog

from app.base import tally
from app.domain import stock
from app.shop import Shop

log = structlog.get_logger(__name__)

SELLERS = 50  # looked at side by side
PRODUCTS = 500  # counted by one statement


async def audit(shop: Shop) -> int:
    """Every product that Redis counted at the start has been counted anew; returns by how many units they were off.

    Raises: RedisDown, PostgresDown: what was not reached waits for the next audit, or forgets itself.
    """
    sellers = await stock.sellers(shop.deps.pg)
    off = 0
    for i in range(0, len(sellers), SELLERS):
        off += sum(await asyncio.gather(*(_audit(shop, seller_id) for seller_id in sellers[i : i + SELLERS])))
    return off


async def _audit(shop: Shop, seller_id: int) -> int:
    products = await stock.counted(shop.deps.redis, seller_id)
    batches = [products[i : i + PRODUCTS] for i in range(0, len(products), PRODUCTS)]
    over = under = doubted = moved = 0
    for batch in batches:
        # What became counted since `counted` was counted since: with the last batch, everything is fresh.
        renew = batch is batches[-1] and not moved
        filled = await stock.recount(shop.deps.redis, shop.deps.pg, seller_id, batch, renew=renew)
        if isinstance(filled, stock.Moved):
            moved += 1
            continue
        over, under, doubted = over + filled.over, under + filled.under, doubted + filled.doubted
    tally.DRIFT.add("over", by=over)
    tally.DRIFT.add("under", by=under)
    if over or under or moved:
        log.warning(
            "stock counters were off", seller_id=seller_id, products=len(products), over=over, under=under,
            doubted=doubted, batches_moved=moved,
        )  # fmt: skip
    return over + under
