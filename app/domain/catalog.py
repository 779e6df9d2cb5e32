"""The catalog: what is on the shelf, whose each product is, and what is kept of it in Redis.

What Redis keeps belongs to a generation, and every change begins a new one: all entries and leases of before are
worth nothing from then on, at the cost of one write (docs/catalog.md has the bound that follows).
"""

import time
import unicodedata
from hashlib import blake2b

import msgspec

from app.base import keys
from app.infra.lua import Redis, Script
from app.infra.sql import Many, One, Opt, Postgres

PLACES_KEPT_S = 60.0
PLACES_KEPT = 10_000

# A change is seen by everybody within LOCAL_MS + STALE_MS of its bump.
LOCAL_MS = 500  # how old a process's own copy may be
STALE_MS = 500  # for how long the value before a change may be shown while another process loads the new one
COPIES, COPIES_BYTES = 2000, 32 * 1024 * 1024  # of one process
LEASE_MS = 2000
GENERATION_MS = 24 * 3_600_000
PAGE_MS, EMPTY_MS = 300_000, 30_000
PRODUCT_MS, UNKNOWN_MS = 5_000, 30_000  # its stock and price move with every sale, and no sale bumps

MOST_WORDS, MOST_LETTERS = 8, 100
BEST = 1_000_001  # above every rank

COUNTED = frozenset({"unit", "shipped"})  # kinds whose units are rows; the others never run out


class Place(msgspec.Struct, frozen=True):
    """What hardly ever changes about a product: whose it is, how it is fulfilled, what it is priced in."""

    product_id: int
    seller_id: int
    kind: str
    currency: str

    @property
    def counted(self) -> bool:
        return self.kind in COUNTED


class Product(msgspec.Struct, frozen=True):
    """One product of the shelf; `price_minor` is the price of the next unit in line."""

    id: int
    title: str
    description: str
    category: str
    kind: str
    seller_id: int
    seller_name: str
    currency: str
    list_price_minor: int
    price_minor: int
    discount_bp: int  # hundredths of a per cent
    units_left: int | None  # None: never runs out
    lead_time_h: int | None  # made to order: hours from payment to the deadline
    ratings: int
    rating_total: int  # the sum of all stars

    @property
    def rating(self) -> float | None:
        """The average, rounded half up to one decimal; None without ratings."""
        return (20 * self.rating_total + self.ratings) // (2 * self.ratings) / 10 if self.ratings else None


class Found(Product, frozen=True):
    """A product with how well it fits what was searched for, in millionths."""

    rank: int


class Category(msgspec.Struct, frozen=True):
    name: str


class Id(msgspec.Struct, frozen=True):
    id: int


class NewProduct(msgspec.Struct, frozen=True, kw_only=True):
    """A product as its seller enters it."""

    seller_id: int
    title: str
    description: str
    category: str
    kind: str  # unit, shared, made or shipped
    currency: str
    list_price_minor: int
    discount_bp: int = 0
    duration_days: int | None = None
    lead_time_h: int | None = None


class Likeness(msgspec.Struct, frozen=True):
    """Whether this server can compare words by their trigrams."""

    known: bool


class Hit(msgspec.Struct, frozen=True):
    """The entry is of the present generation."""

    body: bytes


class Load(msgspec.Struct, frozen=True):
    """The caller has the lease."""

    generation: bytes


class Stale(msgspec.Struct, frozen=True):
    """Another loads; this is what was current until at most `STALE_MS` ago."""

    body: bytes


class Wait(msgspec.Struct, frozen=True):
    """Another loads."""


class Kept(msgspec.Struct, frozen=True):
    """What was loaded is there for everybody."""


class Lost(msgspec.Struct, frozen=True):
    """The lease was over, or the catalog changed under it."""


class Dropped(msgspec.Struct, frozen=True):
    """Nobody loads the entry now."""


class Bumped(msgspec.Struct, frozen=True):
    generation: bytes


LOOK: Script[Hit | Load | Stale | Wait] = Script("catalog/look", Hit, Load, Stale, Wait)
KEEP: Script[Kept | Lost] = Script("catalog/keep", Kept, Lost)
DROP: Script[Dropped | Lost] = Script("catalog/drop", Dropped, Lost)
BUMP: Script[Bumped] = Script("catalog/bump", Bumped)

SCRIPTS = (LOOK, KEEP, DROP, BUMP)

PLACE = Many("catalog/place_products", Place)
LIST = Many("catalog/list_products", Product)
SEARCH = Many("catalog/search_products", Found)
RESEMBLE = Many("catalog/resembling_products", Product)
LIKENESS = One("catalog/know_likeness", Likeness)
GET = Opt("catalog/get_product", Product)
SEVERAL = Many("catalog/get_products", Product)
CATEGORIES = Many("catalog/list_categories", Category)
ADD_SELLER = One("catalog/add_seller", Id)
ADD_PRODUCT = One("catalog/add_product", Id)


