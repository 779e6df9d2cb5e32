"""Cart: what the consultant has put aside for a buyer, until the Mini App takes it. Nothing in it is held."""

import msgspec

from app.infra.sql import Many, Opt, Postgres

MOST_LINES = 20  # as many as one order may have
MOST_UNITS = 50


class Line(msgspec.Struct, frozen=True):
    """So many units of a product."""

    product_id: int
    quantity: int


PUT = Opt("cart/put_line", Line)
TAKE = Many("cart/take_lines", Line)


async def put(pg: Postgres, user_id: int, product_id: int, quantity: int) -> Line | None:
    """The line as it is now: twice is once, and never more than can be had. None: nothing can, or no line more."""
    return await PUT(pg, user_id, product_id, quantity, MOST_LINES)


async def take(pg: Postgres, user_id: int) -> list[Line]:
    """The lines, which are gone from here."""
    return await TAKE(pg, user_id)
