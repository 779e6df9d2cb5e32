"""Browse: the shelf, page by page, straight from Postgres."""

import msgspec

from app.base.together import Read, together
from app.domain import catalog
from app.errors import NotFound
from app.shop import Shop

MAX_PAGE = 100


class Page(msgspec.Struct, frozen=True):
    """Products in the order of ids; `next_cursor` continues after them, None at the end."""

    products: list[catalog.Product]
    categories: list[str]
    next_cursor: str | None


async def browse(shop: Shop, *, query: str, category: str, after: int, size: int) -> Page:
    """One page; without the categories when only they cannot be read."""
    pg = shop.deps.pg
    no_categories: list[str] = []
    products, categories = await together(
        Read("products", lambda: catalog.page(pg, query=query, category=category, after=after, size=size + 1)),
        Read("categories", lambda: catalog.categories(pg), no_categories),
        parallel=shop.deps.settings.parallel,
    )
    more = len(products) > size
    return Page(products[:size], categories, str(products[size - 1].id) if more else None)


async def look(shop: Shop, product_id: int) -> catalog.Product:
    """One product. Raises: NotFound."""
    product = await catalog.get(shop.deps.pg, product_id)
    if product is None:
        raise NotFound(f"product {product_id} is not here")
    return product
