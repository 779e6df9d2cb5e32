"""Settle: a gateway's callback is stored and answered at once; then the gateway is asked, and its word recorded.

Answer: verify → inbox row with the job it owes, one statement → 200. A dead process before the statement means
no 200, and the gateway calls again; after it, the row is there and the relay finds its job. Job: re-fetch (the
callback's body proves nothing about money) → one statement that judges, records and owes the delivery.
"""

import time

import msgspec
import structlog

from app.base.lease import Lease
from app.domain import inbox, outbox, payments
from app.errors import ProviderDown, RedisDown
from app.gateways.base import Callback, Gateway
from app.shop import Shop

log = structlog.get_logger(__name__)

# From so many callbacks in flight on, repeats are looked up in Redis before Postgres is asked (DESIGN law 3).
CROWD = 8

# How often "paid, says the callback; not paid, says the gateway" is asked again: some minutes, then it is ignored.
PATIENCE = 8

_claim = msgspec.json.Decoder(inbox.Claim)


class NotYet(Exception):
    """The callback says paid, the gateway does not (yet): ask again later."""


async def accept(
    shop: Shop, gateway: Gateway, callback: Callback, kept_headers: dict[str, str], *, in_flight: int
) -> int | None:
    """The callback is in the inbox; returns the job to ring for, None for a repeat.

    Raises: Malformed, BadSignature: nothing was stored. PostgresDown: the gateway must call again.
    """
    notice = gateway.verify(callback)
    event = inbox.Event(provider=gateway.name, key=notice.event_key, invoice_id=notice.invoice_id, claims=notice.claims)
    if in_flight >= CROWD and await _known(shop, event):
        return None
    return (await inbox.store(shop.deps.pg, event, callback.body, kept_headers)).outbox_id


async def settle(shop: Shop, lease: Lease, job: outbox.Job) -> outbox.Owed | None:
    """The gateway's word about the invoice is recorded, and the order paid if it is payable and the money equal.

    Raises: ProviderDown, NotYet: the job runs again later.
    """
    claim = _claim.decode(job.payload)
    gateway = shop.gateways.get(claim.provider)
    if gateway is None:
        raise ProviderDown(f"gateway {claim.provider} is not configured")
    asked = time.monotonic()
    state = await gateway.fetch(claim.invoice_id)
    if not state.paid:
        if claim.claims == "paid" and job.attempts < PATIENCE:
            raise NotYet(f"{claim.provider} says {state.state}")
        asked_ms = int((time.monotonic() - asked) * 1000)
        if not await inbox.ignore(shop.deps.pg, lease, claim.inbox_id, state.state, asked_ms=asked_ms):
            raise NotYet(f"{claim.provider} said {state.state}, and the event was repeated since")
        return None
    verdict = await payments.settle(
        shop.deps.pg, lease, claim.inbox_id, claim.provider, state.id, state.order_id, state.money
    )
    if verdict is None:
        return None  # another attempt has the job, and its statement is the one that counts
    facts = {"provider": claim.provider, "invoice_id": state.id, "order_id": str(verdict.order_id)}
    if verdict.word in ("paid", "repeated"):
        log.info("payment settled", verdict=verdict.word, **facts)
        shop.errands.send(_mark(shop, claim))  # a round trip that the delivery need not wait for
    else:
        log.error("payment needs a human", verdict=verdict.word, paid=str(state.money), **facts)
    if verdict.outbox_id is None:
        return None
    payload = msgspec.json.encode({"order_id": verdict.order_id}).decode()
    return outbox.Owed(verdict.outbox_id, "deliver", payload)


async def _known(shop: Shop, event: inbox.Event) -> bool:
    try:
        return isinstance(await inbox.seen(shop.deps.redis, event), inbox.Known)
    except RedisDown:
        return False


async def _mark(shop: Shop, claim: inbox.Claim) -> None:
    try:
        await inbox.mark(shop.deps.redis, claim.provider, claim.event_key)
    except RedisDown as error:
        log.warning("event not marked", error=str(error))