class Places:
    """An in-process copy of `Place`, so that a checkout knows whose stock to hold without asking Postgres first.

    A product that was deactivated stays here for up to `PLACES_KEPT_S`: the order statement refuses it then.
    """

    def __init__(self) -> None:
        self.known: dict[int, tuple[Place, float]] = {}

    async def find(self, pg: Postgres, product_ids: list[int]) -> dict[int, Place]:
        """The places of these products; unknown and inactive products are absent."""
        now = time.monotonic()
        found = {i: kept[0] for i in product_ids if (kept := self.known.get(i)) and kept[1] > now}
        missing = [i for i in product_ids if i not in found]
        if missing:
            if len(self.known) > PLACES_KEPT:
                self.known.clear()
            for place in await PLACE(pg, missing):
                found[place.product_id] = place
                self.known[place.product_id] = place, now + PLACES_KEPT_S
        return found


def page_entry(words: list[str] | None, category: str, rank: int, after: int, size: int) -> str:
    """Where a page is kept; `words` None: nothing is searched for."""
    asked = msgspec.msgpack.encode((words, category, rank, after, size))
    return keys.catalog_search(blake2b(asked, digest_size=16).hexdigest())


def product_entry(product_id: int) -> str:
    return keys.catalog_product(product_id)


def assortment_entry() -> str:
    return keys.CATALOG_ASSORTMENT


class Search:
    """Search by words; where the server has pg_trgm also by likeness, for who mistypes."""

    def __init__(self) -> None:
        self.likeness: bool | None = None  # asked once

    async def find(
        self, pg: Postgres, words: list[str], category: str, after: tuple[int, int], size: int
    ) -> list[Found]:
        """Products that have every word, or begin one with it, the best first, after this rank and id."""
        return await SEARCH(pg, words, category, *after, size)

    async def resembling(self, pg: Postgres, words: list[str], category: str, size: int) -> list[Product]:
        """Products whose title resembles these words; none where the server cannot tell."""
        if self.likeness is None:
            self.likeness = (await LIKENESS(pg)).known
        return await RESEMBLE(pg, " ".join(words), category, size) if self.likeness else []


def words_of(text: str, most: int = MOST_WORDS) -> list[str]:
    """The words of a search, as the index spells them: at most so many, each once."""
    spelt = unicodedata.normalize("NFKC", text).lower().replace("ё", "е")
    # A mark belongs to its letter; what of it Postgres leaves out of a word, the statement leaves out too.
    letters = "".join(c if c.isalnum() or unicodedata.category(c)[0] == "M" else " " for c in spelt)
    words = dict.fromkeys(word[:MOST_LETTERS] for word in letters.split())
    return list(words)[:most]


async def page(pg: Postgres, *, category: str, after: int, size: int) -> list[Product]:
    """Up to `size` products with ids above `after`."""
    return await LIST(pg, category, after, size)


async def get(pg: Postgres, product_id: int) -> Product | None:
    return await GET(pg, product_id)


async def several(pg: Postgres, product_ids: list[int]) -> dict[int, Product]:
    """Those of these products that are on the shelf, by id."""
    return {product.id: product for product in await SEVERAL(pg, product_ids)}


async def categories(pg: Postgres) -> list[str]:
    return [row.name for row in await CATEGORIES(pg)]


async def add_seller(pg: Postgres, name: str) -> int:
    return (await ADD_SELLER(pg, name)).id


async def add_product(pg: Postgres, new: NewProduct) -> int:
    return (await ADD_PRODUCT(pg, *msgspec.structs.astuple(new))).id


async def look(redis: Redis, entry: str, token: str) -> Hit | Load | Stale | Wait:
    """What is kept under `entry`, or the right to load it. Raises: RedisDown."""
    args: list[bytes | str | int] = [token, LEASE_MS, STALE_MS * 1000, GENERATION_MS]
    return await LOOK(redis, keys=[keys.CATALOG_GENERATION, entry, keys.catalog_lease(entry)], args=args)


async def keep(redis: Redis, entry: str, lease: Load, token: str, body: bytes, life_ms: int) -> Kept | Lost:
    """What was loaded under the lease is there for everybody, unless something changed meanwhile. Raises: RedisDown."""
    args: list[bytes | str | int] = [lease.generation, token, body, life_ms]
    return await KEEP(redis, keys=[keys.CATALOG_GENERATION, entry, keys.catalog_lease(entry)], args=args)


async def drop(redis: Redis, entry: str, lease: Load, token: str) -> Dropped | Lost:
    """The lease is over, nothing was loaded. Raises: RedisDown."""
    return await DROP(redis, keys=[keys.catalog_lease(entry)], args=[lease.generation, token])


async def bump(redis: Redis) -> Bumped:
    """The catalog has changed, and that is committed. Raises: RedisDown."""
    return await BUMP(redis, keys=[keys.CATALOG_GENERATION], args=[GENERATION_MS])
