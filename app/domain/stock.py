"""Stock: what can be sold, counted in Redis to turn crowds away, granted by Postgres alone.

A hold lives only while its checkout is between Redis and Postgres. The counters forget themselves every
`COUNT_MS` and are counted anew from Postgres, so whatever a lost hold or a FLUSHALL did to them ends by then.
"""

from uuid import UUID

import msgspec

from app.base import keys
from app.base.ids import new_id
from app.infra.lua import Redis, Script
from app.infra.secrets import Sealer, stock_row
from app.infra.sql import Many, One, Postgres

HOLD_MS = 30_000  # longer than any checkout may take before its claim is in Postgres
COUNT_MS = 30_000  # the longest that a counter may differ from Postgres


class Units(msgspec.Struct, frozen=True):
    """A product and a number of its units."""

    product_id: int
    units: int


class Count(msgspec.Struct, frozen=True):
    """What Postgres has of a product; None: it never runs out."""

    product_id: int
    units: int | None


class Held(msgspec.Struct, frozen=True):
    """The cart is held."""


class Short(msgspec.Struct, frozen=True):
    """Nothing is held: product, units left, product, units left … of the lines that do not fit."""

    left: tuple[int, ...]


class Cold(msgspec.Struct, frozen=True):
    """Nothing is held: these products are not counted in Redis."""

    products: tuple[int, ...]


class Filled(msgspec.Struct, frozen=True):
    """So many products are counted now that were not before."""

    products: int


class Committed(msgspec.Struct, frozen=True):
    """The hold has become claimed rows."""


class Released(msgspec.Struct, frozen=True):
    """So many units went back."""

    units: int


class Gone(msgspec.Struct, frozen=True):
    """There was no such hold (any more)."""


class Forgotten(msgspec.Struct, frozen=True):
    """So many products will be counted anew."""

    products: int


class Added(msgspec.Struct, frozen=True):
    """So many units are new on the shelf."""

    units: int


RESERVE: Script[Held | Short | Cold] = Script("stock/reserve", Held, Short, Cold)
FILL: Script[Filled] = Script("stock/fill", Filled)
COMMIT: Script[Committed | Gone] = Script("stock/commit", Committed, Gone)
RELEASE: Script[Released | Gone] = Script("stock/release", Released, Gone)
FORGET: Script[Forgotten] = Script("stock/forget", Forgotten)

SCRIPTS = (RESERVE, FILL, COMMIT, RELEASE, FORGET)

COUNT = Many("stock/count_units", Count)
ADD = One("stock/add_units", Added)


async def reserve(redis: Redis, seller_id: int, hold_id: UUID, cart: list[Units]) -> Held | Short | Cold:
    """All of the cart is held for `hold_id`, or none of it. Each product stands once; at most 50 lines."""
    args: list[bytes | str | int] = [str(hold_id), HOLD_MS]
    for line in cart:
        args += (line.product_id, line.units)
    return await RESERVE(redis, keys=_keys(seller_id), args=args)


async def fill(redis: Redis, pg: Postgres, seller_id: int, product_ids: list[int]) -> Filled:
    """These products are counted in Redis as Postgres counts them. Only for products whose units are counted."""
    args: list[bytes | str | int] = [COUNT_MS]
    for row in await COUNT(pg, product_ids):
        args += (row.product_id, row.units or 0)
    return await FILL(redis, keys=_keys(seller_id), args=args)


async def count(pg: Postgres, product_ids: list[int]) -> dict[int, int | None]:
    """Units for sale by product, as Postgres knows them now; None: it never runs out."""
    return {row.product_id: row.units for row in await COUNT(pg, product_ids)}


async def commit(redis: Redis, seller_id: int, hold_id: UUID) -> Committed | Gone:
    return await COMMIT(redis, keys=_keys(seller_id)[1:], args=[str(hold_id)])


async def release(redis: Redis, seller_id: int, hold_id: UUID) -> Released | Gone:
    return await RELEASE(redis, keys=_keys(seller_id), args=[str(hold_id)])


async def forget(redis: Redis, seller_id: int, product_ids: list[int]) -> Forgotten:
    return await FORGET(redis, keys=_keys(seller_id)[:1], args=list(product_ids))


async def add(pg: Postgres, sealer: Sealer, product_id: int, secrets: list[str]) -> int:
    """These secrets are on the shelf, sealed; how many are new: one that the product already had is left out."""
    ids = [new_id() for _ in secrets]
    sealed = [sealer.seal(s.encode(), stock_row(i)) for i, s in zip(ids, secrets, strict=True)]
    prints = [sealer.fingerprint(f"{product_id}/{s}".encode()) for s in secrets]
    return (await ADD(pg, product_id, ids, sealed, prints)).units


async def add_pieces(pg: Postgres, product_id: int, pieces: int) -> int:
    """So many pieces without a secret (books) are on the shelf."""
    nothing: list[bytes | None] = [None] * pieces
    return (await ADD(pg, product_id, [new_id() for _ in nothing], nothing, nothing)).units


def _keys(seller_id: int) -> list[str]:
    return [keys.stock_free(seller_id), keys.stock_held(seller_id), keys.stock_due(seller_id)]
