"""Stock: what can be sold, counted in Redis to turn crowds away, granted by Postgres alone.

A hold lives only while its checkout is between Redis and Postgres; a retry of that checkout shares it. A count is
`tally`, then Postgres, then `fill`, which knows what was sold in between: the counters are never above the truth for
longer than a checkout whose hold was lost takes from its claim to its commit. They may be below it while a fill cannot
tell what Postgres had left out already; such products are in doubt, and who would be refused counts them anew.
"""

from uuid import UUID

import msgspec

from app.base import keys
from app.base.flights import Flights
from app.infra.lua import Redis, Script
from app.infra.sql import Many, Postgres

HOLD_MS = 30_000  # longer than any checkout may take before its claim is in Postgres
COUNT_MS = 30_000  # the longest life of a counter since its last count; the audit renews it
COUNT_TRIES = 3  # a count that was overtaken by a change starts over


class Units(msgspec.Struct, frozen=True):
    """A product and a number of its units."""

    product_id: int
    units: int


class Count(msgspec.Struct, frozen=True):
    """What Postgres has of a product; None: it never runs out."""

    product_id: int
    units: int | None


class Quote(msgspec.Struct, frozen=True):
    """What so many units of a product cost at this moment, in the price of an order for them."""

    product_id: int
    title: str
    currency: str
    quantity: int
    units: int | None  # that can be sold now; None: it never runs out
    price_minor: int | None  # for all of them; None: there are not so many


class Held(msgspec.Struct, frozen=True):
    """The cart is held by this call."""


class Shared(msgspec.Struct, frozen=True):
    """The cart is held since an earlier call with this hold id, whose caller may be alive or dead."""


class Short(msgspec.Struct, frozen=True):
    """Nothing is held: product, units left, product, units left … of the lines that do not fit."""

    left: tuple[int, ...]


class Cold(msgspec.Struct, frozen=True):
    """Nothing is held: these products are not counted in Redis, or may have more units than it knows."""

    products: tuple[int, ...]


class Tallied(msgspec.Struct, frozen=True):
    """Units sold since `epoch`, of each product in turn."""

    epoch: bytes
    sold: tuple[int, ...]


class Filled(msgspec.Struct, frozen=True):
    """So many products are counted now that were not before; what was wrong with the others; how many are in doubt."""

    products: int
    over: int  # units that the counters had too many
    under: int  # units that they had too few, and were not known to
    doubted: int


class Moved(msgspec.Struct, frozen=True):
    """Nothing is filled: not all that was sold since the tally is known."""


class Counted(msgspec.Struct, frozen=True):
    """The products that Redis counts."""

    products: tuple[int, ...]


class Seller(msgspec.Struct, frozen=True):
    id: int


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


Counts = Flights[tuple[int, tuple[int, ...]], Filled | Moved]  # under way in one process, by seller and products

RESERVE: Script[Held | Shared | Short | Cold] = Script("stock/reserve", Held, Shared, Short, Cold)
TALLY: Script[Tallied] = Script("stock/tally", Tallied)
FILL: Script[Filled | Moved] = Script("stock/fill", Filled, Moved)
COUNTED: Script[Counted] = Script("stock/counted", Counted)
COMMIT: Script[Committed | Gone] = Script("stock/commit", Committed, Gone)
RELEASE: Script[Released | Gone] = Script("stock/release", Released, Gone)
FORGET: Script[Forgotten] = Script("stock/forget", Forgotten)

SCRIPTS = (RESERVE, TALLY, FILL, COUNTED, COMMIT, RELEASE, FORGET)

COUNT = Many("stock/count_units", Count)
QUOTE = Many("stock/quote_products", Quote)
SELLERS = Many("stock/list_sellers", Seller)


async def reserve(redis: Redis, seller_id: int, hold_id: UUID, cart: list[Units]) -> Held | Shared | Short | Cold:
    """All of the cart is held for `hold_id`, or none of it. Each product stands once; at most 50 lines."""
    free, held, due, doubt, _ = _keys(seller_id)
    return await RESERVE(redis, keys=[free, held, due, doubt], args=[str(hold_id), HOLD_MS, *_lines(cart)])


