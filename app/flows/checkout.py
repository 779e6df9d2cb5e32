"""Checkout: a cart becomes an order whose goods nobody else can buy, and a link to pay for it.

Redis holds the cart (crowds end here), Postgres claims the units and grants the order in one statement, the
gateway makes the invoice outside any transaction, Postgres keeps the link. Dies before the claim: the hold
lapses. Dies after it: a repeat with the same key goes on where this one stopped, or the order expires.
"""

from datetime import timedelta
from uuid import UUID

import msgspec
import structlog

from app.base import clock
from app.base.ids import new_id
from app.base.money import Money
from app.base.together import Read, together
from app.domain import orders, payments, stock
from app.errors import Busy, InProgress, KeyReused, NotFound, OutOfStock, ProviderDown, RedisDown, TwoSellers
from app.gateways.base import Ask, Gateway
from app.shop import Shop

log = structlog.get_logger(__name__)

CLAIM_TRIES = 3  # another checkout may hold rows for the instant of its statement
OPENING_MARGIN_S = 5  # beyond the gateway's timeout, a request that opens a payment is dead


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """What one request asks for: each product once, prices nowhere."""

    user_id: int
    cart: list[stock.Units]
    provider: str
    idempotency_key: str
    request_hash: bytes


class Placed(msgspec.Struct, frozen=True):
    """The order with its payment; `repeated` when an earlier request with this key had made it."""

    order: orders.Order
    repeated: bool


async def place(shop: Shop, want: Want) -> Placed:
    """The cart is an order with a payment link.

    Raises: NotFound, TwoSellers, OutOfStock, KeyReused, InProgress, Busy; ProviderDown when the order stands
    without a link, which a repeat with the same key mends.
    """
    gateway = shop.gateways.get(want.provider)
    if gateway is None:
        raise NotFound(f"this shop has no gateway {want.provider[:32]!r}")
    try:
        seller_id, counted = await _place_cart(shop, want.cart)
    except (NotFound, TwoSellers):
        # The shelf may have changed since: what this key ordered then is still its order.
        if repeat := await orders.find_repeat(shop.deps.pg, want.user_id, want.idempotency_key):
            return await _resume(shop, gateway, want, repeat)
        raise
    for _ in range(CLAIM_TRIES):
        placed = await _try(shop, gateway, want, seller_id, counted)
        if placed is not None:
            return placed
    raise Busy("others are buying the same goods right now", retry_after_s=1)


async def _try(shop: Shop, gateway: Gateway, want: Want, seller_id: int, counted: list[stock.Units]) -> Placed | None:
    """The order, new or an earlier one's; None when only the instant of another's claim was in the way."""
    order_id = new_id()
    short = await _hold(shop, seller_id, order_id, counted) if counted else {}
    created = None if short else await _claim(shop, want, seller_id, order_id)
    if created is not None:
        _, order = await together(
            Read("end the hold", lambda: _end_hold(shop, seller_id, order_id, kept=True), None, when=bool(counted)),
            Read("open the payment", lambda: _open(shop, gateway, order_id, created)),
            parallel=shop.deps.settings.parallel,
        )
        return Placed(order or await _own(shop, order_id, want.user_id), repeated=False)
    if counted and not short:
        await _end_hold(shop, seller_id, order_id, kept=False)
    repeat = await orders.find_repeat(shop.deps.pg, want.user_id, want.idempotency_key)
    if repeat is not None:
        return await _resume(shop, gateway, want, repeat)
    if short := short or await _recount(shop, seller_id, want.cart):
        raise _out_of_stock(short)
    return None


async def _place_cart(shop: Shop, cart: list[stock.Units]) -> tuple[int, list[stock.Units]]:
    """Whose the cart is, and the lines whose units are counted."""
    ids = [line.product_id for line in cart]
    places = await shop.places.find(shop.deps.pg, ids)
    for product_id in ids:
        if product_id not in places:
            raise NotFound(f"product {product_id} is not here")
    sellers = {(place.seller_id, place.currency) for place in places.values()}
    if len(sellers) != 1:
        raise TwoSellers("every product of one order comes from one seller, in one currency")
    ((seller_id, _),) = sellers
    return seller_id, [line for line in cart if places[line.product_id].counted]


async def _hold(shop: Shop, seller_id: int, hold_id: UUID, cart: list[stock.Units]) -> dict[int, int]:
    """Units left of each line that does not fit; empty when the cart is held, or when Redis cannot say."""
    redis, pg = shop.deps.redis, shop.deps.pg
    try:
        for _ in range(CLAIM_TRIES):
            match await stock.reserve(redis, seller_id, hold_id, cart):
                case stock.Held():
                    return {}
                case stock.Short(left=left):
                    return dict(zip(left[::2], left[1::2], strict=True))
                case stock.Cold(products=products):
                    await stock.fill(redis, pg, seller_id, list(products))
    except RedisDown as error:
        # Redis only turns crowds away; the claim in Postgres decides with or without it (law 1).
        log.warning("no hold, Postgres decides", seller_id=seller_id, error=str(error))
    return {}


