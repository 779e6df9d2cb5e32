"""Tools: what the model may do for one buyer. Whose orders, cart and offers they touch is bound here, never told.

The model's arguments are untrusted: what does not fit is an error that the model is told, and never an exception.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from app.base.money import Money
from app.channels.line import Offer
from app.domain import cart, orders, stock
from app.errors import NotFound
from app.flows import offer, present
from app.infra.llm import Call, Tool
from app.shop import Shop

HITS, ORDERS, MOST_OFFERS = 8, 5, 3
LONGEST_DESCRIPTION = 1000
NEWEST = 2**62

ProductId = Annotated[int, Meta(ge=1, le=2**47, description="id of a product")]
Quantity = Annotated[int, Meta(ge=1, le=cart.MOST_UNITS, description="how many of it")]


class SearchCatalog(msgspec.Struct, forbid_unknown_fields=True):
    """Products that have all of these words, the best fit first; prices and stock as of a moment ago."""

    query: Annotated[
        str, Meta(min_length=1, max_length=100, description="one to three words, as the buyer spells them")
    ]


class ProductDetails(msgspec.Struct, forbid_unknown_fields=True):
    """All that the shop tells about one product; price and stock as of a moment ago."""

    product_id: ProductId


class CheckAvailability(msgspec.Struct, forbid_unknown_fields=True):
    """What one of each product costs at this very moment, and how many are left (null: it never runs out)."""

    product_ids: Annotated[list[ProductId], Meta(min_length=1, max_length=10)]


class MyOrders(msgspec.Struct, forbid_unknown_fields=True):
    """The newest orders of the buyer you are talking to."""


class AddToCart(msgspec.Struct, forbid_unknown_fields=True):
    """Puts so many of a product into the buyer's cart in the shop, in the place of what was there of it before."""

    product_id: ProductId
    quantity: Quantity


class OfferPayment(msgspec.Struct, forbid_unknown_fields=True):
    """Makes an offer: a button to buy so many of a product, at the price of this moment, appears under your reply."""

    product_id: ProductId
    quantity: Quantity


class HandOver(msgspec.Struct, forbid_unknown_fields=True):
    """Hands the conversation over to a human of the shop."""


class Done(msgspec.Struct, frozen=True):
    """What a call came to; `told` is for the model."""

    told: dict[str, Any]
    fact: bool = False  # the shop had something to tell
    offer: Offer | None = None
    hand_over: bool = False

    def text(self) -> str:
        """As the model reads it. No text of a seller's can look like one of the prompt's own marks."""
        return plain(self.told)


class Buyer(msgspec.Struct, frozen=True):
    """Whom the tools serve, and what was offered in this answer."""

    shop: Shop
    user_id: int
    offered: set[int]
    turn: asyncio.Lock  # of what changes something: one after another, in the order of the calls


Use = Callable[[Call], Awaitable[Done]]


def bound(shop: Shop, user_id: int) -> Use:
    """The tools of this buyer and nobody else, for one answer. Raises, when used: PostgresDown."""
    buyer = Buyer(shop, user_id, set(), asyncio.Lock())

    async def use(call: Call) -> Done:
        tool = TABLE.get(call.name)
        if tool is None:
            return _error(f"there is no such tool; there are {', '.join(TABLE)}")
        takes, work = tool
        try:
            given = msgspec.json.decode(call.arguments or "{}", type=takes, strict=False)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return _error(f"the arguments do not fit: {str(error)[:200]}")
        if work not in IN_TURN:
            return await work(buyer, given)
        async with buyer.turn:
            return await work(buyer, given)

    return use


def plain(told: object) -> str:
    """Compact JSON without a `<`, in which no text can end what the prompt has fenced."""
    return msgspec.json.encode(told).replace(b"<", b"\\u003c").decode()


async def _search(buyer: Buyer, given: SearchCatalog) -> Done:
    hits = await present.found(buyer.shop, given.query, HITS)
    told = [
        {
            "id": p.id,
            "title": p.title,
            "category": p.category,
            "price": _price(p.price_minor, p.currency),
            "left": p.left,
        }
        for p in hits
    ]
    return Done({"products": told}, fact=bool(told))


