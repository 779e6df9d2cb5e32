"""Admin, orders: money back, and goods that were made to order handed over."""

from typing import Annotated, Literal

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from app.base.ids import parse_id
from app.domain import goods, refunds
from app.errors import Forbidden, NotFound
from app.flows import refund
from app.flows.hand_over import hand_over
from app.shop import Shop
from app.web.admin import acting
from app.web.bodies import Line, Text, exact
from app.web.handler import Req, TheShop
from app.web.once import Done, Reply, once_only


class NewRefund(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Without an amount all that is left goes back; `rail` is the way the money came by."""

    target: Literal["balance", "rail"]
    amount_minor: Annotated[int, Meta(ge=1, le=10**15)] | None = None
    note: Annotated[Text, Meta(max_length=500)] = ""


class RefundList(msgspec.Struct, frozen=True):
    refunds: list[refunds.Refund]


class Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was made for one position of an order; it is sealed at once, and only its buyer sees it."""

    position: Annotated[int, Meta(ge=1, le=1000)]
    content: Annotated[Line, Meta(max_length=100_000)]


@post("/api/admin/orders/{order_id:str}/refunds", status_code=201, limits=("address", "admin"))
async def refund_order(
    request: Req, order_id: FromPath[str], data: JSONBody[NewRefund], shop: TheShop
) -> Response[bytes]:
    """Money goes back to the buyer, once per `Idempotency-Key`; admins only, and on record."""
    user_id = _admin(request, shop)
    body = await exact(request, NewRefund)
    known = parse_id(order_id)
    if known is None:
        raise NotFound("no such order")

    async def work(key: str, print: bytes) -> Done:
        made, repeated = await refund.make(shop, refund.Wish(
            order_id=known, amount_minor=body.amount_minor or 0, target=body.target, note=body.note, user_id=user_id,
            key=key,
        ))  # fmt: skip
        return Done(Reply(201, "", msgspec.json.encode(made)), repeated)

    return await once_only(request, shop, user_id, work)


@get("/api/admin/orders/{order_id:str}/refunds", limits=("address", "admin"))
async def list_refunds(request: Req, order_id: FromPath[str], shop: TheShop) -> RefundList:
    """All refunds of an order, the oldest first."""
    _admin(request, shop)
    known = parse_id(order_id)
    return RefundList(await refunds.of_order(shop.deps.pg, known) if known else [])


@post("/api/admin/orders/{order_id:str}/goods", status_code=200, limits=("address", "admin"))
async def hand_over_made(request: Req, order_id: FromPath[str], data: JSONBody[Made], shop: TheShop) -> goods.Handed:
    """What you made for this order is its buyer's now, who is told at once."""
    session = acting(request, shop)
    body = await exact(request, Made)
    known = parse_id(order_id)
    if known is None:
        raise NotFound("no such order")
    return await hand_over(shop, session.user_id, known, body.position, body.content)


def _admin(request: Req, shop: Shop) -> int:
    """The admin who calls. Raises: BadToken, Forbidden."""
    session = acting(request, shop)
    if session.role != "admin":
        raise Forbidden("only admins may do this")
    return session.user_id
