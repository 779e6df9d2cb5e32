"""Present: products as everybody sees them on the shelf, the same bytes for the Mini App and for the consultant."""

import msgspec

from app.domain import catalog
from app.flows import browse
from app.shop import Shop


class Seller(msgspec.Struct, frozen=True):
    id: int
    name: str


class Product(msgspec.Struct, frozen=True):
    """A product of the shelf; prices in minor units; `left` is null when it never runs out."""

    id: int
    title: str
    description: str
    category: str
    kind: str
    seller: Seller
    currency: str
    list_price_minor: int
    price_minor: int
    discount_percent: float
    left: int | None
    lead_time_h: int | None
    rating: float | None  # the average, with one decimal
    ratings: int


class Shelf(msgspec.Struct, frozen=True):
    """A page of products; `next_cursor` asks for the next one."""

    products: list[Product]
    categories: list[str]
    next_cursor: str | None


_shelf = msgspec.json.Decoder(Shelf)
_product = msgspec.json.Decoder(Product)


def shelf(page: browse.Page) -> bytes:
    """The page as it is sent and kept."""
    told = Shelf([product(found) for found in page.products], page.categories or [], page.next_cursor)
    return msgspec.json.encode(told)


def card(found: catalog.Product) -> bytes:
    """One product as it is sent and kept."""
    return msgspec.json.encode(product(found))


async def found(shop: Shop, text: str, size: int, category: str = "") -> list[Product]:
    """The first page of what has every word of the text, as of a moment ago."""
    ask = browse.Ask(text, category, browse.START, size)
    return _shelf.decode(await browse.browse(shop, ask, shelf)).products


async def look(shop: Shop, product_id: int) -> Product:
    """One product as of a few seconds ago. Raises: NotFound."""
    return _product.decode(await browse.look(shop, product_id, card))


def product(p: catalog.Product) -> Product:
    return Product(
        id=p.id,
        title=p.title,
        description=p.description,
        category=p.category,
        kind=p.kind,
        seller=Seller(p.seller_id, p.seller_name),
        currency=p.currency,
        list_price_minor=p.list_price_minor,
        price_minor=p.price_minor,
        discount_percent=p.discount_bp / 100,
        left=p.units_left,
        lead_time_h=p.lead_time_h,
        rating=p.rating,
        ratings=p.ratings,
    )
