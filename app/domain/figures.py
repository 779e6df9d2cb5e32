"""Figures: how the shop is doing, as Postgres counts it: what waits, since when, how long orders take, what is sold."""

from uuid import UUID

import msgspec

from app.base import clock
from app.infra.sql import Many, One, Postgres

SALES_DAYS = 8  # whose orders are looked at: those paid within seven days, and a day for paying


class Figure(msgspec.Struct, frozen=True):
    """One number; `of` is the kind of job or the step that it is about, or empty. Ages are in ms."""

    figure: str
    of: str
    value: int


class Sales(msgspec.Struct, frozen=True):
    """Paid orders of one currency and what they brought, less refunds: of today (UTC) and of seven days."""

    currency: str
    today_orders: int
    today_minor: int
    week_orders: int
    week_minor: int


class Talks(msgspec.Struct, frozen=True):
    """Conversations of the last six hours, and those that wait for a human."""

    active: int
    escalated: int


class Scarce(msgspec.Struct, frozen=True):
    """A product that is nearly or quite sold out."""

    product_id: int
    title: str
    units: int


READ = Many("figures/read_figures", Figure)
SALES = Many("figures/count_sales", Sales)
TALKS = One("figures/count_talks", Talks)
SCARCE = Many("figures/list_scarce", Scarce)


async def read(pg: Postgres) -> list[Figure]:
    """All of them, by one statement."""
    return await READ(pg)


async def sales(pg: Postgres) -> list[Sales]:
    """By currency; none where nothing was sold."""
    since_ms = (clock.unix_s() - SALES_DAYS * 86_400) * 1000
    return await SALES(pg, UUID(int=since_ms << 80))


async def talks(pg: Postgres) -> Talks:
    return await TALKS(pg)


async def scarce(pg: Postgres, *, most: int, size: int) -> list[Scarce]:
    """Products of which `most` units or less are left."""
    return await SCARCE(pg, most, size)
