"""Review: a verified buyer's stars and words, counted exactly however many rate at once.

The statement is optimistic: it writes only on the version of the rating that it has read. Whoever comes second writes
nothing and tries again after a random wait, which grows and is bounded, as the number of tries is. Those of one
process go one after another, so that only processes meet.
"""

import asyncio
import random

from app.domain import reviews
from app.errors import Busy, Forbidden, NotFound
from app.flows import refresh
from app.shop import Shop

MAX_PAGE = 100
TRIES = 12
FIRST_WAIT_S = 0.01
LONGEST_WAIT_S = 1.0


async def review(shop: Shop, user_id: int, product_id: int, rating: int, text: str) -> reviews.Put:
    """The review is this user's word on the product: created, edited or unchanged.

    Raises: NotFound; Forbidden for whoever did not get the goods; Busy, and nothing was written.
    """
    async with shop.turns.of(("rating", product_id)):
        put = await _insist(shop, user_id, product_id, rating, text)
    match put.word:
        case "unknown":
            raise NotFound(f"product {product_id} is not here")
        case "unverified":
            raise Forbidden("only those whose goods were delivered may review them")
        case "conflict":
            raise Busy("many are rating this product right now; nothing was written", retry_after_s=1)
    if put.outbox_id is not None:
        await refresh.at_once(shop, put.outbox_id)
    return put


async def read(shop: Shop, product_id: int, *, before: int, size: int) -> reviews.Page:
    """The product's rating and a page of its reviews. Raises: NotFound."""
    page = await reviews.newest(shop.deps.pg, product_id, before=before, size=size)
    if page is None:
        raise NotFound(f"product {product_id} is not here")
    return page


async def _insist(shop: Shop, user_id: int, product_id: int, rating: int, text: str) -> reviews.Put:
    """The last attempt's outcome: conflict only when every one of them was too late."""
    for attempt in range(1, TRIES + 1):
        put = await reviews.put(shop.deps.pg, product_id, user_id, rating, text)
        if put.word != "conflict" or attempt == TRIES:
            break
        await asyncio.sleep(wait_s(attempt))
    return put


def wait_s(attempt: int) -> float:
    """After this attempt (from 1): full jitter, so that those who met once do not meet again."""
    return random.uniform(0, min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**attempt))  # noqa: S311  (spreads load)
