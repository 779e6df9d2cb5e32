"""Checkout: a cart becomes an order whose goods nobody else can buy, and a link to pay for it.

Redis holds the cart (crowds end here), Postgres claims the units and grants the order in one statement, the
gateway makes the invoice outside any transaction, Postgres keeps the link. Dies before the claim: a repeat with the
same key shares the hold, or it lapses. Dies after it: a repeat goes on where this one stopped, or the order expires.
"""

import asyncio
from hashlib import sha256
from uuid import UUID

import msgspec
import structlog

from app.base import clock
from app.base.ids import derived_id, new_id
from app.base.money import Money
from app.base.together import Read, together
from app.domain import orders, promos, stock
from app.errors import (
    BadOffer,
    Busy,
    InProgress,
    KeyReused,
    NotFound,
    OfferStale,
    OutOfStock,
    Problem,
    PromoRefused,
    TooManyPending,
    TwoSellers,
)  # fmt: skip
from app.flows import hold, pay
from app.shop import Shop

log = structlog.get_logger(__name__)

WHY_NOT = {
    "unknown": "there is no such code",
    "foreign": "it is for other goods",
    "not_yet": "it is not valid yet",
    "ended": "it has ended",
    "used": "you have used it",
    "exhausted": "others have used it up",
}
CLAIM_TRIES = 4  # another checkout may hold rows for the instant of its statement
CLAIM_PAUSE_S = 0.03


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """What one request asks for: each product once, prices nowhere."""

    user_id: int
    cart: list[stock.Units]
    provider: str
    idempotency_key: str
    request_hash: bytes
    promo: str = ""  # a code, in upper case
    offered_minor: int = 0  # the total that the buyer was offered: no order is made at another; 0: none was


class Placed(msgspec.Struct, frozen=True):
    """The order with its payment; `repeated` when an earlier request with this key had made it."""

    order: orders.Order
    repeated: bool


async def place(shop: Shop, want: Want) -> Placed:
    """The cart is an order with a payment link.

    Raises: NotFound, TwoSellers, OutOfStock, PromoRefused, OfferStale, TooManyPending, KeyReused, InProgress, Busy;
    ProviderDown when the order stands without a link, which a repeat with the same key mends.
    """
    pay.gateway(shop, want.provider)
    try:
        seller_id, counted = await _place_cart(shop, want.cart)
    except (NotFound, TwoSellers):
        # The shelf may have changed since: what this key ordered then is still its order.
        if repeat := await orders.find_repeat(shop.deps.pg, want.user_id, want.idempotency_key):
            return await _resume(shop, want, repeat)
        raise
    for tried in range(CLAIM_TRIES):
        await asyncio.sleep(CLAIM_PAUSE_S * tried)  # the other's commit is on its way to the disk
        placed = await _try(shop, want, seller_id, counted)
        if placed is not None:
            return placed
    raise Busy("others are buying the same goods right now", retry_after_s=1)


async def accept_offer(
    shop: Shop, user_id: int, token: str, provider: str, idempotency_key: str = "", request_hash: bytes = b""
) -> Placed:
    """What this buyer was offered is an order at that price, and no other. Without a key the token is the key: a button
    that is pressed twice is one order.

    Raises: BadOffer, and what `place` raises.
    """
    offers, digest = shop.deps.offers, sha256(token.encode()).digest()
    offered = offers.read(token) if offers else None
    if offered is None or offered.user_id != user_id:
        raise BadOffer("this is no offer to you", reason="unknown")
    want = Want(
        user_id=user_id, cart=[stock.Units(offered.product_id, offered.quantity)], provider=provider,
        idempotency_key=idempotency_key or _key_of(token), request_hash=request_hash or digest,
        offered_minor=offered.price_minor,
    )  # fmt: skip
    if offered.expires_s > clock.unix_s():
        return await place(shop, want)
    repeat = await orders.find_repeat(shop.deps.pg, user_id, want.idempotency_key)
    if repeat is None:
        raise BadOffer("the offer has ended: ask for a new one", reason="expired")
    return await _resume(shop, want, repeat)


async def bought(shop: Shop, user_id: int, token: str) -> orders.Order | None:
    """The order that this buyer has made of the offer by its button."""
    repeat = await orders.find_repeat(shop.deps.pg, user_id, _key_of(token))
    return await orders.get(shop.deps.pg, repeat.order_id, user_id) if repeat else None


def _key_of(token: str) -> str:
    return f"offer:{sha256(token.encode()).hexdigest()[:32]}"


async def _try(shop: Shop, want: Want, seller_id: int, counted: list[stock.Units]) -> Placed | None:
    """The order, new or an earlier one's; None when only the instant of another's claim was in the way."""
    order_id = new_id()
    held = await hold.take(shop, seller_id, _hold_id(want), counted)
    created = None if held.short else await _claim(shop, want, seller_id, order_id)
    if created is None:
        return await _refused(shop, want, seller_id, held, counted)
    _, order = await together(
        Read("end the hold", lambda: hold.sold(shop, seller_id, held.id, counted), None, when=bool(counted)),
        Read("open the payment", lambda: _open(shop, want, order_id, created)),
        parallel=shop.deps.settings.parallel,
    )
    return Placed(order or await _own(shop, order_id, want.user_id), repeated=False)