async def _end_hold(shop: Shop, seller_id: int, hold_id: UUID, *, kept: bool) -> None:
    """The hold is over: its units are claimed rows now (`kept`), or free again. What is lost here lapses by itself."""
    try:
        await (stock.commit if kept else stock.release)(shop.deps.redis, seller_id, hold_id)
    except RedisDown as error:
        log.warning("hold not ended, it lapses", seller_id=seller_id, hold_id=str(hold_id), error=str(error))


async def _claim(shop: Shop, want: Want, seller_id: int, order_id: UUID) -> orders.Created | None:
    new = orders.New(
        order_id=order_id,
        user_id=want.user_id,
        seller_id=seller_id,
        product_ids=[line.product_id for line in want.cart],
        quantities=[line.units for line in want.cart],
        idempotency_key=want.idempotency_key,
        request_hash=want.request_hash,
        window_s=shop.deps.settings.payment_window_s,
        provider=want.provider,
    )
    return await orders.create(shop.deps.pg, new)


async def _recount(shop: Shop, seller_id: int, cart: list[stock.Units]) -> dict[int, int]:
    """What Postgres has of the lines that it refused; Redis, which had let them pass, counts them anew."""
    ids = [line.product_id for line in cart]
    try:
        await stock.forget(shop.deps.redis, seller_id, ids)
    except RedisDown as error:
        log.warning("counters not corrected", seller_id=seller_id, error=str(error))
    left = await stock.count(shop.deps.pg, ids)
    return {line.product_id: n for line in cart if (n := left[line.product_id]) is not None and n < line.units}


def _out_of_stock(short: dict[int, int]) -> OutOfStock:
    text = ", ".join(f"{left} left of product {product_id}" for product_id, left in short.items())
    return OutOfStock(f"{text}; nothing is held", left={str(k): v for k, v in short.items()})


async def _resume(shop: Shop, gateway: Gateway, want: Want, repeat: orders.Repeat) -> Placed:
    """The order of an earlier request with the same key, driven on to its link."""
    if repeat.request_hash != want.request_hash:
        raise KeyReused("this Idempotency-Key belongs to another order")
    order = await _own(shop, repeat.order_id, want.user_id)
    if order.status != "pending" or order.payment_status == "open":
        return Placed(order, repeated=True)
    lease_s = shop.deps.settings.gateway_timeout_ms // 1000 + OPENING_MARGIN_S
    taken = await payments.retake(shop.deps.pg, repeat.order_id, want.provider, lease_s)
    if taken is None and order.expires_at < clock.now() + timedelta(minutes=1):
        return Placed(order, repeated=True)  # too late to be paid: the order says so
    if taken is None:
        raise InProgress("an earlier request with this key is still being worked on", retry_after_s=2)
    linked = await _open(shop, gateway, repeat.order_id, taken)
    return Placed(linked or await _own(shop, repeat.order_id, want.user_id), repeated=True)


async def _open(
    shop: Shop, gateway: Gateway, order_id: UUID, owed: orders.Created | payments.Taken
) -> orders.Order | None:
    """The order with its link; None when it was not ours to link any more. Raises: ProviderDown, the order stands."""
    settings = shop.deps.settings
    ask = Ask(
        order_id=order_id,
        number=owed.number,
        money=Money(owed.total_minor, owed.currency),
        lifetime_s=int((owed.expires_at - clock.now()).total_seconds()),
        return_url=f"{settings.public_url}/?order={order_id}",
        callback_url=f"{settings.public_url}/api/webhook/payment/{gateway.name}",
    )
    try:
        invoice = await gateway.create(ask)
    except ProviderDown as error:
        await payments.fail(shop.deps.pg, order_id, gateway.name, owed.opened_at)
        log.warning("no invoice, the order stands", order_id=str(order_id), error=error.detail)
        raise ProviderDown(
            "the order stands, the gateway gave no link: repeat with the same Idempotency-Key",
            retry_after_s=2,
            order_id=str(order_id),
        ) from error
    return await orders.link(shop.deps.pg, order_id, gateway.name, invoice.id, invoice.url, owed.opened_at)


async def _own(shop: Shop, order_id: UUID, user_id: int) -> orders.Order:
    order = await orders.get(shop.deps.pg, order_id, user_id)
    if order is None:
        raise NotFound("no such order")
    return order
