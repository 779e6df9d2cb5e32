"""Promo codes: a discount for as many orders as it says, so many of each buyer; who may use one the order decides."""

from datetime import datetime
from typing import Any

import msgspec

from app.infra.sql import Many, One, Opt, Postgres


class Promo(msgspec.Struct, frozen=True):
    """One code as its staff see it."""

    id: int
    code: str  # in upper case
    discount_bp: int
    most_uses: int
    uses: int  # by orders that are neither expired nor cancelled
    per_user: int
    starts_at: datetime
    ends_at: datetime | None
    active: bool
    seller_id: int | None  # None: for whosever goods
    product_id: int | None  # None: for whichever
    version: int
    created_at: datetime


class Judged(msgspec.Struct, frozen=True):
    """Why a code cannot be used: unknown, foreign, not_yet, ended, used, exhausted; empty: it can."""

    reason: str


class Entered(msgspec.Struct, frozen=True):
    """`word`: created; forbidden, no_seller, no_product; taken (there is such a code)."""

    word: str


class Changed(msgspec.Struct, frozen=True):
    """`word`: changed, unchanged; forbidden, missing, stale; unfit (fewer uses than there are, or no time)."""

    word: str
    version: int | None


JUDGE = One("promos/judge_promo", Judged)
CREATE = One("promos/create_promo", Entered)
CHANGE = One("promos/change_promo", Changed)
FIND = Opt("promos/find_promo", Promo)
LIST = Many("promos/list_promos", Promo)


def spelt(code: str) -> str:
    """As codes are kept: buyers type them in either case, with blanks around."""
    return code.strip().upper()


async def judge(pg: Postgres, code: str, user_id: int, seller_id: int, product_ids: list[int]) -> str:
    """Why this buyer cannot use the code for this cart now; empty: nothing is in the way."""
    return (await JUDGE(pg, code, user_id, seller_id, product_ids)).reason


async def create(pg: Postgres, user_id: int, fields: dict[str, Any]) -> str:
    """The word that says what became of the new code."""
    return (await CREATE(pg, user_id, msgspec.json.encode(fields).decode())).word


async def change(pg: Postgres, user_id: int, code: str, version: int, fields: dict[str, Any]) -> Changed:
    """These columns are as given, if `version` is the current one."""
    return await CHANGE(pg, user_id, code, version, msgspec.json.encode(fields).decode())


async def find(pg: Postgres, user_id: int, code: str) -> Promo | None:
    """The code, if this user has to do with it."""
    return await FIND(pg, user_id, code)


async def page(pg: Postgres, user_id: int, *, after: int, size: int) -> list[Promo]:
    """Up to `size` of this user's codes with ids above `after`."""
    return await LIST(pg, user_id, after, size)
