"""Browse: the shelf as encoded bytes, from this process's copy, else from Redis, else from Postgres.

One caller of all processes loads what Redis does not have; the others wait for it or take the last value. Without
Redis each process reads Postgres once at a time for each page. What is shown is for looking: whoever orders or
offers reads stock and price from Postgres.
"""

import random
import re
from asyncio import sleep
from collections.abc import Awaitable, Callable
from secrets import token_hex

import msgspec
import structlog

from app.base.copies import Got
from app.base.together import Read, together
from app.domain import catalog
from app.errors import Malformed, NotFound, RedisDown
from app.infra.lua import Redis
from app.shop import Shop

log = structlog.get_logger(__name__)

MAX_PAGE = 100
START = "0"
CURSOR = re.compile(r"(?:(\d{1,7})-)?(\d{1,18})", re.ASCII)  # of a search: rank and id; else an id
FIRST_PAUSE_S, LAST_PAUSE_S = 0.01, 0.05


class Ask(msgspec.Struct, frozen=True):
    """What one caller wants to see; `cursor` is "0", or what an earlier page with the same question ended with."""

    text: str
    category: str
    cursor: str
    size: int


class Page(msgspec.Struct, frozen=True):
    """Products in their order; `next_cursor` continues after them, None at the end. Categories: None if unreadable."""

    products: list[catalog.Product]
    categories: list[str] | None
    next_cursor: str | None


class Loaded(msgspec.Struct, frozen=True):
    """What Postgres had, encoded, and how long it may be kept; 0: not at all."""

    body: bytes
    life_ms: int


async def browse(shop: Shop, ask: Ask, show: Callable[[Page], bytes]) -> bytes:
    """One page as `show` encodes it; without the categories when only they cannot be read. Raises: Malformed."""
    words, after = _asked(ask)

    async def load() -> Loaded:
        page = await _page(shop, words, ask, after)
        if page.categories is None:
            return Loaded(show(page), 0)
        # Pages further on are as many as there are numbers: they are kept for a moment only.
        first = ask.cursor == START and page.products
        return Loaded(show(page), catalog.PAGE_MS if first else catalog.EMPTY_MS)

    entry = entry_of(ask)
    return await shop.copies.read(entry, lambda: through(shop.deps.redis, shop.copies.clock, entry, load))


def entry_of(ask: Ask) -> str:
    """Under which name the page is copied and kept. Raises: Malformed."""
    words, after = _asked(ask)
    return catalog.page_entry(words, ask.category, *after, ask.size)


async def look(shop: Shop, product_id: int, show: Callable[[catalog.Product], bytes]) -> bytes:
    """One product as `show` encodes it. Raises: NotFound."""

    async def load() -> Loaded:
        product = await catalog.get(shop.deps.pg, product_id)
        return Loaded(show(product), catalog.PRODUCT_MS) if product else Loaded(b"", catalog.UNKNOWN_MS)

    entry = catalog.product_entry(product_id)
    body = await shop.copies.read(entry, lambda: through(shop.deps.redis, shop.copies.clock, entry, load))
    if not body:
        raise NotFound(f"product {product_id} is not here")
    return body


def _asked(ask: Ask) -> tuple[list[str] | None, tuple[int, int]]:
    """The words, None when nothing is searched for, and the rank and id after which the page begins."""
    words = catalog.words_of(ask.text) if ask.text else None
    return words, _after(ask.cursor, searched=words is not None)


async def through(redis: Redis, clock: Callable[[], float], entry: str, load: Callable[[], Awaitable[Loaded]]) -> Got:
    """What Redis keeps under `entry`, else what `load` reads, which is then there for everybody.

    Raises: what `load` raises.
    """
    token = token_hex(8)
    found = await _ask(redis, clock, entry, token)
    if isinstance(found, Got):
        return found
    born_s = clock()
    try:
        loaded = await load()
    except Exception:
        await _hand_in(redis, entry, found, token, Loaded(b"", 0))
        raise
    await _hand_in(redis, entry, found, token, loaded)
    return Got(loaded.body, born_s)


async def _ask(redis: Redis, clock: Callable[[], float], entry: str, token: str) -> Got | catalog.Load | None:
    """What is kept, or the lease to load it; None when Redis is out.

    Whoever loads for longer than its lease, or died, is joined by one other caller of all processes, not by all.
    """
    pause_s = FIRST_PAUSE_S
    try:
        while True:
            born_s = clock()
            match await catalog.look(redis, entry, token):
                case catalog.Hit(body=body) | catalog.Stale(body=body):
                    return Got(body, born_s)
                case catalog.Load() as lease:
                    return lease
            await sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311  (spreads load, guards nothing)
            pause_s = min(2 * pause_s, LAST_PAUSE_S)
    except RedisDown as error:
        log.debug("catalog without Redis", entry=entry, error=str(error))
        return None


async def _hand_in(redis: Redis, entry: str, lease: catalog.Load | None, token: str, loaded: Loaded) -> None:
    """The lease is over, and what may be kept is kept. What is lost here is loaded again by the next one."""
    if lease is None:
        return
    try:
        if loaded.life_ms:
            await catalog.keep(redis, entry, lease, token, loaded.body, loaded.life_ms)
        else:
            await catalog.drop(redis, entry, lease, token)
    except RedisDown as error:
        log.debug("nothing kept", entry=entry, error=str(error))


async def _page(shop: Shop, words: list[str] | None, ask: Ask, after: tuple[int, int]) -> Page:
    """The page from Postgres; `words` None: nothing is searched for."""
    pg = shop.deps.pg
    size = ask.size + 1  # one more tells whether there is a next page

    async def shelf() -> list[catalog.Product]:
        return await catalog.page(pg, category=ask.category, after=after[1], size=size)

    async def found() -> list[catalog.Product]:
        best = await shop.search.find(pg, words or [], ask.category, after, size)
        if best or ask.cursor != START:
            return [*best]
        return await shop.search.resembling(pg, words or [], ask.category, ask.size)

    products, categories = await together(
        Read("products", shelf if words is None else found),
        Read[list[str] | None]("categories", lambda: catalog.categories(pg), None),
        parallel=shop.deps.settings.parallel,
    )
    more = len(products) > ask.size
    return Page(products[: ask.size], categories, _cursor(products[ask.size - 1]) if more else None)


def _cursor(last: catalog.Product) -> str:
    return f"{last.rank}-{last.id}" if isinstance(last, catalog.Found) else str(last.id)


def _after(cursor: str, *, searched: bool) -> tuple[int, int]:
    """Rank and id after which the page begins. Raises: Malformed."""
    if cursor == START:
        return catalog.BEST, 0
    read = CURSOR.fullmatch(cursor)
    if not read or bool(read[1]) != searched or int(read[1] or 0) > catalog.BEST:
        raise Malformed("cursor: not one of this question's")
    return int(read[1] or 0), int(read[2])
