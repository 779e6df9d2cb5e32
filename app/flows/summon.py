"""Summon: a signed call names a job that the shop owes, and a worker looks at it now.

A call brings nothing about: what must happen was written by the statement that owes it (DESIGN law 2), so who steals a
key can at most ring (decision 0017). Dies after the look: the relay rings too.
"""

from collections.abc import Callable
from typing import Annotated
from uuid import UUID

import msgspec
import structlog
from msgspec import Meta

from app.domain import summons
from app.errors import Conflict, Malformed, NotFound, RedisDown
from app.infra.qstash import Proven
from app.shop import Shop

log = structlog.get_logger(__name__)

Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]


class Named(msgspec.Struct, frozen=True):
    """What a call may say of its job; what else is in the body (user_id, stock_item_id) is nobody's business."""

    outbox_id: Number = 0
    order_id: UUID | None = None
    refund_id: UUID | None = None
    inbox_id: Number = 0
    status: Annotated[str, Meta(pattern=r"^[a-z_]{0,40}$(?!\n)")] = ""


class Work(msgspec.Struct, frozen=True):
    """A job by its public name: its kind, and the key under which its effect is owed, empty where it is not named."""

    kind: str
    key: Callable[[Named], str]


def _of_order(named: Named) -> str:
    return str(named.order_id) if named.order_id else ""


WORKS = {
    "deliver-goods": Work("deliver", _of_order),
    "settle-payment": Work("settle", lambda named: str(named.inbox_id) if named.inbox_id else ""),
    "referral-bonus": Work("reward", _of_order),
    "notify-supplier": Work("supply", _of_order),
    "notify-admins": Work("alert", _of_order),
    "notify-buyer": Work(
        "tell", lambda named: f"{named.order_id}:{named.status}" if named.order_id and named.status else ""
    ),
    "update-leaderboard": Work("rank", _of_order),
    "refund-payment": Work("refund", lambda named: str(named.refund_id) if named.refund_id else ""),
}


async def summon(shop: Shop, work: Work, named: Named, proven: Proven) -> summons.Heard:
    """The job, heard of by a first call or again.

    Raises: Malformed, when none is named; NotFound, when none is owed; Conflict, when it is a dead letter.
    """
    key = work.key(named)
    if bool(key) == (named.outbox_id > 0):
        raise Malformed("name the job: by outbox_id, or by what it is about")
    heard = await summons.hear(shop.deps.pg, proven.id, proven.expires_s, work.kind, key=key, outbox_id=named.outbox_id)
    if heard is None:
        raise NotFound("no such job is owed, or ever was")
    if heard.state not in ("owed", "done"):
        raise Conflict("the job is a dead letter: an admin must replay it", outbox_id=heard.outbox_id)
    log.info("summoned", outbox_id=heard.outbox_id, kind=work.kind, state=heard.state, first=heard.first)
    return heard


async def ring(shop: Shop, heard: summons.Heard) -> None:
    """A worker looks at the job; when Redis is out, the relay does."""
    try:
        await shop.deps.queue.ring(heard.outbox_id, heard.turn)
    except RedisDown as error:
        log.warning("not rung, the relay will", outbox_id=heard.outbox_id, error=str(error))
