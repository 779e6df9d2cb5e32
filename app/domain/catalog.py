"""The catalog: what is on the shelf, and whose each product is."""

import time

import msgspec

from app.infra.sql import Many, One, Opt, Postgres

PLACES_KEPT_S = 60.0
PLACES_KEPT = 10_000

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


PLACE = Many("catalog/place_products", Place)
LIST = Many("catalog/list_products", Product)
GET = Opt("catalog/get_product", Product)
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


async def page(pg: Postgres, *, query: str, category: str, after: int, size: int) -> list[Product]:
    """Up to `size` products with ids above `after`."""
    return await LIST(pg, query, category, after, size)


async def get(pg: Postgres, product_id: int) -> Product | None:
    return await GET(pg, product_id)


async def categories(pg: Postgres) -> list[str]:
    return [row.name for row in await CATEGORIES(pg)]


async def add_seller(pg: Postgres, name: str) -> int:
    return (await ADD_SELLER(pg, name)).id


async def add_product(pg: Postgres, new: NewProduct) -> int:
    return (await ADD_PRODUCT(pg, *msgspec.structs.astuple(new))).id
