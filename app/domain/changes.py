"""Changes: what staff did to products, stock, promo codes, webhooks, channels and conversations, written by the very
statements that do it."""

from datetime import datetime
from uuid import UUID

import msgspec

from app.infra.sql import Many, Postgres


class Change(msgspec.Struct, frozen=True):
    """One change: who, as what, to which product (or its stock), promo code or webhook, and each field, old and new."""

    id: int
    at: datetime
    user_id: int | None  # None: at the machine
    user_name: str | None
    role: str
    noun: str  # product, stock, promo, webhook, channel, conversation
    noun_id: int | None  # the product
    promo: str | None
    webhook_id: UUID | None
    channel_id: int | None
    what: str  # JSON object


LIST = Many("changes/list_changes", Change)


async def newest(pg: Postgres, user_id: int, *, product_id: int | None, before: int, size: int) -> list[Change]:
    """Up to `size` changes older than `before` that this user may see."""
    return await LIST(pg, user_id, product_id or 0, before, size)
