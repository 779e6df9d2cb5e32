"""The shop: the outside parts, the gateways built on them, and what this process remembers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import msgspec
import structlog

from app.base import clock
from app.base.copies import Copies
from app.base.errands import Errands
from app.base.flights import Flights
from app.base.turns import Turns
from app.channels.app.line import AppLine
from app.channels.line import Line
from app.channels.telegram.line import TelegramLine
from app.channels.whatsapp.line import WhatsAppLine
from app.domain import (
    buffers,
    catalog,
    circuits,
    customers,
    events,
    inbox,
    leaderboard,
    limits,
    once,
    pace,
    payments,
    stock,
    talks,
)
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
    *events.SCRIPTS, *circuits.SCRIPTS, *pace.SCRIPTS, *buffers.SCRIPTS, queue.RING,
)  # fmt: skip


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """What every flow is given."""

    deps: deps.Deps  # its messenger sends news, at the bot's pace
    crier: Messenger | None  # the same for broadcasts, which let news go first
    lines: dict[str, Line]  # by kind of channel: those that can speak
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
    reads: talks.Reads  # of conversations
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
        settlements, reads = payments.gathered(parts.pg), talks.Reads(parts.pg)
        try:
            gateways = registry.build(settings, parts.http)
            # A gateway's one step may be two calls, the model takes its time; a probe given up too early is not alone.
            lease_ms = max(2 * settings.gateway_timeout_ms, settings.model_timeout_ms) + 1000
            known = circuits.Circuits(parts.redis, rules, names=gateways, lease_ms=lease_ms, errands=errands)
            keep = pace.Pace(parts.redis, rates)
            copies = Copies(age_s=catalog.LOCAL_MS / 1000, most=catalog.COPIES, most_bytes=catalog.COPIES_BYTES)
            news = _careful(parts, known, keep, "news")
            yield Shop(
                deps=msgspec.structs.replace(parts, messenger=news),
                crier=_careful(parts, known, keep, "broadcast"), lines=_lines(parts, known, news), circuits=known,
                gateways={name: Guarded(gateway, known.calling) for name, gateway in gateways.items()}, limits=weights,
                places=Places(), search=Search(), copies=copies, errands=errands, counts=counts, boards=boards,
                settlements=settlements, reads=reads,
            )  # fmt: skip
        finally:
            await settlements.finish()
            await reads.finish()
            await errands.finish()
            await counts.finish()
            await boards.finish()


def _lines(parts: deps.Deps, known: circuits.Circuits, news: Messenger | None) -> dict[str, Line]:
    """The ways out to whoever writes."""
    lines: dict[str, Line] = {"app": AppLine(lambda user_id: events.publish(parts.redis, [user_id], _new_message()))}
    if news:
        lines["telegram"] = TelegramLine(news)
    if parts.whatsapp:
        phone_id = parts.settings.whatsapp_phone_id
        lines["whatsapp"] = WhatsAppLine(
            parts.whatsapp,
            heard=lambda peer: customers.heard_at(parts.pg, phone_id, peer),
            reopened=lambda peer: known.errands.send(_wake(parts, peer)),
            calling=lambda: known.calling(circuits.WHATSAPP),
        )
    return lines


def _new_message() -> events.Event:
    """There is something new in a user's chat; what it is, `GET /api/chat` tells."""
    return events.Event(id=f"chat:{uuid4()}", type="chat:message", at=clock.now(), data={})


async def _wake(parts: deps.Deps, phone: str) -> None:
    """The news that waited for this WhatsApp user to write go out now. When this is lost they look by themselves."""
    for woken in await customers.wake_news(parts.pg, phone):
        await parts.queue.ring(woken.id, woken.turn)


def _careful(parts: deps.Deps, known: circuits.Circuits, keep: pace.Pace, lane: pace.Lane) -> Messenger | None:
    """The messenger as flows use it; None when there is none."""
    return parts.messenger and Careful(
        parts.messenger,
        turn=lambda chat_id: keep.turn(chat_id, lane),
        room=lambda chat_id: keep.turn(chat_id, "draft"),
        stop=keep.stop,
        calling=lambda: known.calling(circuits.TELEGRAM),
        alone=lambda: known.alone(circuits.TELEGRAM),
        left=lambda chat_id: customers.retire(parts.pg, chat_id),
    )
