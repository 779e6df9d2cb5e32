"""Changes: what staff did to products, stock and promo codes, written by the very statements that do it."""

from datetime import datetime

import msgspec

from app.infra.sql import Many, Postgres


class Change(msgspec.Struct, frozen=True):
    """One change: who, as what, to which product (or its stock) or promo code, and which fields from what to what."""

    id: int
    at: datetime
    user_id: int | None  # None: at the machine
    user_name: str | None
    role: str
    noun: str  # product, stock or promo
    noun_id: int | None  # the product
    promo: str | None
    what: str  # JSON object


LIST = Many("changes/list_changes", Change)


async def newest(pg: Postgres, user_id: int, *, product_id: int | None, before: int, size: int) -> list[Change]:
    """Up to `size` changes older than `before` that this user may see."""
    return await LIST(pg, user_id, product_id or 0, before, size)
