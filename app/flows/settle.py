"""Settle: a gateway's callback is stored and answered at once; then the gateway is asked, and its word recorded.

Answer: verify → inbox row with the job it owes, one statement → 200. Where the signature proves the money, the same
statement pays the order, together with whatever other callbacks have come meanwhile. A dead process before the
statement means no 200, and the gateway calls again; after it, the rows are there and the relay finds their jobs. Job:
re-fetch (the callback's body proves nothing about money) → judge → one statement for what the verdict asks, and judge
again, until all that came and went is booked. Every statement books against what was booked before, so dying between
two of them, or hearing of the same money twice, changes nothing.
"""

import time
from uuid import UUID

import msgspec
import structlog

from app.base import tally
from app.base.lease import Lease
from app.domain import inbox, ledger, orders, outbox, payments, stock
from app.domain.payments import Proof, Verdict
from app.errors import ProviderDown, RedisDown
from app.flows import hold
from app.gateways.base import Callback, Foreign, Gateway, InvoiceState
from app.shop import Shop

log = structlog.get_logger(__name__)

# From so many callbacks in flight on, repeats are looked up in Redis before Postgres is asked (DESIGN law 3).
CROWD = 8

# How often "paid, says the callback; not paid, says the gateway" is asked again: some minutes, then it is ignored.
PATIENCE = 8

JUDGEMENTS = 8  # of one job: each books something or finds that another has
REVIVED_S = 120  # how long a late order keeps its new units while its payment is booked

_claim = msgspec.json.Decoder(inbox.Claim)


class NotYet(Exception):
    """What the callback says is not so (yet), or others are at the same order: again later."""


async def accept(
    shop: Shop, gateway: Gateway, callback: Callback, kept_headers: dict[str, str], *, in_flight: int
) -> int | None:
    """The callback is in the inbox; returns the job to ring for, None for a repeat.

    Raises: Malformed, BadSignature: nothing was stored. PostgresDown: the gateway must call again.
    """
    started = time.perf_counter()
    notice = gateway.verify(callback)
    tally.WEBHOOK.series[gateway.name, "verify"].observe(time.perf_counter() - started)
    event = inbox.Event(provider=gateway.name, key=notice.event_key, invoice_id=notice.invoice_id, claims=notice.claims)
    if notice.state and notice.state.paid and notice.state.money.amount_minor:
        signed = _signed(event, notice.state, callback.body, kept_headers)
        taken = await tally.WEBHOOK.series[gateway.name, "settle"].timed(shop.settlements.do(signed))
        if not taken.known:
            return taken.outbox_id
    elif in_flight >= CROWD and await _known(shop, event):
        return None
    storing = inbox.store(shop.deps.pg, event, callback.body, kept_headers)
    return (await tally.WEBHOOK.series[gateway.name, "store"].timed(storing)).outbox_id


def _signed(event: inbox.Event, state: InvoiceState, body: bytes, headers: dict[str, str]) -> payments.Signed:
    return payments.Signed(
        provider=event.provider, event_key=event.key, body=body, headers=msgspec.json.encode(headers).decode(),
        invoice_id=event.invoice_id, order_id=state.order_id, amount_minor=state.money.amount_minor,
        currency=state.money.currency,
    )  # fmt: skip


async def settle(shop: Shop, lease: Lease, job: outbox.Job) -> outbox.Owed | None:
    """The gateway's word about the invoice is recorded, and the order paid if it is payable and the money enough.

    Raises: ProviderDown, NotYet: the job runs again later.
    """
    claim = job.read(_claim)
    gateway = shop.gateways.get(claim.provider)
    if gateway is None:
        raise ProviderDown(f"gateway {claim.provider} is not configured")
    asked = time.monotonic()
    try:
        state = await gateway.fetch(claim.invoice_id)
    except Foreign as foreign:
        # Nobody is alarmed: strangers can make a gateway that signs nothing tell us of payments of theirs.
        log.warning("payment is none of ours", provider=claim.provider, invoice_id=claim.invoice_id, why=str(foreign))
        await inbox.conclude(shop.deps.pg, lease, claim.inbox_id, None, "foreign", review=True)
        return None
    if not state.paid or state.money.amount_minor == 0:
        await _unpaid(shop, lease, job, claim, state, asked)
        return None
    proof = Proof(
        inbox_id=claim.inbox_id, provider=claim.provider, invoice_id=state.id, order_id=state.order_id,
        money=state.money, refunded_minor=state.refunded_minor,
    )  # fmt: skip
    owed, outcome = await _book(shop, lease, proof, patient=job.attempts < PATIENCE)
    if outcome in ("paid", "repeated"):
        shop.errands.send(_mark(shop, claim))  # a round trip that the delivery need not wait for
    return owed