async def tally(redis: Redis, seller_id: int, product_ids: list[int]) -> Tallied:
    """Lapsed holds are over, and what is sold from now on is known to the `fill` that is given this."""
    _, held, due, doubt, sold = _keys(seller_id)
    return await TALLY(redis, keys=[held, due, doubt, sold], args=[COUNT_MS, *product_ids])


async def fill(
    redis: Redis, seller_id: int, tallied: Tallied, counts: dict[int, int | None], *, renew: bool = False
) -> Filled | Moved:
    """The products of the tally are counted as Postgres has them since; `renew` when all of the seller's were just now.

    Shape: `counts` in the order of the tally.
    """
    free, held, _, doubt, sold = _keys(seller_id)
    args: list[bytes | str | int] = [COUNT_MS, int(renew), tallied.epoch]
    for (product_id, units), sold_then in zip(counts.items(), tallied.sold, strict=True):
        args += (product_id, units or 0, sold_then)
    return await FILL(redis, keys=[free, held, doubt, sold], args=args)


async def recount(
    redis: Redis, pg: Postgres, seller_id: int, product_ids: list[int], *, renew: bool = False
) -> Filled | Moved:
    """These products, whose units must be counted ones, are what Postgres has less what is held; sales go on meanwhile.

    Moved when others changed them again and again: the next count will do.
    """
    for _ in range(COUNT_TRIES):
        tallied = await tally(redis, seller_id, product_ids)
        filled = await fill(redis, seller_id, tallied, await count(pg, product_ids), renew=renew)
        if isinstance(filled, Filled):
            break
    return filled


async def counted(redis: Redis, seller_id: int) -> list[int]:
    """The products that Redis counts."""
    return list((await COUNTED(redis, keys=_keys(seller_id)[:1])).products)


async def sellers(pg: Postgres) -> list[int]:
    return [row.id for row in await SELLERS(pg)]


async def count(pg: Postgres, product_ids: list[int]) -> dict[int, int | None]:
    """Units for sale by product, as Postgres knows them now, in the order given; None: it never runs out."""
    found = {row.product_id: row.units for row in await COUNT(pg, product_ids)}
    return {product_id: found[product_id] for product_id in product_ids}


async def quote(pg: Postgres, wanted: list[Units]) -> dict[int, Quote]:
    """What each of these costs now, by product, read from `available_stock_with_discounts`; none for what is not there.

    Shape: each product once.
    """
    found = await QUOTE(pg, [line.product_id for line in wanted], [line.units for line in wanted])
    return {quoted.product_id: quoted for quoted in found}


async def commit(
    redis: Redis, seller_id: int, hold_id: UUID, cart: list[Units], *, again: bool = False
) -> Committed | Gone:
    """The cart is sold: Postgres has claimed it, with a hold of this id or without.

    `again` is said by a repeat of the request that claimed: should that one have died, its hold is over now.
    """
    free, held, due, doubt, sold = _keys(seller_id)
    told: list[bytes | str | int] = [str(hold_id), COUNT_MS, int(again)]
    return await COMMIT(redis, keys=[free, held, due, doubt, sold], args=[*told, *_lines(cart)])


async def release(redis: Redis, seller_id: int, hold_id: UUID) -> Released | Gone:
    return await RELEASE(redis, keys=_keys(seller_id)[:3], args=[str(hold_id)])


async def forget(redis: Redis, seller_id: int, product_ids: list[int]) -> Forgotten:
    """After units came or went other than by an order: the next buyer counts them, and counts under way start over."""
    free, _, _, _, sold = _keys(seller_id)
    return await FORGET(redis, keys=[free, sold], args=list(product_ids))


def _keys(seller_id: int) -> tuple[str, str, str, str, str]:
    """Free, held, due, doubt and sold of this seller."""
    return (
        keys.stock_free(seller_id), keys.stock_held(seller_id), keys.stock_due(seller_id),
        keys.stock_doubt(seller_id), keys.stock_sold(seller_id),
    )  # fmt: skip


def _lines(cart: list[Units]) -> list[int]:
    """Product, units, product, units, …"""
    return [part for line in cart for part in (line.product_id, line.units)]
