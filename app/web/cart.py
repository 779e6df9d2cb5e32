"""The cart: what the consultant has put aside for a buyer."""

import msgspec
from litestar import post

from app.flows import put_aside
from app.web.guards import signed_in
from app.web.handler import Req, TheShop


class Taken(msgspec.Struct, frozen=True):
    """What was put aside, in the order in which it was; nothing of it is held."""

    lines: list[put_aside.Aside]


@post("/api/cart/take", status_code=200, limits=("browse",))
async def take_cart(request: Req, shop: TheShop) -> Taken:
    """What the consultant has put aside for you: it is told once, and yours to keep from then on."""
    session = signed_in(request, shop)
    return Taken(await put_aside.take(shop, session.user_id))
