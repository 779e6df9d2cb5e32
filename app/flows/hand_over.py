"""Hand over: what was made to order is sealed for its buyer, who is told; the last one ends the order's wait."""

from uuid import UUID

import structlog

from app.domain import goods
from app.errors import Conflict, NotFound
from app.flows.settle import ring
from app.shop import Shop

log = structlog.get_logger(__name__)


async def hand_over(shop: Shop, user_id: int, order_id: UUID, position: int, content: str) -> goods.Handed:
    """The made good is the buyer's. Raises: NotFound; Conflict when that position waits for nothing (any more)."""
    if shop.deps.sealer is None:
        raise NotFound("this shop has no goods keys: TORG_GOODS_KEYS is not set")
    handed = await goods.hand_over(shop.deps.pg, shop.deps.sealer, user_id, order_id, position, content)
    if handed is None:
        raise Conflict("nothing of yours is owed at this position: handed over before, refunded, or not made to order")
    log.info("made to order and handed over", order_id=str(order_id), position=position, status=handed.status)
    if handed.outbox_id is not None:
        await ring(shop, handed.outbox_id)
    return handed
