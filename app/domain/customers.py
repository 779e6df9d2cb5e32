"""Customers: Telegram and WhatsApp users, known from the moment they enter or write."""

from datetime import datetime
from uuid import UUID

import msgspec

from app.infra.sql import Many, One, Opt, Postgres


class Customer(msgspec.Struct, frozen=True):
    id: int
    name: str
    role: str


class Recipient(msgspec.Struct, frozen=True):
    """Whom to tell about an order, in which language."""

    user_id: int
    telegram_id: int | None
    whatsapp: str | None  # phone of who is no Telegram user
    heard_at: datetime | None  # when that phone last wrote to this number of ours
    language: str
    number: int
    currency: str
    status: str
    due_minor: int  # what the order lacks, if it is still to be paid
    blocked: bool  # has stopped the bot: nothing reaches them there
    mailed: bool  # wants news by mail, too


class Colleague(msgspec.Struct, frozen=True):
    """An admin, or one of a seller's people."""

    telegram_id: int
    language: str


class Writing(msgspec.Struct, frozen=True):
    """When somebody last wrote to us; None: never."""

    heard_at: datetime | None


class Woken(msgspec.Struct, frozen=True):
    """A job that waited for its user."""

    id: int
    turn: int


class Chosen(msgspec.Struct, frozen=True):
    language: str


class Retired(msgspec.Struct, frozen=True):
    id: int


ENTER = One("customers/enter_customer", Customer)
RECIPIENT = Opt("customers/find_recipient", Recipient)
ADMINS = Many("customers/list_admins", Colleague)
SUPPLIERS = Many("customers/list_suppliers", Colleague)
PEOPLE = Many("customers/list_people", Colleague)
HEARD = One("customers/get_writing", Writing)
WAKE = Many("customers/wake_news", Woken)
CHOOSE = Opt("customers/choose_language", Chosen)
RETIRE = Opt("customers/retire_customer", Retired)


async def enter(
    pg: Postgres,
    *,
    telegram_id: int,
    name: str,
    username: str | None,
    language: str,
    is_admin: bool,
    referrer_id: int | None = None,
) -> Customer:
    """The user is known, with the name of this visit, and its language unless they have chosen one; who is new was
    brought by `referrer_id`."""
    return await ENTER(pg, telegram_id, name, username, language, is_admin, referrer_id)


async def recipient(pg: Postgres, order_id: UUID, phone_id: str = "") -> Recipient | None:
    """Whom to tell about this order, who may have written to this WhatsApp number of ours."""
    return await RECIPIENT(pg, order_id, phone_id)


async def heard_at(pg: Postgres, phone_id: str, phone: str) -> datetime | None:
    """When this phone last wrote to this WhatsApp number of ours."""
    return (await HEARD(pg, phone_id, phone)).heard_at


async def wake_news(pg: Postgres, phone: str) -> list[Woken]:
    """The news that wait for this phone's user to write are due."""
    return await WAKE(pg, phone)


async def admins(pg: Postgres, telegram_ids: list[int]) -> list[Colleague]:
    return await ADMINS(pg, telegram_ids)


async def suppliers(pg: Postgres, order_id: UUID) -> list[Colleague]:
    return await SUPPLIERS(pg, order_id)


async def people(pg: Postgres, seller_id: int) -> list[Colleague]:
    """Who acts for this seller."""
    return await PEOPLE(pg, seller_id)


async def choose_language(pg: Postgres, user_id: int, language: str) -> None:
    """The user is told everything in this language from now on."""
    await CHOOSE(pg, user_id, language)


async def retire(pg: Postgres, telegram_id: int) -> None:
    """The user cannot be told anything, until the next sign-in."""
    await RETIRE(pg, telegram_id)
