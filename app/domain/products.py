"""Products as their staff see and change them; the shelf that buyers see is the catalog's."""

from datetime import datetime
from typing import Any

import msgspec

from app.infra.secrets import Sealer, shared_row
from app.infra.sql import Many, One, Opt, Postgres


class Card(msgspec.Struct, frozen=True):
    """One product with everything that may be changed, and its units by state."""

    id: int
    seller_id: int
    seller_name: str
    title: str
    description: str
    category: str
    kind: str
    currency: str
    list_price_minor: int
    discount_bp: int
    duration_days: int | None
    lead_time_h: int | None
    active: bool
    version: int
    created_at: datetime
    has_content: bool  # of a shared product: what its buyers get
    available: int
    expired: int  # available once, past their date
    held: int
    sold: int
    withdrawn: int


class Entered(msgspec.Struct, frozen=True):
    """`word`: created; forbidden (no staff); no_seller (none such, or not one that the user acts for)."""

    word: str
    product_id: int | None
    outbox_id: int | None


class Changed(msgspec.Struct, frozen=True):
    """`word`: changed, unchanged; forbidden, missing; stale (another version is current); unfit (for its kind)."""

    word: str
    version: int | None
    outbox_id: int | None


class Filter(msgspec.Struct, frozen=True):
    """Which products to list; the defaults list all."""

    query: str = ""
    seller_id: int | None = None
    active: bool | None = None


CREATE = One("products/create_product", Entered)
CHANGE = One("products/change_product", Changed)
SHARE = One("products/share_content", Changed)
FIND = Opt("products/find_card", Card)
LIST = Many("products/list_cards", Card)


async def create(pg: Postgres, user_id: int, seller_id: int | None, fields: dict[str, Any]) -> Entered:
    """A new product with these columns; without `seller_id` it is the user's own seller's."""
    return await CREATE(pg, user_id, seller_id, _json(fields))


async def change(pg: Postgres, user_id: int, product_id: int, version: int, fields: dict[str, Any]) -> Changed:
    """These columns are as given, if `version` is the current one."""
    return await CHANGE(pg, user_id, product_id, version, _json(fields))


async def share(pg: Postgres, sealer: Sealer, user_id: int, product_id: int, content: str) -> Changed:
    """Every buyer of this shared product gets this content."""
    return await SHARE(pg, user_id, product_id, sealer.seal(content.encode(), shared_row(product_id)))


async def find(pg: Postgres, user_id: int, product_id: int) -> Card | None:
    """The product, if this user has to do with it."""
    return await FIND(pg, user_id, product_id)


async def page(pg: Postgres, user_id: int, wanted: Filter, *, after: int, size: int) -> list[Card]:
    """Up to `size` of this user's products with ids above `after`."""
    return await LIST(pg, user_id, wanted.query, wanted.seller_id or 0, wanted.active, after, size)


def _json(fields: dict[str, Any]) -> str:
    return msgspec.json.encode(fields).decode()
