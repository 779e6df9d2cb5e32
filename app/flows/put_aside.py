"""Put aside: what the consultant chooses for a buyer is taken into the Mini App's cart, once."""

import msgspec

from app.domain import cart, catalog
from app.flows import present
from app.shop import Shop


class Aside(msgspec.Struct, frozen=True):
    """So many units of a product as the shelf shows it."""

    product: present.Product
    quantity: int


async def take(shop: Shop, user_id: int) -> list[Aside]:
    """What is put aside for this buyer, which is the caller's from now on; what has left the shelf is left out."""
    lines = await cart.take(shop.deps.pg, user_id)
    if not lines:
        return []
    shelf = await catalog.several(shop.deps.pg, [line.product_id for line in lines])
    return [Aside(present.product(shelf[line.product_id]), line.quantity) for line in lines if line.product_id in shelf]
