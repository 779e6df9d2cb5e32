"""Call a human: a user who asks for one by a command has the conversation handed over, and the team is told."""

from uuid import UUID

import structlog

from app.base import tally
from app.channels import sayings, team
from app.domain import conversations, talks
from app.domain.buffers import Heard
from app.domain.conversations import Opened
from app.flows.settle import ring
from app.shop import Shop

log = structlog.get_logger(__name__)


async def has_one(shop: Shop, opened: Opened) -> bool:
    """Whether a human has the conversation at this moment. Raises: PostgresDown."""
    return (await shop.reads.escalation.do(opened.id)).at is not None


async def call_human(shop: Shop, opened: Opened, turn_id: UUID, heard: Heard, said: str) -> str | None:
    """What the user is to be told, which the caller may send now: it is claimed; None: nothing, or it was sent before.

    A human has the conversation: since now, because its user wants one, or since before; unless the channel has nobody.
    Raises: PostgresDown.
    """
    pg, why, review = shop.deps.pg, "user_request", team.review(opened.language)
    there = (await shop.reads.settings.do(opened.channel_id)).enabled
    await talks.store(pg, turn_id, opened.id, heard.text, [heard])
    decision = talks.Decision("escalated", said, "texts", review, why)
    if not there:
        decision = talks.Decision("answered", sayings.nobody(opened.language), "texts", review)
    closed = await talks.close(pg, turn_id, opened.id, decision)
    if closed is None:
        claimed = await conversations.claim_reply(pg, turn_id)
        return claimed.answer if claimed else None
    for outbox_id in closed.owed:
        shop.errands.send(ring(shop, outbox_id))
    if closed.state == "escalated":
        tally.ESCALATIONS.add(why)
    log.info("turn", conversation_id=opened.id, turn_id=str(turn_id), state=closed.state, by=closed.by, mine=True)
    return closed.answer or None
