"""Poll: gateways are asked about open invoices whose callback may never come, each within its quota.

Postgres says whose turn it is and counts the quota, for all processes together. What the gateway tells is put into the
inbox like a callback and goes its way: one path for all money. Dies in between: the invoice's next turn comes.
"""

import asyncio

import msgspec
import structlog

from app.domain import inbox, payments
from app.errors import ProviderDown
from app.flows.settle import ring
from app.gateways.base import Foreign, Gateway
from app.shop import Shop

log = structlog.get_logger(__name__)

AT_ONCE = 8  # calls to one gateway


async def poll(shop: Shop) -> int:
    """Every invoice whose turn it is was asked about, as far as the quotas go; returns how many had news."""
    asking = [_ask(shop, gateway) for gateway in shop.gateways.values() if gateway.traits.polls_per_minute]
    return sum(await asyncio.gather(*asking))


async def _ask(shop: Shop, gateway: Gateway) -> int:
    due = await payments.due(shop.deps.pg, gateway.name, gateway.traits.polls_per_minute)
    room = asyncio.Semaphore(AT_ONCE)

    async def one(invoice: payments.Due) -> bool:
        async with room:
            return await _look(shop, gateway, invoice)

    return sum(await asyncio.gather(*(one(invoice) for invoice in due)))


async def _look(shop: Shop, gateway: Gateway, known: payments.Due) -> bool:
    """Whether the gateway knows of money that we do not; then it is in the inbox."""
    try:
        state = await gateway.fetch(known.invoice_id)
    except (ProviderDown, Foreign) as error:
        log.warning("not polled", provider=gateway.name, invoice_id=known.invoice_id, error=str(error))
        return False
    came_minor = state.money.amount_minor if state.paid else 0
    if came_minor <= known.received_minor and state.refunded_minor <= known.refunded_minor:
        if state.final:
            await payments.close(shop.deps.pg, gateway.name, known.invoice_id)
        return False
    known_as = f"{known.received_minor}:{known.refunded_minor}"  # what is found again after it was mended is new
    key = f"{known.invoice_id}:polled:{came_minor}:{state.refunded_minor}:{known_as}"
    event = inbox.Event(provider=gateway.name, key=key, invoice_id=known.invoice_id, claims="paid")
    stored = await inbox.store(shop.deps.pg, event, msgspec.json.encode(state), {"remote": "poll"})
    log.info("payment found by asking", provider=gateway.name, invoice_id=known.invoice_id)
    if stored.outbox_id is not None:
        await ring(shop, stored.outbox_id)
    return True
