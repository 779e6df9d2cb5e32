"""Refund: money goes back, whole or in part, once; what hangs on it (goods, bonuses, notices) follows by its own job.

Postgres takes it from the order, posts it and owes the rest in one statement. To the balance it is there at once; over
the rail the gateway is told by a job, with the refund's id as its key, until it has it or refuses for good: then the
money is on the balance instead. Dies anywhere: the rows are there, the jobs run again.
"""

from uuid import UUID

import msgspec
import structlog

from app.base.ids import derived_id
from app.base.lease import Lease
from app.base.money import Money
from app.domain import orders, outbox, refunds
from app.errors import Conflict, NotFound, ProviderDown
from app.flows import hold
from app.flows.settle import ring
from app.gateways.base import RefundRefused
from app.shop import Shop

log = structlog.get_logger(__name__)

# What every refund owes, each once for each sum: the buyer's message, the admins' notice, bonuses, the leaderboard.
FOLLOWS = ["tell", "alert", "clawback", "rank"]
BATCH = 100


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What an admin asks for."""

    order_id: UUID
    amount_minor: int  # 0: all that is left
    target: str  # balance or rail
    note: str
    user_id: int
    key: str


class Called(msgspec.Struct, frozen=True):
    """What the refund job is told."""

    refund_id: UUID


class Train(msgspec.Struct, frozen=True):
    """What the follow job is told."""

    order_id: UUID
    word: str


class Cancelled(msgspec.Struct, frozen=True):
    """What the repay job is told."""

    order_id: UUID


_cancelled = msgspec.json.Decoder(Cancelled)
_called = msgspec.json.Decoder(Called)
_train = msgspec.json.Decoder(Train)


async def make(shop: Shop, wish: Wish) -> tuple[refunds.Refund, bool]:
    """The refund, and whether an earlier request with this key had made it. Raises: NotFound, Conflict."""
    pg, key = shop.deps.pg, f"{wish.user_id}:{wish.key}"
    if wish.target == "rail":
        await _check_rail(shop, wish)
    refund_id = derived_id(wish.order_id.bytes, key.encode())
    made = await refunds.make(pg, refunds.New(
        refund_id=refund_id, order_id=wish.order_id, amount_minor=wish.amount_minor, target=wish.target,
        reason="admin", note=wish.note, user_id=wish.user_id, key=key,
    ))  # fmt: skip
    found = await refunds.find(pg, wish.order_id, key)
    if found is None:
        raise Conflict("more than is left to refund, or nothing was paid that way")
    if made:
        log.info("refund made", order_id=str(wish.order_id), amount_minor=made.amount_minor, target=wish.target)
    return found, made is None


async def call(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """The gateway has the refund, or refused it for good. Raises: ProviderDown: asked again later."""
    refund_id = job.read(_called).refund_id
    owed = await refunds.call(shop.deps.pg, refund_id)
    if owed is None:
        await outbox.finish(shop.deps.pg, lease)
        return
    gateway = shop.gateways.get(owed.provider)
    if gateway is None:
        raise ProviderDown(f"gateway {owed.provider} is not configured")
    try:
        done = await gateway.refund(owed.invoice_id, Money(owed.amount_minor, owed.currency), str(refund_id))
    except RefundRefused as refused:
        # Somebody may have sent it back by another way, which is why there is nothing left to refund.
        gone_minor = (await gateway.fetch(owed.invoice_id)).refunded_minor
        if gone_minor >= owed.accounted_minor:
            log.warning("refund was made elsewhere", refund_id=str(refund_id), error=str(refused))
            await refunds.finish(shop.deps.pg, lease, refund_id, "elsewhere")
            return
        log.error("refund refused, the money goes to the balance", refund_id=str(refund_id), error=str(refused))
        await refunds.finish(shop.deps.pg, lease, refund_id, "")
        return
    await refunds.finish(shop.deps.pg, lease, refund_id, done.id)


async def follow(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """Goods that are not delivered are for sale again if all money went back; the other jobs are owed."""
    train = job.read(_train)
    freed = await orders.follow_refund(shop.deps.pg, lease, train.order_id, train.word, FOLLOWS)
    if freed and freed.product_ids:
        await hold.forget(shop, freed.seller_id, freed.product_ids)


async def repay(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """A cancelled order's money is back on its buyer's balance, as far as nothing was delivered for it."""
    order_id = job.read(_cancelled).order_id
    paid = await refunds.repay(shop.deps.pg, lease, order_id)
    if paid is None:
        await outbox.finish(shop.deps.pg, lease)
        return
    log.info("cancelled order repaid", order_id=str(order_id), amount_minor=paid.amount_minor)
    if paid.outbox_id is not None:
        await ring(shop, paid.outbox_id)


async def overdue(shop: Shop) -> int:
    """What was not made by its deadline is refunded to its buyer's balance; returns how many orders."""
    late = await refunds.overdue(shop.deps.pg, size=BATCH)
    for order in late:
        log.warning("not made by its deadline, refunded", order_id=str(order.order_id))
    return len(late)


async def _check_rail(shop: Shop, wish: Wish) -> None:
    paid_by = await orders.paid_by(shop.deps.pg, wish.order_id)
    if paid_by is None:
        raise NotFound("no such order, or it is not paid")
    gateway = shop.gateways.get(paid_by.partition(":")[0])
    if gateway is None or not gateway.traits.refunds:
        raise Conflict(f"{paid_by.partition(':')[0]} sends nothing back: refund to the balance")
