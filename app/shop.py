"""The shop: the outside parts, the gateways built on them, and what this process remembers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import structlog

from app.base.errands import Errands
from app.domain import inbox, limits, once, stock
from app.domain.catalog import Places
from app.errors import RedisDown
from app.gateways import registry
from app.infra import deps, lua, queue
from app.infra.messenger import Messenger
from app.settings import Settings

log = structlog.get_logger(__name__)

SCRIPTS = (*limits.SCRIPTS, *once.SCRIPTS, *stock.SCRIPTS, *inbox.SCRIPTS, queue.RING)


class Shop(msgspec.Struct, frozen=True, kw_only=True):
    """What every flow is given."""

    deps: deps.Deps
    gateways: registry.Gateways
    limits: limits.Limits
    places: Places
    errands: Errands


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
        try:
            gateways = registry.build(settings, parts.http)
            yield Shop(deps=parts, gateways=gateways, limits=weights, places=Places(), errands=errands)
        finally:
            await errands.finish()
