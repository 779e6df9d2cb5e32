"""Attend: people take over. They are alerted, their words go out by the channel, and they set how it behaves.

An agent's words are stored and owed by one statement; a worker sends them, once at most, as every reply (`converse`):
`sent_at` of the message says whether they are known to be there.
"""

from typing import Any
from uuid import UUID

import msgspec
import structlog

from app.base import tally
from app.base.ending import to_the_end
from app.base.lease import Lease
from app.channels import team
from app.domain import agents, conversations, customers, outbox
from app.domain.agents import Instance, Spoken
from app.errors import Conflict, Forbidden, KeyReused, NotFound, ProviderDown
from app.flows.settle import ring
from app.infra.messenger import Sent
from app.shop import Shop

log = structlog.get_logger(__name__)

NO_ADMIN = "only admins may do this"


class Wanted(msgspec.Struct, frozen=True):
    """What the escalate job is told."""

    conversation_id: int


class Words(msgspec.Struct, frozen=True):
    """What the speak job is told."""

    turn_id: UUID


_wanted = msgspec.json.Decoder(Wanted)
_words = msgspec.json.Decoder(Words)


async def escalate(shop: Shop, lease: Lease, job: outbox.Job) -> None:
    """Every admin, and the people of the seller whose webhook hears the channel, know that a human is wanted.

    Raises: ProviderDown: all are told again later.
    """
    deps = shop.deps
    alarm = await agents.alarm(deps.pg, job.read(_wanted).conversation_id)
    if alarm:
        if deps.messenger is None:
            raise NotFound("no bot: nobody can be told")
        people = await customers.admins(deps.pg, sorted(deps.settings.admin_ids()))
        if alarm.seller_id is not None:
            people = list(dict.fromkeys([*people, *await customers.people(deps.pg, alarm.seller_id)]))
        who = f"{alarm.name} (@{alarm.username})" if alarm.username else alarm.name or f"user {alarm.user_id}"
        link = team.link(alarm.kind, alarm.peer, alarm.user_id)
        lines = list(zip(alarm.roles, alarm.texts, strict=True))
        for one in people:
            text = team.alert(one.language, alarm.reason, who, alarm.id, link, lines)
            await deps.messenger.send(one.telegram_id, text)
    await outbox.finish(deps.pg, lease)


async def speak(shop: Shop, lease: Lease, job: outbox.Job) -> outbox.Closed | None:
    """An agent's words are on their way, once at most. Raises: ProviderDown when they surely are not: again later."""
    return await to_the_end(_speak(shop, lease, job))


async def _speak(shop: Shop, lease: Lease, job: outbox.Job) -> outbox.Closed | None:
    pg, turn_id = shop.deps.pg, job.read(_words).turn_id
    claimed = await conversations.claim_reply(pg, turn_id)
    if claimed is None:
        tally.REPLIES.add("unsure")
        return await outbox.finish(pg, lease)
    try:
        line = shop.lines.get(claimed.kind)
        if line is None:
            raise ProviderDown(f"nothing can be said by {claimed.kind}: its settings are missing")
        sent = await line.say(claimed.peer, claimed.language, claimed.answer)
    except ProviderDown as error:
        if not error.unsure:
            await conversations.release(pg, turn_id)
            tally.REPLIES.add("held")
            raise
        tally.REPLIES.add("unsure")
        log.warning("nobody knows whether it was sent", turn_id=str(turn_id), error=str(error))
        return await outbox.finish(pg, lease)
    tally.REPLIES.add(sent.name.lower())
    if sent is Sent.DELIVERED:
        await conversations.mark_sent(pg, turn_id)
    return await outbox.finish(pg, lease)


async def say(shop: Shop, user_id: int, conversation_id: int, key: str, text: str) -> Spoken:
    """The agent's words are stored and will be sent. Raises: Forbidden, NotFound; KeyReused for other words."""
    spoken = await agents.say(shop.deps.pg, user_id, conversation_id, key, text)
    match spoken.word:
        case "forbidden":
            raise Forbidden(NO_ADMIN)
        case "missing":
            raise NotFound("no such conversation")
        case "other":
            raise KeyReused("this Idempotency-Key belongs to another request")
    for outbox_id in spoken.owed:
        await ring(shop, outbox_id)
    return spoken


async def instance(shop: Shop, channel_id: int) -> Instance:
    """Raises: NotFound."""
    for found in await agents.instances(shop.deps.pg):
        if found.id == channel_id:
            return found
    raise NotFound("no such channel")


async def change(shop: Shop, user_id: int, channel_id: int, version: int, fields: dict[str, Any]) -> Instance:
    """The channel as it is now. Raises: Forbidden, NotFound; Conflict with the current `version`."""
    changed = await agents.change(shop.deps.pg, user_id, channel_id, version, fields)
    match changed.word:
        case "forbidden":
            raise Forbidden(NO_ADMIN)
        case "stale":
            raise Conflict("the channel was changed meanwhile: read it again", version=changed.version)
        case "no_webhook":
            raise NotFound("endpoint_id: no such webhook")
    return await instance(shop, channel_id)