async def _unpaid(
    shop: Shop, lease: Lease, job: outbox.Job, claim: inbox.Claim, state: InvoiceState, asked: float
) -> None:
    if claim.claims != "other" and job.attempts < PATIENCE:
        raise NotYet(f"{claim.provider} says {state.state}")
    if state.final:
        await payments.close(shop.deps.pg, claim.provider, claim.invoice_id)
    asked_ms = int((time.monotonic() - asked) * 1000)
    if not await inbox.ignore(shop.deps.pg, lease, claim.inbox_id, state.state, asked_ms=asked_ms):
        raise NotYet(f"{claim.provider} said {state.state}, and the event was repeated since")


async def _book(shop: Shop, lease: Lease, proof: Proof, *, patient: bool) -> tuple[outbox.Owed | None, str]:
    """All that came and went is booked, each part by a statement of its own; `patient`: it may be tried again.

    Returns the delivery that is owed, and what the event came to; empty when another attempt has the job.
    """
    owed, outcome = None, ""
    for _ in range(JUDGEMENTS):
        verdict = await payments.settle(shop.deps.pg, lease, proof)
        if verdict is None:
            return None, ""
        if verdict.booked and verdict.outbox_id is not None:
            payload = msgspec.json.encode({"order_id": verdict.order_id}).decode()
            owed = outbox.Owed(verdict.outbox_id, "deliver", payload)
        if verdict.closed or verdict.word in ("repeated", "wrong_currency", "unknown_order"):
            return owed, await _conclude(shop, lease, proof, verdict, outcome)
        outcome = outcome or verdict.word
        if verdict.word == "late":
            if await _revived(shop, verdict):
                continue
            if patient and await _in_stock(shop, verdict):
                raise NotYet("the goods of a late payment are in somebody's hands for a moment")
        if verdict.word != "paid":
            await payments.credit(shop.deps.pg, lease, proof, verdict, shop.deps.settings.payment_window_s)
    raise NotYet(f"{proof.provider}:{proof.invoice_id} is being booked by others")


async def _conclude(shop: Shop, lease: Lease, proof: Proof, verdict: Verdict, outcome: str) -> str:
    """What went back is booked, part payments that are enough pay the order, and the event is closed as what it was."""
    outcome = outcome or verdict.word
    facts = {"provider": proof.provider, "invoice_id": proof.invoice_id, "order_id": str(verdict.order_id)}
    if verdict.closed:
        log.info("payment settled", verdict=outcome, **facts)
        return outcome
    if verdict.word != "repeated":
        log.error("payment needs a human", verdict=outcome, paid=str(proof.money), **facts)
        money = {"amount_minor": verdict.came_minor, "currency": proof.money.currency}
        alert = msgspec.json.encode({"word": outcome, **facts, "order_id": verdict.order_id, **money}).decode()
        await inbox.conclude(shop.deps.pg, lease, proof.inbox_id, verdict.order_id, outcome, review=True, alert=alert)
        return outcome
    if proof.refunded_minor and (gone := await payments.reverse(shop.deps.pg, proof)):
        log.warning("money went back at the gateway", sold_minor=gone.sold_minor, lent_minor=gone.lent_minor, **facts)
        outcome = "refunded"
    if verdict.covered and verdict.order_id and verdict.user_id:
        await _pay_rest(shop, verdict.order_id, verdict.user_id)
    log.info("payment settled", verdict=outcome, **facts)
    await inbox.conclude(shop.deps.pg, lease, proof.inbox_id, verdict.order_id, outcome)
    return outcome


async def _revived(shop: Shop, verdict: Verdict) -> bool:
    """The expired order has its goods again, to be paid by the next judgement."""
    if verdict.order_id is None:
        return False
    freed = await orders.revive(shop.deps.pg, verdict.order_id, REVIVED_S)
    if freed is None:
        return False
    await hold.forget(shop, freed.seller_id, freed.product_ids)
    return True


async def _in_stock(shop: Shop, verdict: Verdict) -> bool:
    """The order's goods are there, though not all could be claimed: another statement was at them."""
    if verdict.order_id is None or verdict.user_id is None:
        return False
    order = await orders.get(shop.deps.pg, verdict.order_id, verdict.user_id)
    if order is None or order.status != "expired":
        return False
    lines = orders.lines(order.lines)
    left = await stock.count(shop.deps.pg, [line.product_id for line in lines])
    return all((units := left[line.product_id]) is None or units >= line.quantity for line in lines)


async def _pay_rest(shop: Shop, order_id: UUID, user_id: int) -> None:
    """Part payments that add up to the price pay the order, unless the buyer has spent them meanwhile."""
    paid = await ledger.pay(shop.deps.pg, order_id, user_id)
    if paid and paid.outbox_id is not None:
        await ring(shop, paid.outbox_id)


async def ring(shop: Shop, outbox_id: int) -> None:
    """A worker hears of the job at once, if Redis is there; else the relay finds it."""
    try:
        await shop.deps.queue.ring(outbox_id)
    except RedisDown as error:
        log.warning("not rung, the relay will", outbox_id=outbox_id, error=str(error))


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