async def _refused(
    shop: Shop, want: Want, seller_id: int, held: hold.Hold, counted: list[stock.Units]
) -> Placed | None:
    """What it means that no order was made; None: nothing that another try may not mend."""
    if held.ours:
        await hold.give_back(shop, seller_id, held.id)
    repeat = await orders.find_repeat(shop.deps.pg, want.user_id, want.idempotency_key)
    if repeat is None and held.short:
        raise _out_of_stock(held.short)
    if repeat is None and (refusal := await _refusal(shop, want, seller_id)):
        # Asked again after the count: units that our own earlier request has claimed meanwhile are not "sold out".
        repeat = await orders.find_repeat(shop.deps.pg, want.user_id, want.idempotency_key)
        if repeat is None:
            if not held.ours:
                await hold.give_back(shop, seller_id, held.id)  # no order stands behind it
            if isinstance(refusal, OutOfStock) and (held.ours or held.shared):  # Redis had let it pass
                await hold.forget(shop, seller_id, [line.product_id for line in counted])
            raise refusal
    if repeat is not None:
        if held.shared:  # with the request that made the order, which may have died before it ended the hold
            await hold.sold(shop, seller_id, held.id, counted, again=True)
        return await _resume(shop, want, repeat)
    if held.shared:
        raise InProgress("an earlier request with this key is still being worked on", retry_after_s=1)
    return None


async def _refusal(shop: Shop, want: Want, seller_id: int) -> Problem | None:
    """Why Postgres refuses this cart, if it is more than the instant of another's claim."""
    left = await stock.count(shop.deps.pg, [line.product_id for line in want.cart])
    short = {line.product_id: n for line in want.cart if (n := left[line.product_id]) is not None and n < line.units}
    if short:
        return _out_of_stock(short)
    most = shop.deps.settings.pending_orders
    if await orders.pending(shop.deps.pg, want.user_id, most) >= most:
        return TooManyPending(f"{most} of your orders are unpaid: pay one, or wait until one expires", limit=most)
    if want.promo:
        ids = [line.product_id for line in want.cart]
        if reason := await promos.judge(shop.deps.pg, want.promo, want.user_id, seller_id, ids):
            return PromoRefused(f"the code cannot be used: {WHY_NOT[reason]}; nothing is ordered", reason=reason)
    return await _stale(shop, want) if want.offered_minor else None


async def _stale(shop: Shop, want: Want) -> OfferStale | None:
    """Why the offer does not hold any more, if it is more than the instant of another's claim."""
    now = (await stock.quote(shop.deps.pg, want.cart)).get(want.cart[0].product_id)
    if now is None or now.price_minor in (None, want.offered_minor):
        return None
    return OfferStale(
        f"{Money(want.offered_minor, now.currency)} was offered, it costs {Money(now.price_minor or 0, now.currency)}"
        " now; nothing is ordered",
        price_minor=now.price_minor, currency=now.currency, offered_minor=want.offered_minor,
    )  # fmt: skip


def _hold_id(want: Want) -> UUID:
    """The same for each repeat of a request."""
    return derived_id(str(want.user_id).encode(), want.idempotency_key.encode(), want.request_hash)


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
        most_pending=shop.deps.settings.pending_orders,
        promo=want.promo,
        offered_minor=want.offered_minor,
    )
    return await orders.create(shop.deps.pg, new)


def _out_of_stock(short: dict[int, int]) -> OutOfStock:
    text = ", ".join(f"{left} left of product {product_id}" for product_id, left in short.items())
    return OutOfStock(f"{text}; nothing is held", left={str(k): v for k, v in short.items()})


async def _resume(shop: Shop, want: Want, repeat: orders.Repeat) -> Placed:
    """The order of an earlier request with the same key, driven on to its link."""
    if repeat.request_hash != want.request_hash:
        raise KeyReused("this Idempotency-Key belongs to another order")
    order = await _own(shop, repeat.order_id, want.user_id)
    if order.status != "pending" or order.payment_status == "open":
        return Placed(order, repeated=True)
    paid = await pay.pay(shop, repeat.order_id, want.user_id, want.provider)
    return Placed(paid or order, repeated=True)  # too late to be paid: the order says so


async def _open(shop: Shop, want: Want, order_id: UUID, created: orders.Created) -> orders.Order | None:
    """The order with its link, or paid from the balance. Raises: ProviderDown, NotEnough; the order stands."""
    by = pay.gateway(shop, want.provider)
    if by is None:
        return await pay.from_balance(shop, order_id, want.user_id)
    return await pay.link(shop, by, order_id, created)


async def _own(shop: Shop, order_id: UUID, user_id: int) -> orders.Order:
    order = await orders.get(shop.deps.pg, order_id, user_id)
    if order is None:
        raise NotFound("no such order")
    return order
