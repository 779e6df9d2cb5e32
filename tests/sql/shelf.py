"""A shelf to price and to buy from, written as plain rows, so that any age and any discount can be had."""

import hashlib
from typing import Any
from uuid import UUID

import msgspec

from app.base.ids import new_id
from app.domain import catalog, customers, orders
from app.domain.catalog import NewProduct
from app.infra.sql import Postgres

UNIT = """
INSERT INTO stock_items (id, product_id, state, sealed, fingerprint, discount_bp, received_at, expires_at)
VALUES ($1, $2, $3, $4, $4, $5, now() - $6::int * interval '1 minute', now() + $7::int * interval '1 second')"""
SHARE = "INSERT INTO shared_goods (product_id, sealed) VALUES ($1, 'sealed')"
PRICES = "SELECT {} FROM available_stock_with_discounts WHERE product_id = $1 ORDER BY stock_item_id"
DAY_MIN = 24 * 60

NEW = NewProduct(
    seller_id=0, title="Key", description="", category="Keys", kind="unit", currency="RUB", list_price_minor=10_000
)


class Shelf:
    """One seller's products in one database, and a buyer."""

    def __init__(self, pg: Postgres, seller_id: int, user_id: int) -> None:
        self.pg, self.seller_id, self.user_id = pg, seller_id, user_id

    @classmethod
    async def opened(cls, pg: Postgres) -> "Shelf":
        buyer = await customers.enter(pg, telegram_id=1001, name="Ann", username=None, language="en", is_admin=False)
        return cls(pg, await catalog.add_seller(pg, "Seller"), buyer.id)

    async def product(self, **changes: Any) -> int:
        return await catalog.add_product(
            self.pg, msgspec.structs.replace(NEW, **{"seller_id": self.seller_id} | changes)
        )

    async def unit(
        self,
        product_id: int,
        *,
        discount_bp: int = 0,
        idle_min: int = 0,
        left_s: int | None = None,
        state: str = "available",
        secret: bool = True,
    ) -> UUID:
        item = new_id()
        sealed = item.bytes if secret else None
        await self.pg.fetch(UNIT, (item, product_id, state, sealed, discount_bp, idle_min, left_s))
        return item

    async def units(self, product_id: int, number: int) -> list[UUID]:
        return [await self.unit(product_id) for _ in range(number)]

    async def priced(self, product_id: int) -> list[tuple[int, int]]:
        """Discount and price of each unit for sale, in the order of their ids."""
        rows = await self.pg.fetch(PRICES.format("discount_bp, final_price_minor"), (product_id,))
        return [tuple(row) for row in rows]

    async def for_sale(self, product_id: int) -> list[UUID | None]:
        return [row[0] for row in await self.pg.fetch(PRICES.format("stock_item_id"), (product_id,))]

    async def price(self, product_id: int) -> int:
        """What the shelf shows."""
        shown = await catalog.get(self.pg, product_id)
        assert shown is not None
        return shown.price_minor

    def cart(self, *lines: tuple[int, int], key: str | None = None, **changes: Any) -> orders.New:
        order_id = new_id()
        new = orders.New(
            order_id=order_id,
            user_id=self.user_id,
            seller_id=self.seller_id,
            product_ids=[product_id for product_id, _ in lines],
            quantities=[quantity for _, quantity in lines],
            idempotency_key=key or str(order_id),
            request_hash=hashlib.sha256(repr(lines).encode()).digest(),
            window_s=900,
            provider="crystalpay",
            most_pending=100,
        )
        return msgspec.structs.replace(new, **changes)

    async def buy(self, *lines: tuple[int, int], key: str | None = None, **changes: Any) -> orders.Created | None:
        return await orders.create(self.pg, self.cart(*lines, key=key, **changes))

    async def rows(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.pg.fetch(query, args)]
