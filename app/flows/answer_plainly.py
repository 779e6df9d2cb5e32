"""Answer plainly: the consultant without a model. It tells what the catalog's search finds and what is left of it now.

What its answers are worth (`quality`): 0.9 orders, and who asked for a human; 0.8 goods that can be had; 0.7 small
talk; 0.5 goods that are sold out; 0.3 nothing found, and so said.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from app.base.money import Money
from app.channels import sayings
from app.channels.line import Offer
from app.domain import orders, stock
from app.flows import offer, present
from app.flows.understand import Wish, begun, telling, wish
from app.shop import Shop

LOOKED_FOR = 5  # words, one by one
SHOWN = 6  # hits
MOST_OFFERS = 3
ORDERS_SHOWN = 5
NEWEST = 2**62


class Plain(msgspec.Struct, frozen=True):
    """An answer by rules."""

    text: str
    quality: float
    offers: list[Offer] = []
    hand_over: bool = False


async def answer_plainly(shop: Shop, user_id: int, language: str, text: str) -> Plain:
    """What can be said to this message without a model. Raises: PostgresDown."""
    match wish(text):
        case Wish.HUMAN:
            return Plain(sayings.human(language), 0.9, hand_over=True)
        case Wish.GREETING:
            return Plain(sayings.greeting(language), 0.7)
        case Wish.ORDERS:
            return Plain(await _orders(shop, user_id, language), 0.9)
        case Wish.SHELF:
            hits = [product.id for product in await present.found(shop, "", SHOWN)]
        case Wish.SEARCH:
            hits = await _search(shop, telling(text))
    if not hits:
        return Plain(sayings.nothing(language), 0.3)
    return await _goods(shop, user_id, language, hits)


async def _orders(shop: Shop, user_id: int, language: str) -> str:
    own = await orders.newest(shop.deps.pg, user_id, before=NEWEST, size=ORDERS_SHOWN)
    lines = [(order.number, order.status, str(Money(order.total_minor, order.currency))) for order in own]
    return sayings.orders(language, lines)


async def _search(shop: Shop, words: list[str]) -> list[int]:
    """Products that have all of these words, and if none of them is left those that have some, most words first."""
    single = sorted(words, key=len, reverse=True)[:LOOKED_FOR] if len(words) > 1 else words
    asked = dict.fromkeys([" ".join(words), *(begun(word) for word in single)])
    whole, *parts = await _each([_asking(shop, text) for text in asked], parallel=shop.deps.settings.parallel)
    best = [found.id for found in whole]
    if any(found.left != 0 for found in whole):
        return best[:SHOWN]
    some = Counter(found.id for part in parts for found in part)
    return list(dict.fromkeys([*best, *(id for id, _ in some.most_common())]))[:SHOWN]  # equals stay in their order


async def _goods(shop: Shop, user_id: int, language: str, hits: list[int]) -> Plain:
    """The hits as they can be had at this moment, with offers."""
    now = await stock.quote(shop.deps.pg, [stock.Units(product_id, 1) for product_id in hits])
    found = [now[product_id] for product_id in hits if product_id in now]
    if not found:
        return Plain(sayings.nothing(language), 0.3)
    there = [quoted for quoted in found if quoted.price_minor is not None]
    lines = [(offer.title(q), str(Money(q.price_minor or 0, q.currency)), q.units) for q in there or found]
    made = [made for quoted in there[:MOST_OFFERS] if (made := offer.made(shop, user_id, quoted))]
    return Plain(sayings.goods(language, lines), 0.8 if there else 0.5, made)


def _asking(shop: Shop, text: str) -> Callable[[], Awaitable[list[present.Product]]]:
    return lambda: present.found(shop, text, SHOWN)


async def _each(
    calls: list[Callable[[], Awaitable[list[present.Product]]]], *, parallel: bool
) -> list[list[present.Product]]:
    """Side by side, or one after another with the same result (E5). Raises: what the first one that fails raises."""
    if parallel:
        return await asyncio.gather(*(call() for call in calls))
    return [await call() for call in calls]
