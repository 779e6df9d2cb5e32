"""Promote: staff make promo codes and change them, each change audited by its own statement."""

from typing import Any, NoReturn

from app.domain import promos
from app.errors import Conflict, Forbidden, Malformed, NotFound
from app.flows.curate import NO_STAFF, require_staff
from app.shop import Shop

MAX_PAGE = 100


async def create(shop: Shop, user_id: int, fields: dict[str, Any]) -> promos.Promo:
    """The new code. Raises: Forbidden; NotFound for a seller or product that is not the user's; Conflict."""
    word = await promos.create(shop.deps.pg, user_id, fields)
    code = str(fields["code"])
    match word:
        case "forbidden":
            raise Forbidden(NO_STAFF)
        case "no_seller":
            raise NotFound(f"seller {fields['seller_id']} is not here")
        case "no_product":
            raise NotFound(f"product {fields['product_id']} is not here")
        case "taken":
            raise Conflict("there is such a code already", code=code)
    return await find(shop, user_id, code)


async def change(shop: Shop, user_id: int, code: str, version: int, fields: dict[str, Any]) -> promos.Promo:
    """The code as it is now. Raises: Forbidden, NotFound, Malformed; Conflict with the current `version`."""
    changed = await promos.change(shop.deps.pg, user_id, code, version, fields)
    match changed.word:
        case "forbidden":
            raise Forbidden(NO_STAFF)
        case "missing":
            raise NotFound(f"code {code} is not here")
        case "stale":
            raise Conflict("the code was changed meanwhile: read it again", version=changed.version)
        case "unfit":
            raise Malformed("most_uses: not below the uses there are; ends_at: after starts_at")
    return await find(shop, user_id, code)


async def find(shop: Shop, user_id: int, code: str) -> promos.Promo:
    """Raises: Forbidden; NotFound, for another seller's code as for none."""
    promo = await promos.find(shop.deps.pg, user_id, code)
    if promo is None:
        await _refuse(shop, user_id, code)
    return promo


async def _refuse(shop: Shop, user_id: int, code: str) -> NoReturn:
    await require_staff(shop, user_id)
    raise NotFound(f"code {code} is not here")
