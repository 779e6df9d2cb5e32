"""Hold: Redis keeps a cart for the moment in which its order is made, and hears what became of it.

Redis only turns crowds away; the claim in Postgres decides with or without it (law 1). What Redis could not be told
is told when it is back: a hold that nobody ends keeps its units from the next buyer until it lapses.
"""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import msgspec
import structlog

from app.domain import stock
from app.errors import RedisDown
from app.shop import Shop

log = structlog.get_logger(__name__)

TRIES = 3  # counters may vanish between a count and the hold
AGAIN_S = 1.0
MOST_LATER = 1000  # calls that wait for Redis to come back; the others lapse


class Hold(msgspec.Struct, frozen=True):
    """What Redis said of the cart; all defaults: it could not say, and may hold it or not."""

    id: UUID
    ours: bool = False  # made by this very call
    shared: bool = False  # made for an earlier request with this id, which may run or be dead
    short: dict[int, int] = {}  # units left of each line that does not fit; nothing is held


async def take(shop: Shop, seller_id: int, hold_id: UUID, cart: list[stock.Units]) -> Hold:
    """The cart is held under this id, or not. Repeats of one request ask with one id and share the hold."""
    redis = shop.deps.redis
    try:
        for _ in range(TRIES if cart else 0):
            match await stock.reserve(redis, seller_id, hold_id, cart):
                case stock.Held():
                    return Hold(hold_id, ours=True)
                case stock.Shared():
                    return Hold(hold_id, shared=True)
                case stock.Short(left=left):
                    return Hold(hold_id, short=dict(zip(left[::2], left[1::2], strict=True)))
                case stock.Cold(products=products):
                    await _count(shop, seller_id, products)
    except RedisDown as error:
        log.warning("no hold, Postgres decides", seller_id=seller_id, error=str(error))
    return Hold(hold_id)


async def sold(shop: Shop, seller_id: int, hold_id: UUID, cart: list[stock.Units], *, again: bool = False) -> None:
    """The cart is claimed in Postgres, by this request or (`again`) by one that it repeats; its hold is over."""
    await _tell(shop, lambda: stock.commit(shop.deps.redis, seller_id, hold_id, cart, again=again))


async def give_back(shop: Shop, seller_id: int, hold_id: UUID) -> None:
    """The units are free again. Never where an order may have claimed them: its own hold is then all that counts it."""
    await _tell(shop, lambda: stock.release(shop.deps.redis, seller_id, hold_id))


async def forget(shop: Shop, seller_id: int, product_ids: list[int]) -> None:
    """Redis was wrong about these products, or they changed by other ways than orders: they are counted anew."""
    await _tell(shop, lambda: stock.forget(shop.deps.redis, seller_id, product_ids))


async def _count(shop: Shop, seller_id: int, products: tuple[int, ...]) -> None:
    """A crowd that finds these products uncounted waits for one count and not for hundreds."""

    def count() -> Awaitable[stock.Filled | stock.Moved]:
        return stock.recount(shop.deps.redis, shop.deps.pg, seller_id, list(products))

    await shop.counts.join((seller_id, products), count)


async def _tell(shop: Shop, call: Callable[[], Awaitable[object]]) -> None:
    try:
        await call()
    except RedisDown as error:
        later = len(shop.errands.running) < MOST_LATER
        log.warning("Redis not told", again=later, error=str(error))
        if later:
            shop.errands.send(_insist(call))


async def _insist(call: Callable[[], Awaitable[object]]) -> None:
    """Once more and once more, for as long as a hold lives."""
    for _ in range(int(stock.HOLD_MS / 1000 / AGAIN_S)):
        await asyncio.sleep(AGAIN_S)
        try:
            await call()
        except RedisDown:
            continue
        return
