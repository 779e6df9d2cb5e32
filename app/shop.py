"""The shop: the outside parts, the gateways built on them, and what this process remembers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog

from app.base.copies import Copies
from app.base.errands import Errands
from app.base.flights import Flights
from app.base.turns import Turns
from app.domain import catalog, inbox, leaderboard, limits, once, payments, stock
from app.domain.catalog import Places, Search
from app.errors import RedisDown
from app.gateways import registry
from app.infra import deps, lua, queue
from app.infra.messenger import Messenger
from app.settings import Settings

log = structlog.get_logger(__name__)

SCRIPTS = (
    *limits.SCRIPTS, *once.SCRIPTS, *stock.SCRIPTS, *inbox.SCRIPTS, *catalog.SCRIPTS, *leaderboard.SCRIPTS, queue.RING,
)  # fmt: skip


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """What every flow is given."""

    deps: deps.Deps
    gateways: registry.Gateways
    limits: limits.Limits
    places: Places
    search: Search
    copies: Copies  # of what the catalog shows
    errands: Errands
    counts: stock.Counts
    boards: leaderboard.Flying = msgspec.field(default_factory=leaderboard.Flying)
    settlements: payments.Settlements
    turns: Turns = msgspec.field(default_factory=Turns)


@asynccontextmanager
async def opened(settings: Settings, messenger: Messenger | None = None) -> AsyncIterator[Shop]:
    """A working shop; without a messenger nobody is told anything. Raises: PostgresDown, BadSettings."""
    weights = limits.configured(settings.limits)
    async with deps.opened(settings, messenger) as parts:
        try:
            await lua.load(parts.redis, SCRIPTS)
        except RedisDown as error:
            log.warning("scripts not loaded, each goes with its first call", error=str(error))
        errands = Errands()
        counts: stock.Counts = Flights()
        boards = leaderboard.Flying()
        settlements = payments.gathered(parts.pg)
        try:
            gateways = registry.build(settings, parts.http)
            copies = Copies(age_s=catalog.LOCAL_MS / 1000, most=catalog.COPIES, most_bytes=catalog.COPIES_BYTES)
            yield Shop(
                deps=parts, gateways=gateways, limits=weights, places=Places(), search=Search(), copies=copies,
                errands=errands, counts=counts, boards=boards, settlements=settlements,
            )  # fmt: skip
        finally:
            await settlements.finish()
            await errands.finish()
            await counts.finish()
            await boards.finish()
