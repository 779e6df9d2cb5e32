"""Move: an order goes one step further in one statement; then everybody concerned hears of it.

Phase 1: one statement checks the rule, moves the order, writes the audit line, frees or hands over goods and owes
everything that follows, and the caller has the order. Phase 2 is rung for after the answer: `announce` (realtime
events, the merchant's webhooks, the line in the chat), the notices, and the money back when a paid order is cancelled.
Dies after the statement: the rows are there, the relay rings. Each effect has the event's id for its name, so that
once more is nothing; one that fails leaves the others alone, and is tried again.
"""

import asyncio
from functools import partial
from uuid import UUID

import msgspec
import structlog

from app.base.errands import Task
from app.base.lease import Lease
from app.channels.telegram import texts
from app.domain import endpoints, events, moves, outbox
from app.errors import Conflict, Forbidden, NotFound
from app.flows import hold, settle
from app.shop import Shop

log = structlog.get_logger(__name__)

AGAIN = 2  # times, when another has moved the order while a move waited for it

TYPE = "order:status-changed"  # of the realtime event

# What sellers' own systems are told beside `order.status`, which comes with every move.
CALLED = {
    "paid": "order.paid", "delivered": "order.delivered", "cancelled": "order.cancelled", "expired": "order.expired",
    "refunded": "order.refunded", "partially_refunded": "order.refunded",
}  # fmt: skip

CHAT = {"cancelled": "The order was cancelled."}  # a line in the order's chat


class Announcement(msgspec.Struct, frozen=True):
    """What the announce job is told: an event, or an order whose payment is to be announced."""

    event_id: int | None = None
    order_id: UUID | None = None


_announcement = msgspec.json.Decoder(Announcement)


async def move(shop: Shop, user_id: int, order_id: UUID, status: str, *, expected: str, note: str) -> moves.Moved:
    """The order is `status` now; what follows is owed, and rung for by `follow_up`.

    Raises: NotFound; Forbidden when others may make this move; Conflict, with the status that it has, for all else.
    """
    told = {"expected": expected, "note": note}
    moved = await moves.move(shop.deps.pg, order_id, user_id, status, buyer_news=list(texts.MOVES), **told)
    for _ in range(AGAIN):
        if moved and moved.word == "raced":
            moved = await moves.move(shop.deps.pg, order_id, user_id, status, buyer_news=list(texts.MOVES), **told)
    if moved is None:
        raise NotFound("no such order")
    if moved.word == "raced":
        raise Conflict(f"the order is {moved.status}, and others are at it", order_status=moved.status)
    if moved.word == "forbidden":
        raise Forbidden(f"your role may not move an order from {moved.before} to {status}")
    if moved.word == "stale":
        raise Conflict(f"the order is {moved.status}, not {expected}", order_status=moved.status)
    if moved.word == "refused":
        raise Conflict(f"an order cannot go from {moved.before} to {status}", order_status=moved.status)
    return moved


async def follow_up(shop: Shop, moved: moves.Moved) -> None:
    """After the answer: what cannot wait for a worker, as far as it goes, and the bell for what must happen."""
    tasks: list[Task] = [(f"ring {id}", partial(settle.ring, shop, id)) for id in moved.outbox_ids]
    if moved.product_ids:
        tasks.append(("counters", lambda: hold.forget(shop, moved.seller_id, moved.product_ids)))
    shop.errands.send_all(f"order-status-update:{moved.id}", tasks, order_status=moved.status)


async def announce(shop: Shop, lease: Lease, job: outbox.Job) -> outbox.Closed | None:
    """Everybody concerned has heard of the event. Raises: what the first failed effect raised: all again later."""
    told = job.read(_announcement)
    event = await moves.announced(shop.deps.pg, told.event_id, told.order_id)
    if event is not None:
        failed = await shop.errands.settle_all(
            f"order-status-update:{event.order_id}", _effects(shop, event), event_id=event.id, order_status=event.after
        )
        if failed:
            raise failed[0]
    return await outbox.finish(shop.deps.pg, lease)  # and the next announcement of this order has its turn


def _effects(shop: Shop, event: moves.Announced) -> list[Task]:
    data = {
        "order_id": str(event.order_id), "number": event.number, "old": event.before, "new": event.after,
        "timestamp": event.at.isoformat(),
    }  # fmt: skip
    told = events.Event(id=f"order:{event.id}", type=TYPE, at=event.at, data=data)
    effects: list[Task] = [
        ("realtime event to the seller", lambda: events.publish(shop.deps.redis, event.seller_ids, told)),
        ("realtime event to the buyer", lambda: events.publish(shop.deps.redis, [event.buyer_id], told)),
        ("webhook order.status", lambda: _call(shop, event, "order.status")),
    ]
    if kind := CALLED.get(event.after):
        effects.append((f"webhook {kind}", lambda: _call(shop, event, kind)))
    if line := CHAT.get(event.after):
        effects.append(("chat line", lambda: moves.say(shop.deps.pg, event.order_id, event.id, "system", line)))
    return effects


async def _call(shop: Shop, event: moves.Announced, kind: str) -> None:
    owed = await endpoints.owe(shop.deps.pg, event.order_id, event.id, kind, event.at)
    await asyncio.gather(*(settle.ring(shop, outbox_id) for outbox_id in owed))
