"""E-mail: where buyers want news, and the mails that are owed.

A mail is an outbox row of kind `email`. Such rows are not claimed one by one: whoever drains their line takes some with
one statement, and closes each by what became of it.
"""

from datetime import datetime
from uuid import UUID

import msgspec

from app.infra.sql import Many, Opt, Postgres


class Due(msgspec.Struct, frozen=True):
    """A mail that is this attempt's now."""

    id: int
    payload: str  # JSON
    attempts: int  # this one included
    orphaned: int  # of those before it, in a row, whose worker died
    late_ms: int  # since it was due
    created_at: datetime


class Kept(msgspec.Struct, frozen=True):
    id: int


class Owed(msgspec.Struct, frozen=True):
    id: int


class Line(msgspec.Struct, frozen=True):
    """So many of one product."""

    title: str
    quantity: int
    total_minor: int


class News(msgspec.Struct, frozen=True):
    """An order as a mail tells of it, and whom."""

    id: UUID
    number: int
    currency: str
    total_minor: int
    lines: str  # JSON of Line
    language: str
    email: str | None  # null: wants no mail (any more)
    due_minor: int  # what the order lacks, if it is still to be paid

    def read_lines(self) -> list[Line]:
        return _lines.decode(self.lines)


class Asked(msgspec.Struct, frozen=True):
    """A user whose address waits to be confirmed."""

    id: int
    email_asked: str
    digest: str  # of the address: in the mail's payload, which must not keep the address itself
    language: str


class Addresses(msgspec.Struct, frozen=True):
    """Where news go, and what is still to be confirmed."""

    email: str | None
    email_asked: str | None


class Asking(msgspec.Struct, frozen=True):
    email: str | None
    email_asked: str | None
    outbox_id: int | None  # the mail with the link


class Reader(msgspec.Struct, frozen=True):
    language: str
    good: bool  # the address is asked for, or confirmed


_lines = msgspec.json.Decoder(list[Line])

CLAIM = Many("email/claim_emails", Due)
EXTEND = Many("email/extend_emails", Kept)
RETURN = Many("email/return_emails", Kept)
OWE = Many("email/owe_emails", Owed)
NEWS = Many("email/list_news", News)
ASKED = Many("email/list_asked", Asked)
GET = Opt("email/get_email", Addresses)
ASK = Opt("email/ask_email", Asking)
FORGET = Opt("email/forget_email", Addresses)
FIND = Opt("email/find_asking", Reader)
CONFIRM = Opt("email/confirm_email", Reader)


async def claim(pg: Postgres, attempt_id: UUID, lease_s: int, size: int) -> list[Due]:
    """Up to so many mails that are due and nobody's, now this attempt's."""
    return await CLAIM(pg, attempt_id, lease_s, size)


async def extend(pg: Postgres, ids: list[int], attempt_id: UUID, lease_s: int) -> int:
    """The attempt keeps those that are still its own; how many."""
    return len(await EXTEND(pg, ids, attempt_id, lease_s))


async def give_back(pg: Postgres, ids: list[int], attempt_id: UUID, delay_s: float = 0) -> int:
    """Those that are still the attempt's are free again after the delay, and the attempt is not counted; how many."""
    return len(await RETURN(pg, ids, attempt_id, int(delay_s * 1000)))


async def owe(pg: Postgres, tell_id: int, order_id: UUID) -> list[int]:
    """The mails that this news, and those behind it, owe now and did not before."""
    return [owed.id for owed in await OWE(pg, tell_id, order_id)]


async def news(pg: Postgres, order_ids: list[UUID]) -> dict[UUID, News]:
    """By order."""
    found = await NEWS(pg, order_ids) if order_ids else []
    return {news.id: news for news in found}


async def asked(pg: Postgres, user_ids: list[int]) -> dict[int, Asked]:
    """By user; those who wait for no link are missing."""
    return {asked.id: asked for asked in await ASKED(pg, user_ids)} if user_ids else {}


async def get(pg: Postgres, user_id: int) -> Addresses:
    return await GET(pg, user_id) or Addresses(None, None)


async def ask(pg: Postgres, user_id: int, address: str, expires_s: int) -> Asking | None:
    """The address is to be confirmed by a link that ends then; None for an unknown user."""
    return await ASK(pg, user_id, address, expires_s)


async def forget(pg: Postgres, user_id: int) -> None:
    """No address, and none to be confirmed."""
    await FORGET(pg, user_id)


async def asking(pg: Postgres, user_id: int, address: str) -> Reader | None:
    """Who may confirm this address, and whether it is still to be, or was; None for an unknown user."""
    return await FIND(pg, user_id, address)


async def confirm(pg: Postgres, user_id: int, address: str) -> Reader | None:
    """News go there from now on, if it is good; None for an unknown user."""
    return await CONFIRM(pg, user_id, address)
