"""Goods: what the buyer paid for, opened for its owner alone."""

from datetime import datetime
from uuid import UUID

import msgspec

from app.infra.secrets import Sealer, made_row, shared_row, stock_row
from app.infra.sql import Many, One, Opt, Postgres


class Sealed(msgspec.Struct, frozen=True):
    """One unit of an order; `sealed` is there once it is delivered."""

    position: int
    product_id: int
    title: str
    kind: str
    state: str
    due_at: datetime | None
    delivered_at: datetime | None
    stock_item_id: UUID | None
    sealed: bytes | None


class Good(msgspec.Struct, frozen=True):
    """One delivered unit, opened."""

    product_id: int
    title: str
    kind: str
    content: str
    delivered_at: datetime


class Owed(msgspec.Struct, frozen=True):
    """One unit that is paid and not delivered yet."""

    position: int
    product_id: int
    title: str
    kind: str
    due_at: datetime | None


class Handed(msgspec.Struct, frozen=True):
    """What the order is now, and the message that is owed."""

    status: str
    outbox_id: int | None


class Shared(msgspec.Struct, frozen=True):
    product_id: int


READ = Many("goods/read_goods", Sealed)
SHARE = One("goods/share_good", Shared)
HAND_OVER = Opt("goods/hand_over", Handed)


async def read(pg: Postgres, sealer: Sealer, order_id: UUID, user_id: int) -> tuple[list[Good], list[Owed]] | None:
    """What this user's order delivered and what it still owes; None when the order is not theirs.

    Raises: Unsealable when a key is gone or a row was altered.
    """
    rows = await READ(pg, order_id, user_id)
    if not rows:
        return None
    goods = [_open(sealer, order_id, row) for row in rows if row.sealed is not None]
    owed = [Owed(r.position, r.product_id, r.title, r.kind, r.due_at) for r in rows if r.state == "owed"]
    return goods, owed


async def share(pg: Postgres, sealer: Sealer, product_id: int, content: str) -> None:
    """Every buyer of this product gets this content."""
    await SHARE(pg, product_id, sealer.seal(content.encode(), shared_row(product_id)))


async def hand_over(
    pg: Postgres, sealer: Sealer, user_id: int, order_id: UUID, position: int, content: str
) -> Handed | None:
    """What this seller (or admin) made is its buyer's; None when nothing is owed there, or it is not theirs to give."""
    sealed = sealer.seal(content.encode(), made_row(order_id, position))
    return await HAND_OVER(pg, user_id, order_id, position, sealed)


def _open(sealer: Sealer, order_id: UUID, row: Sealed) -> Good:
    assert row.sealed is not None
    assert row.delivered_at is not None
    if row.kind == "made":
        name = made_row(order_id, row.position)
    else:
        name = stock_row(row.stock_item_id) if row.stock_item_id else shared_row(row.product_id)
    content = sealer.open(row.sealed, name).decode()
    return Good(row.product_id, row.title, row.kind, content, row.delivered_at)
