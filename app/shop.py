"""The shop: the outside parts, the gateways built on them, and what this process remembers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog

from app.base.copies import Copies
from app.base.errands import Errands
from app.base.flights import Flights
from app.base.turns import Turns
from app.domain import catalog, circuits, customers, events, inbox, leaderboard, limits, once, pace, payments, stock
from app.domain.catalog import Places, Search
from app.errors import RedisDown
from app.gateways import registry
from app.gateways.guarded import Guarded
from app.infra import deps, lua, queue
from app.infra.messenger import Careful, Messenger
from app.settings import Settings

log = structlog.get_logger(__name__)

SCRIPTS = (
    *limits.SCRIPTS, *once.SCRIPTS, *stock.SCRIPTS, *inbox.SCRIPTS, *catalog.SCRIPTS, *leaderboard.SCRIPTS,
    *events.SCRIPTS, *circuits.SCRIPTS, *pace.SCRIPTS, queue.RING,
)  # fmt: skip


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """What every flow is given."""

    deps: deps.Deps  # its messenger sends news, at the bot's pace
    crier: Messenger | None  # the same for broadcasts, which let news go first
    circuits: circuits.Circuits
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
    weights, rules = limits.configured(settings.limits), circuits.rules(settings.circuits)
    rates = pace.rates(settings.telegram_pace)
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
            # A gateway's one step may be two calls; a probe that is given up too early would not be alone.
            lease_ms = 2 * settings.gateway_timeout_ms + 1000
            known = circuits.Circuits(parts.redis, rules, names=gateways, lease_ms=lease_ms, errands=errands)
            keep = pace.Pace(parts.redis, rates)
            copies = Copies(age_s=catalog.LOCAL_MS / 1000, most=catalog.COPIES, most_bytes=catalog.COPIES_BYTES)
            yield Shop(
                deps=msgspec.structs.replace(parts, messenger=_careful(parts, known, keep, "news")),
                crier=_careful(parts, known, keep, "broadcast"), circuits=known,
                gateways={name: Guarded(gateway, known.calling) for name, gateway in gateways.items()}, limits=weights,
                places=Places(), search=Search(), copies=copies, errands=errands, counts=counts, boards=boards,
                settlements=settlements,
            )  # fmt: skip
        finally:
            await settlements.finish()
            await errands.finish()
            await counts.finish()
            await boards.finish()


def _careful(parts: deps.Deps, known: circuits.Circuits, keep: pace.Pace, lane: pace.Lane) -> Messenger | None:
    """The messenger as flows use it; None when there is none."""
    return parts.messenger and Careful(
        parts.messenger,
        turn=lambda chat_id: keep.turn(chat_id, lane),
        stop=keep.stop,
        calling=lambda: known.calling(circuits.TELEGRAM),
        left=lambda chat_id: customers.retire(parts.pg, chat_id),
    )
