"""Deliver: a paid order's goods become its buyer's in one statement, which also owes everything that a sale brings."""

from uuid import UUID

import msgspec
import structlog

from app.base.lease import Lease
from app.domain import orders, outbox
from app.shop import Shop

log = structlog.get_logger(__name__)

# What every sale owes, each once: notices to admins and to the seller, the referrers' bonuses, the leaderboard.
FOLLOWS = ["alert", "supply", "reward", "rank", "announce"]


class Delivery(msgspec.Struct, frozen=True):
    """What the deliver job is told."""

    order_id: UUID


_delivery = msgspec.json.Decoder(Delivery)


async def deliver(shop: Shop, lease: Lease, job: outbox.Job) -> outbox.Owed | None:
    """The goods are the buyer's, and the message that says so is owed."""
    order_id = job.read(_delivery).order_id
    done = await orders.deliver(shop.deps.pg, lease, order_id, FOLLOWS)
    if done is None:
        log.warning("nothing to deliver", order_id=str(order_id))
        await outbox.finish(shop.deps.pg, lease)
        return None
    log.info("order delivered", order_id=str(order_id), status=done.status)
    if done.outbox_id is None:
        return None
    payload = msgspec.json.encode({"order_id": order_id, "status": done.status}).decode()
    return outbox.Owed(done.outbox_id, "tell", payload)
