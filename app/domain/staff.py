"""Staff: sellers, who act on their own products, and admins, who act on all; Postgres says which, not the token."""

import msgspec

from app.infra.sql import Opt, Postgres


class Staff(msgspec.Struct, frozen=True):
    """What a user may act for: `seller_id`'s products as a seller, every product as an admin."""

    role: str
    seller_id: int | None


FIND = Opt("staff/find_staff", Staff)


async def find(pg: Postgres, user_id: int) -> Staff | None:
    """None when the user is no staff, whatever an older token says."""
    return await FIND(pg, user_id)
