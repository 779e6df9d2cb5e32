"""Curate: staff enter products and change them; each change is audited by its own statement and shown at once."""

from typing import Any, NoReturn

from app.domain import products, staff
from app.errors import Conflict, Forbidden, Malformed, NotFound
from app.flows import hold, refresh
from app.shop import Shop

MAX_PAGE = 100
NO_STAFF = "only sellers and admins may do this"


async def create(shop: Shop, user_id: int, seller_id: int | None, fields: dict[str, Any]) -> products.Card:
    """The new product. Raises: Forbidden; Malformed when it is nobody's; NotFound when not the user's to enter."""
    entered = await products.create(shop.deps.pg, user_id, seller_id, fields)
    if entered.word == "no_seller":
        if seller_id is None:
            raise Malformed("seller_id: say whose product it is")
        raise NotFound(f"seller {seller_id} is not here")
    if entered.word == "forbidden" or entered.product_id is None:
        raise Forbidden(NO_STAFF)
    await refresh.at_once(shop, entered.outbox_id)
    return await find(shop, user_id, entered.product_id)


async def change(shop: Shop, user_id: int, product_id: int, version: int, fields: dict[str, Any]) -> products.Card:
    """The product as it is now. Raises: Forbidden, NotFound, Malformed; Conflict with the current `version`."""
    changed = await products.change(shop.deps.pg, user_id, product_id, version, fields)
    if changed.word == "stale":
        raise Conflict("the product was changed meanwhile: read it again", version=changed.version)
    if changed.word == "unfit":
        raise Malformed("lead_time_h: what is made to order has one, and nothing else has")
    card = await _shown(shop, user_id, product_id, changed)
    if changed.word == "changed" and "active" in fields:
        await hold.forget(shop, card.seller_id, [product_id])  # what is inactive counts as none
    return card


async def share(shop: Shop, user_id: int, product_id: int, content: str) -> products.Card:
    """Every buyer of the product gets this content from now on. Raises: Forbidden, NotFound, Conflict."""
    if shop.deps.sealer is None:
        raise NotFound("this shop has no goods keys: TORG_GOODS_KEYS is not set")
    changed = await products.share(shop.deps.pg, shop.deps.sealer, user_id, product_id, content)
    if changed.word == "unfit":
        raise Conflict("only a shared product has one content for all its buyers")
    return await _shown(shop, user_id, product_id, changed)


async def find(shop: Shop, user_id: int, product_id: int) -> products.Card:
    """Raises: Forbidden; NotFound, for another seller's product as for none."""
    card = await products.find(shop.deps.pg, user_id, product_id)
    if card is None:
        await refuse(shop, user_id, product_id)
    return card


async def refuse(shop: Shop, user_id: int, product_id: int) -> NoReturn:
    """Says why this user finds no such product. Raises: Forbidden for no staff, else NotFound."""
    await require_staff(shop, user_id)
    raise NotFound(f"product {product_id} is not here")


async def require_staff(shop: Shop, user_id: int) -> None:
    """Raises: Forbidden, when Postgres knows the user as no staff: the token may be older than that."""
    if await staff.find(shop.deps.pg, user_id) is None:
        raise Forbidden(NO_STAFF)


async def _shown(shop: Shop, user_id: int, product_id: int, changed: products.Changed) -> products.Card:
    if changed.word == "forbidden":
        raise Forbidden(NO_STAFF)
    if changed.word == "missing":
        raise NotFound(f"product {product_id} is not here")
    if changed.word == "changed":
        await refresh.at_once(shop, changed.outbox_id)
    return await find(shop, user_id, product_id)
