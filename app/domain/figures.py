"""Figures: how the shop is doing, as Postgres counts it: what waits, since when, and how long orders take."""

import msgspec

from app.infra.sql import Many, Postgres


class Figure(msgspec.Struct, frozen=True):
    """One number; `of` is the kind of job or the step that it is about, or empty. Ages are in ms."""

    figure: str
    of: str
    value: int


READ = Many("figures/read_figures", Figure)


async def read(pg: Postgres) -> list[Figure]:
    """All of them, by one statement."""
    return await READ(pg)
