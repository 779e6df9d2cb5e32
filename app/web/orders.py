"""Orders: place one, follow it, get its goods."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from app.base.ids import parse_id
from app.domain import goods, moves, orders, promos, stock
from app.domain.goods import Good, Owed
from app.errors import Malformed, NotFound
from app.flows import checkout
from app.shop import Shop
from app.web.bodies import Id, Line, exact
from app.web.guards import signed_in
from app.web.handler import Req, TheShop
from app.web.once import Done, Reply, once_only
from app.web.params import MAX_ID, QueryId

Quantity = Annotated[int, Meta(ge=1, le=orders.MAX_UNITS)]


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """So many pieces of a product."""

    product_id: Id
    quantity: Quantity


class NewOrder(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cart, and a promo code if you have one, or instead the token of an offer; and how to pay. There is no price in
    it: prices are the shop's, and an offer's is in its token."""

    provider: Annotated[str, Meta(min_length=1, max_length=32)]
    lines: Annotated[list[Wanted], Meta(min_length=1, max_length=orders.MAX_LINES)] | None = None
    promo: Annotated[Line, Meta(max_length=64)] | None = None
    offer: Annotated[str, Meta(min_length=1, max_length=56)] | None = None


class Payment(msgspec.Struct, frozen=True):
    """The latest payment of an order; `url` is where the buyer pays."""

    provider: str
    status: str
    amount_minor: int  # what it takes, which is less than the total when part of that came before
    url: str | None
    expires_at: datetime


class Order(msgspec.Struct, frozen=True):
    id: UUID
    number: int
    status: str
    currency: str
    total_minor: int
    credited_minor: int  # of part payments, on the balance
    refunded_minor: int
    created_at: datetime
    expires_at: datetime
    paid_at: datetime | None
    delivered_at: datetime | None
    lines: list[orders.Line]


class OrderView(msgspec.Struct, frozen=True):
    order: Order
    payment: Payment | None


class Buyer(msgspec.Struct, frozen=True):
    id: int
    name: str


class OrderCard(OrderView, frozen=True):
    """An order with everything that belongs to it."""

    buyer: Buyer
    history: list[moves.Step]
    chat: list[moves.Line]


class OrderList(msgspec.Struct, frozen=True):
    """The newest orders first; ask on with `before` = the last one's number."""

    orders: list[Order]


class GoodsView(msgspec.Struct, frozen=True):
    """What is here, opened, and what is still owed."""

    order_id: UUID
    status: str
    goods: list[Good]
    owed: list[Owed]


@post("/api/orders", status_code=201, limits=("address", "orders"))
async def place_order(request: Req, data: JSONBody[NewOrder], shop: TheShop) -> Response[bytes]:
    """An order whose goods are kept for its buyer, and the link to pay for it.

    A repeat with the same `Idempotency-Key` and body answers with the same bytes, marked `Idempotency-Replayed`.
    """
    session = signed_in(request, shop)
    body = await exact(request, NewOrder)
    if body.offer is not None and (body.lines is not None or body.promo is not None):
        raise Malformed("offer: an order of what was offered has neither lines nor promo")
    token, cart = body.offer, _cart(body.lines) if body.offer is None else []

    async def work(key: str, print: bytes) -> Done:
        if token is not None:
            placed = await checkout.accept_offer(shop, session.user_id, token, body.provider, key, print)
        else:
            placed = await checkout.place(shop, checkout.Want(
                user_id=session.user_id, cart=cart, provider=body.provider, idempotency_key=key, request_hash=print,
                promo=promos.spelt(body.promo or ""),
            ))  # fmt: skip
        shown = msgspec.json.encode(view(placed.order))
        return Done(Reply(201, f"/api/orders/{placed.order.id}", shown), placed.repeated)

    return await once_only(request, shop, session.user_id, work)


@get("/api/orders", limits=("browse",))
async def list_orders(
    request: Req,
    shop: TheShop,
    before: QueryId = MAX_ID,
    limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20,
) -> OrderList:
    """Your orders."""
    session = signed_in(request, shop)
    found = await orders.newest(shop.deps.pg, session.user_id, before=before, size=limit)
    return OrderList([_order(order) for order in found])


@get("/api/orders/{order_id:str}", limits=("browse",))
async def show_order(request: Req, order_id: FromPath[str], shop: TheShop) -> Response[OrderCard]:
    """One of your orders, as its buyer or as who sells it, with its history and chat; the `ETag` is its status."""
    session = signed_in(request, shop)
    known = parse_id(order_id)
    found = await moves.card(shop.deps.pg, known, session.user_id) if known else None
    if found is None:
        raise NotFound("no such order")
    return answer(found)


@get("/api/orders/{order_id:str}/goods", limits=("browse",))
async def show_goods(request: Req, order_id: FromPath[str], shop: TheShop) -> Response[GoodsView]:
    """The goods of one of your orders, for your eyes only."""
    session = signed_in(request, shop)
    order = await owned(shop, order_id, session.user_id)
    if shop.deps.sealer is None:
        raise NotFound("this shop has no goods keys: TORG_GOODS_KEYS is not set")
    opened = await goods.read(shop.deps.pg, shop.deps.sealer, order.id, session.user_id)
    here, owed = opened or ([], [])
    view = GoodsView(order.id, order.status, here, owed)
    return Response(view, headers={"Cache-Control": "no-store"})


async def owned(shop: Shop, order_id: str, user_id: int) -> orders.Order:
    """Raises: NotFound, for another's order as for none: nobody learns which ids exist."""
    known = parse_id(order_id)
    order = await orders.get(shop.deps.pg, known, user_id) if known else None
    if order is None:
        raise NotFound("no such order")
    return order


def _cart(lines: list[Wanted] | None) -> list[stock.Units]:
    """Each product once: lines of one product are one claim on its stock."""
    if lines is None:
        raise Malformed("send lines or an offer")
    summed: dict[int, int] = {}
    for line in lines:
        summed[line.product_id] = summed.get(line.product_id, 0) + line.quantity
    if sum(summed.values()) > orders.MAX_UNITS:
        raise Malformed(f"lines: at most {orders.MAX_UNITS} pieces in one order")
    return [stock.Units(product_id, units) for product_id, units in sorted(summed.items())]


def view(order: orders.Order) -> OrderView:
    return OrderView(_order(order), _payment(order))


def answer(card: moves.Card) -> Response[OrderCard]:
    """The whole order, with its status as the ETag."""
    shown = OrderCard(
        _order(card),
        _payment(card),
        Buyer(card.buyer_id, card.buyer_name),
        moves.steps(card.history),
        moves.chat(card.chat),
    )
    return Response(shown, headers={"ETag": f'"{card.status}"'})


def _payment(o: orders.Order | moves.Card) -> Payment | None:
    if not o.payment_provider or not o.payment_status:
        return None
    return Payment(o.payment_provider, o.payment_status, o.payment_minor or 0, o.payment_url, o.expires_at)


def _order(o: orders.Order | moves.Card) -> Order:
    return Order(
        id=o.id,
        number=o.number,
        status=o.status,
        currency=o.currency,
        total_minor=o.total_minor,
        credited_minor=o.credited_minor,
        refunded_minor=o.refunded_minor,
        created_at=o.created_at,
        expires_at=o.expires_at,
        paid_at=o.paid_at,
        delivered_at=o.delivered_at,
        lines=orders.lines(o.lines),
    )