async def _details(buyer: Buyer, given: ProductDetails) -> Done:
    try:
        p = await present.look(buyer.shop, given.product_id)
    except NotFound:
        return _error("there is no such product")
    told = {
        "id": p.id, "title": p.title, "description": p.description[:LONGEST_DESCRIPTION], "category": p.category,
        "seller": p.seller.name, "price": _price(p.price_minor, p.currency), "discount_percent": p.discount_percent,
        "left": p.left, "made_within_hours": p.lead_time_h, "rating": p.rating, "ratings": p.ratings,
    }  # fmt: skip
    return Done(told, fact=True)


async def _availability(buyer: Buyer, given: CheckAvailability) -> Done:
    wanted = [stock.Units(product_id, 1) for product_id in dict.fromkeys(given.product_ids)]
    now = await stock.quote(buyer.shop.deps.pg, wanted)
    told = [
        {"id": q.product_id, "title": q.title, "left": q.units, "price": _price(q.price_minor, q.currency)}
        for q in now.values()
    ]
    return Done({"products": told, "unknown": [w.product_id for w in wanted if w.product_id not in now]}, bool(told))


async def _orders(buyer: Buyer, _given: MyOrders) -> Done:
    own = await orders.newest(buyer.shop.deps.pg, buyer.user_id, before=NEWEST, size=ORDERS)
    told = [
        {
            "number": o.number, "status": o.status, "total": _price(o.total_minor, o.currency),
            "ordered_at": o.created_at, "lines": [[line.quantity, line.title] for line in orders.lines(o.lines)],
        }
        for o in own
    ]  # fmt: skip
    return Done({"orders": told}, fact=True)


async def _add(buyer: Buyer, given: AddToCart) -> Done:
    line = await cart.put(buyer.shop.deps.pg, buyer.user_id, given.product_id, given.quantity)
    if line is None:
        return _error(f"not in the cart: sold out, unknown, or there are {cart.MOST_LINES} products in it")
    return Done({"in_cart": {"product_id": line.product_id, "quantity": line.quantity}}, fact=True)


async def _offer(buyer: Buyer, given: OfferPayment) -> Done:
    if len(buyer.offered | {given.product_id}) > MOST_OFFERS:
        return _error(f"no offer: there are {MOST_OFFERS} in this answer, which is enough")
    made = await offer.offer(buyer.shop, buyer.user_id, given.product_id, given.quantity)
    if made is None:
        return _error("no offer: there is no such product")
    if isinstance(made, Offer):
        buyer.offered.add(made.product_id)
        told = {"title": made.title, "quantity": made.quantity, "price": _price(made.price_minor, made.currency)}
        return Done({"offered": told}, fact=True, offer=made)
    if made.price_minor is not None:
        return _error("no offer: this shop takes no orders now")
    return _error(f"no offer: only {made.units} left" if made.units else "no offer: it is sold out")


async def _hand_over(_buyer: Buyer, _given: HandOver) -> Done:
    return Done({"handed_over": True}, fact=True, hand_over=True)


def _price(amount_minor: int | None, currency: str) -> str | None:
    return None if amount_minor is None else str(Money(amount_minor, currency))


def _error(text: str) -> Done:
    return Done({"error": text})


Work = Callable[[Buyer, Any], Awaitable[Done]]

IN_TURN: tuple[Work, ...] = (_add, _offer)

TABLE: dict[str, tuple[type[msgspec.Struct], Work]] = {
    "search_catalog": (SearchCatalog, _search),
    "product_details": (ProductDetails, _details),
    "check_availability": (CheckAvailability, _availability),
    "my_orders": (MyOrders, _orders),
    "add_to_cart": (AddToCart, _add),
    "offer_payment": (OfferPayment, _offer),
    "hand_over_to_human": (HandOver, _hand_over),
}


def _tool(name: str, takes: type[msgspec.Struct]) -> Tool:
    schema = msgspec.json.schema(takes)["$defs"][takes.__name__]
    about = schema.pop("description")
    schema.pop("title")
    return Tool(name, about, schema)


TOOLS = tuple(_tool(name, takes) for name, (takes, _) in TABLE.items())
