"""Replay: dead letters are owed again in one statement, and workers hear of them at once.

Dies after the statement: the relay rings. What cannot be done now either is a dead letter again, with its story.
"""

import asyncio
from collections.abc import Sequence

import structlog

from app.domain import dead
from app.errors import RedisDown
from app.shop import Shop

log = structlog.get_logger(__name__)

RINGS = 500  # at a time: other callers share the connection


async def replay(shop: Shop, ids: Sequence[int] | None, kind: str, by: dead.By, *, dry_run: bool) -> list[int]:
    """The chosen letters are owed again, up to `dead.MOST` of them; returns which (would be)."""
    chosen = await dead.replay(shop.deps.pg, ids, kind, by, dry_run=dry_run)
    if chosen and not dry_run:
        log.info("dead letters replayed", letters=len(chosen), by=by.name)
        await _ring(shop, chosen)
    return [letter.id for letter in chosen]


async def _ring(shop: Shop, letters: Sequence[dead.Replayed]) -> None:
    try:
        for start in range(0, len(letters), RINGS):
            some = letters[start : start + RINGS]
            await asyncio.gather(*(shop.deps.queue.ring(letter.id, letter.turn) for letter in some))
    except RedisDown as error:
        log.warning("not rung, the relay will", letters=len(letters), error=str(error))
